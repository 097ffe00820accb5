"""The work that costs are measured of: its key, the arguments of `calibrate`, and what is wrong."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.forecasts import walk
from jax.tree_util import Partial

import stride_jax as sj
from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding.base import Process
from stride_jax.decoding.corrected_draft import CorrectedDraft
from stride_jax.decoding.drafts import ContinuationDraft
from stride_jax.decoding.naive_drafts import last_value_draft, nearest_draft, seasonal_draft
from stride_jax.errors import InputError, InputWarning
from stride_jax.evaluation.calibration import calibrate
from stride_jax.forecasting import choice as choice_module
from stride_jax.forecasting.auto import forecast_work
from stride_jax.forecasting.choice import Costs, choose, decide, estimate, work_of
from stride_jax.forecasting.cost_file import default_path, read_costs
from stride_jax.forecasting.settings import choose_output, reported_levels
from stride_jax.types import PatchDistribution

P = 4
HISTORY = np.sin(np.arange(40.0))


def scaled(weight: Any, window: Any) -> Any:
    """The last patch, times a number."""
    return weight * window[-P:]


def reporting(window: Any) -> PatchDistribution:
    """The last patch, and two outputs beside it."""
    mean = window[-P:]
    return PatchDistribution(mean)._replace(reported=jnp.stack([mean - 1, mean + 1], axis=-1))


def target(context_len: int | None = 8, weight: Any = 0.9) -> Process:
    """A process of `scaled`."""
    return sj.window_process(Partial(scaled, weight), P, context_len=context_len)


def reports(*names: float | str) -> Process:
    """A process of `reporting`, whose outputs have these names."""
    return sj.window_process(Partial(reporting), P, context_len=8, reports=names)


DRAFTS: dict[str, Callable[[], Any]] = {
    "seasonal:4": lambda: seasonal_draft(P, 4),
    "seasonal:8": lambda: seasonal_draft(P, 8),
    "last-value": lambda: last_value_draft(P),
    "nearest": lambda: nearest_draft(P),
    "none": lambda: None,
}


def key_of(pair: sj.Pair | Process, history: Any = HISTORY, **options: Any) -> str:
    """The key of a forecast of three patches."""
    return forecast_work(pair, history, 12, **options).key


def turns(*seconds: float) -> Callable[..., list[list[float]]]:
    """A clock that shows these times, and calls nothing."""
    return lambda calls, repeats: [[one] * repeats for one in seconds]


def test_drafts_and_views_of_a_target_have_keys_of_their_own() -> None:
    """Costs and acceptance of one draft would decide for another, of the same class and shapes."""
    keys = [key_of(sj.Pair(target(), make())) for make in DRAFTS.values()]
    keys += [key_of(sj.Pair(target(16), last_value_draft(P)))]
    keys += [key_of(sj.Pair(target(weight=jnp.float16(1)), last_value_draft(P)))]
    assert len(set(keys)) == len(keys)


def test_a_pair_that_is_built_again_has_the_same_key() -> None:
    """Nothing that was measured would be known after a restart: the key would hold an address."""

    class Bare:
        """A forecaster whose repr is an address."""

        def __call__(self, window: Any) -> Any:
            return window[-P:]

    @jax.jit
    def jitted(window: Any) -> Any:
        return window[-P:]

    functions: list[Callable[[], Any]] = [
        lambda: lambda window: window[-P:],
        Bare,
        lambda: Bare().__call__,
        lambda: functools.partial(Bare(), *()),
        lambda: jax.jit(Bare()),
    ]
    for make in functions:
        first, again = make(), make()
        assert repr(first) != repr(again) or first is not again
        keys = {
            key_of(sj.Pair(sj.window_process(one, P, context_len=8), last_value_draft(P)))
            for one in (first, again)
        }
        assert len(keys) == 1
    for make in DRAFTS.values():
        assert key_of(sj.Pair(target(), make())) == key_of(sj.Pair(target(), make()))


def test_histories_of_other_lengths_have_keys_of_their_own_where_they_are_decoded() -> None:
    """The costs of a short context would decide for a long one, whose passes cost more."""
    short, long, longer = (np.sin(np.arange(n)) for n in (200.0, 700.0, 701.0))
    everything, last = (sj.Pair(target(n), last_value_draft(P)) for n in (None, 8))
    assert key_of(everything, short) != key_of(everything, long)
    assert key_of(everything, long) == key_of(everything, longer)
    assert key_of(last, short) == key_of(last, long)  # both are cut to eight steps


@pytest.mark.parametrize("process", [target(), reports(0.1, 0.9), reports("mean", "median")])
@pytest.mark.parametrize("num_samples", [None, 0, 3])
def test_costs_are_kept_under_the_work_that_is_timed(
    process: Any,
    num_samples: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`auto` would never find what was measured where the number of paths is left to the target."""
    monkeypatch.setenv("STRIDE_JAX_CACHE", str(tmp_path))
    caplog.set_level("INFO", "stride_jax")
    pair = sj.Pair(process, last_value_draft(P))
    options: dict[str, Any] = {"quantiles": (), "sigma": 1.0}
    if num_samples is not None:
        options["num_samples"] = num_samples
    choice = calibrate(pair, HISTORY, 12, num_drafts=(2,), clock=turns(1.0, 2.0), **options)
    sj.forecast(pair, HISTORY, 12, num_draft="auto", **options)
    assert caplog.messages == [choice.reason]
    assert key_of(pair, num_samples=num_samples) == key_of(pair, **options)


