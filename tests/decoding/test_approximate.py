"""`mean`, `shared_noise` and `as_released`: plain loops, worked lines, the original's numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import GOLDEN
from helpers.rounds import (
    check_leading,
    check_rate,
    decide,
    decoded,
    distribution_p_value,
    distributions_of,
    doubles,
    random_rounds,
    towards,
)
from helpers.toys import registered
from scipy import stats

from stride_jax.decoding.base import Outcome, Round, Rule
from stride_jax.decoding.rules import AsReleased, Maximal, Mean, Resample, Residual, SharedNoise


def of_means(rounds: Round) -> Round:
    """The rounds with proposals that are the draft's means."""
    return rounds._replace(proposals=rounds.draft_mean, noise=jnp.zeros_like(rounds.noise))


def of_patch_noise(rounds: Round) -> Round:
    """The rounds with proposals that use the noise of their patches, as `shared_noise` wants."""
    noise = rounds.fresh[:, :-1]
    proposals = rounds.draft_mean + rounds.draft_sigma * noise
    return rounds._replace(noise=noise, proposals=proposals)


def rms(r: Round, i: int) -> float:
    """The RMS gap of the means of proposal i in units of the target's sigma."""
    gap = (r.target_mean[i] - r.draft_mean[i]) / r.target_sigma[i]
    return float(np.sqrt(np.mean(gap**2)))


def one_gap(values: list[float], sigma: float = 1.0) -> Round:
    """A round for `decide` of one proposal at 0 and a target at the values, `[1, len]` patches."""
    target = jnp.asarray(values, jnp.float32).reshape(1, 1, 1, -1)
    zero = jnp.zeros_like(target)
    sigmas = jnp.full((1, 2, *target.shape[2:]), sigma)
    means = jnp.concatenate([target, target + 100], axis=1)
    length = jnp.ones(1, jnp.int32)
    return Round(
        zero, zero, zero, sigmas[:, :1], means, sigmas, None, jnp.zeros_like(means), length
    )


# ---------------------------------------------------------------- mean


@pytest.mark.parametrize("emit_proposal", [False, True])
def test_mean_is_a_plain_loop(emit_proposal):
    """Point forecasts would accept too far a draft, or put out the wrong mean."""
    rounds = of_means(random_rounds(80, 3, 0.3))
    tolerance = 0.33

    def slow(r: Round, log_u: np.ndarray):
        for i in range(3):
            if rms(r, i) > tolerance:
                return i, r.target_mean[i]
        return 3, r.target_mean[3]

    found = decide(Mean(tolerance, emit_proposal=emit_proposal), rounds)
    check_leading(found, slow, rounds)
    shown = rounds.proposals if emit_proposal else rounds.target_mean[:, :-1]
    np.testing.assert_array_equal(found.emitted, shown)
    r = doubles(rounds)
    for i, count in enumerate(found.num_accepted):
        np.testing.assert_array_equal(found.patch[i], rounds.target_mean[i, count])
        one = jax.tree.map(lambda leaf, i=i: leaf[i], r)
        np.testing.assert_allclose(found.log_ratio[i], [-rms(one, k) for k in range(3)], rtol=1e-5)


@pytest.mark.parametrize("kind", [Mean, SharedNoise])
def test_tolerance_is_the_root_of_the_mean_square_in_sigmas(kind):
    """The tolerance would mean something else than documented: a sum, a square, no units."""
    current = one_gap([3.0, 4.0, 0.0, 0.0], sigma=2.0)  # sqrt((9 + 16) / 4) / 2 = 1.25
    for tolerance, accepted in ((1.249, 0), (1.25, 1), (1.251, 1)):
        found = decide(kind(tolerance=tolerance), current)
        assert found.num_accepted == [accepted]
        np.testing.assert_allclose(found.log_ratio, [[-1.25]])
        np.testing.assert_allclose(found.threshold, [[-tolerance]], rtol=1e-6)


@pytest.mark.parametrize("kind", [Mean, SharedNoise])
def test_extreme_tolerances(kind):
    """Tolerance 0 would accept a different mean; an infinite one would reject."""
    rounds = of_means(random_rounds(20, 3, 1e-3))
    assert not decide(kind(tolerance=0.0), rounds).num_accepted.any()
    rounds = of_means(random_rounds(20, 3, 100.0))
    assert (decide(kind(tolerance=np.inf), rounds).num_accepted == 3).all()
    rounds = of_means(random_rounds(20, 3, 0.0))
    assert (decide(kind(tolerance=0.0), rounds).num_accepted == 3).all()


