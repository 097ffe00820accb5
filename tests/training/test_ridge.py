"""Linear drafts in closed form: a planted linear target comes back; files; refusals."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.training import MODEL, series_of
from jax.tree_util import Partial

from stride_jax.checkpoints.build import load_pair
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.checkpoints.run_store import RunStore
from stride_jax.data.config import DataConfig
from stride_jax.data.windows import make_windows
from stride_jax.decoding.drafts import as_draft, propose
from stride_jax.decoding.linear_draft import gate_weights, level_of, linear_draft, window_features
from stride_jax.errors import InputError
from stride_jax.models.linear import LinearConfig
from stride_jax.models.timer_xl import init_params
from stride_jax.training import linear_distillation
from stride_jax.training.config import DistillConfig, RidgeConfig, RunConfig
from stride_jax.training.linear_distillation import (
    Source,
    Teacher,
    distill_linear,
    fit_gate,
    fit_linear,
    labelled,
    sources,
    with_proposals,
)
from stride_jax.training.ridge import Rows, choose, solve, sums_of
from stride_jax.types import PatchDistribution

L, P, SIGMA = 10, 2, 0.4
TARGET = Checkpoint(MODEL, init_params(jax.random.key(5), MODEL), 32)
RNG = np.random.default_rng(0)
PLANTED = 0.3 * RNG.normal(size=(2, L, P))


def step(map_: np.ndarray, level: str) -> np.ndarray:
    """B of `x = window @ B`: two maps are the same model where these are the same."""
    weights = np.full(L, 1 / L) if level == "mean" else np.eye(L)[-1]
    return map_ + np.outer(weights, 1 - map_.sum(axis=0))


def planted(maps: Any, window: jax.Array) -> PatchDistribution:
    """A target that is linear, with a map for each variable of a window."""
    level = window[-1:]
    return PatchDistribution(level + jnp.einsum("clp,lc->pc", maps, window - level))


def noise_source(count: int = 400, rows: int = 700) -> Source:
    """Windows of two variables of noise, longer than the draft's; one of them is a thousandth."""
    values = np.random.default_rng(1).normal(size=(rows, 2)) * [[1.0, 1e-3]]
    windows = make_windows((0, rows), L + 4, 2, separate=False)
    return Source(jnp.asarray(values, jnp.float32), windows, np.arange(count))


def rows_of(maps: np.ndarray, model: LinearConfig, **options: Any) -> list[Rows]:
    """Labelled windows of noise."""
    predict = Partial(lambda m, window: planted(m, window[-L:]), jnp.asarray(maps, jnp.float32))
    teacher = Teacher(predict, None, jnp.float32(SIGMA))
    return list(
        labelled(teacher, noise_source(), jax.random.key(0), model=model, num_draft=3, **options)
    )


@pytest.mark.parametrize("level", ["last", "mean"])
def test_a_planted_linear_target_comes_back(level: Any) -> None:
    """A window, its label or its level would be misaligned; or loud windows would dominate."""
    model = LinearConfig(P, L, level=level)
    rows = rows_of(PLANTED[[0, 0]], model)
    # the level of a window in its own units is added to a variance of a thousandth
    (map_,) = solve(sums_of(rows), 1e-9)
    np.testing.assert_allclose(step(map_, level), step(PLANTED[0], "last"), atol=2e-3)


def test_a_planted_map_for_each_variable_comes_back() -> None:
    """Every variable would get the map of another, or their average."""
    model = LinearConfig(P, L, num_vars=2)
    maps = solve(sums_of(rows_of(PLANTED, model)), 1e-9)
    for map_, expected in zip(maps, PLANTED, strict=True):
        np.testing.assert_allclose(step(map_, "last"), step(expected, "last"), atol=2e-3)
    # a heavy penalty leaves the one map for all
    near = solve(sums_of(rows_of(PLANTED, model)), 1e6)
    np.testing.assert_allclose(near[0], near[1], atol=1e-5)


def test_windows_that_end_with_proposals_give_the_same_map() -> None:
    """A label would be that of the window without the proposals."""
    model = LinearConfig(P, L)
    rows = rows_of(PLANTED[[0, 0]], model, draft=linear_draft(PLANTED[0]))
    (map_,) = solve(sums_of(rows), 1e-9)
    np.testing.assert_allclose(step(map_, "last"), step(PLANTED[0], "last"), atol=2e-3)


