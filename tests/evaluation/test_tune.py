"""Choosing process, rule, K and tolerance: the fastest setting within a budget of error."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from stride_jax.checkpoints import pytorch as convert
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.data.config import DataConfig
from stride_jax.data.splits import ForecastData, prepare
from stride_jax.decoding.base import Rule
from stride_jax.errors import InputError
from stride_jax.evaluation import benchmark, report, tune
from stride_jax.evaluation.config import EvaluateConfig
from stride_jax.evaluation.scoring import Method
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import init_params
from stride_jax.types import Series

MODEL = TimerXLConfig(patch_len=4, d_model=16, num_heads=2, d_ff=16, dropout=0.0)
TARGET = Checkpoint(MODEL, init_params(jax.random.key(0), MODEL), 16)


@pytest.fixture(scope="module")
def data() -> ForecastData:
    """Two noisy sines of 500 steps."""
    t = np.arange(500)
    waves = np.stack([np.sin(t / 4), np.cos(t / 7)], axis=1)
    waves += 0.1 * np.random.default_rng(0).normal(size=waves.shape)
    return prepare(DataConfig(source="x.csv", context_len=16), Series(waves, ("a", "b")))


def settings(**fields: object) -> EvaluateConfig:
    """A calibration of a moment; nine patches, so that K = 8 is of use."""
    source = DataConfig(source="x.csv", context_len=16)
    values = {"horizons": (36,), "draft": "last-value", "sigma": 0.5, "repeats": 1, "num_paths": 2}
    values |= {"batch_size": 8, "timing_batch": 1, "rules": ("maximal", "mean"), "stride": 4}
    return EvaluateConfig(data=source, **{**values, **fields})


Costs = Callable[[Method], tuple[float, float]]
Calibrate = Callable[..., dict[str, object]]


@pytest.fixture
def calibrate(monkeypatch: pytest.MonkeyPatch, data: ForecastData) -> Calibrate:
    """`tune.calibrate` with `(seconds, error)` of every method as given, nothing decoded."""

    def run(costs: Costs, sampled: bool, budget: float, **fields: object) -> dict[str, object]:
        def seconds(methods: list[Method], *_: object) -> list[tuple[float, float]]:
            return [(costs(method)[0], 9.0) for method in methods]

        def score(method: Method, *_: object) -> tuple[dict[str, float], None]:
            name, other = ("crps", "mse") if sampled else ("mse", "crps")
            distance = None if method.name == "autoregressive" else costs(method)[1] / 10
            scores = {name: costs(method)[1], other: 1e-9, "target_passes": 1.5}
            return {**scores, "distance": distance}, None

        monkeypatch.setattr(benchmark, "time_methods", seconds)
        monkeypatch.setattr(tune, "score", score)
        return tune.calibrate(settings(**fields), data, TARGET, sampled=sampled, budget=budget)

    return run


def tolerance_of(method: Method) -> float:
    """The tolerance that a method's decoder was built with."""
    leaves = jax.tree.leaves(method.decode.args, is_leaf=lambda x: isinstance(x, Rule))
    (rule,) = (leaf for leaf in leaves if isinstance(leaf, Rule))
    return rule.tolerance


def point_costs(method: Method) -> tuple[float, float]:
    """A larger K or tolerance is faster and worse; window is slower and a tenth better."""
    seconds, error = (1.0, 0.10) if method.process == "cached" else (2.0, 0.09)
    if method.name == "speculative":
        assert method.rule == "mean"
        seconds /= 1 + method.num_draft * tolerance_of(method)
        error *= 1 + tolerance_of(method)
    return seconds, error


@pytest.mark.parametrize(
    ("budget", "process", "num_draft", "tolerance"),
    [
        (0.0, "window", 0, None),  # only the most accurate baseline is within
        (0.03, "window", 8, 0.02),  # 2 / 1.16 s; cached starts at 11 % above
        (0.12, "cached", 0, None),  # cached alone takes 1 s, window at .1 takes 2 / 1.8 s
        (0.14, "cached", 8, 0.02),
        (1.0, "cached", 8, 0.4),
    ],
)
def test_the_fastest_within_the_budget_is_chosen(
    calibrate: Calibrate, budget: float, process: str, num_draft: int, tolerance: float | None
) -> None:
    """A slower setting would be used, or one whose error is above what was allowed."""
    found = calibrate(point_costs, False, budget)
    chosen = found["chosen"]
    names = ("process", "num_draft", "tolerance")
    assert tuple(chosen[name] for name in names) == (process, num_draft, tolerance)
    assert chosen["relative_error"] <= budget
    assert found["pays"] == (num_draft > 0)
    within = [row for row in found["rows"] if row["relative_error"] <= budget]
    assert chosen["seconds"] == min(row["seconds"] for row in within)