@pytest.mark.parametrize("kind", [Mean, SharedNoise])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_draft_that_is_not_finite_is_rejected(kind, bad):
    """A diverged draft would put NaN into the forecast."""
    rounds = random_rounds(10, 2, 0.0)
    mean_q = rounds.draft_mean.at[:, 1, 0, 0].set(bad)
    rounds = rounds._replace(draft_mean=mean_q, proposals=mean_q + rounds.noise)
    found = decide(kind(), rounds)
    assert (found.num_accepted == 1).all()
    assert np.isfinite(found.patch).all()
    assert np.isfinite(found.emitted[:, 0]).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_accepts_with_a_gaussian_probability(temperature):
    """The temperature would mean something else than documented: the mean square, no units."""
    count = 20_000
    current = one_gap([0.6, 0.8, 1.0], sigma=2.0)  # |gap|^2 = 2 / 4
    rounds = jax.tree.map(lambda leaf: jnp.repeat(leaf, count, axis=0), current)
    found = decide(Mean(temperature=temperature, tolerance=0.0), rounds)
    check_rate(found.num_accepted, np.exp(-0.25 / temperature**2))
    with pytest.raises(AssertionError):  # the root of the mean square in place of the norm
        check_rate(found.num_accepted, np.exp(-0.25 / 3 / temperature**2))


def test_temperature_extremes():
    """Equal means would be rejected, or far ones accepted, when a temperature is set."""
    rounds = of_means(random_rounds(50, 3, 0.0))
    assert (decide(Mean(temperature=0.01), rounds).num_accepted == 3).all()
    rounds = of_means(random_rounds(50, 3, 1.0))
    assert not decide(Mean(temperature=0.01), rounds).num_accepted.any()
    assert (decide(Mean(temperature=1e6), rounds).num_accepted == 3).all()


# ---------------------------------------------------------------- shared_noise


def test_shared_noise_is_a_plain_loop():
    """Sample paths would accept too far a draft, or be drawn with other noise."""
    rounds = of_patch_noise(random_rounds(80, 3, 0.3))
    tolerance = 0.33

    def slow(r: Round, log_u: np.ndarray):
        for i in range(3):
            if rms(r, i) > tolerance:
                return i, r.target_mean[i] + r.target_sigma[i] * r.noise[i]
        return 3, r.target_mean[3] + r.target_sigma[3] * r.fresh[3]

    found = decide(SharedNoise(tolerance), rounds)
    check_leading(found, slow, rounds)
    r = doubles(rounds)
    emitted = r.target_mean[:, :-1] + r.target_sigma[:, :-1] * r.noise
    np.testing.assert_allclose(found.emitted, emitted, atol=1e-5)


@registered
class Shown(Rule):
    """`SharedNoise` with what it emits first as its patch."""

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        out = SharedNoise(0.5).decide(key, current)
        return out._replace(num_accepted=jnp.int32(0), patch=out.emitted[0])


def test_shared_noise_emits_the_distribution_of_the_target_and_keeps_the_draft():
    """The output would have the draft's distribution; the documented context would be another."""
    distributions = distributions_of((0.5, 8.0))
    kept, accepted = decoded(SharedNoise(0.5), distributions, draws=10_000)
    assert (accepted == 1).all()
    e = towards(distributions)
    assert stats.kstest(kept[:, 0] @ e + 0.5, "norm").pvalue > 1e-4  # the proposal
    assert (
        distribution_p_value(kept[:, 1], towards(distributions, 1)) > 1e-4
    )  # where it was rejected
    emitted, _ = decoded(Shown(), distributions, draws=10_000)
    assert distribution_p_value(emitted[:, 0], e) > 1e-4


# ---------------------------------------------------------------- as_released


