"""Every rule as a pure function; the distributions of maximal and resample; planted wrong rules."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.rounds import (
    Stale,
    check_leading,
    check_rate,
    decide,
    decoded,
    distribution_p_value,
    distributions_of,
    doubles,
    log_density_ratio,
    random_rounds,
    towards,
)
from helpers.toys import registered
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stride_jax.decoding import gaussian
from stride_jax.decoding.base import Outcome, Round, Rule
from stride_jax.decoding.rules import (
    RULES,
    AsReleased,
    Maximal,
    Mean,
    Resample,
    SharedNoise,
    common,
    find_rule,
    log_uniform,
    rule_name,
)
from stride_jax.errors import InputError

PROPERTY = settings(deadline=None, max_examples=20, derandomize=True)
NAMES = sorted(RULES)
EXACT = ("block", "maximal", "residual")
ROUNDS, PLACES = 200, 4
"""Of the random rounds that every rule decides: with one shape a rule is compiled once."""
CLOSE = {"mean": Mean(tolerance=0.3), "shared_noise": SharedNoise(tolerance=0.3)}
"""Rules that accept what is close, with a tolerance at which `random_rounds` have both fates."""


def tried(name: str) -> Rule:
    """The rule of that name, with settings at which it both accepts and rejects."""
    return CLOSE.get(name, RULES[name]())


# ---------------------------------------------------------------- plugged in


@registered
class Keeps(Rule):
    """Keeps `count` proposals, whatever they are."""

    count: int

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        number = jnp.minimum(jnp.asarray(self.count, jnp.int32), current.length)
        return Outcome(number, common.target_draw(current, number))


@registered
class Unmirrored(Rule):
    """Wrong on purpose: recovers with the rejected noise as it is."""

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        noise = current.target_sigma[0] * current.noise[0]
        return Maximal().decide(key, current)._replace(patch=current.target_mean[0] + noise)


@registered
class Generous(Rule):
    """Wrong on purpose: accepts with a ratio that is 1.2 times too large."""

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        log_u = common.log_uniform(key, current.noise.shape[0])
        accepted = log_u - jnp.log(1.2) <= common.log_ratios(current)
        count = common.num_leading(accepted, current.length)
        mirrored = gaussian.mirror(current.noise[0], common.gaps(current)[0])
        return Outcome(count, current.target_mean[0] + current.target_sigma[0] * mirrored)


# ---------------------------------------------------------------- helpers of the rules


@PROPERTY
@given(flags=st.lists(st.booleans(), min_size=1, max_size=8), length=st.integers(0, 9))
def test_num_leading_counts_up_to_the_first_false_or_the_length(flags, length):
    """Proposals after a rejected one, or ones never drafted, would be kept."""
    flags = np.asarray(flags)
    real = flags[:length]
    found = common.num_leading(jnp.asarray(flags), jnp.int32(length))
    assert int(found) == (len(real) if real.all() else int(np.argmin(real)))
    assert found.dtype == jnp.int32


def test_log_uniform_is_the_log_of_a_uniform_and_finite():
    """A draw of minus infinity would accept a proposal that is impossible under the target."""
    found = np.asarray(common.log_uniform(jax.random.key(0), 200_000))
    assert np.isfinite(found).all()
    assert (found <= 0).all()
    assert stats.kstest(-found, "expon").pvalue > 1e-4


@pytest.mark.parametrize("gap", [0.0, 0.3, 5.0])
def test_gaps_and_log_ratios_are_those_of_the_densities(gap):
    """Every rule with one sigma would accept with wrong probabilities."""
    rounds = random_rounds(8, 3, gap)
    found = np.asarray(jax.vmap(common.log_ratios)(rounds))
    found_gaps = np.asarray(jax.vmap(common.gaps)(rounds))
    for i in range(8):
        r = jax.tree.map(lambda leaf, i=i: leaf[i], doubles(rounds))
        expected = [log_density_ratio(r, place) for place in range(3)]
        np.testing.assert_allclose(found[i], expected, rtol=1e-4, atol=1e-4 * (1 + gap))
        slow = (r.target_mean[:-1] - r.draft_mean) / r.target_sigma[:-1]
        np.testing.assert_allclose(found_gaps[i], slow, atol=1e-5)


def test_log_ratios_in_float32_at_dimension_10000():
    """Large patches would lose the ratio to rounding; two large squares do lose it."""
    rounds = random_rounds(10, 1, 0.005, (100, 100))
    found = np.asarray(jax.vmap(common.log_ratios)(rounds))[:, 0]
    d = np.asarray(jax.vmap(common.gaps)(rounds), np.float64)[:, 0]
    z = np.asarray(rounds.noise, np.float64)[:, 0]
    exact = np.sum(d * z - d**2 / 2, axis=(1, 2))
    z32, d32 = z.astype(np.float32), d.astype(np.float32)
    naive = (np.sum(z32**2, axis=(1, 2)) - np.sum((z32 - d32) ** 2, axis=(1, 2))) / 2
    assert np.max(np.abs(found - exact)) < 2e-6
    assert np.max(np.abs(naive - exact)) > 1e-4  # what the bound above keeps out


# ---------------------------------------------------------------- maximal


@pytest.mark.parametrize("shape", [(1, 1), (3, 2)])
@pytest.mark.parametrize("delta", [0.3, 1.5, 4.0])
def test_maximal_emits_the_target_distribution(delta, shape):
    """The rule would not be exact: forecasts would not follow the target."""
    distributions = distributions_of((delta,), shape)
    noise, _ = decoded(Maximal(), distributions)
    assert distribution_p_value(noise[:, 0], towards(distributions)) > 1e-4


@pytest.mark.parametrize("offset", [1e3, 1e6, 1e8, 1e30])
def test_maximal_emits_the_target_distribution_whatever_the_draft(offset):
    """A draft that has gone astray would change the distribution of the forecasts, silently."""
    distributions = distributions_of((1.0,), offset=offset)
    noise, _ = decoded(Maximal(), distributions)
    e = np.ones(6) / np.sqrt(6)
    assert distribution_p_value(noise[:, 0], e) > 1e-4


@pytest.mark.parametrize("rule", [Resample(), Unmirrored(), Generous(), Stale(Maximal())])
def test_wrong_rules_fail_the_test_of_the_distribution(rule):
    """The test of the distribution would pass wrong rules, so it would prove nothing."""
    distributions = distributions_of((1.5,))
    noise, _ = decoded(rule, distributions)
    assert distribution_p_value(noise[:, 0], towards(distributions)) < 1e-6


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (12, 5)])
@pytest.mark.parametrize("delta", [0.0, 0.05, 0.5, 1.5, 3.0])
def test_maximal_accepts_twice_a_normal_tail(delta, shape):
    """The rule would accept fewer than it can, or more than it may."""
    _, accepted = decoded(Maximal(), distributions_of((delta,), shape), draws=10_000)
    check_rate(accepted, 2 * stats.norm.cdf(-delta / 2))


@pytest.mark.parametrize("rule", [Generous(), Stale(Maximal())])
def test_wrong_rules_fail_the_test_of_the_rate(rule):
    """The test of the rate would pass a rule that accepts too much."""
    _, accepted = decoded(rule, distributions_of((1.5,)), draws=20_000)
    with pytest.raises(AssertionError):
        check_rate(accepted, 2 * stats.norm.cdf(-0.75))


def test_maximal_is_a_plain_loop():
    """A round would recover at the wrong proposal, or add the wrong bonus."""
    rounds = random_rounds(80, 4, 0.3)

    def slow(r: Round, log_u: np.ndarray):
        for i in range(4):
            if log_u[i] > log_density_ratio(r, i):
                d = ((r.target_mean[i] - r.draft_mean[i]) / r.target_sigma[i]).ravel()
                house = np.eye(d.size) - 2 * np.outer(d, d) / (d @ d)
                z = (house @ r.noise[i].ravel()).reshape(r.fresh[i].shape)
                return i, r.target_mean[i] + r.target_sigma[i] * z
        return 4, r.target_mean[4] + r.target_sigma[4] * r.fresh[4]

    check_leading(decide(Maximal(), rounds), slow, rounds)


def test_later_patches_of_a_round_follow_the_target_too():
    """Only the first patch of a round would be exact."""
    distributions = distributions_of((0.5, 1.2, 0.8))
    noise, accepted = decoded(Maximal(), distributions)
    assert set(accepted) == {0, 1, 2, 3}
    for place in range(3):
        assert distribution_p_value(noise[:, place], towards(distributions, place)) > 1e-4
    assert distribution_p_value(noise[:, 3], towards(distributions, 0)) > 1e-4
    joint = noise[:, 0] @ towards(distributions, 0) + noise[:, 1] @ towards(distributions, 1)
    assert stats.kstest(joint / np.sqrt(2), "norm").pvalue > 1e-4


def test_maximal_is_exact_at_dimension_10000():
    """Long patches of many variables would follow another distribution, by float32 rounding."""
    shape, delta, count = (100, 100), 1.5, 1500
    rng = np.random.default_rng(2)
    sigma = jnp.asarray(rng.uniform(0.5, 2, shape), jnp.float32)
    e, other = (v / np.linalg.norm(v) for v in rng.normal(size=(2, *shape)))
    e, other = jnp.asarray(e, jnp.float32), jnp.asarray(other, jnp.float32)
    mean_p = jnp.asarray(rng.normal(size=shape), jnp.float32)
    mean_q = mean_p - sigma * delta * e
    means, sigmas = jnp.stack([mean_p, mean_p]), jnp.stack([sigma, sigma])

    @jax.jit
    def one(key: jax.Array):
        draft_key, rule_key = jax.random.split(key)
        noise = jax.random.normal(draft_key, shape)
        x = mean_q + sigma * noise
        fresh = jnp.zeros((2, *shape))  # would show in the other direction
        args = (mean_q[None], sigma[None], means, sigmas, None, fresh, jnp.int32(1))
        out = Maximal().decide(rule_key, Round(x[None], noise[None], *args))
        y = (jnp.where(out.num_accepted == 1, x, out.patch) - mean_p) / sigma
        return jnp.sum(y * e), jnp.sum(y * other), out.num_accepted

    keys = jax.random.split(jax.random.key(7), count)
    along, across, accepted = jax.lax.map(one, keys, batch_size=100)
    assert stats.kstest(np.asarray(along), "norm").pvalue > 1e-3
    assert stats.kstest(np.asarray(across), "norm").pvalue > 1e-3
    check_rate(np.asarray(accepted), 2 * stats.norm.cdf(-delta / 2))


# ---------------------------------------------------------------- every exact rule


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("scale", [pytest.param(1e-6, marks=pytest.mark.slow), 1.0, 1e6])
def test_exact_rules_accept_equal_distributions_always(name, scale):
    """A draft equal to the target would be rejected now and then."""
    distributions = distributions_of((0.0, 0.0))
    distributions = distributions._replace(
        mean_q=distributions.mean_p[:-1],
        sigma_p=scale * distributions.sigma_p,
        sigma_q=scale * distributions.sigma_q,
    )
    _, accepted = decoded(RULES[name](), distributions, draws=5000)
    assert (accepted == 2).all()


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("entry", ["one value", "all values"])
def test_exact_rules_replace_a_draft_that_is_not_finite(name, bad, entry):
    """A diverged draft would put NaN into the forecast, or change its distribution."""
    distributions = distributions_of((0.5, 0.5))
    where = (0, 0, 0) if entry == "one value" else slice(None)
    distributions = distributions._replace(mean_q=distributions.mean_q.at[where].set(bad))
    noise, accepted = decoded(RULES[name](), distributions, draws=5000)
    assert (accepted == 0).all()
    assert np.isfinite(noise).all()
    assert distribution_p_value(noise[:, 0], np.ones(6) / np.sqrt(6)) > 1e-4


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_exact_rules_stay_exact_before_a_draft_diverges(name, bad):
    """A draft that diverges within a round would change the patches before that."""
    distributions = distributions_of((1.0, 1.0))
    distributions = distributions._replace(mean_q=distributions.mean_q.at[1].set(bad))
    noise, accepted = decoded(RULES[name](), distributions)
    assert set(accepted) == {0, 1}
    assert np.isfinite(noise).all()
    assert distribution_p_value(noise[:, 0], towards(distributions)) > 1e-4
    assert distribution_p_value(noise[:, 1], np.ones(6) / np.sqrt(6)) > 1e-4


# ---------------------------------------------------------------- resample


@pytest.mark.parametrize(("bias", "tolerance"), [(1.0, 0.0), (2.5, 0.0), (1.0, 0.9), (1.5, 0.6)])
def test_resample_is_a_plain_loop(bias, tolerance):
    """The paper's variant would decide differently from what is documented."""
    rounds = random_rounds(80, 3, 0.5)

    def slow(r: Round, log_u: np.ndarray):
        for i in range(3):
            close = 0 < tolerance >= np.mean((r.proposals[i] - r.target_mean[i]) ** 2)
            if not close and log_u[i] > np.log(bias) + log_density_ratio(r, i):
                return i, r.target_mean[i] + r.target_sigma[i] * r.fresh[i]
        return 3, r.target_mean[3] + r.target_sigma[3] * r.fresh[3]

    check_leading(decide(Resample(bias, tolerance), rounds), slow, rounds)


