"""`forecast` from end to end: shapes, units, distributions, sigma, and what it refuses."""

import dataclasses
import importlib
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.forecasts import CAUSAL, CAUSAL_PAIR, MODEL, WINDOW, L, pair_of, walk
from helpers.frames import REPEAT, SHORT_REPEAT
from helpers.levels import P
from helpers.models import params_of
from jax.tree_util import Partial
from scipy import stats
from scipy.linalg import solve_triangular

import stride_jax as sj
from stride_jax.checkpoints import store
from stride_jax.checkpoints.build import (
    load_pair,
    make_target,
)
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding.base import Rule
from stride_jax.decoding.naive_drafts import last_value_draft, seasonal_draft
from stride_jax.decoding.processes import CachedProcess, WindowProcess, window_process
from stride_jax.decoding.rules import Block, Maximal, Mean, Residual, SharedNoise
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import AUTOREGRESSIVE, DecodeConfig
from stride_jax.errors import InputError, InputWarning
from stride_jax.forecasting.forecast import forecast
from stride_jax.forecasting.results import Forecast
from stride_jax.testing import analytic


def last_patch(window: jax.Array) -> jax.Array:
    """The same for the window process."""
    return window[-P:]


def halfway(window: jax.Array) -> jax.Array:
    """Half the way from the last patch to the mean of all that is seen, of any length."""
    return (window[-P:] + window.mean(axis=0, keepdims=True)) / 2


def mean_of_variables(window: jax.Array) -> jax.Array:
    """The last patch, each variable like the mean of all."""
    mean = window[-P:].mean(axis=1, keepdims=True)
    return jnp.broadcast_to(mean, (P, window.shape[1]))


WINDOW_REPEAT = window_process(last_patch, P)
LEAN = dataclasses.replace(MODEL, d_ff=4)
SMALL = Checkpoint(LEAN, params_of(LEAN), 8)
SHORT: dict[str, Any] = {"num_samples": 3, "quantiles": ()}
"""What most forecasts of `REPEAT` share, with a horizon of 6, so that few programs are compiled."""


def level(*shape: int, length: int, seed: int = 0) -> np.ndarray:
    """A random walk whose variables have mean 0 and std 1 over their last `length` steps."""
    series = walk(*shape, seed=seed)
    last = series[-length:]
    return (series - last.mean(axis=0)) / last.std(axis=0)


def tiled(history: np.ndarray, horizon: int) -> np.ndarray:
    """What `REPEAT` expects after a history `[T]` or `[T, C]`."""
    return np.concatenate([history[-P:]] * math.ceil(horizon / P))[:horizon]


def path(target: Any, history: Any, horizon: int = 6, **settings: Any) -> np.ndarray:
    """The mean path; a sigma that is given need not be measured."""
    settings = {"num_samples": 0, "sigma": 1.0, **settings}
    return forecast(pair_of(target), history, horizon, **settings).mean


# --- shapes --------------------------------------------------------------------------------------

BATCH = np.stack([walk(8, 2, seed=i) + 10 * i for i in range(2)])
FORMS: dict[str, tuple[Any, tuple[int, ...], tuple[int, ...]]] = {
    "[T]": (BATCH[0, :, 0], (), ()),
    "[T, 1]": (BATCH[0, :, :1], (), (1,)),
    "[T, C]": (BATCH[1], (), (2,)),
    "[B, T, C]": (BATCH, (2,), (2,)),
    "list of [T]": ([BATCH[0, :, 0], BATCH[1, 3:, 1]], (2,), ()),
    "list of [T, C]": ([BATCH[0], BATCH[1, 3:]], (2,), (2,)),
    "list of one [T]": ([BATCH[0, :, 0]], (1,), ()),
}
"""A history, and the axes of its forecast before and after the horizon."""


@pytest.mark.parametrize("variables", ["separate", "joint"])
@pytest.mark.parametrize("form", FORMS)
def test_a_forecast_has_the_form_of_its_history(form: str, variables: str) -> None:
    """Axes would be missing or in another order, or variables and series change places."""
    history, lead, tail = FORMS[form]
    settings = {"quantiles": (0.9, 0.25), "sigma": 1e-3, "variables": variables, "num_samples": 10}
    found = forecast(SHORT_REPEAT, history, 6, **{**SHORT, **settings})
    assert found.levels == (0.25, 0.9)
    assert found.mean.shape == (*lead, 6, *tail)
    assert found.quantiles.shape == (*lead, 2, 6, *tail)
    assert found.paths.shape == (*lead, 10, 6, *tail)
    assert np.shape(found.sigma) == (*lead, *tail)
    np.testing.assert_allclose(found.sigma, 1e-3)
    for field in (found.mean, found.quantiles, found.paths):
        assert field.dtype == np.float64
    count = math.prod(lead) * (math.prod(tail) if variables == "separate" else 1)
    assert found.info.rounds.shape == (count, 10)
    batch = history if lead else [history]
    for i, one in enumerate(batch):
        for values in (found.mean, found.quantiles[..., 0, :, :] if tail else found.quantiles):
            own = values[i] if lead else values
            own = own if own.ndim == 1 + len(tail) else own[0]
            # two patches of noise of .001 each
            np.testing.assert_allclose(own, tiled(np.asarray(one), 6), atol=0.01)


