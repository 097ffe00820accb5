"""`block` against quadrature in float64, design figures, the target, and wrong versions."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.rounds import (
    Distributions,
    Stale,
    check_rate,
    decide,
    decide_each,
    decoded,
    distribution_p_value,
    distributions_of,
    doubles,
    log_density_ratio,
    random_rounds,
    towards,
)
from helpers.toys import registered
from scipy import integrate, stats

from stride_jax.decoding import gaussian
from stride_jax.decoding.base import Outcome, Round, Rule
from stride_jax.decoding.compiled import compiled
from stride_jax.decoding.rules import Block, Maximal, common
from stride_jax.decoding.rules.exact import residual_along, residual_mass

DRAWS = 20_000
# Patches a round, block / maximal (the figures of the design).
FIGURES = {
    (0.5, 3): (3.08, 2.96),
    (0.5, 5): (4.09, 3.71),
    (0.5, 8): (5.28, 4.37),
    (1.0, 3): (2.36, 2.23),
    (1.0, 5): (2.79, 2.47),
    (1.0, 8): (3.14, 2.58),
    (2.0, 3): (1.51, 1.45),
    (2.0, 5): (1.55, 1.46),
    (2.0, 8): (1.56, 1.46),
}


@functools.cache
def kernel(delta: float, width: float) -> tuple[np.ndarray, np.ndarray]:
    """The grid of `log p`, and the density of a step from each of its points to each."""
    grid = -width * (np.arange(750) + 0.5)
    return grid, stats.norm.pdf(grid[:, None] - grid, -(delta**2) / 2, delta)


def expected_accepted(deltas: tuple[float, ...]) -> float:
    """`sum_i E_q[p_i]`: the walk `log p_i = min(log p_{i-1} + l_i, 0)` on a grid, in float64."""
    width = 0.02
    density, atom, total = np.zeros(750), 1.0, 0.0
    for delta in deltas:
        step = stats.norm(-(delta**2) / 2, delta)  # of l under q
        grid, steps = kernel(delta, width)
        moved = width * (steps @ density) + atom * step.pdf(grid)
        atom = width * np.sum(step.sf(-grid) * density) + atom * step.sf(0)
        density = moved
        total += atom + width * np.sum(np.exp(grid) * density)
    return total


mass_of, along_of = jax.jit(residual_mass), jax.jit(residual_along)


def quadrature(lam: float, delta: float, low: float = -np.inf) -> float:
    """The mass of `(lam p - q)_+` above `low`, in the coordinate where q is N(0, 1)."""
    start = delta / 2 - np.log(lam) / delta

    def density(s: float) -> float:
        excess = lam * math.exp(-((s - delta) ** 2) / 2) - math.exp(-(s**2) / 2)
        return max(excess, 0.0) / math.sqrt(2 * math.pi)

    begin = max(start, low)
    points = integrate.quad(density, begin, max(begin, delta) + 14, limit=200, epsabs=1e-13)
    return points[0]


@registered
class Mirrored(Rule):
    """Wrong on purpose: recovers like `Maximal`."""

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        out = Block().decide(key, current)
        first = jnp.minimum(out.num_accepted, current.noise.shape[0] - 1)
        noise = gaussian.mirror(current.noise[first], common.gaps(current)[first])
        patch = current.target_mean[first] + current.target_sigma[first] * noise
        return out._replace(patch=jnp.where(out.num_accepted < current.length, patch, out.patch))


@registered
class Redrawn(Rule):
    """Wrong on purpose: recovers by a fresh draw."""

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        out = Block().decide(key, current)
        return out._replace(patch=common.target_draw(current, out.num_accepted))


@registered
class Eager(Rule):
    """Wrong on purpose: keeps by `p_i` where it should by `h_i`."""

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        out = Block().decide(key, current)

        def clip(log_p: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
            return (jnp.minimum(log_p + step, 0.0),) * 2

        _, log_p = jax.lax.scan(clip, jnp.zeros(()), common.log_ratios(current))
        count = jnp.max(jnp.where(out.threshold <= log_p, 1 + jnp.arange(log_p.size), 0))
        more = count > out.num_accepted
        patch = jnp.where(more, common.target_draw(current, count), out.patch)
        return out._replace(num_accepted=jnp.maximum(count, out.num_accepted), patch=patch)


@registered
class Shorter(Rule):
    """`Block` on the first two proposals of a round."""

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        return Block().decide(key, current._replace(length=jnp.int32(2)))


# ---------------------------------------------------------------- how many it keeps


@pytest.mark.parametrize("places", [3, 5, pytest.param(8, marks=pytest.mark.slow)])
def test_patches_a_round_are_those_of_the_theory(places):
    """Block verification would keep fewer or more than it may: no gain, or not exact."""
    for delta in (0.5, 1.0, 2.0):
        blocks, singles = FIGURES[delta, places]
        exact = expected_accepted((delta,) * places)
        assert abs(exact + 1 - blocks) < 0.012
        a = 2 * stats.norm.cdf(-delta / 2)
        plain = sum(a ** np.arange(1, places + 1))
        assert abs(plain + 1 - singles) < 0.012
        distributions = distributions_of((delta,) * places, (1, 1))
        for rule, mean in ((Block(), exact), (Maximal(), plain)):
            _, accepted = decoded(rule, distributions, draws=DRAWS)
            error = accepted.std() / np.sqrt(DRAWS)
            assert abs(accepted.mean() - mean) < 4 * error


def test_wrong_rules_fail_the_test_of_the_count():
    """The test of the number of patches would pass any rule, so it would prove nothing."""
    distributions, exact = distributions_of((1.0,) * 3, (1, 1)), expected_accepted((1.0,) * 3)
    for rule in (Maximal(), Eager(), Stale(Block(), 0.9)):
        _, accepted = decoded(rule, distributions, draws=DRAWS)
        assert abs(accepted.mean() - exact) > 8 * accepted.std() / np.sqrt(DRAWS)


@pytest.mark.parametrize("deltas", [(0.3, 2.0, 0.1), (2.5, 0.2, 0.2), (0.1, 0.1, 3.0)])
def test_places_that_differ_keep_as_many_as_the_theory_and_never_fewer(deltas):
    """It would use the gap of another place: not exact, and slower than `maximal`."""
    distributions = distributions_of(deltas)
    _, accepted = decoded(Block(), distributions, draws=DRAWS)
    _, plain = decoded(Maximal(), distributions, draws=DRAWS)
    error = accepted.std() / np.sqrt(DRAWS)
    assert abs(accepted.mean() - expected_accepted(deltas)) < 4 * error
    assert accepted.mean() > plain.mean() - 5 * np.hypot(error, plain.std() / np.sqrt(DRAWS))


@pytest.mark.parametrize("shape", [(1, 1), (3, 2)])
def test_one_proposal_is_accepted_twice_a_normal_tail(shape):
    """With one proposal it would not be the optimal rule that it then is."""
    for delta in (0.1, 1.0, 3.0):
        _, accepted = decoded(Block(), distributions_of((delta,), shape), draws=DRAWS)
        check_rate(accepted, 2 * stats.norm.cdf(-delta / 2))


# ---------------------------------------------------------------- the distribution


@pytest.mark.parametrize("deltas", [(1.5,), (1.0, 0.5, 1.0), (1.0, 0.4, 2.0), (1.0, 1.0, 1e-4)])
@pytest.mark.parametrize("shape", [(1, 1), (3, 2)])
def test_every_patch_of_a_decode_follows_the_target(deltas, shape):
    """The rule would not be exact: forecasts would not follow the target."""
    distributions = distributions_of(deltas, shape)
    noise, accepted = decoded(Block(), distributions, draws=DRAWS)
    assert {0, len(deltas)} <= set(accepted)
    for place in range(len(deltas)):
        assert distribution_p_value(noise[:, place], towards(distributions, place)) > 1e-4
    assert distribution_p_value(noise[:, -1], towards(distributions)) > 1e-4


@pytest.mark.parametrize("rule", [Mirrored(), Redrawn(), Eager(), Stale(Block())])
def test_wrong_rules_fail_the_test_of_the_distribution(rule):
    """The test of the distribution would pass wrong rules, so it would prove nothing."""
    distributions = distributions_of((1.0, 1.0, 1.0), (1, 1))
    noise, _ = decoded(rule, distributions, draws=DRAWS)
    assert (
        min(
            distribution_p_value(noise[:, place], towards(distributions, place))
            for place in range(3)
        )
        < 1e-6
    )


def target_of(last: jax.Array) -> jax.Array:
    """The target's mean after a patch."""
    return 0.8 * last + 0.3


