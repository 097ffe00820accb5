"""A pair under every setting: what is run, what the rows say, and what theory expects of them."""

import dataclasses
import importlib.util
import itertools
import json
import math
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from test_coupling import decide, random_rounds

from stride_jax.checkpoints import pytorch as convert
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.cli import flags as cli
from stride_jax.config import from_dict
from stride_jax.data.config import DataConfig
from stride_jax.data.splits import ForecastData, load_data, prepare
from stride_jax.data.windows import Windows, make_windows
from stride_jax.decoding import speculative
from stride_jax.decoding.base import AUTOREGRESSIVE, Rule
from stride_jax.decoding.rules import RULES, Mean, Resample, Residual, SharedNoise
from stride_jax.errors import InputError
from stride_jax.evaluation import benchmark, markdown, scoring, sweep, tables
from stride_jax.evaluation.config import EvaluateConfig, SweepConfig
from stride_jax.evaluation.methods import make_methods, make_pairs
from stride_jax.evaluation.scoring import Method
from stride_jax.evaluation.sweep import AcceptNone, Clocked, Costs, Setting
from stride_jax.evaluation.sweep_tables import (
    PREDICTIONS,
    chance,
    draws_own_noise,
    front,
    misses,
    sweep_table,
)
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import init_params
from stride_jax.types import Series

ROOT = Path(__file__).parents[2]
PROPERTY = examples(deadline=None, max_examples=60, derandomize=True)
MODEL = TimerXLConfig(patch_len=4, d_model=8, num_heads=2, d_ff=8, dropout=0.0)
TARGET = Checkpoint(MODEL, init_params(jax.random.key(0), MODEL), 16)
PATCHES, K = 3, 2
BASE = EvaluateConfig(
    data=DataConfig(source="x.csv", context_len=16),
    draft="last-value",
    horizons=(4, 10),  # the longest counts
    num_paths=2,
    batch_size=3,
    stride=4,
    sigma=0.7,
    seed=3,
)
CONFIG = SweepConfig(
    base=BASE,
    rules=("resample", "mean"),
    num_drafts=(K,),
    sigmas=(0.5, 1.0),
    biases=(1.0, 3.0),
    mse_tolerances=(0.0, 1.0),
    tolerances=(0.0, 0.8, 1e6),
)
DEPENDS = {
    "maximal": (),
    "block": (),
    "residual": (),
    "resample": ("bias", "mse_tolerance"),
    "as_released": ("bias", "mse_tolerance"),
    "mean": ("tolerance",),
    "shared_noise": ("tolerance",),
}
"""What a rule depends on beside K and sigma."""
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def data() -> ForecastData:
    """Two noisy sines of 200 steps."""
    t = np.arange(200)
    waves = np.stack([np.sin(t / 4), np.cos(t / 7)], axis=1)
    waves += 0.1 * np.random.default_rng(0).normal(size=waves.shape)
    return prepare(DataConfig(source="x.csv", context_len=16), Series(waves, ("a", "b")))


PREPARE, PASS, BEFORE, STEP, VERIFY = 1.0, 2.0, 0.5, 0.25, 3.0
"""Seconds of the made-up clock: the target's preparation and pass, the draft's, a verification."""


def made_up(info: Any) -> float:
    """Seconds of a batch, which goes on until its slowest path is done."""
    if (np.asarray(info.origin) != AUTOREGRESSIVE).any():
        rounds, drafted = float(np.max(info.rounds)), float(np.max(info.drafted))
        return PREPARE + BEFORE + VERIFY * rounds + STEP * drafted
    if np.max(info.target_passes) == 0:
        return BEFORE + STEP * info.origin.shape[-1]
    return PREPARE + PASS * info.origin.shape[-1]


class Swept(NamedTuple):
    """A whole sweep on the made-up clock, and how it was run."""

    results: dict[str, Any]
    said: list[str]
    traces: int
    calls: list[tuple[int, list[int], int]]

    @property
    def rows(self) -> Rows:
        """Those of the settings, in their order."""
        return [row for row in self.results["rows"] if row["method"] == "speculative"]

    @property
    def alone(self) -> Rows:
        """The others."""
        return [row for row in self.results["rows"] if row["method"] != "speculative"]


@pytest.fixture(scope="module")
def swept(data: ForecastData) -> Swept:
    """One sweep; the caches are kept, so that less has to be compiled afterwards."""
    traces, calls, said = [], [], []
    counting, call = speculative.num_patches, Clocked.__call__

    def counted(*args: Any) -> Any:
        traces.append(args)
        return counting(*args)

    def clocked(self: Clocked, key: jax.Array, context: Any, index: Any, paths: int) -> Any:
        out = call(self, key, context, index, paths)
        calls.append((id(self), np.asarray(index).tolist(), paths))
        self._taken[-1] = made_up(out[1])
        return out

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "clear_caches", lambda: None)
        patch.setattr(speculative, "num_patches", counted)
        patch.setattr(Clocked, "__call__", clocked)
        results = sweep.sweep(CONFIG, data, TARGET, said.append)
    return Swept(json.loads(json.dumps(results)), said, len(traces), calls)


