"""Distances of samples against plain loops and scipy; permutation tests under null and shift."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stride_jax.errors import InputError
from stride_jax.testing.distances import TwoSamples, compare

PROPERTY = settings(deadline=None, max_examples=12, derandomize=True)
DISTANCES = ("energy", "mmd", "ks", "wasserstein")
P_VALUES = ("p_energy", "p_mmd", "p_ks")


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal values."""
    return np.random.default_rng(seed).normal(size=shape)


def pairs_mean(of, x, y) -> float:
    """The mean of `of(a, b)` over all pairs of points, equal ones included."""
    return sum(of(a, b) for a in x for b in y) / (len(x) * len(y))


def apart(a, b) -> float:
    """The Euclidean distance of two points."""
    return sum((float(s) - float(t)) ** 2 for s, t in zip(a, b, strict=True)) ** 0.5


def slow_energy(x, y) -> float:
    """`2 E|x - y| - E|x - x'| - E|y - y'|`."""
    return 2 * pairs_mean(apart, x, y) - pairs_mean(apart, x, x) - pairs_mean(apart, y, y)


def slow_mmd(x, y) -> float:
    """Squared MMD with the Gaussian kernel of the median distance of two pooled points."""
    width = float(np.median([apart(a, b) for a, b in itertools.combinations([*x, *y], 2)]))

    def kernel(a, b) -> float:
        return float(np.exp(-(apart(a, b) ** 2) / (2 * width**2)))

    return pairs_mean(kernel, x, x) + pairs_mean(kernel, y, y) - 2 * pairs_mean(kernel, x, y)


def steps(values, at: float) -> float:
    """The empirical distribution function."""
    return sum(v <= at for v in values) / len(values)


def slow_ks(x, y) -> float:
    """The largest difference of two empirical distribution functions."""
    return max(abs(steps(x, at) - steps(y, at)) for at in [*x, *y])


def slow_wasserstein(x, y) -> float:
    """The area between two empirical distribution functions."""
    knots = sorted([*x, *y])
    spans = itertools.pairwise(knots)
    return sum((b - a) * abs(steps(x, a) - steps(y, a)) for a, b in spans)


@PROPERTY
@given(
    n=st.integers(2, 6),
    m=st.integers(2, 6),
    width=st.integers(1, 3),
    ties=st.booleans(),
    seed=st.integers(0, 99),
)
def test_distances_are_plain_loops(n, m, width, ties, seed):
    """The fidelity table would print something else than the named distances."""
    x, y = draw(n, width, seed=seed), 0.5 + draw(m, width, seed=seed + 100)
    if ties:
        x, y = np.round(2 * x), np.round(2 * y)
    found = compare(x, y, permutations=1)
    assert found.energy == pytest.approx(slow_energy(x, y), abs=1e-12)
    middle = np.median([apart(a, b) for a, b in itertools.combinations([*x, *y], 2)])
    if middle > 0:
        assert found.mmd == pytest.approx(slow_mmd(x, y), abs=1e-12)
    columns = [(x[:, i], y[:, i]) for i in range(width)]
    assert found.ks == pytest.approx(max(slow_ks(a, b) for a, b in columns), abs=1e-12)
    lengths = [slow_wasserstein(a, b) for a, b in columns]
    assert found.wasserstein == pytest.approx(np.mean(lengths), abs=1e-12)


def test_distances_of_one_coordinate_are_those_of_scipy():
    """A factor or a root too many would make the table useless beside other papers' numbers."""
    x, y = draw(40, 1), 0.3 + 1.4 * draw(55, 1, seed=1)
    found = compare(x, y, permutations=1)
    flat = x[:, 0], y[:, 0]
    np.testing.assert_allclose(found.energy, stats.energy_distance(*flat) ** 2, rtol=1e-10)
    np.testing.assert_allclose(found.wasserstein, stats.wasserstein_distance(*flat), rtol=1e-10)
    tested = stats.ks_2samp(*flat)
    np.testing.assert_allclose((found.ks, found.p_ks), (tested.statistic, tested.pvalue))


def test_distances_of_far_points_in_closed_form():
    """Two clusters at distance 5: every distance is known without a sum."""
    x, y = np.tile([0.0, 0.0], (4, 1)), np.tile([3.0, 4.0], (3, 1))
    found = compare(x, y, permutations=1)
    assert found.energy == pytest.approx(10)
    assert found.ks == 1
    assert found.wasserstein == pytest.approx(3.5)
    # the median distance is 5: 12 of 21 pairs are that far
    assert found.mmd == pytest.approx(2 - 2 * np.exp(-0.5))