def resample_acceptance(delta: float, bias: float) -> float:
    """E_q[min(1, bias p/q)]: q beyond the threshold, bias times p before it."""
    threshold = delta / 2 - np.log(bias) / delta
    return stats.norm.cdf(-threshold) + bias * stats.norm.cdf(threshold - delta)


def test_resample_accepts_more_with_a_larger_bias():
    """The bias would not do what the paper sweeps it for."""
    delta, rates = 1.5, []
    for bias in (1.0, 1.5, 2.0, 3.0):
        _, accepted = decoded(Resample(bias=bias), distributions_of((delta,)))
        check_rate(accepted, resample_acceptance(delta, bias))
        rates.append(accepted.mean())
    assert np.all(np.diff(rates) > 0.01)


def test_resample_has_its_own_distribution():
    """Its documented bound on the total variation would be about another distribution."""
    delta = 1.5
    distributions = distributions_of((delta,))
    noise, _ = decoded(Resample(), distributions)
    beta = 2 * stats.norm.cdf(-delta / 2)

    def cdf(s: np.ndarray) -> np.ndarray:  # of e . z under min(p, q) + (1 - beta) p
        low = stats.norm.cdf(np.minimum(s, -delta / 2))
        high = stats.norm.cdf(np.maximum(s, -delta / 2) + delta) - stats.norm.cdf(delta / 2)
        return low + high + (1 - beta) * stats.norm.cdf(s)

    assert stats.kstest(noise[:, 0] @ towards(distributions), cdf).pvalue > 1e-4