def test_separate_variables_are_series_of_their_own() -> None:
    """A variable's forecast would depend on its neighbours, or have its neighbour's numbers."""
    series = walk(20, 2)
    table = forecast(SHORT_REPEAT, series, 6, **SHORT)
    apart = forecast(SHORT_REPEAT, list(series.T), 6, **SHORT)
    np.testing.assert_array_equal(table.paths, np.moveaxis(apart.paths, 0, -1))
    np.testing.assert_array_equal(table.mean, apart.mean.T)
    np.testing.assert_array_equal(table.sigma, apart.sigma)
    assert table.sigma[0] != table.sigma[1]


def test_separate_variables_keep_their_own_history() -> None:
    """A sensor that was installed late would shorten the history of all the others."""
    series, target = walk(12, 2), window_process(halfway, P)
    series[:5, 1] = np.nan
    together = path(target, series)
    for c in range(2):
        np.testing.assert_allclose(together[:, c], path(target, series[:, c]), atol=1e-5)


def test_joint_variables_see_each_other() -> None:
    """A model of several variables would be asked for one at a time without a word."""
    series = level(8, 2, length=8)
    found = path(window_process(mean_of_variables, P), series, variables="joint")
    expected = np.repeat(series[-P:].mean(axis=1, keepdims=True), 2, axis=1)
    np.testing.assert_allclose(found[:P], expected, atol=1e-5)


def test_variables_that_do_not_mix_are_the_same_together_and_apart() -> None:
    """The joint decode would mix up variables."""
    problem = analytic.make_problem(num_vars=3, separate=True)
    whole, _ = analytic.processes(problem._replace(separate=False), "window")
    one, _ = analytic.processes(problem, "window")
    series = walk(8, 3)
    together = path(whole, series, variables="joint")
    np.testing.assert_allclose(together, path(one, series), atol=1e-5)


# --- histories of different lengths --------------------------------------------------------------


RAGGED = [walk(n, seed=n) * 10.0 ** (n % 3) for n in (9, 1, 40, 4, 16)]


def test_a_ragged_batch_is_each_series_alone() -> None:
    """Padding would reach a forecast, or a short series lengthen the history of another."""
    for one, found in zip(RAGGED, path(CAUSAL, RAGGED), strict=True):
        np.testing.assert_allclose(found, path(CAUSAL, one), atol=1e-4 * np.abs(one).max())


def test_a_ragged_batch_without_a_mask_is_each_series_alone() -> None:
    """Series of one length are decoded together, and would come back in another order."""
    target = window_process(halfway, P)
    batch = [walk(n, seed=i) + 100 * i for i, n in enumerate((8, 4, 12, 8, 3))]
    for one, found in zip(batch, path(target, batch), strict=True):
        cut = np.concatenate([np.repeat(one[:1], max(0, P - len(one))), one])
        grown = cut
        for _ in range(2):
            grown = np.append(grown, (grown[-P:] + grown[-len(cut) :].mean()) / 2)
        np.testing.assert_allclose(found, grown[len(cut) :][:6], atol=1e-4)


def test_a_path_depends_on_its_number_only() -> None:
    """Sample paths would change with what else is forecast in the same call."""
    first, second, other = walk(12), walk(9, seed=1), walk(5, seed=2)
    found = forecast(SHORT_REPEAT, [first, second], 6, **SHORT)
    for i, batch in ((1, [other, second]), (0, [first, other])):
        again = forecast(SHORT_REPEAT, batch, 6, **SHORT)
        np.testing.assert_array_equal(again.paths[i], found.paths[i])
    swapped = forecast(SHORT_REPEAT, [second, first], 6, **SHORT)
    assert np.abs(swapped.paths[0] - found.paths[1]).max() > 1e-3  # the noise of series 0


def test_a_path_keeps_its_number_among_series_of_other_lengths() -> None:
    """Series of one length are decoded together, and would all take the noise of the first ones."""
    batch = [walk(8), walk(5, seed=1)]
    found = forecast(WINDOW_REPEAT, batch, 6, sigma=0.5, **SHORT)
    expected = forecast(SHORT_REPEAT, batch, 6, sigma=0.5, **SHORT)  # the same mean, and one group
    np.testing.assert_allclose(found.paths, expected.paths, atol=1e-5)