def test_a_context_ends_with_one_to_k_proposals() -> None:
    """The draft would be fitted to contexts that decoding never shows it."""
    draft, context = linear_draft(PLANTED[0]), jnp.asarray(RNG.normal(size=(14, 1)), jnp.float32)
    lengths = set()
    for number in range(12):
        key = jax.random.key(number)
        grown = with_proposals(draft, key, context, jnp.float32(SIGMA), 3)
        assert grown.shape == context.shape
        moved = [n for n in (1, 2, 3) if np.array_equal(grown[: -n * P], context[n * P :])]
        noise = jax.random.normal(jax.random.split(key)[0], (3, P, 1))
        memory, scale = draft.prepare(context), jnp.full((P, 1), SIGMA)
        state = draft.start(memory, 3)
        patches = propose(draft, memory, state, noise, scale, 3, learned=False)[0].patches
        count = min(moved)
        lengths.add(count)
        np.testing.assert_allclose(grown[-count * P :], patches[:count].reshape(-1, 1), atol=1e-6)
    assert lengths == {1, 2, 3}


def test_the_gate_tells_smooth_windows_from_rough_ones() -> None:
    """A mixture would have one map for series that behave differently."""
    rng = np.random.default_rng(2)
    rough = rng.normal(size=(800, 1))
    smooth = np.cumsum(rng.normal(size=(800, 1)), axis=0)
    values = jnp.asarray(np.concatenate([rough, smooth], axis=1), jnp.float32)
    windows = make_windows((0, 800), 80, 2, separate=True)
    source = Source(values, windows, rng.permutation(windows.count)[:300])
    model = LinearConfig(P, 80, num_maps=2)
    gate = fit_gate(source, model, 0)
    teacher = Teacher(Partial(lambda w: PatchDistribution(w[-P:])), gate, jnp.float32(SIGMA))
    rows = labelled(teacher, source, jax.random.key(0), model=model, num_draft=2)
    weights = np.concatenate([np.asarray(part.weights)[:, 0] for part in rows])
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    cluster = weights.argmax(axis=1)
    agreement = np.mean(cluster == (source.order >= windows.num_starts))
    assert max(agreement, 1 - agreement) > 0.95
    with pytest.raises(InputError, match=r"2 windows are too few for 2 maps"):
        fit_gate(source._replace(order=source.order[:2]), model, 0)


def test_the_regularisation_is_chosen_on_the_held_out_rows() -> None:
    """The penalty that fits the training windows best is always the smallest."""
    rng = np.random.default_rng(3)

    def rows(count: int, noise: float) -> Rows:
        inputs = rng.normal(size=(count, 1, L))
        labels = inputs @ PLANTED[0] + noise * rng.normal(size=(count, 1, P))
        parts = inputs, labels, np.ones((count, 1)), np.ones((count, 1, 1))
        return Rows(*(jnp.asarray(part, jnp.float32) for part in parts))

    sums, held_out = sums_of([rows(12, 0.5)]), [rows(50, 0.0), rows(200, 0.0)]
    choices = {r: choose(sums, held_out, (r,), SIGMA) for r in (1e-6, 0.1, 1e4)}
    best = choose(sums, held_out, tuple(choices), SIGMA)
    assert best.regularisation == 0.1
    assert best.acceptance == max(choice.acceptance for choice in choices.values())
    exact = choose(sums_of([rows(400, 0.0)]), held_out, (1e-9,), SIGMA)
    assert exact.acceptance > 0.999
    assert exact.gap < 1e-3


def config(out: Path, **fields: Any) -> DistillConfig:
    """A fit of a few seconds."""
    usual = {"windows": 96, "num_maps": 2}
    ridge = RidgeConfig(**{**usual, **fields.pop("ridge", {})})
    data = DataConfig(source="x.csv", context_len=32, **fields.pop("data", {}))
    run = RunConfig(out=str(out), **fields.pop("run", {}))
    return DistillConfig(data=data, objective="ridge", ridge=ridge, run=run, **fields)


@jax.jit
def next_patches(draft: Any, contexts: jax.Array) -> jax.Array:
    """The means after each context, `[B, P, C]`."""

    def one(context: jax.Array) -> jax.Array:
        memory, shape = draft.prepare(context), (1, MODEL.patch_len, context.shape[1])
        return draft.predict_next(memory, draft.start(memory, 1), shape)[0].mean[0]

    return jax.vmap(one)(contexts)


