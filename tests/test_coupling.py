"""The coupling rules as pure functions: laws, closed forms, slow versions, planted wrong rules."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stride_jax import coupling, gaussian
from stride_jax.coupling import Outcome, Round, RuleParams, leading, maximal, resample
from stride_jax.errors import InputError

PROPERTY = settings(deadline=None, max_examples=20, derandomize=True)
DRAWS = 50_000


class Pair(NamedTuple):
    """Laws of one patch: `mean_p`, `mean_q` and `sigma`, each `[P, C]`."""

    mean_p: jax.Array
    mean_q: jax.Array
    sigma: jax.Array


def pair(delta: float, shape: tuple[int, int] = (3, 2), offset: float = 0.0) -> Pair:
    """Means `delta` apart (in sigmas) in a random direction, and `offset` more in the draft's."""
    rng = np.random.default_rng(11)
    sigma = rng.uniform(0.4, 1.5, shape)
    direction = rng.normal(size=shape)
    mean_p = rng.normal(size=shape)
    mean_q = mean_p - sigma * delta * direction / np.linalg.norm(direction) + offset
    return Pair(*(jnp.asarray(value, jnp.float32) for value in (mean_p, mean_q, sigma)))


@functools.partial(jax.jit, static_argnums=0)
def draw(rule, laws: Pair, params: RuleParams, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`(emitted [count, P, C], accepted [count])` of rounds with one proposal, one for each key."""

    def trial(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        draft, verdict, fresh = jax.random.split(key, 3)
        x = gaussian.sample(draft, laws.mean_q, laws.sigma)
        noise = jax.random.normal(fresh, x.shape)
        means = jnp.stack([laws.mean_p, laws.mean_p + 1e3])  # a bonus in place of it would show
        out = rule(verdict, Round(x[None], laws.mean_q[None], means, laws.sigma, noise), params)
        return jnp.where(out.num_accepted == 1, x, out.patch), out.num_accepted

    return jax.vmap(trial)(keys)


def one_patch(rule, laws: Pair, bias: float = 1.0, tolerance: float = 0.0):
    """`draw` with DRAWS fixed keys, as numpy arrays."""
    keys = jax.random.split(jax.random.key(5), DRAWS)
    emitted, accepted = draw(rule, laws, RuleParams(bias, tolerance), keys)
    return np.asarray(emitted, np.float64), np.asarray(accepted)


def whiten(emitted: np.ndarray, laws: Pair) -> tuple[np.ndarray, np.ndarray]:
    """The emitted noise `[count, P * C]` under the target's law, and the direction e `[P * C]`."""
    mean_p, mean_q, sigma = (np.asarray(value, np.float64) for value in laws)
    direction = ((mean_p - mean_q) / sigma).ravel()
    noise = ((emitted - mean_p) / sigma).reshape(len(emitted), -1)
    return noise, direction / np.linalg.norm(direction)


def law_p_value(emitted: np.ndarray, laws: Pair) -> float:
    """Smallest p-value that `emitted` follows the target: along e, across it, and in norm."""
    noise, direction = whiten(emitted, laws)
    others = np.random.default_rng(3).normal(size=(4, direction.size))
    others -= np.outer(others @ direction, direction)
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    p_values = [stats.kstest(noise @ v, "norm").pvalue for v in (direction, *others)]
    norms = stats.kstest(np.sum(noise**2, axis=1), stats.chi2(direction.size).cdf).pvalue
    return min(*p_values, norms)


def unmirrored(key: jax.Array, current: Round, params: RuleParams) -> Outcome:
    """Wrong on purpose: recovers with the rejected noise as it is."""
    noise = current.proposals[0] - current.draft_mean[0]
    return maximal(key, current, params)._replace(patch=current.target_mean[0] + noise)


def generous(key: jax.Array, current: Round, params: RuleParams) -> Outcome:
    """Wrong on purpose: accepts with a ratio that is 1.2 times too large."""
    accepted = jnp.log(jax.random.uniform(key, (1,)) / 1.2) <= coupling.log_ratios(current)
    mirrored = gaussian.reflect(
        current.proposals[0], current.target_mean[0], current.draft_mean[0], current.sigma
    )
    return Outcome(leading(accepted), mirrored)


@PROPERTY
@given(flags=st.lists(st.booleans(), min_size=1, max_size=8))
def test_leading_counts_up_to_the_first_false(flags):
    """Proposals after a rejected one would be kept."""
    expected = next((i for i, flag in enumerate(flags) if not flag), len(flags))
    found = leading(jnp.asarray(flags))
    assert int(found) == expected
    assert found.dtype == jnp.int32


@pytest.mark.parametrize("delta", [0.3, 1.5, 4.0])
def test_maximal_emits_the_target_law(delta):
    """The rule would not be exact: forecasts would not follow the target."""
    laws = pair(delta)
    emitted, _ = one_patch(maximal, laws)
    assert law_p_value(emitted, laws) > 1e-4


@pytest.mark.parametrize("offset", [1e3, 1e6, 1e8])
def test_maximal_emits_the_target_law_whatever_the_draft(offset):
    """A draft that has gone astray would change the law of the forecasts, silently."""
    laws = pair(1.0, offset=offset)
    emitted, _ = one_patch(maximal, laws)
    assert law_p_value(emitted, laws) > 1e-4


@pytest.mark.parametrize("rule", [resample, unmirrored, generous])
def test_wrong_rules_fail_the_test_of_the_law(rule):
    """The test of the law would pass rules that are not exact, so it would prove nothing."""
    laws = pair(1.5)
    emitted, _ = one_patch(rule, laws)
    assert law_p_value(emitted, laws) < 1e-6


@pytest.mark.parametrize("delta", [0.0, 0.05, 0.5, 1.5, 3.0])
def test_maximal_accepts_twice_a_normal_tail(delta):
    """The rule would accept fewer than it can, or more than it may."""
    _, accepted = one_patch(maximal, pair(delta))
    expected = 2 * stats.norm.cdf(-delta / 2)
    assert abs(accepted.mean() - expected) <= 5 * np.sqrt(expected * (1 - expected) / DRAWS)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_maximal_always_accepts_equal_means(scale):
    """A draft equal to the target would be rejected now and then."""
    mean, _, sigma = pair(0.0)
    _, accepted = one_patch(maximal, Pair(mean, mean, scale * sigma))
    assert accepted.all()


def slow_maximal(uniform, current: Round) -> tuple[int, np.ndarray]:
    """`maximal` in float64 with a plain loop."""
    x, mean_q, mean_p, sigma, fresh = (np.asarray(value, np.float64) for value in current)
    for i, u in enumerate(np.asarray(uniform, np.float64)):
        log_p = stats.norm.logpdf(x[i], mean_p[i], sigma).sum()
        log_q = stats.norm.logpdf(x[i], mean_q[i], sigma).sum()
        if np.log(u) > log_p - log_q:
            e = (mean_p[i] - mean_q[i]) / sigma
            e /= np.linalg.norm(e)
            z = (x[i] - mean_q[i]) / sigma
            return i, mean_p[i] + sigma * (z - 2 * e * np.sum(e * z))
    return len(x), mean_p[-1] + sigma * fresh


def slow_resample(uniform, current: Round, bias: float, tolerance: float):
    """`resample` in float64 with a plain loop."""
    x, mean_q, mean_p, sigma, fresh = (np.asarray(value, np.float64) for value in current)
    for i, u in enumerate(np.asarray(uniform, np.float64)):
        log_p = stats.norm.logpdf(x[i], mean_p[i], sigma).sum()
        log_q = stats.norm.logpdf(x[i], mean_q[i], sigma).sum()
        close = tolerance > 0 and np.mean((x[i] - mean_p[i]) ** 2) <= tolerance
        if not close and np.log(u) > np.log(bias) + log_p - log_q:
            return i, mean_p[i] + sigma * fresh
    return len(x), mean_p[-1] + sigma * fresh


def random_rounds(count: int, num_draft: int, shape: tuple[int, int], gap: float) -> Round:
    """`count` rounds whose means are about `gap` sigmas apart in each value."""
    rng = np.random.default_rng(num_draft)
    sigma = rng.uniform(0.4, 1.5, (count, *shape))
    target = rng.normal(size=(count, num_draft + 1, *shape))
    draft = target[:, :-1] + gap * sigma[:, None] * rng.normal(size=(count, num_draft, *shape))
    proposals = draft + sigma[:, None] * rng.normal(size=draft.shape)
    fresh = rng.normal(size=sigma.shape)
    values = (proposals, draft, target, sigma, fresh)
    return Round(*(jnp.asarray(value, jnp.float32) for value in values))


def check_against(rule, slow, rounds: Round, params: RuleParams) -> None:
    """Every round decided by `rule` is decided by `slow` alike; all counts occur."""
    count, num_draft = rounds.proposals.shape[:2]
    keys = jax.random.split(jax.random.key(1), count)
    found = jax.jit(jax.vmap(rule, in_axes=(0, 0, None)))(keys, rounds, params)
    uniform = jax.vmap(lambda key: jax.random.uniform(key, (num_draft,)))(keys)
    rounds = jax.tree.map(np.asarray, rounds)
    uniform, found = np.asarray(uniform), jax.tree.map(np.asarray, found)
    for i in range(count):
        accepted, patch = slow(uniform[i], jax.tree.map(lambda leaf, i=i: leaf[i], rounds))
        assert found.num_accepted[i] == accepted
        np.testing.assert_allclose(found.patch[i], patch, atol=1e-4)
    assert set(np.asarray(found.num_accepted)) == set(range(num_draft + 1))


@pytest.mark.parametrize("num_draft", [1, 4])
def test_maximal_is_a_plain_loop(num_draft):
    """A round would recover at the wrong proposal, or add the wrong bonus."""
    rounds = random_rounds(80, num_draft, (3, 2), 0.3)
    check_against(maximal, slow_maximal, rounds, RuleParams())


@pytest.mark.parametrize(("bias", "tolerance"), [(1.0, 0.0), (2.5, 0.0), (1.0, 0.9), (1.5, 0.6)])
def test_resample_is_a_plain_loop(bias, tolerance):
    """The paper's variant would decide differently from what is documented."""
    rounds = random_rounds(80, 3, (3, 2), 0.5)

    def slow(uniform, current):
        return slow_resample(uniform, current, bias, tolerance)

    check_against(resample, slow, rounds, RuleParams(bias, tolerance))


def test_later_patches_of_a_round_follow_the_target_too():
    """Only the first patch of a round would be exact."""
    laws = pair(1.2)

    def trial(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        first, second, verdict, fresh = jax.random.split(key, 4)
        means_q = jnp.stack([laws.mean_p, laws.mean_q])
        x = jax.vmap(gaussian.sample, in_axes=(0, 0, None))(
            jnp.stack([first, second]), means_q, laws.sigma
        )
        noise = jax.random.normal(fresh, laws.sigma.shape)
        means_p = jnp.stack([laws.mean_p, laws.mean_p, laws.mean_p + 1e3])
        out = maximal(verdict, Round(x, means_q, means_p, laws.sigma, noise), RuleParams())
        return jnp.where(out.num_accepted == 2, x[1], out.patch), out.num_accepted

    emitted, accepted = jax.jit(jax.vmap(trial))(jax.random.split(jax.random.key(8), DRAWS))
    assert set(np.asarray(accepted)) == {1, 2}
    assert law_p_value(np.asarray(emitted, np.float64), laws) > 1e-4


def resample_acceptance(delta: float, bias: float) -> float:
    """E_q[min(1, bias p/q)]: q beyond the threshold, bias times p before it."""
    threshold = delta / 2 - np.log(bias) / delta
    return stats.norm.cdf(-threshold) + bias * stats.norm.cdf(threshold - delta)


def test_resample_accepts_more_with_a_larger_bias():
    """The bias would not do what the paper sweeps it for."""
    delta, rates = 1.5, []
    for bias in (1.0, 1.5, 2.0, 3.0):
        _, accepted = one_patch(resample, pair(delta), bias)
        expected = resample_acceptance(delta, bias)
        error = np.sqrt(expected * (1 - expected) / DRAWS)
        assert abs(accepted.mean() - expected) < 5 * error
        rates.append(accepted.mean())
    assert np.all(np.diff(rates) > 0.01)


def test_resample_has_its_own_law():
    """Its documented bound on the total variation would be about another law."""
    delta = 1.5
    laws = pair(delta)
    noise, direction = whiten(one_patch(resample, laws)[0], laws)
    beta = 2 * stats.norm.cdf(-delta / 2)

    def cdf(s: np.ndarray) -> np.ndarray:  # of e . z under min(p, q) + (1 - beta) p
        low = stats.norm.cdf(np.minimum(s, -delta / 2))
        high = stats.norm.cdf(np.maximum(s, -delta / 2) + delta) - stats.norm.cdf(delta / 2)
        return low + high + (1 - beta) * stats.norm.cdf(s)

    assert stats.kstest(noise @ direction, cdf).pvalue > 1e-4


def far_round(gap: float) -> Round:
    """One proposal `gap` from the target's mean in each value, hopeless by its ratio."""
    mean = jnp.zeros((3, 2))
    proposals = (mean + gap)[None]
    return Round(proposals, proposals, jnp.stack([mean, mean]), mean + 0.1, mean)


@pytest.mark.parametrize(("factor", "accepted"), [(0.99, 0), (1.01, 1), (1e9, 1)])
def test_tolerance_is_a_mean_squared_distance(key, factor, accepted):
    """The tolerance would mean something else than documented (a root, a sum)."""
    gap = 3.0
    out = resample(key, far_round(gap), RuleParams(1.0, factor * gap**2))
    assert int(out.num_accepted) == accepted


def test_huge_tolerance_accepts_everything():
    """The outright acceptance would still depend on the ratio."""
    _, accepted = one_patch(resample, pair(8.0), tolerance=1e9)
    assert accepted.all()


def test_no_tolerance_accepts_nothing_by_closeness():
    """Tolerance 0 would still accept some proposals outright."""
    keys = jax.random.split(jax.random.key(0), 2000)
    vmapped = jax.jit(jax.vmap(resample, in_axes=(0, None, None)))
    for gap in (1.0, 3.0):  # ratios of exp(-300) and less
        assert not vmapped(keys, far_round(gap), RuleParams()).num_accepted.any()


def test_bias_and_tolerance_are_traced():
    """Sweeping them would compile anew for every value."""
    traces = []

    @jax.jit
    def run(key: jax.Array, current: Round, params: RuleParams) -> Outcome:
        traces.append(params)
        return resample(key, current, params)

    for bias, tolerance in [(1.0, 0.0), (2.0, 0.5), (3.0, 1.5)]:
        run(jax.random.key(0), far_round(1.0), RuleParams(bias, tolerance))
    assert len(traces) == 1


@pytest.mark.parametrize("name", sorted(coupling.RULES))
def test_outcome_of_every_named_rule(key, name):
    """A rule would not fit into the loop of the decoder."""
    out = coupling.RULES[name](key, far_round(1.0), RuleParams())
    assert out.num_accepted.dtype == jnp.int32
    assert out.num_accepted.shape == ()
    assert out.patch.shape == (3, 2)
    assert out.patch.dtype == jnp.float32


def test_find_rule_by_name_and_as_it_is():
    """Rules could not be named, or not be plugged in."""
    assert coupling.find_rule("maximal") is maximal
    assert coupling.find_rule("resample") is resample
    assert coupling.find_rule(unmirrored) is unmirrored
    assert set(coupling.RULES) >= coupling.EXACT
    assert "maximal" in coupling.EXACT
    assert "resample" not in coupling.EXACT


@pytest.mark.parametrize(
    ("wrong", "meant"), [("maximl", "maximal"), ("resampel", "resample"), ("Maximal", "maximal")]
)
def test_unknown_rule_suggests_the_nearest(wrong, meant):
    """A typing error would not be explained."""
    with pytest.raises(InputError, match=rf"'{wrong}'.*'{meant}'"):
        coupling.find_rule(wrong)


def test_unknown_rule_far_from_all_lists_them():
    """Nobody would learn which rules there are."""
    with pytest.raises(InputError, match=r"xyzzy.*maximal.*resample"):
        coupling.find_rule("xyzzy")