@functools.cache
def recorded() -> dict[str, np.ndarray]:
    """The original's acceptance ratios and the inputs behind them."""
    with np.load(GOLDEN / "acceptance.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def original_round(learned: bool) -> Round:
    """The recorded inputs as one round of six proposals, with the leading axis of `decide`."""
    file = recorded()
    x, mean_p, mean_q = (jnp.asarray(file[name]) for name in ("x", "mu_p", "mu_q"))
    logvar = jnp.asarray(file["logvar_q"]) if learned else None
    sigma = jnp.full_like(x, float(file["sigma"]))
    sigma_q = jnp.exp(logvar / 2) if learned else sigma
    sigma_p = jnp.concatenate([sigma, sigma[:1]])
    means = jnp.concatenate([mean_p, mean_p[:1]])
    fresh, length = jnp.zeros_like(means), jnp.int32(len(x))
    noise = (x - mean_q) / sigma_q
    current = Round(x, noise, mean_q, sigma_q, means, sigma_p, logvar, fresh, length)
    return jax.tree.map(lambda leaf: leaf[None], current)


def test_as_released_is_the_ratio_of_the_released_code():
    """Its figures could not be compared with the original's."""
    found = decide(AsReleased(), original_round(learned=False)).log_ratio[0]
    np.testing.assert_allclose(found, recorded()["original_fixed"], rtol=1e-4)
    found = decide(AsReleased(), original_round(learned=True)).log_ratio[0]
    np.testing.assert_allclose(found, recorded()["original_stochastic"], rtol=1e-4)


def test_the_released_ratio_is_wrong_where_the_spread_is_learned():
    """Nobody would see why the original accepts nearly everything; `residual` has it right."""
    exact = recorded()["exact_diagonal"]
    found = decide(Residual(), original_round(learned=True)).log_ratio[0]
    np.testing.assert_allclose(found, exact, rtol=1e-4)
    released = decide(AsReleased(), original_round(learned=True))
    assert (released.log_ratio[0] - exact > 10).all()
    assert released.num_accepted == [6]


@pytest.mark.parametrize("rule", [Maximal(), Resample(), Residual()])
def test_one_sigma_gives_the_same_ratio_in_every_rule(rule):
    """With a fixed sigma the original is right, and so must be the others."""
    found = decide(rule, original_round(learned=False)).log_ratio[0]
    np.testing.assert_allclose(found, recorded()["exact_fixed"], rtol=1e-4)


def test_as_released_redraws_and_takes_a_bias():
    """A rejected proposal would be recovered otherwise than in the released code."""
    current = original_round(learned=False)
    current = current._replace(fresh=jnp.ones_like(current.fresh))
    plain = decide(AsReleased(), current)
    count = int(plain.num_accepted[0])
    patch = np.asarray(current.target_mean[0, count]) + float(recorded()["sigma"])
    np.testing.assert_allclose(plain.patch[0], patch, rtol=1e-5)
    biased = decide(AsReleased(bias=3.0), current)
    np.testing.assert_allclose(biased.log_ratio, plain.log_ratio + np.log(3), rtol=1e-5)
    assert decide(AsReleased(bias=1e9), current).num_accepted == [6]


def test_adaptive_sigma_is_a_worked_line():
    """The adaptive sigma would be another than the released one."""
    current = one_gap([0.0, 0.0])
    x = jnp.asarray([2.0, 1.0]).reshape(1, 1, 1, 2)
    # mean squared gap 1, sigma 2 * 1 in both terms: (1 - 5) / (2 * 4)
    current = current._replace(proposals=x, draft_mean=jnp.ones_like(x))
    rule = AsReleased(adaptive_sigma=2.0)
    np.testing.assert_allclose(decide(rule, current).log_ratio, [[-0.5]], rtol=1e-6)
    # the draft's own variance of 1 in its term: 1 / 2 - 5 / 8
    learned = current._replace(draft_logvar=jnp.zeros_like(x))
    found = decide(rule, learned).log_ratio
    np.testing.assert_allclose(found, [[-0.125]], rtol=1e-6)


def test_adaptive_sigma_of_equal_means_is_a_number():
    """A perfect draft would be rejected, with NaN in the trace."""
    current = one_gap([0.0, 0.0])
    current = current._replace(proposals=current.proposals + 5)
    found = decide(AsReleased(adaptive_sigma=1.0), current)
    assert np.isfinite(found.log_ratio).all()
    assert found.num_accepted == [1]