# ---------------------------------------------------------------- permutation tests


def exact_p(statistic, x, y) -> float:
    """The share of all ways to split the pooled points whose statistic is as large."""
    pooled, own, ranks = np.concatenate([x, y]), statistic(x, y), []
    for chosen in itertools.combinations(range(len(pooled)), len(x)):
        rest = [i for i in range(len(pooled)) if i not in chosen]
        ranks.append(statistic(pooled[list(chosen)], pooled[rest]) >= own - 1e-9)
    return float(np.mean(ranks))


@pytest.mark.parametrize(("n", "m", "shift"), [(3, 3, 0.0), (3, 4, 1.0), (4, 3, 3.0)])
def test_permutation_p_values_are_those_of_all_relabellings(n, m, shift):
    """A p-value that ranks another statistic, or ranks it upside down, proves nothing."""
    x, y, count = draw(n, 2), shift + draw(m, 2, seed=1), 20_000
    found = compare(x, y, permutations=count)
    for name, statistic in (("p_energy", slow_energy), ("p_mmd", slow_mmd)):
        exact = exact_p(statistic, x, y)
        error = 5 * np.sqrt(exact * (1 - exact) / count) + 1 / count
        assert abs(getattr(found, name) - exact) < error
    if shift == 0:  # p = 1 everywhere would show nothing
        assert found.p_energy < 1 or found.p_mmd < 1


@pytest.mark.parametrize("permutations", [1, 19, 99])
def test_the_smallest_p_value_is_one_over_one_more(permutations):
    """A p-value of 0 claims more than so many relabellings can show."""
    x, y = draw(30, 2), 9 + draw(30, 2, seed=1)
    found = compare(x, y, permutations=permutations)
    assert found.p_energy == pytest.approx(1 / (permutations + 1))
    assert found.p_mmd == pytest.approx(1 / (permutations + 1))


def repeated(shift: float, repeats: int = 400) -> dict[str, np.ndarray]:
    """p-values of many small comparisons of normal samples, the second one moved."""
    rng = np.random.default_rng(0)
    tests = [
        compare(
            rng.normal(size=(10, 2)), shift + rng.normal(size=(8, 2)), permutations=39, seed=seed
        )
        for seed in range(repeats)
    ]
    return {name: np.array([getattr(test, name) for test in tests]) for name in P_VALUES}


def check_level(p_values: np.ndarray, *, conservative: bool) -> None:
    """At level alpha = k / 40 a share alpha is rejected: with 39 permutations exactly."""
    for alpha in (0.05, 0.2, 0.5, 0.8):
        rejected = np.mean(p_values <= alpha + 1e-9)
        error = 4 * np.sqrt(alpha * (1 - alpha) / len(p_values))
        assert rejected < alpha + error
        assert conservative or rejected > alpha - error


def test_equal_distributions_are_rejected_as_often_as_the_level_says():
    """Exact rules would be called wrong too often, or wrong rules would never be found."""
    p_values = repeated(0.0)
    check_level(p_values["p_energy"], conservative=False)
    check_level(p_values["p_mmd"], conservative=False)
    check_level(p_values["p_ks"], conservative=True)  # discrete, and corrected
    moved = repeated(1.0)
    for name in P_VALUES:
        with pytest.raises(AssertionError):
            check_level(moved[name], conservative=True)


def test_a_shift_is_found():
    """A rule that is off by a third of a sigma would pass."""
    x, y = draw(300, 3), draw(300, 3, seed=1)
    for name in P_VALUES:
        assert getattr(compare(x, y), name) > 0.001
        assert getattr(compare(x, y + 0.35), name) < 0.0011


def test_dependence_is_found_where_every_coordinate_is_right():
    """Paths with the right distribution at every step but of another process would pass."""
    x, y = draw(300, 2), draw(300, 2, seed=1)
    y[:, 1] = 0.9 * y[:, 0] + np.sqrt(1 - 0.81) * y[:, 1]
    found = compare(x, y)
    assert found.p_energy < 0.0011
    assert found.p_mmd < 0.0011
    assert found.p_ks > 0.01