@pytest.mark.parametrize("length", [1, 3])
def test_less_than_a_patch_goes_on_like_its_first_value(length: int) -> None:
    """A series that has just begun could not be forecast."""
    short = walk(length) + 5
    whole = np.concatenate([np.repeat(short[:1], P - length), short])
    np.testing.assert_allclose(path(REPEAT, short), tiled(whole, 6), rtol=1e-6)
    np.testing.assert_array_equal(path(CAUSAL, short), path(CAUSAL, whole))


def test_only_the_context_counts() -> None:
    """`context_len` would have no effect, or old values one."""
    series, other = walk(24), walk(24)
    other[:8] += 1000
    np.testing.assert_array_equal(path(CAUSAL, series), path(CAUSAL, other))
    short = path(load_pair(CAUSAL, None, context_len=8).target, series)
    assert np.abs(short - path(CAUSAL, series)).max() > 1e-3
    padded = path(CAUSAL, series[-8:])  # what is before it is masked
    np.testing.assert_allclose(short, padded, atol=1e-4)


# --- what comes out ------------------------------------------------------------------------------


def test_quantiles_are_those_of_the_paths() -> None:
    """Quantiles would cross, or say something else than the sample paths beside them."""
    levels = (0.75, 0.05, 0.5, 0.25, 0.6, 0.95)
    settings = {**SHORT, "quantiles": levels, "sigma": 2.0}
    with pytest.warns(InputWarning, match="3 sample paths"):
        found = forecast(SHORT_REPEAT, BATCH[..., 0].tolist(), 6, **settings)
    assert found.levels == tuple(sorted(levels))
    assert (np.diff(found.quantiles, axis=1) >= 0).all()
    low, middle, high = np.moveaxis(np.sort(found.paths, axis=1), 1, 0)
    for level, expected in (
        (0.05, 0.9 * low + 0.1 * middle),  # .1 of the way from the first to the second
        (0.25, (low + middle) / 2),
        (0.5, middle),
        (0.75, (middle + high) / 2),
        (0.95, 0.1 * middle + 0.9 * high),
    ):
        row = found.quantiles[:, found.levels.index(level)]
        np.testing.assert_allclose(row, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.mean, (low + middle + high) / 3, rtol=1e-12, atol=1e-12)
    assert len(np.unique(found.paths[:, :, 0])) == 6


def test_no_quantiles_are_no_quantiles() -> None:
    """An empty axis, or quantiles of a mean path, would be plotted as an interval."""
    found = forecast(SHORT_REPEAT, walk(8), 6, **SHORT)
    assert (found.quantiles, found.levels) == (None, ())
    assert found.paths.shape == (3, 6)
    found = forecast(SHORT_REPEAT, walk(8), 6, **{**SHORT, "num_samples": 0, "quantiles": (0.1,)})
    assert (found.quantiles, found.paths) == (None, None)


def rolled(problem: analytic.Problem, history: np.ndarray) -> np.ndarray:
    """The mean path of a linear problem, in float64."""
    step, grown = problem.patch_len, history
    for _ in range(problem.num_patches):
        mean, _ = problem.means(grown[-2 * step :].reshape(1, -1))
        grown = np.concatenate([grown, mean.reshape(step, -1)])
    return grown[len(history) :]


@pytest.mark.parametrize(("kind", "length"), [("cached", 8), ("window", 4)])
def test_no_samples_are_the_mean_path(kind: analytic.ProcessKind, length: int) -> None:
    """A point forecast would carry noise, or be in other units than the history."""
    problem = analytic.make_problem()
    target, _ = analytic.processes(problem, kind)
    history = 5 * level(8, 2, length=length)
    found = forecast(target, history, 11, num_samples=0, variables="joint", sigma=3.0)
    np.testing.assert_allclose(found.mean, rolled(problem, history)[:11], atol=1e-4)
    np.testing.assert_allclose(found.sigma, [3.0, 3.0])
    assert (found.info.origin == AUTOREGRESSIVE).all()


def thermostat(window: jax.Array) -> jax.Array:
    """Half the way from the last patch to 20 degrees."""
    return (window[-P:] + 20) / 2


def test_a_process_of_your_own_sees_the_history_as_it_is() -> None:
    """A model that knows its units would be shown standard deviations instead of degrees."""
    history = 15 + walk(8)
    expected = np.concatenate([(history[-P:] + 20) / 2, (history[-P:] + 60) / 4])[:6]
    found = path(window_process(thermostat, P), history)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_mean_path_is_that_of_the_model() -> None:
    """Standardising the history would change what a trained model says of it."""
    history = walk(L)
    expected, _ = decode(
        jax.random.key(0),
        history[None, :, None],
        target=make_target(CAUSAL, "cached", L, 1),
        sigma=0.0,
        config=DecodeConfig(6, 0, num_paths=1),
        series_index=jnp.zeros(1, jnp.int32),
        lengths=jnp.full(1, L, jnp.int32),
    )
    # the model's own 1e-5 beside the variance counts a little differently in other units
    np.testing.assert_allclose(path(CAUSAL, history), expected[0, 0, :, 0], atol=1e-4)