# --- the grid --------------------------------------------------------------------------------


@pytest.mark.parametrize("sigmas", [(), (0.3,), (0.3, 0.6)])
def test_settings_are_the_product_of_what_a_rule_depends_on(sigmas: tuple[float, ...]) -> None:
    """A setting would be left out, or measured again for every value that it does not look at."""
    assert set(DEPENDS) == set(RULES)
    config = dataclasses.replace(
        CONFIG, rules=tuple(DEPENDS), num_drafts=(1, 4), sigmas=sigmas, biases=(1.0, 2.0, 5.0)
    )
    values = {
        "bias": config.biases,
        "mse_tolerance": config.mse_tolerances,
        "tolerance": config.tolerances,
    }
    groups = list(sweep.settings(config, 0.7))
    expected = itertools.product(config.rules, config.num_drafts)
    assert [(g[0].rule, g[0].num_draft) for g in groups] == list(expected)
    for group in groups:
        rule, num_draft = group[0].rule, group[0].num_draft
        lists = [v if n in DEPENDS[rule] else (None,) for n, v in values.items()]
        wanted = itertools.product([rule], [num_draft], sigmas or (0.7,), *lists)
        assert sorted(map(tuple, group), key=str) == sorted(wanted, key=str)


@pytest.mark.parametrize("rule", DEPENDS)
def test_a_setting_reaches_the_rule(rule: str) -> None:
    """A row would be labelled with a bias or tolerance that its decode never had."""
    values = {name: 1.5 + i for i, name in enumerate(DEPENDS[rule])}
    setting = Setting(rule, 3, 0.5, **values)
    assert setting.decided_by == RULES[rule](**values)
    assert setting.sampled == (rule != "mean")


@pytest.mark.parametrize("rule", [Resample(), Residual(), Mean(1e6), SharedNoise(1e6)])
def test_none_is_accepted_and_the_rest_left_alone(rule: Rule) -> None:
    """The cost of a round would be measured over fewer rounds, or on an easier rule."""
    rounds, never = random_rounds(6, 2, 0.05), AcceptNone(rule)
    found, own = (decide(r, rounds) for r in (never, rule))
    assert found.num_accepted.dtype == own.num_accepted.dtype
    assert own.num_accepted.max() > 0
    assert (found.num_accepted == 0).all()
    for a, b in zip(found[1:], own[1:], strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)  # another program
    assert (never.proposes, never.scales) == (rule.proposes, rule.scales)


# --- how it is run ---------------------------------------------------------------------------


def test_a_rule_and_k_compile_once(swept: Swept) -> None:
    """A sweep of a hundred settings would compile a hundred programs."""
    groups = len(CONFIG.rules) * len(CONFIG.num_drafts)
    assert swept.traces == 2 * groups  # the settings, and the one that never accepts
    assert len(swept.said) == groups
    assert len(swept.rows) == 8 + 6