@compiled
def prefixed(keys: jax.Array) -> tuple[Round, jax.Array, jax.Array]:
    """A round of three proposals for each key, whose distributions depend on the last patch.

    And the noise `[count, 4]` of what comes after it, and keys for a rule.
    """

    def draft(last: jax.Array) -> jax.Array:
        return 0.8 * last - 0.3 + 0.5 * jnp.tanh(3 * last)

    def one(key: jax.Array) -> tuple[Round, jax.Array, jax.Array]:
        noise_key, rest_key, rule_key = jax.random.split(key, 3)
        noise = jax.random.normal(noise_key, (3, 1, 1))
        rest = jax.random.normal(rest_key, (8,))
        seen = [jnp.zeros((1, 1))]
        for z in noise:
            seen.append(draft(seen[-1]) + z)
        before = jnp.stack(seen)
        ones = jnp.ones((4, 1, 1))
        fresh, length = rest[4:].reshape(4, 1, 1), jnp.int32(3)
        args = (draft(before[:-1]), ones[:3], target_of(before), ones, None, fresh, length)
        return Round(before[1:], noise, *args), rest[:4], rule_key

    return jax.vmap(one)(keys)


def follow(rule: Rule, keys: jax.Array) -> np.ndarray:
    """The target's noise `[count, 4]` in decodes of 4 patches that depend on the last one."""
    rounds, rest, rule_keys = prefixed(keys)
    out = jax.tree.map(np.asarray, decide_each(rule, rule_keys, rounds))
    proposals = np.asarray(rounds.proposals)[..., 0, 0]
    rest, last, found = np.asarray(rest), np.zeros(len(keys), np.float32), []
    for place in range(4):
        mean = target_of(last)
        new = np.where(place == out.num_accepted, out.patch[:, 0, 0], mean + rest[:, place])
        if place < 3:
            new = np.where(place < out.num_accepted, proposals[:, place], new)
        found.append(new - mean)
        last = new
    return np.stack(found, axis=1)