@pytest.mark.parametrize("ratio", [0.01, 1.0, 100.0])
def test_sigma_does_not_move_the_mean_path(ratio: float) -> None:
    """One sigma for series of different sizes would bend the forecasts of the small ones."""
    history = walk(L)
    spread = history.std()
    expected = path(CAUSAL, history, sigma=0.3 * spread)
    found = path(CAUSAL, history, sigma=ratio * spread)
    np.testing.assert_allclose(found, expected, atol=2e-3 * spread)


@pytest.mark.parametrize("horizon", [1, P])
def test_a_shorter_horizon_is_the_beginning_of_a_longer_one(horizon: int) -> None:
    """A horizon that is no multiple of the patch would be shifted, cut wrong, or filled up."""
    whole = forecast(SHORT_REPEAT, walk(9), 6, sigma=1.0, **SHORT)
    found = forecast(SHORT_REPEAT, walk(9), horizon, sigma=1.0, **SHORT)
    np.testing.assert_allclose(found.paths, whole.paths[:, :horizon], rtol=1e-6)
    assert found.mean.shape == (horizon,)


def test_gaps_are_filled_before_the_forecast() -> None:
    """A missing value would make the whole forecast NaN."""
    history = walk(14)
    gaps = history.copy()
    gaps[[0, 1, 5, 6, 13]] = np.nan
    known = ~np.isnan(gaps)
    filled = np.interp(np.arange(14), np.flatnonzero(known), history[known])[2:]
    found = forecast(SHORT_REPEAT, gaps, 6, sigma=1.0, **SHORT)
    expected = forecast(
        SHORT_REPEAT, filled[:-1], 7, sigma=1.0, **SHORT
    )  # the last step is not known
    np.testing.assert_array_equal(found.paths, expected.paths[:, 1:])
    with pytest.raises(InputError, match="5 missing values, the first at step 0"):
        forecast(SHORT_REPEAT, gaps, 6, missing="error")


UNITS = [(1e-3, 0.0), (1e-3, 10.0), (37.5, -4.0), (1e6, 1e6), (1.0, 1e6), (2.0, -1e6)]


def test_a_forecast_moves_with_its_history() -> None:
    """The same series in other units, or at another level, would be forecast differently."""
    history = walk(21)
    settings = {"num_samples": 10, "non_negative": False}
    plain = forecast(CAUSAL_PAIR, history, 6, **settings)
    for factor, offset in UNITS:
        moved = forecast(CAUSAL_PAIR, factor * history + offset, 6, **settings)
        # float32 of a standardised history has seven digits; a few patches lose two of them
        close = 1e-5 * factor * np.abs(plain.paths - history.mean()).max() + 1e-10 * abs(offset)
        for name in ("paths", "mean", "quantiles"):
            expected = factor * getattr(plain, name) + offset
            np.testing.assert_allclose(
                getattr(moved, name), expected, rtol=0, atol=close, err_msg=f"{name} {factor}"
            )
        np.testing.assert_allclose(moved.sigma, factor * plain.sigma, rtol=1e-4)


def test_a_given_sigma_is_in_the_units_of_the_history() -> None:
    """A sigma of 3 degrees would be taken for 3 standard deviations."""
    plain = forecast(SHORT_REPEAT, walk(12), 6, sigma=0.7, non_negative=False, **SHORT)
    moved = forecast(SHORT_REPEAT, 100 * walk(12) + 5, 6, sigma=70.0, non_negative=False, **SHORT)
    np.testing.assert_allclose(moved.paths, 100 * plain.paths + 5, rtol=1e-5, atol=1e-3)


def test_keys_and_seeds() -> None:
    """A run could not be repeated, or another seed would give the same paths."""
    same = [0, jax.random.key(0), jax.random.key_data(jax.random.key(0))]
    found = [forecast(SHORT_REPEAT, walk(8), 6, key=key, **SHORT).paths for key in same]
    for paths in found[1:]:
        np.testing.assert_array_equal(paths, found[0])
    other = forecast(SHORT_REPEAT, walk(8), 6, key=1, **SHORT).paths
    assert np.abs(other - found[0]).max() > 1e-3


@pytest.mark.parametrize(
    "numbers",
    [{"horizon": np.int64(6)}, {"num_samples": np.int32(3)}, {"key": np.int64(0)}],
    ids=["horizon", "num_samples", "key"],
)
def test_numbers_may_be_numpy_integers(numbers: dict[str, Any]) -> None:
    """A horizon that was counted with numpy, or a seed drawn by it, would be refused."""
    settings = {"horizon": 6, **SHORT}
    found = forecast(SHORT_REPEAT, walk(8), **{**settings, **numbers})
    np.testing.assert_array_equal(found.paths, forecast(SHORT_REPEAT, walk(8), **settings).paths)