def test_decoders_take_turns_on_the_same_batches(swept: Swept, data: ForecastData) -> None:
    """A machine that slows down for a while would spoil some settings and not others."""
    windows = benchmark.test_windows(BASE, data, 10)
    assert windows.count % BASE.batch_size  # the last batch is filled up
    batches = [list(range(i, min(i + 3, windows.count))) for i in range(0, windows.count, 3)]
    batches[-1] += [0] * (3 - len(batches[-1]))
    calls = swept.calls
    for sigmas, settings, paths in ((2, 8, 2), (1, 6, 1)):
        size = 2 * sigmas + settings + 3  # alone, draft, settings, one patch of both, never
        own, calls = calls[: size * (1 + len(batches))], calls[size * (1 + len(batches)) :]
        who = [decoder for decoder, _, _ in own[:size]]
        assert len(set(who)) == size
        assert [decoder for decoder, _, _ in own] == who * (1 + len(batches))
        played = [index for _, index, _ in own[::size]]
        assert played == [batches[0], *batches]  # the first batch is for compiling
        assert all(index == played[i // size] for i, (_, index, _) in enumerate(own))
        assert {count for _, _, count in own} == {paths}
    assert calls == []


def test_the_first_call_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compilation would be taken for the time of a decode."""
    now = [0.0]

    def decode(key: jax.Array, context: float, *_: Any) -> str:
        now[0] += context
        return "decoded"

    monkeypatch.setattr(sweep, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    clocked = Clocked(decode)
    for seconds in (50.0, 1.0, 2.0, 6.0):
        now[0] += 10  # between two calls
        assert clocked(jax.random.key(0), seconds, None, 1) == "decoded"
    assert clocked.seconds == 3.0


def test_results_say_where_they_come_from(swept: Swept) -> None:
    """A result file could not be told from others, or be made again."""
    results = swept.results
    assert results["table"] == "sweep"
    assert {"hardware", "versions"} <= set(results)
    assert from_dict(SweepConfig, results["config"]) == CONFIG
    for row in results["rows"]:
        assert (row["horizon"], row["process"], row["batch"]) == (10, "window", 3)
        assert row["kind"] == ("point" if row["num_paths"] == 1 else "sampled")
        drafted = None if row["method"] == "autoregressive" else "last-value"
        assert row["draft"] == drafted
        alone = row["method"] != "speculative"
        assert (row["rule"] is None) == (row["num_draft"] is None) == alone


# --- what the rows say -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def direct(data: ForecastData) -> Callable[[Setting], dict[str, Any]]:
    """The scores of one setting as `evaluate.py` would give them."""
    values = jnp.asarray(data.values)
    windows = benchmark.test_windows(BASE, data, 10)
    pairs = make_pairs(BASE, TARGET, 2)

    def run(setting: Setting) -> dict[str, Any]:
        chosen = {n: getattr(setting, n) for n in DEPENDS[setting.rule]}
        config = dataclasses.replace(
            BASE, rules=(setting.rule,), num_draft=setting.num_draft, **chosen
        )
        made = make_methods(pairs, None, "window", config, 10, setting.sigma)
        three = [m for m in made if m.sampled == setting.sampled]
        assert [m.name for m in three] == ["autoregressive", "draft", "speculative"]
        rest = jax.random.key(BASE.seed), values, windows, 10, config
        own, reference = scoring.score(three[0], *rest)
        draft, scores = (scoring.score(m, *rest, reference)[0] for m in three[1:])
        error = "crps" if setting.sampled else "mse"
        scores["relative_error"] = scores[error] / own[error] - 1
        scores["distance_over_drafts"] = scores["distance"] / draft["distance"]
        return scores

    return run


def test_rows_are_those_of_a_direct_evaluation(
    swept: Swept, direct: Callable[[Setting], dict[str, Any]]
) -> None:
    """A setting that a sweep recommends would give another forecast when it is evaluated."""
    settings = [s for group in sweep.settings(CONFIG, 0.7) for s in group]
    for setting, row in zip(settings, swept.rows, strict=True):
        expected = direct(setting)
        assert (row["rule"], row["num_draft"]) == (setting.rule, setting.num_draft)
        assert [row[n] for n in DEPENDS[setting.rule]] == [
            getattr(setting, n) for n in DEPENDS[setting.rule]
        ]
        for name, value in expected.items():
            if name == "expected_acceptance":  # needs the trace, which costs time
                continue
            if value is None or isinstance(value, list):
                assert row[name] == value, name
            else:
                np.testing.assert_allclose(row[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    acceptances = {round(row["acceptance"], 4) for row in swept.rows}
    assert {0.0, 1.0} < acceptances  # the settings matter


def test_rows_of_different_settings_can_be_told_apart(swept: Swept) -> None:
    """Results of different settings would carry the same label."""
    names = Setting._fields
    labels = [tuple(row[name] for name in names) for row in swept.rows]
    wanted = [s for group in sweep.settings(CONFIG, 0.7) for s in group]
    assert len(set(wanted)) == len(labels)
    assert len(set(labels)) == len(labels)


def test_the_models_alone_have_one_row_each_kind_and_sigma(swept: Swept) -> None:
    """A baseline would be missing, or repeated for every rule."""
    found = [(row["method"], row["kind"], row["sigma"]) for row in swept.alone]
    wanted = [("point", 0.0), ("sampled", 0.5), ("sampled", 1.0)]
    both = [(name, *rest) for name in WHO for rest in wanted]
    assert sorted(found) == sorted(both)
    for row in swept.alone:
        share = {"autoregressive": 0.0, "draft": 1.0}[row["method"]]
        assert row["distance_over_drafts"] == pytest.approx(share, abs=1e-9)
        assert (row["relative_error"] == 0) == (row["method"] == "autoregressive")
        assert row["target_passes"] == (PATCHES if row["method"] == "autoregressive" else 0)
        speedup = 1 if share == 0 else (PREPARE + PASS * PATCHES) / (BEFORE + STEP * PATCHES)
        assert row["speedup"] == pytest.approx(speedup)


def test_times_and_predictions_follow_the_clock(swept: Swept) -> None:
    """Predictions would rest on the cost of another decode than the one they speak of."""
    whole = PREPARE + PASS * PATCHES
    assert {row["acceptance"] for row in swept.rows} >= {0.0, 1.0}
    for row in swept.rows:
        assert row["verify_seconds"] == pytest.approx(VERIFY)
        assert row["pass_seconds"] == pytest.approx(PASS)
        assert row["speedup"] == pytest.approx(whole / row["seconds"])
        a = row["acceptance"]
        paper = sum(a**i for i in range(K + 1)) / (STEP / PASS * K + 1)
        assert row["predicted_paper"] == pytest.approx(paper)
        # Three patches are one round of two proposals and a bonus, or three (of 2, 2, 1) of none.
        least = whole / (PREPARE + BEFORE + VERIFY * PATCHES + STEP * 5)
        most = whole / (PREPARE + BEFORE + VERIFY + STEP * K)
        for name in ("predicted_independent", "predicted_markov", "speedup"):
            assert least - 1e-9 <= row[name] <= most + 1e-9
            if a in (0, 1):
                assert row[name] == pytest.approx(most if a == 1 else least)


# --- predictions -------------------------------------------------------------------------------


def steps_of(missing: Iterable[int], num_draft: int) -> int:
    """Draft steps of rounds that begin with so many patches missing."""
    return sum(min(num_draft, m) for m in missing)


@PROPERTY
@given(
    prepare=st.floats(0, 5),
    before=st.floats(0, 5),
    one=st.floats(0.1, 5),
    draft=st.floats(0.01, 1),
    verify=st.floats(0.1, 9),
    count=st.integers(2, 40),
    num_draft=st.integers(1, 9),
)
def test_costs_are_read_off_the_clocks(
    prepare: float,
    before: float,
    one: float,
    draft: float,
    verify: float,
    count: int,
    num_draft: int,
) -> None:
    """A pass, a round or the preparation would be charged with the time of another."""
    found = Costs.of(
        count,
        num_draft,
        prepare + count * one,
        prepare + one,
        before + count * draft,
        before + draft,
        prepare + before + count * verify + steps_of(range(1, count + 1), num_draft) * draft,
    )
    expected = Costs(count, prepare + count * one, prepare + before, one, draft, verify)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_preparation_takes_no_negative_time() -> None:
    """A clock that is not exact would make a decode end before it began."""
    found = Costs.of(4, 1, 8.0, 1.5, 4.0, 0.75, 16.0 + 1 / 3)
    assert found.prepare == 0
    assert found.verify == pytest.approx(3)  # 16 1/3 - 4 draft steps of 13/12, over 4


def test_a_coarse_clock_does_not_end_a_sweep() -> None:
    """A tie between two short decodes would throw away everything that was measured."""
    costs = Costs.of(4, 2, 1.0, 1.0, 0.5, 0.5, 0.25)
    found = costs.predictions(row_of(0.5, first=0.5, after_accept=0.5), 2, 1)
    assert all(value > 0 for name, value in found.items() if name.startswith("predicted"))


def row_of(acceptance: float, paths: int = 1, **links: float | None) -> dict[str, Any]:
    """What the predictions look at; `first`, `after_accept`, `after_reject`."""
    names = ("first", "after_accept", "after_reject")
    return {
        "acceptance": acceptance,
        "num_paths": paths,
        **{f"accept_{name}": links.get(name) for name in names},
    }


@PROPERTY
@given(
    num_draft=st.integers(1, 10),
    count=st.integers(2, 40),
    lanes=st.tuples(st.integers(1, 9), st.integers(1, 3)),
    accepted=st.booleans(),
)
def test_predictions_of_certain_acceptance(
    num_draft: int, count: int, lanes: tuple[int, int], accepted: bool
) -> None:
    """A horizon would take other rounds than all of K + 1 patches, or of one patch each."""
    costs = Costs(count, 50.0, 1.0, 2.0, 0.5, 3.0)
    a = float(accepted)
    row = row_of(a, lanes[1], first=a, after_accept=a, after_reject=None)
    found = costs.predictions(row, num_draft, lanes[0])
    missing = range(count, 0, -(num_draft + 1) if accepted else -1)
    expected = 50 / (1 + 3 * len(missing) + 0.5 * steps_of(missing, num_draft))
    assert found["predicted_independent"] == pytest.approx(expected)
    assert found["predicted_markov"] == pytest.approx(expected)
    assert found["predicted_paper"] == pytest.approx((1 + num_draft * a) / (0.25 * num_draft + 1))
    assert (found["verify_seconds"], found["pass_seconds"]) == (3.0, 2.0)


@PROPERTY
@given(
    a=st.floats(0, 1),
    first=st.floats(0, 1),
    after=st.floats(0, 1),
    lanes=st.tuples(st.integers(1, 9), st.integers(1, 3)),
)
def test_predictions_by_hand(a: float, first: float, after: float, lanes: tuple[int, int]) -> None:
    """The wait for the slowest of a batch, or the memory of a rejection, would be left out."""
    size = lanes[0] * lanes[1]
    row = row_of(a, lanes[1], first=first, after_accept=0.3, after_reject=after)
    # Two patches, K = 1: one round, of one draft step, where the proposal is accepted, else two.
    two = Costs(2, 7.0, 1.0, 2.0, 0.5, 3.0).predictions(row, 1, lanes[0])
    assert two["predicted_independent"] == pytest.approx(7 / (1 + 3.5 * (2 - a**size)))
    assert two["predicted_markov"] == pytest.approx(7 / (1 + 3.5 * (2 - first**size)))
    # Three patches: two rounds, or three where the first two proposals are rejected.
    three = Costs(3, 7.0, 1.0, 2.0, 0.5, 3.0).predictions(row, 1, lanes[0])
    quick = 1 - (1 - a) ** 2
    assert three["predicted_independent"] == pytest.approx(7 / (1 + 3.5 * (3 - quick**size)))
    quick = 1 - (1 - first) * (1 - after)
    assert three["predicted_markov"] == pytest.approx(7 / (1 + 3.5 * (3 - quick**size)))


@PROPERTY
@given(
    a=st.floats(0, 1),
    num_draft=st.integers(1, 8),
    count=st.integers(2, 20),
    missing=st.sets(st.sampled_from(["first", "after_accept", "after_reject"])),
)
def test_equal_rates_are_independence(
    a: float, num_draft: int, count: int, missing: set[str]
) -> None:
    """The two formulas would differ where there is nothing that they could differ in."""
    links = {name: None if name in missing else a for name in ("first", "after_accept")}
    links["after_reject"] = None if "after_reject" in missing else a
    costs = Costs(count, 50.0, 1.0, 2.0, 0.5, 3.0)
    found = costs.predictions(row_of(a, 2, **links), num_draft, 3)
    assert found["predicted_markov"] == pytest.approx(found["predicted_independent"])
    other = costs.predictions(row_of(0.5, 2, first=0.1, after_accept=0.9), num_draft, 3)
    assert other["predicted_markov"] != pytest.approx(other["predicted_independent"])


# --- tables ------------------------------------------------------------------------------------


def pareto(points: list[tuple[float, float]]) -> set[tuple[float, float]]:
    """The `(speedup, error)` that no other point is as good as in both and better in one."""

    def beaten(p: tuple[float, float]) -> bool:
        return any(q != p and q[0] >= p[0] and q[1] <= p[1] for q in points)

    return {p for p in points if not beaten(p)}


@PROPERTY
@given(points=st.lists(st.tuples(st.integers(1, 8), st.integers(-4, 4)), max_size=15))
def test_the_front_is_what_no_other_setting_beats(points: list[tuple[float, float]]) -> None:
    """A better setting would be hidden, or a useless one shown."""
    rows = [{"speedup": s, "relative_error": e, "number": i} for i, (s, e) in enumerate(points)]
    found = front(rows)
    pairs = [(row["speedup"], row["relative_error"]) for row in found]
    assert set(pairs) == pareto(points)
    assert pairs == sorted(set(pairs))  # the fastest last, each once
    assert all(row in rows for row in found)


def test_chance_is_what_exact_rules_seem_to_miss_by() -> None:
    """Noise of two sample paths would be read as a gain or a loss of a rule that is not exact."""

    def row(method: str, rule: str | None, sigma: float, crps: float) -> dict[str, Any]:
        kind = "point" if rule == "mean" else "sampled"
        return {"method": method, "rule": rule, "kind": kind, "sigma": sigma, "crps": crps}

    alone = [row("autoregressive", None, 0.3, 1.0), row("autoregressive", None, 0.5, 2.0)]
    exact = [row("speculative", "maximal", 0.3, 1.03), row("speculative", "block", 0.5, 1.92)]
    rest = [row("speculative", "resample", 0.3, 9.0), row("speculative", "mean", 0.3, 9.0)]
    assert chance([*alone, *exact, *rest]) == pytest.approx(math.sqrt((0.03**2 + 0.04**2) / 2))
    assert chance([*alone, *rest]) is None


@PROPERTY
@given(values=st.lists(st.tuples(*[st.floats(0.1, 10)] * 4), min_size=1, max_size=9))
def test_misses_are_relative_to_what_was_measured(values: list[tuple[float, ...]]) -> None:
    """A formula would be called better than it is."""
    names = ("speedup", *PREDICTIONS.values())
    rows = [dict(zip(names, value, strict=True)) for value in values]
    table = np.array(values)
    found = misses(rows)
    assert list(found) == list(PREDICTIONS)
    for i, pair in enumerate(found.values(), 1):
        off = np.abs(table[:, i] - table[:, 0]) / table[:, 0]
        np.testing.assert_allclose(pair, (np.quantile(off, 0.5), np.max(off)), atol=1e-12)


def cells_of(text: str) -> list[dict[str, str]]:
    """Rows of the one table in a text."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(cells[0], line, strict=True)) for line in cells[2:]]


WHO = ("autoregressive", "draft")


def test_the_table_says_what_the_rows_say(swept: Swept) -> None:
    """The numbers in the docs would not be those of the result file."""
    text = tables.make_table(swept.results)
    assert text == sweep_table(swept.results)
    shown = cells_of(text)
    alone = [f"({who}, {kind})" for kind in ("sampled", "point") for who in WHO]
    assert [row["rule"] for row in shown[:4]] == alone
    assert len(shown) == 4 + len(swept.rows)  # a small sweep is shown as a whole
    for row, cells in zip(swept.rows, shown[4:], strict=True):
        assert (cells["rule"], cells["K"]) == (row["rule"], str(K))
        assert cells["MSE"] == f"{row['mse']:.4f}"
        assert cells["CRPS"] == ("" if row["crps"] is None else f"{row['crps']:.4f}")
        assert cells["error"] == f"{row['relative_error']:+.2%}"
        assert cells["acceptance"] == f"{row['acceptance']:.1%}"
        assert cells["milliseconds"] == f"{1000 * row['seconds']:.2f}"
        assert cells["speedup"] == f"{row['speedup']:.2f}"
        for name, field in PREDICTIONS.items():
            assert cells[name] == f"{row[field]:.2f}"
        for column, field in (("bias", "bias"), ("tolerance", "tolerance")):
            assert (cells[column] == "") == (row[field] is None)
            assert cells[column] == "" or float(cells[column]) == row[field]
    for name, (middle, most) in misses(swept.rows).items():
        assert f"{name} {middle:.1%} (at most {most:.1%})" in text
    for said in ("x.csv, context 16, joint variables, horizon 10", "14 settings", "Batch 3"):
        assert said in text


def test_distances_are_shown_where_the_noise_is_shared(swept: Swept) -> None:
    """Two draws of one law would be shown as if one had strayed from the other."""
    shown = cells_of(sweep_table(swept.results))[4:]
    own = {rule for rule in (*RULES, None) if draws_own_noise(rule)}
    assert own == {"maximal", "block", "residual", "resample", "as_released"}
    assert {row["rule"] for row in swept.rows} - own == {"mean"}
    for row, cells in zip(swept.rows, shown, strict=True):
        assert row["distance_over_drafts"] is not None
        hidden = row["rule"] in own
        assert cells["distance"] == ("" if hidden else f"{row['distance_over_drafts']:.3f}")


def test_a_large_sweep_shows_the_front_of_each_rule(swept: Swept) -> None:
    """A table of hundreds of lines would show nothing, or leave out the best setting."""
    rng = np.random.default_rng(0)
    many = [
        {**row, "speedup": float(s), "relative_error": float(e)}
        for row in swept.rows
        for s, e in rng.normal(1, 0.2, size=(5, 2))
    ]
    text = sweep_table({**swept.results, "rows": [*swept.alone, *many]})
    shown = cells_of(text)[4:]
    assert "70 settings: those that no other setting of the rule beats in both" in text
    for rule in CONFIG.rules:
        best = front([row for row in many if row["rule"] == rule])
        expected = [f"{row['speedup']:.2f}" for row in best]
        assert [cells["speedup"] for cells in shown if cells["rule"] == rule] == expected
        assert 0 < len(best) < 30


def test_columns_that_nothing_fills_are_left_out(swept: Swept) -> None:
    """A table of mean paths would have empty columns for what only sample paths have."""
    rows = [row for row in swept.results["rows"] if row["kind"] == "point"]
    text = sweep_table({**swept.results, "rows": rows})
    names = set(cells_of(text)[0])
    assert "CRPS" not in names
    assert "bias" not in names
    assert {"MSE", "tolerance", "distance", "speedup", *PREDICTIONS} <= names


@PROPERTY
@given(
    cells=st.integers(1, 4).flatmap(
        lambda n: st.lists(
            st.lists(st.text("ab 1.%", max_size=7), min_size=n, max_size=n), min_size=1, max_size=5
        )
    )
)
def test_markdown_tables_are_aligned(cells: list[list[str]]) -> None:
    """A table would not be one for a Markdown reader, or lose a cell."""
    lines = markdown.aligned(cells)
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == len(cells) + 1
    assert set(lines[1]) == {"|", "-"}
    assert [i for i, c in enumerate(lines[1]) if c == "|"] == [
        i for i, c in enumerate(lines[0]) if c == "|"
    ]
    for line, row in zip([lines[0], *lines[2:]], cells, strict=True):
        assert [cell.strip() for cell in line[1:-1].split("|")] == [cell.strip() for cell in row]


def test_a_result_file_names_its_machine(swept: Swept) -> None:
    """A table would not say on which hardware it was measured."""
    found = markdown.machine(swept.results)
    hardware = swept.results["hardware"]
    for part in (hardware["cpu"], str(hardware["cores"]), hardware["platform"], jax.__version__):
        assert part in found
    assert found in sweep_table(swept.results)


# --- mistakes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        *[("num_drafts", 3, bad) for bad in (0, -1)],
        *[("biases", 1.0, bad) for bad in (0.5, math.nan, math.inf)],
        *[("mse_tolerances", 0.0, bad) for bad in (-0.1, math.nan, math.inf)],
        *[("tolerances", 0.1, bad) for bad in (-0.1, math.nan, math.inf)],
        *[("sigmas", 0.5, bad) for bad in (0.0, -1.0, math.nan, math.inf)],
    ],
)
def test_bad_settings_are_refused(name: str, good: float, bad: float) -> None:
    """A quarter of an hour would pass before the first impossible setting."""
    with pytest.raises(InputError, match=rf"{name} must be finite .*got \[{bad}\]"):
        dataclasses.replace(CONFIG, **{name: (good, bad)})