@pytest.mark.parametrize(
    ("maps", "short"),
    [
        pytest.param("one", 24, marks=pytest.mark.slow),
        pytest.param("per_variable", None, marks=pytest.mark.slow),
        ("mixture", 24),
    ],
)
def test_a_fitted_draft_is_loaded_with_its_target(
    maps: Any, short: int | None, tmp_path: Path
) -> None:
    """A draft in a run directory could not be decoded with, or would be worse than no map."""
    fitted = distill_linear(
        config(tmp_path, ridge={"maps": maps}, draft_context_len=short), series_of(), TARGET
    )
    pair = load_pair(TARGET, tmp_path, num_vars=2)
    expected = load_pair(TARGET, fitted, num_vars=2).draft
    jax.tree.map(np.testing.assert_array_equal, pair.draft, expected)
    assert pair.draft.context_len == (short or 32)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(records) == 2  # windows as they are, and with proposals
    assert records[0]["gap"] < 0.5

    # closer to the target than the level of the window, which is the map of zeros
    nothing = dataclasses.replace(pair.draft, means=0 * pair.draft.means)
    contexts = jnp.asarray(
        series_of().values[300:396].reshape(3, 32, 2)
    )  # [3 * 32, 2] -> [3, 32, 2]
    labels = next_patches(as_draft(pair.target), contexts)
    gaps = [
        np.mean(np.square(next_patches(draft, contexts) - labels))
        for draft in (pair.draft, nothing)
    ]
    assert gaps[0] < 0.3 * gaps[1]
    with pytest.raises(InputError, match="already holds a run"):
        distill_linear(config(tmp_path), series_of(), TARGET)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"run": {"resume": True}}, "no steps to resume"),
        ({"run": {"distributed": True}}, "leave out run.distributed"),
        ({"init_from": "runs/other"}, "leave out init_from 'runs/other'"),
        (
            {"data": {"variables": "separate", "synthetic_share": 0.5}},
            "set data.synthetic_share 0",
        ),
    ],
)
def test_settings_that_mean_nothing_here(fields: Any, message: str, tmp_path: Path) -> None:
    """A flag would be taken for something else without a word."""
    with pytest.raises(InputError, match=message):
        distill_linear(config(tmp_path / "run", **fields), series_of(), TARGET)
    assert not (tmp_path / "run").exists()


def refuse_to_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets every fit end in an error of another kind."""

    def fitted(*args: Any) -> None:
        raise AssertionError("the fit has begun")

    monkeypatch.setattr(linear_distillation, "fit_gate", fitted)


def test_a_directory_is_checked_before_the_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fit of minutes would be lost with a wrong --run.out."""
    refuse_to_fit(monkeypatch)
    (tmp_path / "afile").write_text("mine\n")
    with pytest.raises(InputError, match=r"/afile/x cannot be written to: .*another --run\.out"):
        distill_linear(config(tmp_path / "afile" / "x"), series_of(), TARGET)


def test_a_directory_in_use_is_refused_before_the_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The draft and the log would be written between those of a training that runs there."""
    refuse_to_fit(monkeypatch)
    with (
        RunStore(tmp_path),
        pytest.raises(InputError, match=r"another run is writing to .*another --run\.out"),
    ):
        distill_linear(config(tmp_path), series_of(), TARGET)


def test_a_directory_is_held_during_the_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs would both do the whole fit, and the second one fail or overwrite the first."""

    class InTheFitError(Exception):
        pass

    def meanwhile(*args: Any) -> None:
        with pytest.raises(InputError, match="another run is writing"):
            RunStore(tmp_path)
        raise InTheFitError

    monkeypatch.setattr(linear_distillation, "fit_gate", meanwhile)
    with pytest.raises(InTheFitError):
        distill_linear(config(tmp_path), series_of(), TARGET)
    RunStore(tmp_path).close()  # free again


def test_a_log_is_never_truncated(tmp_path: Path) -> None:
    """Where no lock can be held, the lines of another run would be lost."""
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n')
    model = LinearConfig(P, L, level="last", num_vars=None, num_maps=1)
    fitted = linear_distillation.checkpoint_of(model, np.zeros((1, L, P)), None)
    linear_distillation.write(tmp_path, fitted, [])
    assert (tmp_path / "log.jsonl").read_text().startswith('{"step": 1}\n')


def test_some_windows_end_without_proposals(tmp_path: Path) -> None:
    """There would be no draft to propose the ends of the others."""
    with pytest.raises(InputError, match="set on_policy below 1"):
        config(tmp_path, on_policy=1.0)