# --- drafts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "draft", "lengths"),
    [
        pytest.param(CAUSAL, SMALL, (9, 1, 40, 4, 16), marks=pytest.mark.slow, id="cached"),
        pytest.param(WINDOW, "last-value", (19,), id="window"),
    ],
)
def test_a_draft_without_tolerance_does_not_move_the_mean_path(
    target: Checkpoint, draft: Checkpoint | str, lengths: tuple[int, ...]
) -> None:
    """A poor draft would move a point forecast that claims no tolerance."""
    batch = [walk(n, seed=n) + n for n in lengths]
    settings = {"rule": Mean(tolerance=0.0), "num_draft": 2, "sigma": 1.0}
    found = forecast(load_pair(target, draft), batch, 6, num_samples=0, **settings)
    np.testing.assert_allclose(found.mean, path(target, batch), atol=1e-4)
    assert (found.info.drafted > 0).all()
    assert (found.info.origin != AUTOREGRESSIVE).all()


Ask = Callable[..., dict[str, Any]]


class Asked(Exception):  # noqa: N818
    """Stops a forecast where it would be compiled; holds what is decoded and how."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Ask:
    """`forecast` that returns what it asks of the decoder."""
    module = importlib.import_module("stride_jax.forecasting.runs")

    def stop(key: jax.Array, context: jax.Array, **settings: Any) -> None:
        raise Asked({"context": np.asarray(context), **settings})

    monkeypatch.setattr(module, "decode", stop)

    def run(pair: Any, history: Any, **settings: Any) -> dict[str, Any]:
        with pytest.raises(Asked) as caught:
            forecast(pair, history, 6, **{"sigma": 1.0, **settings})
        return caught.value.args[0]

    return run


def test_the_rule_follows_what_is_asked_for(asked: Ask) -> None:
    """Sample paths would not be exact by default, or a mean path be made of noise."""
    pair, history = Pair(REPEAT, seasonal_draft(P, 3)), walk(12)
    for given, expected in (
        ({"num_samples": 10}, Block()),
        ({"num_samples": 0}, Mean()),
        ({"num_samples": 0, "rule": Mean(tolerance=0.3)}, Mean(tolerance=0.3)),
        ({"num_samples": 10, "rule": Residual()}, Residual()),
        ({"num_samples": 10, "rule": SharedNoise(0.3)}, SharedNoise(0.3)),
    ):
        found = asked(pair, history, **given, num_draft=7)
        assert found["draft"] is pair.draft
        assert (found["rule"], found["config"].num_draft) == (expected, 7)
    found = asked(pair, history, batch_size=5, path_chunk=6)
    assert (found["config"].batch_size, found["config"].path_chunk) == (5, 6)
    assert found["config"].num_paths == 100
    for alone in (REPEAT, Pair(REPEAT)):
        found = asked(alone, history)
        assert (found["target"], found["draft"]) == (REPEAT, None)
        assert found["config"].num_draft == 0
    assert asked(pair, history, num_draft=0)["config"].num_draft == 0


def test_the_process_is_the_one_a_model_was_trained_for() -> None:
    """A causal model would be decoded window by window, or a window model from caches."""
    for checkpoint, given, kind, norm in (
        (CAUSAL, {}, CachedProcess, "causal"),
        (WINDOW, {}, WindowProcess, None),
        (CAUSAL, {"process": "window"}, WindowProcess, None),
        (WINDOW, {"process": "cached"}, CachedProcess, "frozen"),
    ):
        for draft in (None, "last-value"):
            found = load_pair(checkpoint, draft, **given).target
            assert isinstance(found, kind)
            assert getattr(found, "norm", None) == norm
            assert found.context_len == L


SAMPLED: dict[str, Any] = {
    "num_samples": 4000,
    "path_chunk": 50,  # so few are compiled as one loop
    "variables": "joint",
    "sigma": 1.5,
    "quantiles": (),
}


def spread_p_value(eps: np.ndarray) -> float:
    """Of as many squares of standard normals, two-sided."""
    total = np.sum(eps**2)
    return 2 * min(stats.chi2.cdf(total, eps.size), stats.chi2.sf(total, eps.size))


def p_value(problem: analytic.Problem, found: Forecast, history: np.ndarray) -> float:
    """Of the closed form: whitened paths are independent standard normals."""
    size = problem.num_patches * problem.patch_len * problem.num_vars
    paths = (found.paths - rolled(problem, history)).reshape(-1, size) / SAMPLED["sigma"]
    factor = np.linalg.cholesky(analytic.closed_form_covariance(problem) / problem.sigma**2)
    eps = solve_triangular(factor, paths.T, lower=True)  # [24, S]
    count = eps.shape[1]
    p_values = [
        stats.kstest(eps.ravel(), "norm").pvalue,
        stats.chi2.sf(count * np.sum(eps.mean(axis=1) ** 2), size),
        spread_p_value(eps),
    ]
    return min(1.0, len(p_values) * min(p_values))


FORECASTERS = [
    ("cached", Block()),
    pytest.param("window", Maximal(), marks=pytest.mark.slow),
    pytest.param("cached", Residual(), marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("kind", "rule"), FORECASTERS)
def test_an_exact_rule_has_the_distribution_of_the_target(
    kind: analytic.ProcessKind, rule: Rule
) -> None:
    """Sample paths would follow the draft, or something between the two models."""
    problem = analytic.make_problem()
    target, draft = analytic.processes(problem, kind)
    history = 5 * level(8, 2, length=4 if kind == "window" else 8)
    found = forecast(Pair(target, draft), history, 12, rule=rule, num_draft=3, **SAMPLED)
    assert 0.2 < found.info.accepted.sum() / found.info.proposed.sum() < 0.95
    assert p_value(problem, found, history) > 1e-4
    alone = forecast(target, history, 12, key=1, **SAMPLED)
    assert p_value(problem, alone, history) > 1e-4
    pairs = zip(found.paths.reshape(4000, -1).T, alone.paths.reshape(4000, -1).T, strict=True)
    assert 24 * min(stats.ks_2samp(a, b, method="asymp").pvalue for a, b in pairs) > 1e-4
    wrong = forecast(draft, history, 12, **SAMPLED)  # the draft's distribution fails the same test
    assert p_value(problem, wrong, history) < 1e-4


def test_chunks_do_not_change_a_forecast() -> None:
    """A forecast that must be cut to fit the memory would be another one."""
    batch = [walk(8), walk(6, seed=1)]
    whole = forecast(SHORT_REPEAT, batch, 6, **SHORT)
    cut = forecast(SHORT_REPEAT, batch, 6, batch_size=1, path_chunk=2, **SHORT)
    np.testing.assert_allclose(cut.paths, whole.paths, rtol=1e-6)


@pytest.mark.parametrize(
    ("num_samples", "batch_size", "path_chunk"),
    [
        (0, 5, None),
        (400, 5, None),
        (401, 3, None),
        (1000, 2, None),
        (2000, 1, None),
        (5000, 1, 2000),
    ],
)
def test_memory_does_not_grow_with_the_series(
    asked: Ask, num_samples: int, batch_size: int, path_chunk: int | None
) -> None:
    """A thousand series would need the caches of a hundred thousand paths."""
    batch = [walk(12, seed=seed) for seed in range(5)]
    config = asked(REPEAT, batch, num_samples=num_samples)["config"]
    assert (config.batch_size, config.path_chunk) == (batch_size, path_chunk)


def test_sigma_is_measured_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be another one, or be measured on all series at once."""
    module = importlib.import_module("stride_jax.forecasting.sigma")
    batch = [walk(12, seed=seed) for seed in range(5)]
    whole = measured(SHORT_REPEAT, batch)
    sizes: list[int] = []
    chunked = module.in_chunks

    def noted(fn: Callable[..., Any], items: Any, size: int) -> Any:
        sizes.append(size)
        return chunked(fn, items, size)

    monkeypatch.setattr(module, "in_chunks", noted)
    monkeypatch.setattr(module, "SERIES_AT_ONCE", 2)
    found = measured(SHORT_REPEAT, batch)
    assert sizes == [2]
    np.testing.assert_allclose(found, whole, rtol=1e-5)