@pytest.mark.parametrize(("share", "num_draft", "tolerance"), [(1.06, 8, 0.05), (0.5, 0, None)])
def test_the_choice_stays_close_to_the_target(
    calibrate: Calibrate, share: float, num_draft: int, tolerance: float | None
) -> None:
    """A draft in disguise would be chosen: where it beats its target its error is no hindrance."""
    found = calibrate(point_costs, False, 1.0, budget_distance=share)
    chosen = found["chosen"]
    assert (chosen["num_draft"], chosen["tolerance"]) == (num_draft, tolerance)
    for row in found["rows"]:
        expected = None if row["rule"] is None else 1 + row["tolerance"]
        assert row["distance_over_drafts"] == pytest.approx(expected)


def test_every_setting_is_measured_once(calibrate: Calibrate) -> None:
    """A K or a tolerance that is left out can never be chosen."""
    rows = calibrate(point_costs, False, 0.5)["rows"]
    found = [(row["process"], row["num_draft"], row["tolerance"]) for row in rows]
    grid = [(k, t) for k in tune.LENGTHS for t in tune.TOLERANCES]
    expected = [(kind, *rest) for kind in ("cached", "window") for rest in [(0, None), *grid]]
    assert sorted(found, key=str) == sorted(expected, key=str)
    assert {row["rule"] for row in rows} == {"mean", None}
    for row in rows:
        np.testing.assert_allclose(row["relative_error"], row["error"] / 0.09 - 1)


@pytest.mark.parametrize(
    ("patches", "expected"),
    [(1, [1]), (2, [1]), (5, [1, 2, 3, 4]), (8, [1, 2, 3, 5, 7]), (40, [1, 2, 3, 5, 8])],
)
def test_no_round_is_longer_than_the_forecast(patches: int, expected: list[int]) -> None:
    """The best K, a round that ends with the horizon, would be left out, or rows be wasted."""
    assert tune.lengths(patches) == expected


def test_speculation_that_is_not_faster_does_not_pay(calibrate: Calibrate) -> None:
    """A user would be told to speculate where the target alone is faster."""
    found = calibrate(lambda m: (1.0 if m.num_draft is None else 1.01, 0.1), False, 9.0)
    assert found["pays"] is False
    assert found["chosen"]["num_draft"] == 0
    assert found["chosen"]["rule"] is None


def sampled_costs(method: Method) -> tuple[float, float]:
    """An exact rule takes half the time; nobody may ask for its error."""
    own = 0.2 if method.process == "cached" else 0.1
    if method.name == "speculative":
        return (0.5 if method.num_draft == 3 else 0.7), float("nan")
    return 1.0, own


def test_exact_rules_have_the_error_of_their_own_process(calibrate: Calibrate) -> None:
    """Luck of the draw would decide between settings that follow one and the same law."""
    found = calibrate(sampled_costs, True, 0.0, rules=("maximal", "block", "mean"))
    for row in found["rows"]:
        assert row["error"] == (0.2 if row["process"] == "cached" else 0.1)
        assert row["rule"] in (None, "maximal", "block")
        assert (row["target_passes"] is None) == (row["rule"] is not None)
        assert row["tolerance"] is None
    chosen = found["chosen"]
    assert (chosen["process"], chosen["rule"], chosen["num_draft"]) == ("window", "maximal", 3)
    assert found["pays"] is True


def test_a_rule_that_is_not_exact_is_measured(calibrate: Calibrate) -> None:
    """The bias of an inexact rule would pass for the accuracy of the target."""

    def costs(method: Method) -> tuple[float, float]:
        return (0.5, 0.3) if method.rule == "resample" else (1.0, 0.1)

    found = calibrate(costs, True, 0.5, rules=("resample",), process="window")
    assert {row["error"] for row in found["rows"] if row["rule"]} == {0.3}
    assert {row["process"] for row in found["rows"]} == {"window"}
    assert found["pays"] is False