def test_separate_windows_do_not_know_their_variable(tmp_path: Path) -> None:
    """A variable would be drafted by the map of another one."""
    with pytest.raises(InputError, match=r"separate windows do not know their variable"):
        config(tmp_path, ridge={"maps": "per_variable"}, data={"variables": "separate"})


def test_the_level_is_the_last_value_or_the_mean() -> None:
    """The fit would take another level off than the draft does."""
    window = jnp.asarray(RNG.normal(size=(3, L, 2)), jnp.float32)
    np.testing.assert_array_equal(level_of(window, "last"), window[:, -1:])
    np.testing.assert_allclose(level_of(window, "mean"), window.mean(axis=1, keepdims=True))


def test_the_second_fit_has_the_rows_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The draft would forget the windows that end without proposals, as each decode begins."""
    rows: list[int] = []

    def choose(sums: Any, *rest: Any) -> Any:
        rows.append(sums.num_rows)
        return chosen(sums, *rest)

    chosen = linear_distillation.choose
    monkeypatch.setattr(linear_distillation, "choose", choose)
    fit_linear(config(tmp_path, ridge={"maps": "one"}), series_of(), TARGET)
    assert rows == [48 * 2, 96 * 2]  # of two variables


def test_validation_windows_are_spread_over_their_split(tmp_path: Path) -> None:
    """Those that end with proposals would be the last weeks, and the others the first."""
    given = config(tmp_path, data={"validation_stride": 2})
    train, held_out = sources(given, series_of())
    assert (train.windows.stride, held_out.windows.stride) == (1, 2)
    first, last = held_out.split(0.5)
    assert last.order.min() < first.order.max()
    assert held_out.order.min() == 0
    assert held_out.order.max() == held_out.windows.count - 1


def test_the_gate_has_the_probabilities_of_its_clusters() -> None:
    """A window in the middle of one cluster would be given to another one."""
    values = jnp.asarray(np.random.default_rng(2).normal(size=(400, 1)).cumsum(axis=0), jnp.float32)
    windows = make_windows((0, 400), 40, 1, separate=True)
    source = Source(values, windows, np.arange(0, windows.count, 3))
    gate = fit_gate(source, LinearConfig(2, 40, num_maps=3), 0)
    assert gate is not None
    contexts = jnp.concatenate(list(source.batches()))
    rows = np.asarray(jax.vmap(window_features)(contexts), np.float64)[:, 0]
    standard = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    centers = np.asarray(gate.kernel).T * rows.std(axis=0)  # [M, F]
    logits = -0.5 * np.square(standard[:, None] - centers[None]).sum(axis=2)
    found = jax.vmap(lambda window: gate_weights(gate, window))(contexts)[:, 0]
    np.testing.assert_allclose(found, jax.nn.softmax(logits, axis=1), atol=1e-3)


def noisy_rows(count: int, noise: float, num_maps: int = 1) -> Rows:
    """Windows of one variable whose labels are noisy; all maps have the same weight."""
    rng = np.random.default_rng(count)
    inputs = rng.normal(size=(count, 1, L))
    labels = inputs @ PLANTED[0] + noise * rng.normal(size=(count, 1, P))
    weights = np.full((count, 1, num_maps), 1 / num_maps)
    parts = inputs, labels, np.ones((count, 1)), weights
    return Rows(*(jnp.asarray(part, jnp.float32) for part in parts))


def test_held_out_rows_count_once_whatever_their_batches() -> None:
    """The last batch, which is smaller, would weigh as much as a whole one."""
    few, many = noisy_rows(5, 2.0), noisy_rows(200, 0.1)
    together = Rows(*(jnp.concatenate(pair) for pair in zip(few, many, strict=True)))
    sums = sums_of([noisy_rows(100, 0.5)])
    apart, whole = (choose(sums, rows, (0.1,), SIGMA) for rows in ([few, many], [together]))
    np.testing.assert_allclose(apart.acceptance, whole.acceptance, rtol=1e-5)
    np.testing.assert_allclose(apart.gap, whole.gap, rtol=1e-5)


def test_maps_that_share_their_rows_are_one_map() -> None:
    """More maps would be shrunk harder, as each has a part of the rows."""
    two, five = (solve(sums_of([noisy_rows(50, 0.5, m)]), 0.5) for m in (2, 5))
    np.testing.assert_allclose(two[0], five[0], atol=1e-5)