@pytest.mark.parametrize("name", ["rules", "num_drafts", "biases", "mse_tolerances", "tolerances"])
def test_a_sweep_over_nothing_is_refused(name: str) -> None:
    """A sweep would end without a row."""
    with pytest.raises(InputError, match=f"{name} must have at least one value"):
        dataclasses.replace(CONFIG, **{name: ()})


def test_the_edges_of_good_settings_are_accepted() -> None:
    """A check would refuse a sensible sweep."""
    SweepConfig(num_drafts=(1,), biases=(1.0,), mse_tolerances=(0.0,), tolerances=(0.0,), sigmas=())


@pytest.fixture(scope="module")
def multi_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A draft that proposes two patches at once, no more."""
    model = dataclasses.replace(MODEL, output_patches=2)
    path = tmp_path_factory.mktemp("draft") / "multi.npz"
    convert.save_pytorch(path, Checkpoint(model, init_params(jax.random.key(1), model), 16))
    return str(path)


def test_mistakes_show_before_the_work(data: ForecastData, multi_path: str) -> None:
    """A misspelt rule, or a K too large for the draft, would be found half-way through."""
    said: list[str] = []

    def changed(**fields: Any) -> SweepConfig:
        return dataclasses.replace(CONFIG, base=dataclasses.replace(BASE, **fields))

    wrongs = [
        (dataclasses.replace(CONFIG, rules=("mean", "maxmial")), "Did you mean 'maximal'"),
        (changed(horizons=(4,)), "horizon of two patches or more, got 4 steps"),
        (changed(horizons=(1,)), "got 1 steps"),
        (changed(horizons=(5000,)), "5016 rows"),
        (changed(draft="nowhere.npz"), "nowhere"),
        (changed(draft="seasonal:16"), "period 16"),
        (
            dataclasses.replace(changed(draft=multi_path), num_drafts=(2, 3)),
            "lower num_draft",
        ),
    ]
    for config, message in wrongs:
        with pytest.raises(InputError, match=message):
            sweep.sweep(config, data, TARGET, said.append)
    assert said == []


# --- timing ------------------------------------------------------------------------------------

LENGTH, HORIZON = 6, 3


def numbered(count: int, separate: bool) -> tuple[jax.Array, Windows]:
    """A series whose values say where they stand, and `count` windows of it a variable."""
    values = jnp.arange(count + LENGTH - 1)[:, None] + jnp.array([[0, 10_000]])
    windows = make_windows((0, len(values)), LENGTH, 2, separate=separate)
    return values.astype(jnp.float32), windows


@pytest.mark.parametrize(
    ("count", "batch", "repeats", "separate"),
    [(60, 3, 4, False), (60, 3, 4, True), (61, 1, 4, False), (5, 3, 1, True), (1, 3, 4, False)],
)
def test_timed_contexts_are_spread_over_the_test_windows(
    count: int, batch: int, repeats: int, separate: bool
) -> None:
    """Times would be those of one stretch of the series, or of a single window."""
    values, windows = numbered(count, separate)
    config = dataclasses.replace(BASE, timing_batch=batch, repeats=repeats)
    found = benchmark.timing_contexts(config, values, windows, HORIZON)
    assert len(found) == repeats + 1
    every = np.asarray(windows.gather(values, jnp.arange(windows.count)))[:, :-HORIZON]
    starts = {float(window[0, 0]): i for i, window in enumerate(every)}
    places = np.array([[starts[float(c[0, 0])] for c in contexts] for contexts in found])
    assert places.shape == (repeats + 1, batch)
    for contexts, numbers in zip(found, places, strict=True):
        np.testing.assert_array_equal(contexts, every[numbers])
    assert places.min() == 0
    assert places.max() == windows.count - 1
    if windows.count >= places.size:
        assert len(set(places.ravel())) == places.size  # no call has the windows of another
    gaps = np.diff(places, axis=1)
    assert (gaps >= (windows.count - 1) / batch - 1).all()


def test_timed_calls_have_other_windows_and_keys_each() -> None:
    """A decode would be timed on a single draw of a single window."""
    seen: dict[str, list[tuple[Any, ...]]] = {"a": [], "b": []}
    order: list[str] = []

    def method(name: str) -> Method:
        def decode(
            key: jax.Array, context: jax.Array, index: jax.Array, paths: int | None, trace: bool
        ) -> jax.Array:
            seen[name].append((jax.random.key_data(key).tolist(), context, index.tolist()))
            assert (paths, trace) == (None, False)
            order.append(name)
            return context

        return Method(name, True, "window", None, None, None, decode)

    key, contexts = jax.random.key(5), [jnp.full((2, 3, 1), i) for i in range(4)]
    times = benchmark.time_methods([method("a"), method("b")], key, contexts)
    assert order == ["a", "b"] * 4
    expected = [jax.random.key_data(jax.random.fold_in(key, n)).tolist() for n in range(4)]
    for calls in seen.values():
        assert [k for k, _, _ in calls] == expected
        assert all(c is own for (_, c, _), own in zip(calls, contexts, strict=True))
        assert all(index == [0, 1] for _, _, index in calls)
    assert len(times) == 2
    assert all(median >= 0 and first >= 0 for median, first in times)


def test_a_timed_method_is_timed_on_all_but_the_first_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Compilation would count as decoding, or an odd window decide."""
    now = [0.0]
    monkeypatch.setattr(benchmark, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))

    def decode(key: jax.Array, context: jax.Array, *_: Any) -> jax.Array:
        now[0] += float(context[0, 0, 0])
        return context

    contexts = [jnp.full((1, 1, 1), seconds) for seconds in (90.0, 1.0, 60.0, 2.0)]
    method = Method("x", True, "window", None, None, None, decode)
    assert benchmark.time_methods([method], jax.random.key(0), contexts) == [(2.0, 90.0)]


