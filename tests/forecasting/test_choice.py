"""Whether a forecast speculates: the decision, the file of costs, and `num_draft="auto"`."""

import json
from collections import defaultdict
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.models import zeros_of

import stride_jax as sj
from stride_jax.errors import InputWarning
from stride_jax.evaluation import latency
from stride_jax.evaluation.calibration import calibrate
from stride_jax.evaluation.config import LatencyConfig
from stride_jax.evaluation.latency import Cell
from stride_jax.forecasting.choice import Choice, Costs, choose, estimate, work_of
from stride_jax.forecasting.cost_file import default_path, read_costs, write_costs

LATENCY = Path(__file__).parents[2] / "docs" / "results" / "latency" / "results.json"
SLOWER = 1.05
"""How much slower than the target alone a chosen decode may be."""


def latency_grid() -> dict[Cell, dict[int, dict[int, float]]]:
    """The measured seconds of the latency table by cell, patches and K, everything accepted."""
    cells: dict[Cell, dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in json.loads(LATENCY.read_text())["rows"]:
        if row["seconds"] is not None and row["acceptance"] != "measured":
            cell = Cell(row["layers"], row["num_vars"], row["batch"], row["process"])
            cells[cell][row["patches"]][row["num_draft"]] = row["seconds"]
    return cells


def test_noise_of_a_measurement_never_makes_a_decode_slower() -> None:
    """`auto` would lose more than 5 % in a cell of the latency table whose gain is only noise."""
    rng, speculated = np.random.default_rng(0), 0
    for of_cell in latency_grid().values():
        for seconds in of_cell.values():
            for _ in range(20):  # a clock that is off by up to 4 %
                seen = {k: s * rng.uniform(0.96, 1.04) for k, s in seconds.items()}
                choice = choose(Costs(seen.pop(0), seen, measured=True))
                assert seconds[choice.num_draft] <= SLOWER * seconds[0]
                speculated += choice.num_draft > 0
    assert speculated > 100


def test_an_estimate_never_makes_a_decode_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` would lose more than 5 % in a cell of the table before anything was measured."""
    monkeypatch.setattr(latency, "init_params", zeros_of)  # the cells have few models
    config, speculated = LatencyConfig(), 0
    for cell, of_cell in latency_grid().items():
        pair = jax.eval_shape(lambda cell=cell: latency.build(config, cell))
        for patches, seconds in of_cell.items():
            work = work_of(pair, sj.Block(), patches, cell.batch, cell.num_vars, 8)
            tried = [k for k in seconds if k]
            choice = choose(estimate(pair, work._replace(device="cpu cpu"), tried))
            assert seconds[choice.num_draft] <= SLOWER * seconds[0]
            speculated += choice.num_draft > 0
    assert speculated > 0


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        (Costs(1.0, {2: 0.9, 4: 0.5}, measured=True), 4),
        (Costs(1.0, {2: 0.96, 4: 1.5}, measured=True), 0),  # within the noise
        (Costs(7.0, {4: 5.0}, measured=False), 0),  # an estimate knows no acceptance
        (Costs(8.0, {4: 5.0}, measured=False), 4),
        (Costs(1.0, {4: float("nan")}, measured=True), 0),
        (Costs(1.0, {}, measured=True), 0),
    ],
)
def test_the_cheapest_decode_is_chosen_by_a_margin(costs: Costs, expected: int) -> None:
    """A decode would be slower than it has to be, or its reason would not say which it is."""
    choice = choose(costs)
    assert choice.num_draft == expected
    assert choice.reason.startswith(
        "decoded with the draft: " if expected else "decoded by the target alone: "
    )
    assert "\n" not in choice.reason


def test_on_a_gpu_a_deep_draft_does_not_pay_and_a_shallow_one_does() -> None:
    """The estimate would count arithmetic where launches cost: a draft of one layer is as deep.

    Over 35 patches it would promise 1.4 times, which is not enough without a measurement.
    """
    config = LatencyConfig(d_model=16, num_heads=2, d_ff=16, patch_len=4)
    for layers, pays in ((1, False), (8, True)):
        cell = Cell(layers, 1, 1, "cached")
        pair = jax.eval_shape(lambda cell=cell: latency.build(config, cell))
        if layers == 8:  # with a draft of one layer
            one = jax.eval_shape(lambda: latency.build(config, Cell(1, 1, 1, "cached")))
            pair = sj.Pair(pair.target, one.draft)
        work = work_of(pair, sj.Block(), 70, 1, 1, 8)._replace(device="gpu NVIDIA H100")
        assert (choose(estimate(pair, work)).num_draft > 0) == pays


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": 1}', '{"a": {"plain": 1}}', '{"a": {"plain"'])
def test_a_damaged_file_is_ignored_with_a_message(tmp_path: Path, text: str) -> None:
    """A forecast would fail because of a file that nobody needs, or be silent about it."""
    path = tmp_path / "costs.json"
    path.write_text(text)
    with pytest.warns(InputWarning, match=r"costs\.json holds no costs that can be read"):
        assert read_costs(path) == {}


def test_costs_are_read_as_they_were_written(tmp_path: Path) -> None:
    """A measurement would be forgotten by the next one, or come back as another."""
    path, costs = tmp_path / "new" / "costs.json", Costs(0.5, {2: 0.25, 8: 1.0}, measured=True)
    assert read_costs(path) == {}
    write_costs(path, "a", costs)
    write_costs(path, "b", costs._replace(plain=1.0))
    write_costs(path, "b", costs._replace(plain=2.0))
    assert read_costs(path) == {"a": costs, "b": costs._replace(plain=2.0)}
    assert [one.name for one in path.parent.iterdir()] == ["costs.json"]


def test_auto_decodes_as_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`auto` would not follow a measurement, change the draws of its K, or not say what it does."""
    monkeypatch.setenv("STRIDE_JAX_CACHE", str(tmp_path))
    caplog.set_level("INFO", "stride_jax")
    target = sj.window_process(lambda window: 0.9 * window[-4:], patch_len=4, context_len=8)
    pair = sj.Pair(target, sj.last_value_draft(4))
    options = {"num_samples": 3, "quantiles": (), "sigma": 1.0}
    history = np.sin(np.arange(40.0))

    def calibrated(*seconds: float) -> Choice:
        def clock(calls: list[object], repeats: int) -> list[list[float]]:
            assert len(calls) == len(seconds)
            return [[one] * repeats for one in seconds]

        return calibrate(pair, history, 12, num_drafts=(2, 8), clock=clock, **options)

    for seconds, expected in (((1.0, 0.5), 2), ((1.0, 2.0), 0)):
        choice = calibrated(*seconds)
        assert choice.num_draft == expected
        caplog.clear()
        auto = sj.forecast(pair, history, 12, num_draft="auto", **options)
        assert caplog.messages == [choice.reason]
        same = sj.forecast(pair, history, 12, num_draft=expected, **options)
        np.testing.assert_array_equal(auto.paths, same.paths)
    assert len(read_costs(default_path())) == 1