def test_only_processes_that_a_model_can_run_are_tried() -> None:
    """Calibration of a model with the original's covariate mask would end in an error."""
    covariate = dataclasses.replace(MODEL, covariate=True)
    masked = dataclasses.replace(covariate, covariate_mask="causal")
    found = [tune.kinds(Checkpoint(m, {}, 16), settings()) for m in (covariate, masked, MODEL)]
    assert found == [["window"], ["cached", "window"], ["cached", "window"]]
    assert tune.kinds(TARGET, settings(process="cached")) == ["cached"]


def test_the_choice_becomes_the_evaluation() -> None:
    """Another setting would be evaluated than the one that was chosen."""
    config = settings(tolerance=0.3, num_draft=4)
    row = {"process": "cached", "rule": "mean", "num_draft": 5, "tolerance": 0.02}
    expected = dataclasses.replace(
        config, process="cached", rules=("mean",), num_draft=5, tolerance=0.02
    )
    assert tune.apply(config, row) == expected
    exact = tune.apply(config, {**row, "rule": "maximal", "tolerance": None})
    assert (exact.rules, exact.tolerance) == (("maximal",), 0.3)
    alone = tune.apply(config, {**row, "rule": None, "num_draft": 0, "tolerance": None})
    assert (alone.rules, alone.process, alone.num_draft) == ((), "cached", 1)


@pytest.mark.parametrize(("sampled", "rule"), [(False, "maximal"), (True, "mean")])
def test_a_calibration_of_nothing_is_refused(
    calibrate: Calibrate, sampled: bool, rule: str
) -> None:
    """Speculation would be said not to pay where none was tried."""
    with pytest.raises(InputError, match="none of the rules"):
        calibrate(point_costs, sampled, 0.5, rules=(rule,))


@pytest.mark.parametrize("budget", [-0.01, float("nan")])
def test_a_budget_below_zero_is_refused(data: ForecastData, budget: float) -> None:
    """Not even the target alone is within such a budget: the choice would be from nothing."""
    with pytest.raises(InputError, match="budget must be at least 0"):
        tune.calibrate(settings(), data, TARGET, sampled=False, budget=budget)
    with pytest.raises(InputError, match="budget must be at least 0"):
        settings(budget=budget)


@pytest.fixture
def two_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less to compile."""
    monkeypatch.setattr(tune, "LENGTHS", (1, 4))
    monkeypatch.setattr(tune, "TOLERANCES", (1e6,))


@pytest.mark.slow
@pytest.mark.usefixtures("two_lengths")
def test_a_real_calibration_is_written_down(tmp_path: Path, data: ForecastData) -> None:
    """The command with a budget would fail, or leave nothing that says why K is what it is."""
    said: list[str] = []
    fields = {"out": str(tmp_path / "out"), "budget": 1e6, "horizons": (12,)}
    config = settings(rules=("mean",), process="window", **fields)
    found = report.calibrated(config, data, TARGET, said.append)
    content = json.loads((tmp_path / "out" / "calibration.json").read_text())
    rows = content["rows"]
    assert [(row["rule"], row["num_draft"]) for row in rows] == [
        (None, 0),
        ("mean", 1),
        ("mean", 2),  # of three patches
    ]
    assert [row["target_passes"] for row in rows] == [3, 2, 1]  # everything is accepted
    assert all(row["seconds"] > 0 and np.isfinite(row["error"]) for row in rows)
    assert content["chosen"] in rows
    assert found == tune.apply(config, content["chosen"])
    assert {"hardware", "versions"} <= set(content)
    verdict = "chosen" if content["pays"] else "does not pay"
    assert verdict in said[-1]


@pytest.mark.slow
@pytest.mark.usefixtures("two_lengths")
def test_a_multi_patch_draft_is_calibrated_too(
    tmp_path: Path, data: ForecastData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A draft of two patches would end the calibration with an error at the first longer K."""
    model = dataclasses.replace(MODEL, output_patches=2)
    path = tmp_path / "multi.npz"
    convert.save_pytorch(path, Checkpoint(model, init_params(jax.random.key(1), model), 16))
    config = settings(draft=str(path), rules=("mean",), process="window", horizons=(16,))
    rows = tune.calibrate(config, data, TARGET, sampled=False, budget=0.0)["rows"]
    assert {row["num_draft"] for row in rows} == {0, 1}


def test_sample_paths_to_choose_by_must_be_there(data: ForecastData) -> None:
    """Calibrating by CRPS without paths would end in an error about unpacking."""
    config = settings(rules=("maximal",), num_paths=0)
    with pytest.raises(InputError, match="num_paths"):
        tune.calibrate(config, data, TARGET, sampled=True, budget=0.0)