def path_p_value(rule) -> float:
    """Smallest p-value that the four noises are independent and standard normal."""
    noise = np.asarray(follow(rule, jax.random.split(jax.random.key(3), DRAWS)), np.float64)
    basis = [np.eye(4)[i] for i in range(4)]
    pairs = [(basis[i] + sign * basis[i + 1]) / np.sqrt(2) for i in range(3) for sign in (1, -1)]
    values = [stats.kstest(noise @ v, "norm").pvalue for v in (*basis, *pairs)]
    return min(*values, stats.kstest(np.sum(noise**2, axis=1), stats.chi2(4).cdf).pvalue)


@pytest.mark.parametrize("rule", [Block(), Maximal()])
def test_distributions_that_depend_on_the_prefix_are_followed_jointly(rule):
    """Real forecasters look at what was drafted; the path, not only each patch, must be right."""
    assert path_p_value(rule) > 1e-4


@pytest.mark.parametrize("rule", [Mirrored(), Eager(), Stale(Block())])
def test_wrong_rules_fail_the_test_of_the_path(rule):
    """The joint test would pass rules that are not exact, so it would prove nothing."""
    assert path_p_value(rule) < 1e-6


def test_block_is_a_plain_loop_in_float64():
    """A round would keep another prefix than the formulas say."""
    places = 4
    rounds = random_rounds(60, places, 0.3)
    found = decide(Block(), rounds)
    r = doubles(rounds)
    for n in range(60):
        one = Round(*(None if leaf is None else leaf[n] for leaf in r))
        kept, p = 0, 1.0
        for i in range(places):
            p = min(p * np.exp(log_density_ratio(one, i)), 1.0)
            h = p
            if i + 1 < places:
                d = (one.target_mean[i + 1] - one.draft_mean[i + 1]) / one.target_sigma[i + 1]
                mass = quadrature(p, np.linalg.norm(d)) if p > 1e-12 else 0.0
                h = mass / (mass + 1 - p)
            np.testing.assert_allclose(np.exp(found.log_ratio[n, i]), h, rtol=1e-3, atol=1e-6)
            kept = i + 1 if found.threshold[n, i] <= np.log(max(h, 1e-300)) else kept
        assert found.num_accepted[n] == kept
        if kept == places:
            continue
        z = (found.patch[n] - one.target_mean[kept]) / one.target_sigma[kept]
        e = (one.target_mean[kept] - one.draft_mean[kept]) / one.target_sigma[kept]
        e /= np.linalg.norm(e)
        across = one.noise[kept] - e * np.sum(e * one.noise[kept])
        np.testing.assert_allclose(z - e * np.sum(e * z), across, atol=1e-4)
    assert set(found.num_accepted) == set(range(places + 1))


# ---------------------------------------------------------------- the residual


@pytest.mark.parametrize("delta", [0.05, 0.5, 2.0, 8.0, 40.0])
def test_residual_mass_is_the_integral(delta):
    """The probability of keeping a prefix would be wrong."""
    for lam in (1.0, 0.99, 0.5, 1e-2, 1e-6):
        found = float(mass_of(np.float32(np.log(np.float32(lam))), np.float32(delta)))
        np.testing.assert_allclose(found, quadrature(lam, delta), rtol=1e-3, atol=2e-7)


