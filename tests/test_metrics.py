"""Scores against slow loops and closed forms; the paper's predictions against simulation."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stride_jax import metrics, theory

PROPERTY = settings(deadline=None, max_examples=12, derandomize=True)


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    """Random values."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@PROPERTY
@given(horizon=st.integers(1, 4), num_vars=st.integers(1, 3), seed=st.integers(0, 99))
def test_errors_of_means_slow(horizon, num_vars, seed):
    """Every table of point forecasts would be wrong."""
    forecast, truth = draw(horizon, num_vars, seed=seed), draw(horizon, num_vars, seed=seed + 100)
    gaps = [
        float(forecast[t, c]) - float(truth[t, c]) for t in range(horizon) for c in range(num_vars)
    ]
    assert float(metrics.mse(forecast, truth)) == pytest.approx(
        sum(g * g for g in gaps) / len(gaps), rel=1e-5
    )
    assert float(metrics.mae(forecast, truth)) == pytest.approx(
        sum(abs(g) for g in gaps) / len(gaps), rel=1e-5
    )


@PROPERTY
@given(count=st.integers(2, 6), ties=st.booleans(), seed=st.integers(0, 99))
def test_crps_slow(count, ties, seed):
    """Sample paths would be scored by a wrong formula (the sorted sum hides it well)."""
    paths, truth = draw(count, 3, 2, seed=seed), draw(3, 2, seed=seed + 100)
    if ties:
        paths = np.round(paths)
    scores = []
    for t in range(3):
        for c in range(2):
            x, y = paths[:, t, c].astype(np.float64), float(truth[t, c])
            error = sum(abs(a - y) for a in x) / count
            spread = sum(abs(x[i] - x[j]) for i in range(count) for j in range(count) if i != j)
            scores.append(error - spread / (2 * count * (count - 1)))
    assert float(metrics.crps(paths, truth)) == pytest.approx(np.mean(scores), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("truth", [-1.5, 0.3])
def test_crps_is_fair_for_small_ensembles(count, truth):
    """Few paths would look worse than many of the same law, and tables could not be compared.

    The mean over many ensembles is the closed form of a normal law (Gneiting and Raftery 2007).
    """
    mean, scale, repeats = 0.5, 2.0, 20000
    noise = np.random.default_rng(count).normal(mean, scale, (repeats, count, 1, 1))
    y = np.full((1, 1), truth, np.float32)
    scores = jax.jit(jax.vmap(lambda x: metrics.crps(x, y)))(noise.astype(np.float32))
    scores = np.asarray(scores, np.float64)
    z = (truth - mean) / scale
    exact = scale * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
    standard_error = scores.std(ddof=1) / np.sqrt(repeats)
    assert abs(scores.mean() - exact) < 4 * standard_error
    # the usual estimator (pairs over S^2) would be off by far more than that
    assert scale / np.sqrt(np.pi) / count > 10 * standard_error


def test_crps_of_equal_paths_is_the_absolute_error():
    """A point forecast would score differently as paths."""
    point, truth = draw(5, 2), draw(5, 2, seed=1)
    paths = np.broadcast_to(point, (4, 5, 2))
    assert float(metrics.crps(paths, truth)) == pytest.approx(
        float(metrics.mae(point, truth)), rel=1e-5
    )


@PROPERTY
@given(acceptance=st.floats(0, 0.999), num_draft=st.integers(0, 12))
def test_patches_per_round_closed_form(acceptance, num_draft):
    """The predicted speedup would be another one than the paper's."""
    expected = (1 - acceptance ** (num_draft + 1)) / (1 - acceptance)
    assert theory.patches_per_round(acceptance, num_draft) == pytest.approx(expected, rel=1e-9)


def test_patches_per_round_at_the_ends():
    """A perfect draft would divide by zero."""
    for num_draft in range(5):
        assert theory.patches_per_round(1.0, num_draft) == num_draft + 1
        assert theory.patches_per_round(0.0, num_draft) == 1


@pytest.mark.parametrize(("acceptance", "num_draft"), [(0.3, 2), (0.8, 3), (0.95, 8)])
def test_patches_per_round_by_simulation(acceptance, num_draft):
    """The formula would count something else than what a round emits."""
    rng = np.random.default_rng(0)
    accepted = rng.random((50000, num_draft)) < acceptance
    emitted = []
    for row in accepted:
        kept = num_draft if row.all() else int(np.argmin(row))
        emitted.append(kept + 1)  # the recovered patch, or the bonus
    error = np.std(emitted) / np.sqrt(len(emitted))
    found = theory.patches_per_round(acceptance, num_draft)
    assert abs(np.mean(emitted) - found) < 4 * error


@PROPERTY
@given(acceptance=st.floats(0, 0.99), num_draft=st.integers(1, 8), cost=st.floats(0.01, 1))
def test_speedup_formula(acceptance, num_draft, cost):
    """The predicted speedup would forget the draft or the verification."""
    expected = (1 - acceptance ** (num_draft + 1)) / ((1 - acceptance) * (cost * num_draft + 1))
    assert theory.speedup(acceptance, num_draft, cost) == pytest.approx(expected, rel=1e-9)
    # a verification that costs as much as the patches it yields buys nothing
    patches = theory.patches_per_round(acceptance, num_draft)
    assert theory.speedup(acceptance, num_draft, 0.0, verify_cost=patches) == pytest.approx(1)


@pytest.mark.parametrize(("num_draft", "num_patches"), [(3, 1), (3, 4), (2, 8)])
def test_expected_rounds_of_a_horizon_match_a_simulation(num_draft, num_patches):
    """The prediction printed beside every measured row would promise patches past the horizon."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(20_000):
        filled = rounds = 0
        while filled < num_patches:
            kept = rng.random(num_draft) < 0.6
            filled += 1 + int(np.cumprod(kept).sum())
            rounds += 1
        found.append(rounds)
    expected = theory.rounds(0.6, num_draft, num_patches)
    assert abs(np.mean(found) - expected) < 5 * np.std(found) / np.sqrt(len(found)) + 1e-9