@pytest.mark.parametrize("delta", [0.5, 1.5, 3.0])
@pytest.mark.parametrize("bias", [1.0, 2.0])
def test_resample_is_within_its_total_variation(delta, bias):
    """The quoted distance from the target would be too small to be a bound."""
    distributions = distributions_of((delta,))
    noise, _ = decoded(Resample(bias=bias), distributions)
    edges = np.concatenate([[-np.inf], np.linspace(-5, 3, 50), [np.inf]])
    found = np.histogram(noise[:, 0] @ towards(distributions), edges)[0] / len(noise)
    distance = 0.5 * np.sum(np.abs(found - np.diff(stats.norm.cdf(edges))))
    beta = 2 * stats.norm.cdf(-delta / 2)
    bound = beta * (1 - beta) if bias == 1 else 1 - beta
    assert distance <= bound + 0.02
    # Not by being the target's distribution; 0.02 is about three times the noise of this estimate.
    s = np.linspace(-12, 12, 20_001)
    p, q = stats.norm.pdf(s), stats.norm.pdf(s + delta)
    distribution = np.minimum(bias * p, q) + (1 - resample_acceptance(delta, bias)) * p
    assert abs(distance - 0.5 * np.sum(np.abs(distribution - p)) * (s[1] - s[0])) < 0.02