def test_a_leaf_may_be_a_number_of_python() -> None:
    """`auto` would end in an AttributeError for a target or a draft that holds a plain float."""
    half = ContinuationDraft(Partial(_continued, 0.5), P)
    for pair in (sj.Pair(target(), half), sj.Pair(target(weight=jnp.float32(0.9)), half)):
        work = work_of(pair, sj.Block(), 3, 1, 1, 2)
        assert np.isfinite(list(estimate(pair, work).speculative.values())).all()
    options: dict[str, Any] = {"num_samples": 1, "quantiles": (), "sigma": 1.0}
    auto = sj.forecast(sj.Pair(target(), half), HISTORY, 12, num_draft="auto", **options)
    assert np.isfinite(auto.mean).all()


def test_a_draft_is_not_asked_for_more_than_it_can_propose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` and `calibrate` would end in an error of the draft, about a K nobody has given."""
    monkeypatch.setenv("STRIDE_JAX_CACHE", str(tmp_path))
    monkeypatch.setattr(choice_module, "ESTIMATED_GAIN", 0.0)
    linear = sj.linear_draft(np.ones((2 * P, P)) / (2 * P), num_draft=3)
    corrected = CorrectedDraft(last_value_draft(P), jnp.zeros((3, P, 3, P)))
    options: dict[str, Any] = {"num_samples": 2, "quantiles": (), "sigma": 1.0}
    for draft in (linear, corrected):
        pair = sj.Pair(target(), draft)
        with pytest.raises(InputError, match="up to 3 patches a round"):
            sj.forecast(pair, HISTORY, 12 * P, num_draft=4, **options)
        work = work_of(pair, sj.Block(), 12, 1, 1, 2)
        assert set(estimate(pair, work).speculative) == {2, 3}
        sj.forecast(pair, HISTORY, 12 * P, num_draft="auto", **options)
        calibrate(pair, HISTORY, 12 * P, clock=turns(3.0, 2.0, 1.0), **options)
        sj.forecast(pair, HISTORY, 12 * P, num_draft="auto", **options)


def _continued(weight: Any, window: Any, steps: int) -> PatchDistribution:
    """The last value, times a number."""
    return PatchDistribution(jnp.broadcast_to(weight * window[-1], (steps, window.shape[1])))


@pytest.mark.parametrize(
    ("pair", "wrong", "message"),
    [
        (target(), {}, "nothing to calibrate without a draft"),
        (sj.Pair(target()), {}, "nothing to calibrate without a draft"),
        ("beijing", {}, "pair must be a Pair or a process"),
        (None, {"repeats": 0}, "repeats must be a whole number from 1 on, got 0"),
        (None, {"repeats": 1.5}, "repeats must be a whole number from 1 on, got 1.5"),
        (None, {"num_drafts": 4}, "num_drafts must be a list of whole numbers"),
        (None, {"num_drafts": ()}, "num_drafts must be a list of whole numbers"),
        (None, {"num_drafts": "24"}, "num_drafts must be a list of whole numbers"),
        (None, {"num_drafts": (2, 0)}, "num_drafts must be a whole number from 1 on, got 0"),
        (None, {"num_drafts": (2.5,)}, "num_drafts must be a whole number from 1 on, got 2.5"),
        (None, {"num_samples": -1}, "num_samples must be a whole number from 0 on"),
        (None, {"horizon": 0}, "horizon must be a whole number from 1 on"),
    ],
)
def test_calibrate_refuses_what_it_cannot_measure(
    pair: Any, wrong: dict[str, Any], message: str
) -> None:
    """It would end in an error of Python's, after minutes of measuring or with no word of why."""

    def never(calls: Any, repeats: int) -> list[list[float]]:
        raise AssertionError("something was timed")

    given = {"horizon": 12, "history": HISTORY, "clock": never, "num_samples": 1} | wrong
    with pytest.raises(InputError, match=message):
        calibrate(sj.Pair(target(), last_value_draft(P)) if pair is None else pair, **given)


@pytest.mark.parametrize("blocked", ["cache", "cache/costs.json/x"])
def test_costs_that_cannot_be_kept_are_a_warning(
    blocked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Minutes of measuring would be lost because their result could not be written."""
    place = tmp_path / blocked  # a file where the cache should be, or a directory for its file
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("")
    monkeypatch.setenv("STRIDE_JAX_CACHE", str(tmp_path / "cache"))
    pair = sj.Pair(target(), last_value_draft(P))
    with pytest.warns(InputWarning) as shown:
        choice = calibrate(pair, HISTORY, 12, num_drafts=(2,), num_samples=1, clock=turns(1.0, 0.5))
    assert choice.num_draft == 2
    assert any("the measured costs cannot be kept in" in str(one.message) for one in shown)
    assert not list(tmp_path.rglob("costs.[0-9]*"))


def test_no_costs_are_known_below_a_file(tmp_path: Path) -> None:
    """A forecast would fail, or warn for ever, because a file lies where the cache should be."""
    (tmp_path / "file").write_text("")
    assert read_costs(tmp_path / "file" / "costs.json") == {}
    assert default_path().name == "costs.json"


def test_each_reason_to_decode_alone_is_said() -> None:
    """A reader would look for a draft that is there, or for costs of a decode of one patch."""
    pair = sj.Pair(target(), last_value_draft(P))
    for found, reason in (
        (decide(sj.Pair(target()), forecast_work(pair, HISTORY, 12), {}), "there is no draft"),
        (decide(pair, forecast_work(pair, HISTORY, P), {}), "one patch"),
        (choose(Costs(1.0, {2: float("nan")}, measured=True)), "no cost with the draft is known"),
        (choose(Costs(1.0, {2: 2.0}, measured=True)), "0.50 times as fast"),
    ):
        assert found.num_draft == 0
        assert reason in found.reason


@pytest.mark.parametrize("plain", [float("nan"), float("inf"), float("-inf"), 0.0, -1.0])
def test_nothing_is_gained_over_an_unknown_cost(plain: float) -> None:
    """A forecast would speculate for ever because of one failed measurement."""
    choice = choose(Costs(plain, {2: 0.5}, measured=True))
    assert choice.num_draft == 0
    assert "its own cost is not known" in choice.reason


@pytest.mark.parametrize("num_draft", ["Auto", "AUTO", "5", ""])
def test_the_message_of_a_text_for_num_draft_names_auto(num_draft: Any) -> None:
    """Nobody would learn from it that `auto` is a choice, nor how it is written."""
    text = f"num_draft must be 'auto' or a whole number from 0 on, got {num_draft!r}"
    with pytest.raises(InputError, match=text):
        sj.forecast(target(), HISTORY, 12, num_draft=num_draft, num_samples=1)


def test_words_are_no_levels() -> None:
    """A target that reports words alone would be asked for quantiles that it does not have."""
    assert reported_levels(reports("mean", "median")) == ()
    assert reported_levels(reports(0.1, "mean")) == (0.1,)
    assert choose_output(reports("mean", "median"), None, None) == (100, (0.1, 0.5, 0.9))
    assert choose_output(reports(0.1, "mean"), None, None) == (0, (0.1,))


def test_half_of_the_paths_of_a_mirrored_pair_are_lanes_of_each_history() -> None:
    """Its work would be taken for that of twice as many paths, and so would its estimated cost."""
    pair = Pair(target(), last_value_draft(P))
    mirrored = dataclasses.replace(pair, mirrored=True)
    plain, both = (forecast_work(p, walk(40), 12, num_samples=8) for p in (pair, mirrored))
    assert both.lanes == plain.lanes == 8


def test_a_chunk_of_paths_is_work_of_its_own() -> None:
    """What was calibrated with a chunk would be found by a forecast without it, and not with it."""
    pair = Pair(target(), last_value_draft(P))
    assert forecast_work(pair, walk(40), 12, num_samples=8, path_chunk=2).lanes == 2