def test_equal_samples_are_not_rejected():
    """A rule that decodes like the target draw by draw would be told apart from it."""
    x = draw(20, 3)
    for a, b in ((x, x), (x, x[::-1]), (np.ones((4, 2)), np.ones((5, 2)))):
        found = compare(a, b, permutations=99)
        np.testing.assert_allclose([getattr(found, name) for name in DISTANCES], 0, atol=1e-12)
        assert [getattr(found, name) for name in P_VALUES] == [1, 1, 1]


# ---------------------------------------------------------------- invariances


def assert_close(found: TwoSamples, expected: TwoSamples, names=TwoSamples._fields) -> None:
    """The named numbers are the same up to rounding."""
    for name in names:
        a, b = getattr(found, name), getattr(expected, name)
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12, err_msg=name)


def test_order_and_sides_do_not_matter():
    """The verdict would depend on which sample is called the target."""
    x, y = draw(15, 3), 0.4 + draw(12, 3, seed=1)
    plain = compare(x, y)
    assert_close(compare(y, x), plain, (*DISTANCES, "p_ks"))
    assert_close(compare(x[::-1], y[::-1]), plain, (*DISTANCES, "p_ks"))
    other = compare(x, y, seed=1)
    assert_close(other, plain, (*DISTANCES, "p_ks"))
    assert other.p_energy != plain.p_energy  # other relabellings


def test_moving_and_turning_both_changes_nothing():
    """The distances would depend on where the series stands, or on the order of its variables."""
    x, y = draw(15, 3), 0.4 + draw(12, 3, seed=1)
    plain, turn = compare(x, y), np.linalg.qr(draw(3, 3, seed=2))[0]
    assert_close(compare(x - 7, y - 7), plain)
    assert_close(compare(x @ turn, y @ turn), plain, ("energy", "p_energy", "mmd", "p_mmd"))
    assert_close(compare(x[:, ::-1], y[:, ::-1]), plain)


@pytest.mark.parametrize("power", [-60, -20, 20, 60])
@pytest.mark.parametrize("ties", [False, True])
def test_the_units_do_not_change_the_verdict(power, ties):
    """The same series in other units would pass where it failed, or fail where it passed.

    A power of two scales floats without rounding.
    """
    x, y = draw(7, 1), 2 + draw(6, 1, seed=1)
    if ties:
        x, y = np.round(x), np.round(y)
    plain, scale = compare(x, y, permutations=199), 2.0**power
    found = compare(scale * x, scale * y, permutations=199)
    assert plain.p_energy < 0.5
    assert_close(found, plain, ("mmd", "ks", *P_VALUES))
    np.testing.assert_allclose(found.energy / scale, plain.energy, rtol=1e-9)
    np.testing.assert_allclose(found.wasserstein / scale, plain.wasserstein, rtol=1e-9)


# ---------------------------------------------------------------- marginals, errors


@pytest.mark.parametrize(
    ("width", "marginals", "places"),
    [(3, 64, [0, 1, 2]), (101, 5, [0, 25, 50, 75, 100]), (9, 2, [0, 8]), (4, 1, [0])],
)
def test_marginals_are_evenly_spaced(width, marginals, places):
    """The last steps of a long forecast, where errors are largest, would not be looked at."""
    x, y = draw(12, width), draw(12, width, seed=1)
    y[:, places] += 0.5
    found = compare(x, y, permutations=1, marginals=marginals)
    tests = [stats.ks_2samp(x[:, i], y[:, i]) for i in places]
    lengths = [slow_wasserstein(x[:, i], y[:, i]) for i in places]
    assert found.ks == pytest.approx(max(test.statistic for test in tests))
    smallest = min(test.pvalue for test in tests)
    assert found.p_ks == pytest.approx(min(1, len(places) * smallest))
    assert found.wasserstein == pytest.approx(np.mean(lengths))


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        (np.zeros((1, 2)), np.zeros((5, 2)), "two samples"),
        (np.zeros((5, 2)), np.zeros((1, 2)), "two samples"),
        (np.zeros((5, 2)), np.zeros((5, 3)), "one width"),
        (np.zeros(5), np.zeros(5), "two samples"),
        (np.full((5, 2), np.nan), np.zeros((5, 2)), "finite"),
        (np.zeros((5, 2)), np.full((5, 2), np.inf), "finite"),
    ],
)
def test_samples_that_cannot_be_compared_are_refused(x, y, reason):
    """A path that diverged would count as equal, or end in a traceback of scipy's."""
    with pytest.raises(InputError, match=reason):
        compare(x, y)
