"""`residual`: Gaussians of unequal variance against quadrature, the target, wrong rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.rounds import (
    Distributions,
    check_leading,
    check_rate,
    decide,
    decoded,
    distribution_p_value,
    distributions_of,
    log_density_ratio,
    play,
    random_rounds,
    towards,
)
from helpers.toys import registered
from scipy import stats

from stride_jax.decoding.base import Outcome, Round, Rule
from stride_jax.decoding.rules import AsReleased, Maximal, Residual, common

DRAWS = 20_000
# The gap of the means in sigmas of the target, and the draft's sigma in the same unit.
CASES = [(0.7, 0.6), (0.7, 1.8), (0.0, 0.4), (0.0, 2.5), (2.0, 1.3)]


def overlap(gap: float, wider: float) -> float:
    """The integral of min(p, q)."""
    s = np.linspace(-25, 25, 100_001)
    p, q = stats.norm.pdf(s), stats.norm.pdf(s, -gap, wider)
    return np.sum(np.minimum(p, q)) * (s[1] - s[0])


@registered
class Redrawn(Rule):
    """Wrong on purpose: recovers by a fresh draw."""

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        out = Residual().decide(key, current)
        return out._replace(patch=common.target_draw(current, out.num_accepted))


@registered
class Tied(Rule):
    """Wrong on purpose: does not know that the draft drew with its own sigma."""

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        return Residual().decide(key, current._replace(draft_sigma=current.target_sigma[:-1]))


@pytest.mark.parametrize(("gap", "wider"), CASES)
def test_one_value_follows_the_target_and_is_accepted_as_often_as_possible(gap, wider):
    """A draft with a learned std would change the forecast, or be rejected needlessly."""
    distributions = distributions_of((gap,), (1, 1), wider=wider)
    noise, accepted = decoded(Residual(), distributions, draws=DRAWS)
    check_rate(accepted, overlap(gap, wider))
    assert distribution_p_value(noise[:, 0], np.ones(1)) > 1e-4


@pytest.mark.parametrize(
    ("rule", "gap", "wider"),
    [
        (Redrawn(), 0.7, 0.6),
        (Tied(), 0.7, 0.6),
        (Maximal(), 0.7, 0.6),
        (AsReleased(), 0.7, 0.6),
        (Redrawn(), 0.7, 1.8),
        (Tied(), 0.7, 1.8),
        (Maximal(), 0.7, 1.8),
    ],
)
def test_wrong_rules_fail_the_test_of_the_distribution(rule, gap, wider):
    """The test of the distribution would pass wrong rules, so it would prove nothing."""
    distributions = distributions_of((gap,), (1, 1), wider=wider)
    noise, _ = decoded(rule, distributions, draws=DRAWS)
    assert distribution_p_value(noise[:, 0], np.ones(1)) < 1e-6


@pytest.mark.slow
def test_three_values_of_different_spread_follow_the_target():
    """A spread of its own for every value would be averaged, and the distribution be lost."""
    distributions = distributions_of((0.8, 0.8), (3, 1))
    wider = jnp.asarray([0.6, 1.0, 1.6], jnp.float32).reshape(1, 3, 1)
    distributions = distributions._replace(sigma_q=distributions.sigma_q * wider)
    noise, accepted = decoded(Residual(), distributions, draws=DRAWS)
    assert set(accepted) == {0, 1, 2}
    for place in range(2):
        for direction in (towards(distributions, place), *np.eye(3)):
            assert distribution_p_value(noise[:, place], direction) > 1e-4


@pytest.mark.parametrize("delta", [pytest.param(0.1, marks=pytest.mark.slow), 1.0, 3.0])
def test_equal_spreads_accept_like_maximal(delta):
    """With one sigma it would not be the optimal rule that it then is."""
    _, accepted = decoded(Residual(), distributions_of((delta,)), draws=DRAWS)
    check_rate(accepted, 2 * stats.norm.cdf(-delta / 2))


def test_acceptance_is_a_plain_loop():
    """A round would decide by another ratio than that of the densities."""
    rounds = random_rounds(80, 3, 0.2, wider=1.2)

    def slow(r: Round, log_u: np.ndarray):
        for i in range(3):
            if log_u[i] > log_density_ratio(r, i):
                return i, None
        return 3, r.target_mean[3] + r.target_sigma[3] * r.fresh[3]

    found = decide(Residual(), rounds)
    check_leading(found, slow, rounds)
    assert not found.overflow.any()


def test_recovered_patches_are_more_likely_under_the_target():
    """A recovered patch could lie where the residual has no mass."""
    rounds = random_rounds(300, 1, 0.5, wider=0.7)
    found = decide(Residual(), rounds)
    r = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), rounds)
    log_p = stats.norm.logpdf(found.patch, r.target_mean[:, 0], r.target_sigma[:, 0])
    log_q = stats.norm.logpdf(found.patch, r.draft_mean[:, 0], r.draft_sigma[:, 0])
    recovered = (found.num_accepted == 0) & (found.overflow == 0)
    assert recovered.sum() > 50
    assert (np.sum(log_p - log_q, axis=(1, 2))[recovered] > -1e-4).all()


def test_running_out_is_counted_as_often_as_it_must_happen():
    """A bounded loop that ran out would stay hidden, or be reported where it did not happen."""
    mass = 1 / 1024  # of (p - q)_+, so that 1,024 draws all miss with probability near 1 / e
    delta = 2 * stats.norm.ppf((1 + mass) / 2)
    zero, one = jnp.zeros((2, 1, 1)), jnp.ones((2, 1, 1))
    noise = jnp.full((1, 1, 1), -20 / delta)  # so far out that it is rejected
    draft = jnp.full((1, 1, 1), -delta)
    args = (draft, one[:1], zero, one, None, jnp.full_like(one, 0.5), jnp.int32(1))
    current = Round(draft + noise, noise, *args)
    keys = jax.random.split(jax.random.key(2), 1500)
    out = jax.jit(jax.vmap(Residual().decide, in_axes=(0, None)))(keys, current)
    assert not np.asarray(out.num_accepted).any()
    assert np.isfinite(np.asarray(out.patch)).all()
    check_rate(np.asarray(out.overflow), (1 - mass) ** 1024)


@pytest.mark.parametrize(("delta", "wider"), [(0.5, 1.0), (1.0, 0.8), (3.0, 1.5)])
def test_running_out_is_rare(delta, wider):
    """Forecasts would not be exact more often than one can neglect."""
    keys = jax.random.split(jax.random.key(4), DRAWS)
    _, _, overflow = play(Residual(), distributions_of((delta,), wider=wider), keys)
    assert np.asarray(overflow).mean() < 1e-3


def test_a_draft_that_is_not_finite_is_no_overflow():
    """A run would be reported as inexact although its patch is the target's own draw."""
    distributions = distributions_of((0.5,))
    keys = jax.random.split(jax.random.key(4), 200)
    for bad in (np.nan, np.inf, 1e30):
        wrong = Distributions(*distributions)._replace(mean_q=distributions.mean_q.at[0].set(bad))
        patches, accepted, overflow = play(Residual(), wrong, keys)
        assert np.isfinite(np.asarray(patches)).all()
        assert not np.asarray(accepted).any()
        assert not np.asarray(overflow).any()