# --- sigma ---------------------------------------------------------------------------------------


def steady(patches: int, gap: float, seed: int = 0) -> np.ndarray:
    """One patch again and again, its level `gap` up and down: `REPEAT` is always off by 2 gap."""
    pattern = np.random.default_rng(seed).normal(size=P)
    return np.concatenate([pattern + (-1) ** n * gap for n in range(patches)])


def expected_sigma(history: np.ndarray, gap: float, errors: int) -> float:
    """The root mean square of so many errors of `2 gap` and of a share of the std."""
    count, known = len(history), errors / 8
    student = stats.t.ppf(0.9, count - 1) / stats.norm.ppf(0.9)
    alone = np.var(history, ddof=1) * (1 + 1 / count) * student**2
    alone += min(4 * alone, np.mean((history[-P:] - history.mean()) ** 2))
    prior = (1 - known) * alone + known * history.var() / 4
    return math.sqrt((errors * (2 * gap) ** 2 + prior) / (errors + 1))


def measured(target: Any, history: Any, **settings: Any) -> np.ndarray:
    """The sigma that a forecast reports."""
    return forecast(target, history, P, num_samples=0, **settings).sigma


def test_sigma_is_measured_on_the_last_patches() -> None:
    """Intervals would be as wide as the series, whatever the model gets wrong."""
    gaps = (0.3, 2.0)
    history = np.stack([steady(12, gap, seed) for seed, gap in enumerate(gaps)], axis=1)
    expected = np.array([expected_sigma(history[:, c], gap, 8) for c, gap in enumerate(gaps)])
    for factor, offset in ((1.0, 0.0), (0.01, 10.0)):
        moved = factor * history + offset
        for variables in ("separate", "joint"):
            found = measured(REPEAT, moved, variables=variables)
            np.testing.assert_allclose(found, factor * expected, rtol=1e-3)


