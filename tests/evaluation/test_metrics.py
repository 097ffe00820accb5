"""Scores against slow loops and closed forms; the paper's predictions against simulation."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stride_jax import metrics
from stride_jax.evaluation import theory

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
    """Few paths would look worse than many of the same, and tables could not be compared.

    The mean over many ensembles is the closed form of a Gaussian (Gneiting and Raftery 2007).
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


# ---------------------------------------------------------------- coverage


def slow_coverage(paths: np.ndarray, truth: np.ndarray, level: float) -> float:
    """Entry by entry; between two paths each has its share of the count."""
    missed = []
    place = round((len(paths) + 1) * (1 - level) / 2, 9)  # a path's number, from 1
    low, share = int(place), place - int(place)
    for entry in np.ndindex(truth.shape):
        ordered, y = sorted(float(path[entry]) for path in paths), float(truth[entry])
        for number, weight in ((low, 1 - share), (low + 1, share)):
            missed.append(weight * (y < ordered[number - 1]) + weight * (y > ordered[-number]))
    return 1 - sum(missed) / truth.size


@PROPERTY
@given(
    level=st.sampled_from([0.3, 0.5, 0.8, 0.9]), extra=st.integers(0, 9), seed=st.integers(0, 99)
)
def test_coverage_slow(level, extra, seed):
    """The band would be another one than documented, and the share beside it mean nothing."""
    count = metrics.least_paths(level) + extra
    paths, truth = draw(count, 30, 2, seed=seed), draw(30, 2, seed=seed + 100)
    found = float(metrics.coverage(paths, truth, level))
    assert found == pytest.approx(slow_coverage(paths, truth, level), abs=1e-5)
    if level == 0.8:
        assert float(metrics.coverage(paths, truth)) == pytest.approx(found)


@pytest.mark.parametrize(("count", "level"), [(9, 0.8), (19, 0.8), (49, 0.8), (19, 0.9), (7, 0.5)])
def test_coverage_is_that_of_weibull_s_quantiles(count, level):
    """The share could not be had again from the paths with numpy, where paths bound the band."""
    paths, truth = draw(count, 200, 2), draw(200, 2, seed=1)
    ends = (1 - level) / 2, (1 + level) / 2
    low, high = np.quantile(paths, ends, axis=0, method="weibull")
    inside = np.mean((truth >= low) & (truth <= high))
    assert float(metrics.coverage(paths, truth, level)) == pytest.approx(inside, abs=1e-6)


def covered(count: int, distribution: str, cover=metrics.coverage) -> float:
    """The share of 40,000 truths inside the band of `count` paths of their own distribution."""
    sample = np.random.default_rng(count).random((count + 1, 40_000, 1))
    drawn = getattr(stats, distribution).ppf(sample).astype(np.float32)
    return float(cover(drawn[1:], drawn[0]))


@pytest.mark.parametrize("count", [9, 10, 14, 19, 50])
@pytest.mark.parametrize("distribution", ["norm", "expon"])
def test_a_truth_from_the_distribution_of_the_paths_is_covered(count, distribution):
    """A model that is right about its spread would look over- or underconfident."""
    error = 4 * np.sqrt(0.8 * 0.2 / 40_000)
    assert abs(covered(count, distribution) - 0.8) < error

    def usual(paths, truth):  # numpy's default quantiles: too narrow for few paths
        low, high = np.quantile(paths, [0.1, 0.9], axis=0)
        return np.mean((truth >= low) & (truth <= high))

    assert covered(count, distribution, usual) < 0.8 - error


def test_coverage_of_a_truth_at_the_ends():
    """A constant forecast that is right would count as missed."""
    same = np.full((9, 4, 1), 0.1, np.float32)
    assert float(metrics.coverage(same, same[0])) == 1
    assert float(metrics.coverage(same, same[0] + 1)) == 0
    spread = np.arange(9, dtype=np.float32).reshape(9, 1, 1)
    for truth, inside in ((0, 1), (8, 1), (-0.01, 0), (8.01, 0)):
        assert float(metrics.coverage(spread, np.full((1, 1), truth, np.float32))) == inside


def test_coverage_does_not_depend_on_the_order_of_paths_or_the_units():
    """Which path came first, or degrees for kelvin, would change a calibration."""
    paths, truth = draw(19, 50, 2), draw(50, 2, seed=1)
    plain = float(metrics.coverage(paths, truth))
    assert 0.5 < plain < 1
    assert float(metrics.coverage(paths[::-1], truth)) == plain
    # 19 paths: the ends are paths themselves, so any increasing map keeps the verdict
    assert float(metrics.coverage(np.exp(paths), np.exp(truth))) == plain


def test_the_fewest_paths_of_a_band():
    """A band would be promised that not even the extremes of the paths span, or be withheld."""
    for percent in range(1, 100):
        least = metrics.least_paths(percent / 100)
        # S paths span (S - 1) / (S + 1), in whole numbers
        assert 100 * (least - 1) >= percent * (least + 1)
        assert 100 * (least - 2) < percent * least
    assert metrics.least_paths(0.8) == 9