def far_rounds(gap: float, count: int = 1) -> Round:
    """One proposal `gap` from the target's mean in each value, hopeless by its ratio."""
    mean = jnp.zeros((count, 2, 3, 2))
    draft = mean[:, :1] + gap
    noise = jnp.zeros_like(draft)
    sigma = mean + 0.1
    length = jnp.ones(count, jnp.int32)
    return Round(draft, noise, draft, sigma[:, :1], mean, sigma, None, mean, length)


@pytest.mark.parametrize("kind", [Resample, AsReleased])
@pytest.mark.parametrize(("factor", "accepted"), [(0.99, 0), (1.0, 1), (1.01, 1), (1e9, 1)])
def test_mse_tolerance_is_a_mean_squared_distance(kind, factor, accepted):
    """The tolerance would mean something else than documented (a root, a sum, strictly less)."""
    rule = kind(mse_tolerance=factor * 3.0**2)
    assert decide(rule, far_rounds(3.0)).num_accepted == [accepted]


def test_no_tolerance_accepts_nothing_by_closeness():
    """Tolerance 0 would still accept some proposals outright."""
    for gap in (1.0, 3.0):  # ratios of exp(-300) and less
        assert not decide(Resample(), far_rounds(gap, 2000)).num_accepted.any()
    # the target's mean itself, far from the draft's: as close as can be, but its ratio is small
    rounds = far_rounds(1.0, 2000)
    noise = jnp.full_like(rounds.noise, -2.0)
    sigma = jnp.full_like(rounds.target_sigma, 0.5)
    at_mean = rounds._replace(
        proposals=jnp.zeros_like(rounds.proposals), noise=noise, target_sigma=sigma
    )
    out = decide(Resample(), at_mean._replace(draft_mean=rounds.draft_mean))
    assert (out.num_accepted == 1).all()  # ratio +12
    out = decide(Resample(), at_mean._replace(noise=-noise))
    assert not out.num_accepted.any()  # ratio -36, whatever the distance