@pytest.mark.parametrize("delta", [0.05, 0.5, 2.0, 8.0, 40.0])
def test_residual_along_inverts_the_distribution(delta):
    """A recovered patch would come from another distribution than the residual."""
    v = np.asarray([1e-4, 0.01, 0.2, 0.5, 0.8, 0.99], np.float32)
    for lam in (1.0, 0.9, 0.5, 1e-2, 1e-6):
        mass = quadrature(lam, delta)
        if mass < 1e-8:
            continue
        log_lam = np.full(v.shape, np.log(lam), np.float32)
        found = np.asarray(along_of(log_lam, np.full(v.shape, delta, np.float32), v))
        above = [quadrature(lam, delta, float(r) + delta) / mass for r in found]
        assert (np.diff(found) <= 0).all()
        # An S that is right to a float32 near t, and the rounding of the two terms of the mass.
        lost = 3e-7 * lam / mass
        np.testing.assert_allclose(above, v, rtol=2e-3, atol=1e-5 + lost)


def test_residual_guards():
    """Equal distributions, or a prefix that is impossible, would put NaN into the forecast."""
    for log_lam in (0.0, -1e-7, -1.0, -80.0, -1e4, -jnp.inf):
        for delta in (0.0, 1e-8, 1e-3, 1.0, 30.0, 1e4, 1e18):
            mass = float(mass_of(np.float32(log_lam), np.float32(delta)))
            assert 0 <= mass <= np.exp(log_lam) + 1e-6
            if delta < 1e-6:
                assert mass == 0
            if log_lam > -100:
                s = along_of(np.float32(log_lam), np.float32(delta), np.float32(0.5))
                assert np.isfinite(float(s))


def fixed_round(gaps: list[float], noise: list[float]) -> Round:
    """A round of one value a patch, sigma 1, the target at 0, the draft at minus the gaps."""
    z = jnp.asarray(noise, jnp.float32).reshape(-1, 1, 1)
    d = jnp.asarray(gaps, jnp.float32).reshape(-1, 1, 1)
    ones = jnp.ones((len(gaps) + 1, 1, 1))
    fresh, length = jnp.full_like(ones, 0.25), jnp.int32(len(gaps))
    return Round(z - d, z, -d, ones[:-1], 0 * ones, ones, None, fresh, length)


def many(current: Round, count: int = 500) -> Outcome:
    """`Block` on one round with many keys."""
    keys = jax.random.split(jax.random.key(0), count)
    rounds = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), current)
    return jax.tree.map(np.asarray, decide_each(Block(), keys, rounds))


@pytest.mark.slow
def test_equal_distributions_are_kept_and_equal_distributions_after_a_bad_prefix_are_not():
    """A gap of 0 would divide by zero, or keep a prefix that the target cannot produce."""
    out = many(fixed_round([0.0, 0.0, 0.0], [0.3, -1.0, 2.0]))
    assert (out.num_accepted == 3).all()
    # p_1 = exp(-50 - 2) stays below 1, as nothing after it can tell the distributions apart
    out = many(fixed_round([10.0, 0.0, 0.0], [-0.2, -1.0, 2.0]))
    assert (out.num_accepted == 0).all()
    assert np.isfinite(out.patch).all()
    # p_1 underflows
    for gap in (1e3, 1e10, 1e18):
        out = many(fixed_round([gap, 0.0, 1.0], [-0.2, -1.0, 2.0]))
        assert (out.num_accepted == 0).all()
        assert np.isfinite(out.patch).all()
    # p_1 = exp(-.5), p_2 = p_1 at a gap of 0: h_1 = 0, and h_2 = p_2 keeps both or none
    out = many(fixed_round([1.0, 0.0], [0.0, 0.7]), 4000)
    assert set(out.num_accepted) == {0, 2}
    check_rate(out.num_accepted == 2, np.exp(-0.5))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e20, 1e30])
@pytest.mark.parametrize("places", [(1,), (1, 2), (0, 1, 2)])
def test_a_draft_that_diverges_is_never_kept(bad, places):
    """NaN or an infinite value would enter the forecast and its context."""
    gaps = [bad if i in places else 0.0 for i in range(3)]
    out = many(fixed_round(gaps, [0.3, -1.0, 2.0]))
    assert (out.num_accepted == places[0]).all()
    assert np.isfinite(out.patch).all()


def test_length_ends_the_block():
    """In a shorter round, the last drafted proposal would be judged as if another followed."""
    distributions = distributions_of((1.0, 1.0, 1.0))
    short = Distributions(
        distributions.mean_p[:3],
        distributions.sigma_p[:3],
        distributions.mean_q[:2],
        distributions.sigma_q[:2],
    )
    noise, accepted = decoded(Shorter(), distributions, draws=DRAWS)
    assert set(accepted) == {0, 1, 2}
    error = accepted.std() / np.sqrt(DRAWS)
    assert abs(accepted.mean() - expected_accepted((1.0, 1.0))) < 4 * error
    for place in range(2):
        assert distribution_p_value(noise[:, place], towards(short, place)) > 1e-4