# --- the program -------------------------------------------------------------------------------


def program() -> types.ModuleType:
    """`evaluate.py`."""
    spec = importlib.util.spec_from_file_location("evaluate_of_sweeps", ROOT / "evaluate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["sweep", "speedups", "fidelity"])
def test_the_program_takes_its_configs(
    name: str,
    swept: Swept,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`evaluate.py --config sweep` would refuse its own config, or run something else."""
    evaluate, seen = program(), []
    content = {k: swept.results[k] for k in ("hardware", "versions")}
    results = swept.results if name != "fidelity" else {**content, "rows": [{"case": "none"}]}

    def measured(config: Any, data: Any, target: Any, progress: Any) -> dict[str, Any]:
        assert (data, target) == (config.base.data, config.base.target)
        seen.append(config)
        return results

    monkeypatch.setattr(evaluate, "load_data", lambda config: config)
    monkeypatch.setattr(evaluate, "find_model", lambda name: name)
    module, function = ("fidelity", "measure") if name == "fidelity" else ("sweep", "sweep")
    monkeypatch.setattr(getattr(evaluate, module), function, measured)
    evaluate.main(
        ["--config", name, "--out", str(tmp_path), "--rules", "maximal", "--base.stride", "9"]
    )
    given = cli.load_config(name, ROOT / "configs", object)
    base = dataclasses.replace(given.base, stride=9)
    expected = dataclasses.replace(given, base=base, rules=("maximal",), out=str(tmp_path))
    assert seen == [expected]
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert tables.make_table(results) in capsys.readouterr().out


@pytest.mark.parametrize(("name", "batches"), [("sweep", 2), ("speedups", None)])
def test_the_shipped_sweeps_can_run(name: str, batches: int | None) -> None:
    """A command in the docs would fail, or fill up a batch that is timed as a whole one."""
    config = cli.load_config(name, ROOT / "configs", SweepConfig)
    data, target = load_data(config.base.data), convert.find_model(config.base.target)
    horizon = max(config.base.horizons)
    windows = benchmark.test_windows(config.base, data, horizon)
    assert windows.count % config.base.batch_size == 0
    assert batches is None or windows.count == batches * config.base.batch_size
    assert horizon >= 2 * target.model.patch_len
    pair = make_pairs(config.base, target, len(data.names))[config.base.draft]
    assert isinstance(pair.draft, type(pair.target))
    assert len(list(sweep.settings(config, 0.5))) == len(config.rules) * len(config.num_drafts)