# ---------------------------------------------------------------- every rule


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("places", [1, 3])
def test_outcome_of_every_rule(key, name, places):
    """A rule would not fit into the loop of the decoder, or its trace would not be readable."""
    current = jax.tree.map(lambda leaf: leaf[0], random_rounds(1, places, 0.3))
    out = jax.jit(RULES[name]().decide)(key, current)
    assert (out.num_accepted.shape, out.num_accepted.dtype) == ((), jnp.int32)
    assert (out.patch.shape, out.patch.dtype) == ((3, 2), jnp.float32)
    for numbers in (out.log_ratio, out.threshold):
        assert (numbers.shape, numbers.dtype) == ((places,), jnp.float32)
    assert np.shape(out.overflow) == ()
    assert int(out.overflow) == 0
    if name in ("mean", "shared_noise"):
        assert (out.emitted.shape, out.emitted.dtype) == ((places, 3, 2), jnp.float32)
    else:
        assert out.emitted is None


@pytest.mark.parametrize("name", NAMES)
def test_jit_and_vmap_agree_with_a_plain_call(name):
    """Decoding a batch would decide differently from decoding its series one by one."""
    rounds = random_rounds(ROUNDS, PLACES, 0.3)
    found = decide(tried(name), rounds)
    keys = jax.random.split(jax.random.key(1), ROUNDS)
    for i in range(4):
        current = jax.tree.map(lambda leaf, i=i: leaf[i], rounds)
        plain = tried(name).decide(keys[i], current)
        assert int(plain.num_accepted) == found.num_accepted[i]
        rest = jax.tree.map(lambda leaf, i=i: leaf[i], found)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), rest, plain
        )


@pytest.mark.parametrize("name", NAMES)
def test_decisions_are_what_the_trace_says(name):
    """The trace would explain decisions that were not taken."""
    rounds = random_rounds(ROUNDS, PLACES, 0.3)
    out = decide(tried(name), rounds)
    fits = out.log_ratio >= out.threshold
    longest = np.max(np.where(fits, np.arange(1, PLACES + 1), 0), axis=1)
    leading = np.sum(np.cumprod(fits, axis=1), axis=1)
    np.testing.assert_array_equal(out.num_accepted, longest if name == "block" else leading)