@pytest.mark.parametrize("norm", ["frozen", "causal"])
def test_sigma_does_not_depend_on_who_normalises(norm: Any) -> None:
    """The errors of a model that is normalised on the way would be taken in other units."""
    history = [steady(12, 0.3), 7e5 + 5 * steady(12, 2.0)]
    found = measured(dataclasses.replace(REPEAT, norm=norm), history)
    expected = [expected_sigma(x, gap, 8) for x, gap in zip(history, (0.3, 10.0), strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_sigma_of_a_window_process_is_measured_too() -> None:
    """Half the std of the context would pass for the model's error."""
    history = steady(12, 0.3)
    found = measured(WINDOW_REPEAT, history)
    np.testing.assert_allclose(found, expected_sigma(history, 0.3, 8), rtol=1e-4)


@pytest.mark.parametrize("patches", [1, 2, 4, 9])
def test_sigma_of_a_short_history_counts_the_errors_there_are(patches: int) -> None:
    """Patches that are padding would count as forecasts without error."""
    history = [steady(patches, 0.5), steady(12, 0.5)]
    expected = [expected_sigma(x, 0.5, min(8, len(x) // P - 1)) for x in history]
    np.testing.assert_allclose(measured(REPEAT, history), expected, rtol=1e-4)


@pytest.mark.slow
def test_sigma_of_a_ragged_batch_is_that_of_each_series_alone() -> None:
    """Padding would count as history when a model's errors are measured."""
    batch = [one for one in RAGGED if len(one) in (9, 16, 40)]
    for one, found in zip(batch, measured(CAUSAL_PAIR, batch), strict=True):
        np.testing.assert_allclose(found, measured(CAUSAL_PAIR, one), rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.01, 5.0, 1e6])
def test_a_constant_series_is_certain(value: float) -> None:
    """A machine that stands still at 0 would be forecast to run, with numbers out of nowhere."""
    found = forecast(SHORT_REPEAT, np.full(L, value), 6, **SHORT)
    assert found.sigma < 1e-3 * max(value, 0.01)  # no error, and half of a std of 0
    np.testing.assert_allclose(found.paths, value, rtol=1e-2, atol=1e-4)


def test_paths_spread_by_sigma() -> None:
    """Intervals would be wider or narrower than the sigma that is reported."""
    history = steady(2, 0.8)
    settings = {**SHORT, "num_samples": 500}
    found = forecast(SHORT_REPEAT, [history, 10 * history], P, **settings)
    for i, scale in enumerate((1, 10)):
        eps = (found.paths[i] - scale * history[-P:]) / found.sigma[i]
        assert spread_p_value(eps) > 1e-4
        assert spread_p_value(1.15 * eps) < 1e-4  # so 15 % off would show in 2,000 draws


# --- models by name ------------------------------------------------------------------------------


def test_a_target_is_found_in_every_form(tmp_path: Path) -> None:
    """A model could not be named, or would be another one than the one that was given."""
    file = tmp_path / "target.npz"
    store.save_model(file, CAUSAL)
    process = make_target(CAUSAL, "cached", L, 1)
    expected = path(CAUSAL, walk(L))
    for target in (str(file), file, process):
        np.testing.assert_array_equal(path(target, walk(L)), expected)


def test_a_history_too_short_for_a_window_model_is_refused() -> None:
    """A model would be asked about a window it was never trained on."""
    with pytest.raises(InputError, match=r"has 8 steps.* needs 16"):
        forecast(pair_of(WINDOW), [walk(16), walk(9)], 4)


# --- what is refused -----------------------------------------------------------------------------

DRAFTED = {"pair": Pair(REPEAT, seasonal_draft(P, 3))}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "horizon 0": ({"horizon": 0}, "horizon .* 0"),
    "horizon below 0": ({"horizon": -1}, "horizon .* -1"),
    "half a horizon": ({"horizon": 2.5}, r"horizon .* 2\.5"),
    "horizon as text": ({"horizon": "4"}, "horizon .* '4'"),
    "a true horizon": ({"horizon": True}, "horizon .* True"),
    "no horizon": ({"horizon": None}, "horizon .* None"),
    "samples below 0": ({"num_samples": -1}, "num_samples .* -1"),
    "half a sample": ({"num_samples": 1.5}, r"num_samples .* 1\.5"),
    "quantile 1": ({"quantiles": (0.1, 1.0)}, r"quantiles .* 1\.0"),
    "quantile 0": ({"quantiles": (0.0, 0.5)}, r"quantiles .* 0\.0"),
    "percents": ({"quantiles": (10, 90)}, "quantiles .* 10"),
    "quantile nan": ({"quantiles": (float("nan"),)}, "quantiles .* nan"),
    "one quantile": ({"quantiles": 0.5}, r"quantiles .* 0\.5"),
    "quantile as text": ({"quantiles": ("0.5",)}, r"quantiles .*'0\.5'"),
    "sigma 0": ({"sigma": 0.0}, r"sigma .* 0\.0"),
    "sigma below 0": ({"sigma": -2.0}, r"sigma .* -2\.0"),
    "sigma nan": ({"sigma": float("nan")}, "sigma .* nan"),
    "sigma infinite": ({"sigma": float("inf")}, "sigma .* inf"),
    "two sigmas": ({"sigma": np.ones(2)}, r"sigma .* array\(\[1\., 1\.\]\)"),
    "sigma as text": ({"sigma": "0.5"}, r"sigma .* '0\.5'"),
    "unknown variables": ({"variables": "both"}, "variables .* 'both'"),
    "unknown policy": ({"missing": "drop"}, "missing .* 'drop'"),
    "no series": ({"history": []}, "no series"),
    "empty batch": ({"history": np.zeros((0, 8, 1))}, r"\(0, 8, 1\)"),
    "infinite": ({"history": [[1.0], [np.inf]]}, "series 1 is infinite at step 0"),
    "all missing": ({"history": [np.nan] * 8}, "no value at all"),
    "no pair": ({"pair": None}, "pair must .* None"),
    "a name for a pair": ({"pair": "beijing"}, "load_pair.* 'beijing'"),
    "a checkpoint for a pair": ({"pair": CAUSAL}, "load_pair.*Checkpoint"),
    "a draft for a pair": ({"pair": seasonal_draft(P, 3)}, "pair must .*ContinuationDraft"),
    "a rule's name": ({**DRAFTED, "rule": "block"}, r"rule .*Block\(\).* 'block'"),
    "a rule's name without a draft": ({"rule": "block"}, r"rule .*Block\(\).* 'block'"),
    "a rule's class": ({**DRAFTED, "rule": Block}, r"rule .*Block\(\).*class"),
    "sampled mean": ({**DRAFTED, "rule": Mean(), "num_samples": 3}, "'mean'.*num_samples 3"),
    "exact mean path": ({**DRAFTED, "rule": Block(), "num_samples": 0}, "'block'.*num_samples 0"),
    "K below 0": ({**DRAFTED, "num_draft": -1}, "num_draft .* -1"),
    "half a proposal": ({**DRAFTED, "num_draft": 1.5}, r"num_draft .* 1\.5"),
    "batch of nothing": ({"batch_size": 0}, "batch_size .* 0"),
    "no paths at once": ({"path_chunk": 0}, "path_chunk .* 0"),
    "tolerance below 0": ({"num_samples": 0, "rule": Mean(-0.1), **DRAFTED}, r"tolerance .* -0\.1"),
    "tolerance nan": ({"rule": SharedNoise(float("nan")), **DRAFTED}, "tolerance .* nan"),
    "half a seed": ({"key": 1.5}, r"key.* 1\.5"),
    "no key": ({"key": None}, "key.* None"),
}


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever would be compiled fails."""

    def reached(*_: Any, **__: Any) -> None:
        raise AssertionError("the input was not checked before this is compiled")

    for module, name in (("runs", "decode"), ("inputs", "history_sigmas")):
        found = importlib.import_module(f"stride_jax.forecasting.{module}")
        monkeypatch.setattr(found, name, reached)


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_forecast_is_refused_before_the_work(name: str) -> None:
    """A typing mistake would be ignored, or show as a traceback after minutes of compilation."""
    changes, said = BAD[name]
    given = {"pair": SHORT_REPEAT, "history": walk(12), "horizon": 4, **changes}
    with pytest.raises(InputError, match=re.compile(said, re.DOTALL)):
        forecast(**given)


def test_the_guard_of_the_test_above_sees_a_forecast(nothing_runs: None) -> None:
    """Good input must reach the decoders, or the test above says nothing about when it stops."""
    with pytest.raises(AssertionError, match="not checked before"):
        forecast(SHORT_REPEAT, walk(12), 4)


def test_counts_stay_with_their_series() -> None:
    """A series that is decoded after a shorter one would get the counts of that one."""
    histories = [walk(40), walk(12, seed=1)]  # a group of its own each, the shorter one first
    target = window_process(Partial(lambda window: 0.9 * window[-P:]), P)
    pair = Pair(target, last_value_draft(P))
    settings = {"num_samples": 10, "num_draft": 2, "ids": ("a", "b")}
    together = sj.forecast(pair, histories, 24, **settings).info
    for row, one in enumerate(histories):
        alone = sj.forecast(pair, [one], 24, **{**settings, "ids": ("ab"[row],)}).info
        np.testing.assert_array_equal(together.rounds[row], alone.rounds[0])
        np.testing.assert_array_equal(together.origin[row], alone.origin[0])
