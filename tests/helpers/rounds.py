"""Rounds of drafting and verifying, and how a rule decides them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from helpers.toys import registered
from stride_jax.decoding.base import Outcome, Round, Rule
from stride_jax.decoding.compiled import compiled

DRAWS = 20_000


class Distributions(NamedTuple):
    """Distributions that do not depend on the prefix: `[K + 1, P, C]` of p and `[K, P, C]` of q."""

    mean_p: jax.Array
    sigma_p: jax.Array
    mean_q: jax.Array
    sigma_q: jax.Array


def distributions_of(
    deltas: tuple[float, ...], shape: tuple[int, int] = (3, 2), offset: float = 0.0, wider=1.0
) -> Distributions:
    """Place i has means `deltas[i]` apart (in sigmas); q's is off by `offset`, `wider` times p."""
    rng = np.random.default_rng(11)
    places = len(deltas)
    sigma = rng.uniform(0.4, 1.5, (places + 1, *shape))
    mean_p = rng.normal(size=sigma.shape)
    direction = rng.normal(size=(places, *shape))
    direction /= np.sqrt(np.sum(direction**2, axis=(1, 2), keepdims=True))
    mean_q = mean_p[:-1] - sigma[:-1] * direction * np.reshape(deltas, (-1, 1, 1)) + offset
    values = (mean_p, sigma, mean_q, sigma[:-1] * wider)
    return Distributions(*(jnp.asarray(value, jnp.float32) for value in values))


@compiled
def drawn(distributions: Distributions, keys: jax.Array) -> tuple[Round, jax.Array, jax.Array]:
    """A round for each key, the patches `[count, K + 1, P, C]` after it, and keys for a rule.

    It knows no rule, so one program serves all of them.
    """
    places = distributions.mean_q.shape[0]

    def one(key: jax.Array) -> tuple[Round, jax.Array, jax.Array]:
        draft_key, fresh_key, rest_key, rule_key = jax.random.split(key, 4)
        noise = jax.random.normal(draft_key, distributions.mean_q.shape)
        proposals = distributions.mean_q + distributions.sigma_q * noise
        fresh = jax.random.normal(fresh_key, distributions.mean_p.shape)
        length = jnp.asarray(places, jnp.int32)
        args = (
            distributions.mean_q,
            distributions.sigma_q,
            distributions.mean_p,
            distributions.sigma_p,
            None,
            fresh,
            length,
        )
        rest = distributions.mean_p + distributions.sigma_p * jax.random.normal(
            rest_key, distributions.mean_p.shape
        )
        return Round(proposals, noise, *args), rest, rule_key

    return jax.vmap(one)(keys)


@compiled
def decide_each(rule: Rule, keys: jax.Array, rounds: Round) -> Outcome:
    """One decision for each key and round."""
    return jax.vmap(rule.decide)(keys, rounds)


def play(rule: Rule, distributions: Distributions, keys: jax.Array):
    """`(patches [count, K + 1, P, C], accepted [count], overflow [count])`, a round for each key.

    What a round leaves open is filled with fresh draws from the target's distributions.
    """
    rounds, rest, rule_keys = drawn(distributions, keys)
    out = jax.tree.map(np.asarray, decide_each(rule, rule_keys, rounds))
    place = np.arange(rest.shape[1])[:, None, None]
    count = out.num_accepted[:, None, None, None]
    patch = out.patch[:, None]
    kept = np.concatenate([rounds.proposals, patch], axis=1)
    after = np.where(place == count, patch, rest)
    return np.where(place < count, kept, after), out.num_accepted, out.overflow


def decoded(rule: Rule, distributions: Distributions, draws: int = DRAWS):
    """`play` with fixed keys: the noise of the patches under p `[count, K + 1, P * C]`, counts."""
    patches, accepted, _ = play(rule, distributions, jax.random.split(jax.random.key(5), draws))
    mean, sigma = (
        np.asarray(distributions.mean_p, np.float64),
        np.asarray(distributions.sigma_p, np.float64),
    )
    noise = (np.asarray(patches, np.float64) - mean) / sigma
    return noise.reshape(draws, len(mean), -1), np.asarray(accepted)