@pytest.mark.parametrize("name", NAMES)
def test_proposals_past_the_length_change_nothing(name):
    """In a shorter round, patches that were never drafted would decide or enter the forecast."""
    count, places = ROUNDS, PLACES
    rounds = random_rounds(count, places, 0.3)
    length = jnp.arange(count, dtype=jnp.int32) % (places + 1)
    rounds = rounds._replace(length=length)
    out = decide(tried(name), rounds)
    assert (out.num_accepted <= length).all()
    assert set(out.num_accepted[length == 2]) == {0, 1, 2}
    past = (jnp.arange(places)[None] >= length[:, None])[:, :, None, None]
    after = (jnp.arange(places + 1)[None] > length[:, None])[:, :, None, None]
    poisoned = rounds._replace(
        proposals=jnp.where(past, jnp.nan, rounds.proposals),
        draft_mean=jnp.where(past, jnp.nan, rounds.draft_mean),
        target_mean=jnp.where(after, jnp.nan, rounds.target_mean),
    )
    again = decide(tried(name), poisoned)
    np.testing.assert_array_equal(again.num_accepted, out.num_accepted)
    np.testing.assert_allclose(again.patch, out.patch, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", [0, 1, 2, 3, 4])
def test_all_accepted_gives_the_bonus_after_the_length(name, length):
    """The bonus would come from the target's distribution at another place."""
    rounds = random_rounds(ROUNDS, PLACES, 0.0)
    rounds = rounds._replace(length=jnp.full(ROUNDS, length, jnp.int32))
    out = decide(RULES[name](), rounds)
    r = doubles(rounds)
    assert (out.num_accepted == length).all()
    bonus = r.target_mean[:, length]
    if name != "mean":
        bonus = bonus + r.target_sigma[:, length] * r.fresh[:, length]
    np.testing.assert_allclose(out.patch, bonus, atol=1e-5)


def numbers(kind: type[Rule]) -> list[str]:
    """The settings of a rule that are numbers."""
    fields = dataclasses.fields(kind)
    return [field.name for field in fields if not isinstance(field.default, bool)]


def test_settings_are_traced():
    """Sweeping a setting would compile anew for every value."""
    traces = []

    @jax.jit
    def run(key: jax.Array, current: Round, rules: list[Rule]) -> list[Outcome]:
        traces.append(rules)
        return [rule.decide(key, current) for rule in rules]

    current = jax.tree.map(lambda leaf: leaf[0], random_rounds(1, 2, 0.3))
    for value in (1.0, 2.0, 3.5):
        rules = [kind(**dict.fromkeys(numbers(kind), value)) for kind in RULES.values()]
        assert len(jax.tree.leaves(rules)) == 2 + 3 + 2 + 1  # none of them is static
        jax.eval_shape(run, jax.random.key(0), current, rules)  # traces as a call does
    assert len(traces) == 1


# ---------------------------------------------------------------- the registry


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_rule_of_ones_own_plugs_in(count):
    """Nobody could try a rule of their own: accept all, reject all, reject at i."""
    rule = Keeps(count)
    assert (rule.exact, rule.proposes, rule.scales) == (False, "sample", "tied")
    distributions = distributions_of((0.5, 1.0, 30.0))
    noise, accepted = decoded(rule, distributions, draws=5000)
    assert (accepted == count).all()
    for place in range(3):
        shifted = noise[:, place] @ towards(distributions, place)
        delta = (0.5, 1.0, 30.0)[place] if place < count else 0.0
        assert stats.kstest(shifted + delta, "norm").pvalue > 1e-4


def test_rules_have_names():
    """Rules could not be named in a config, or a table would name another one."""
    for name, rule in RULES.items():
        assert find_rule(name) is rule
        assert rule_name(rule()) == name
    assert find_rule("maximal") is Maximal
    assert rule_name(Stale(Maximal())) == "Stale"


def test_registry_says_what_each_rule_guarantees():
    """A table would call a forecast exact that is not, or the decoder propose with wrong noise."""
    assert {name for name, rule in RULES.items() if rule.exact} == set(EXACT)
    assert {name for name, rule in RULES.items() if rule.proposes == "mean"} == {"mean"}
    assert RULES["shared_noise"].proposes == "patch_noise"
    assert {name for name, rule in RULES.items() if rule.scales == "free"} == {"residual"}
    assert RULES["as_released"].guarantee == "none"
    assert all(rule.guarantee for rule in RULES.values())


@pytest.mark.parametrize(
    ("wrong", "meant"), [("maximl", "maximal"), ("resampel", "resample"), ("Block", "block")]
)
def test_unknown_rule_suggests_the_nearest(wrong, meant):
    """A typing error would not be explained."""
    with pytest.raises(InputError, match=rf"'{wrong}'.*'{meant}'"):
        find_rule(wrong)


def test_unknown_rule_far_from_all_lists_them():
    """Nobody would learn which rules there are."""
    with pytest.raises(InputError, match=r"xyzzy.*" + ".*".join(NAMES)):
        find_rule("xyzzy")


def test_the_rarest_draw_accepts_nothing_impossible(monkeypatch):
    """One of 8 million draws would be log 0, which accepts a proposal of ratio 0."""

    def lowest(key, shape, dtype, minval=0.0):
        return jnp.full(shape, minval, dtype)

    monkeypatch.setattr(jax.random, "uniform", lowest)
    assert np.isfinite(log_uniform(jax.random.key(0), 3)).all()