def towards(distributions: Distributions, place: int = 0) -> np.ndarray:
    """e, `[P * C]`: the direction from the mean of q to that of p, in units of p's sigma."""
    gap = (distributions.mean_p[place] - distributions.mean_q[place]) / distributions.sigma_p[place]
    gap = np.asarray(gap, np.float64).ravel()
    return gap / np.linalg.norm(gap)


def distribution_p_value(noise: np.ndarray, e: np.ndarray) -> float:
    """Smallest p-value that `[count, D]` is standard normal: along e, across it, and in norm."""
    others = np.random.default_rng(3).normal(size=(4, e.size))
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    directions = [e] if e.size == 1 else [e, *others]
    values = [stats.kstest(noise @ v, "norm").pvalue for v in directions]
    norms = stats.kstest(np.sum(noise**2, axis=1), stats.chi2(e.size).cdf).pvalue
    return min(*values, norms)


def check_rate(accepted: np.ndarray, expected: float) -> None:
    """The mean of `[count]` trials is `expected`, within five standard errors."""
    error = np.sqrt(expected * (1 - expected) / len(accepted))
    assert abs(np.mean(accepted) - expected) <= 5 * error + 1e-7


def random_rounds(
    count: int, places: int, gap: float, shape: tuple[int, int] = (3, 2), wider: float = 1.0
) -> Round:
    """`count` stacked rounds whose means are about `gap` sigmas apart in each value."""
    rng = np.random.default_rng(places)
    sigma_p = rng.uniform(0.4, 1.5, (count, places + 1, *shape))
    mean_p = rng.normal(size=sigma_p.shape)
    sigma_q = sigma_p[:, :-1] * wider
    noise = rng.normal(size=sigma_q.shape)
    mean_q = mean_p[:, :-1] + gap * sigma_p[:, :-1] * rng.normal(size=sigma_q.shape)
    fresh = rng.normal(size=mean_p.shape)
    values = (mean_q + sigma_q * noise, noise, mean_q, sigma_q, mean_p, sigma_p)
    values = tuple(jnp.asarray(value, jnp.float32) for value in values)
    fresh = jnp.asarray(fresh, jnp.float32)
    return Round(*values, None, fresh, jnp.full(count, places, jnp.int32))


def decide(rule: Rule, rounds: Round) -> Outcome:
    """The rule on stacked rounds, as numpy arrays."""
    keys = jax.random.split(jax.random.key(1), len(rounds.length))
    return jax.tree.map(np.asarray, decide_each(rule, keys, rounds))


def doubles(rounds: Round) -> Round:
    """The rounds in float64 numpy."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), rounds)


def check_leading(found: Outcome, slow, rounds: Round) -> None:
    """Each round is decided as by `slow(round, log_u) -> (accepted, patch)`; all counts occur."""
    rounds = doubles(rounds)
    for i, log_u in enumerate(found.threshold):
        accepted, patch = slow(jax.tree.map(lambda leaf, i=i: leaf[i], rounds), log_u)
        assert found.num_accepted[i] == accepted
        if patch is not None:
            np.testing.assert_allclose(found.patch[i], patch, atol=1e-4)
    assert set(found.num_accepted) == set(range(found.threshold.shape[1] + 1))


def log_density_ratio(r: Round, i: int) -> float:
    """`log p(x_i) - log q(x_i)` by scipy."""
    log_p = stats.norm.logpdf(r.proposals[i], r.target_mean[i], r.target_sigma[i])
    return np.sum(log_p - stats.norm.logpdf(r.proposals[i], r.draft_mean[i], r.draft_sigma[i]))


@registered
class Stale(Rule):
    """Wrong on purpose: `rule` with a mean of the draft that is not the one that drew."""

    rule: Rule
    factor: float = 0.8

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        gap = current.target_mean[:-1] - current.draft_mean
        moved = current.target_mean[:-1] - self.factor * gap
        return self.rule.decide(key, current._replace(draft_mean=moved))
