"""A target that predicts a density which is no Gaussian: draws, exactness, refusals."""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toys import registered
from jax.tree_util import Partial
from scipy import stats
from scipy.special import betaln

from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding.base import Outcome, Round, Rule
from stride_jax.decoding.mixture import StudentMixture, log_gamma_step
from stride_jax.decoding.processes import window_process
from stride_jax.decoding.rules import RULES, Mean, Residual
from stride_jax.decoding.scale import PatchCovariance
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import ACCEPTED, DecodeConfig
from stride_jax.errors import InputError
from stride_jax.testing.exactness import FAIL_BELOW, PASS_ABOVE
from stride_jax.types import PatchDistribution

P, N, PATHS = 2, 3, 10_000
KEY = jax.random.key(5)
CONTEXT = np.array([[0.3], [-0.4]], np.float32)


def mixture(last):
    """Two components for each step of the patch `[P, 1]` after a value; far from a Gaussian."""
    step = jnp.arange(1.0, P + 1)[:, None, None]  # [P, 1, 1]
    loc = jnp.stack([jnp.tanh(last) + 1.5, -0.8 * jnp.tanh(last) - 1.0], axis=-1)
    logits = jnp.stack([last / 2, 0.3 - last / 2], axis=-1)
    df, scale = jnp.array([[2.5, 9.0]]), jnp.array([[0.3, 0.6]])
    parts = (df, loc, scale, jax.nn.log_softmax(logits, axis=-1))
    df, loc, scale, weights = (jnp.broadcast_to(x[None], (P, 1, 2)) for x in parts)
    return StudentMixture(df, loc / step, scale * step, weights)


def predict(window):
    density = mixture(window[-1])
    return PatchDistribution(density.mean(), density=density)


def guess(window):
    """A draft that is wrong in the mean; its Gaussian is wrong in its shape."""
    return predict(window).mean + 0.4


TARGET = window_process(Partial(predict), P, context_len=1, predicts_density=True)
DRAFT = window_process(Partial(guess), P, context_len=1)


def decoded(rule=None, draft=DRAFT, sigma=1.2, target=TARGET, **sizes):
    """`(paths, info)` of the toy target; PATHS of them unless told otherwise."""
    sizes = {"horizon": N * P, "num_draft": 2, "num_paths": PATHS, **sizes}
    config = DecodeConfig(**sizes)
    return decode(KEY, CONTEXT, target=target, draft=draft, sigma=sigma, rule=rule, config=config)


def distribution(parts, values):
    """The distribution function of mixtures `[..., M]` at values `[...]`, by scipy."""
    df, loc, scale, log_weights = (np.asarray(x, np.float64) for x in parts)
    each = stats.t.cdf(values[..., None], df, loc, scale)
    return np.sum(np.exp(log_weights) * each, axis=-1)


def p_value(paths):
    """Smallest corrected p-value of S paths: each step, given the emitted path, is the mixture's.

    Of uniform numbers: Kolmogorov-Smirnov tests of every step, and of every pair of steps whether
    they are correlated.
    """
    patches = np.asarray(paths, np.float64).reshape(PATHS, N, P)
    first = np.broadcast_to(CONTEXT[-1], (PATHS, 1))
    before = np.concatenate([first, patches[:, :-1, -1]], axis=1)  # [S, N], the last value
    parts = jax.vmap(jax.vmap(lambda x: mixture(x[None])))(jnp.asarray(before, jnp.float32))
    uniform = distribution([x[..., 0, :] for x in parts], patches).reshape(PATHS, N * P)
    each = [stats.kstest(column, "uniform").pvalue for column in uniform.T]
    rank = stats.norm.ppf(np.clip(uniform, 1e-12, 1 - 1e-12))
    product = np.corrcoef(rank.T)[np.triu_indices(N * P, 1)] * np.sqrt(PATHS)
    pairs = 2 * stats.norm.sf(np.abs(product))
    return min(1.0, min(each) * len(each) * 2, min(pairs) * len(pairs) * 2)


class Unscaled(NamedTuple):
    """The right draws, and a log density that forgot its scale."""

    right: StudentMixture
    excess: jax.Array  # [..., M]

    def log_prob(self, values):
        weights = self.right.log_weights + self.excess
        return self.right._replace(log_weights=weights).log_prob(values)

    def sample(self, key, count=None):
        return self.right.sample(key, count)


@registered
class Wrong(Rule):
    """Wrong on purpose: the log ratio of another density, or a fresh draw from the target.

    Both are traced, so that they share a program.
    """

    excess: float = 0.0
    redrawn: bool = False

    densities: ClassVar = True

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        excess = jnp.full(current.density.df.shape, self.excess)
        density = Unscaled(current.density, excess)
        out = Residual().decide(key, current._replace(density=density))
        fresh = jax.tree.map(lambda x: x[out.num_accepted], current.density)
        return out._replace(patch=jnp.where(self.redrawn, fresh.sample(key), out.patch))


def test_the_mixture_is_that_of_scipy():
    """Ratios would be those of another density, and paths those of another distribution."""
    df = np.array([2.0001, 3.0, 40.0, 900.0], np.float32)
    loc, scale = np.array([-3.0, 0, 2, 9], np.float32), np.array([0.5, 1, 2, 0.1], np.float32)
    weights = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    parts = StudentMixture(*(jnp.asarray(x) for x in (df, loc, scale, np.log(weights))))
    values = np.linspace(-30, 30, 400).astype(np.float32)
    expected = np.log(np.sum(weights * stats.t.pdf(values[:, None], df, loc, scale), axis=-1))
    np.testing.assert_allclose(parts.log_prob(jnp.asarray(values)), expected, atol=2e-4)
    assert float(parts.mean()) == pytest.approx(weights @ loc, rel=1e-6)
    drawn = np.asarray(parts.sample(KEY, 50_000), np.float64)
    uniform = distribution(parts, drawn)
    assert stats.kstest(uniform, "uniform").pvalue > PASS_ABOVE
    # in units of the last one, and 9 lower
    moved = parts.moved(jnp.float32(-9), jnp.float32(10)).log_prob(jnp.asarray(10 * values - 9))
    np.testing.assert_allclose(moved, expected - np.log(10), atol=3e-4)


def test_the_ratio_of_gamma_functions():
    """The weight of a component with many degrees of freedom would be off by a factor."""
    x = np.array([0.5, 1.0, 3.3, 7.99, 8.0, 300.0, 1e5])
    # Gamma(x + 1/2) / Gamma(x) by the log of a beta function, in float64
    expected = 0.5 * np.log(np.pi) - betaln(x, 0.5)
    np.testing.assert_allclose(log_gamma_step(jnp.asarray(x)), expected, rtol=2e-6, atol=4e-6)


def test_paths_of_the_target_alone_are_drawn_from_its_density():
    """Sample paths would have a Gaussian of some sigma in place of what the model predicts."""
    paths, info = decoded(draft=None)
    assert p_value(paths) > PASS_ABOVE
    assert int(info.target_passes[0]) == N
    one, _ = decoded(draft=None, num_paths=1, sigma=7.0)  # sigma does not matter
    np.testing.assert_array_equal(one[0], paths[0])


@pytest.fixture(scope="module")
def residual():
    """Paths and info of the rule that is exact."""
    return decoded(Residual())


def test_residual_is_exact_on_a_mixture(residual):
    """A speculative forecast would have another distribution than the target alone."""
    paths, info = residual
    assert p_value(paths) > PASS_ABOVE
    rate = np.sum(info.accepted) / np.sum(info.proposed)
    assert 0.2 < rate < 0.9
    assert int(np.sum(info.overflow)) == 0


def test_no_coupling_of_one_proposal_accepts_more(residual):
    """A better rule would exist for this target, such as one that couples step by step."""
    accepted = np.mean(np.asarray(residual[1].origin)[:, 0] == ACCEPTED)  # the first of a round

    # The overlap of both densities, on a grid of both steps of the first patch.
    grid = np.linspace(-40, 40, 2001)
    density = np.asarray(
        mixture(jnp.asarray(CONTEXT[-1])).log_prob(jnp.asarray(grid)[:, None, None])
    )
    target = np.exp(density[..., 0].T.astype(np.float64))  # [P, 2001]
    mean = np.asarray(guess(jnp.asarray(CONTEXT)), np.float64)  # [P, 1]
    draft = stats.norm.pdf(grid, mean, 1.2)
    step = grid[1] - grid[0]
    joint = np.minimum(np.multiply.outer(*target), np.multiply.outer(*draft)).sum() * step**2
    each = np.minimum(target, draft).sum(axis=1) * step
    assert accepted == pytest.approx(joint, abs=4 * np.sqrt(joint * (1 - joint) / PATHS))
    assert each.prod() < joint - 0.02


@pytest.mark.parametrize("rule", [Wrong(excess=0.5), Wrong(redrawn=True)], ids=["ratio", "redraw"])
def test_wrong_rules_fail(rule):
    """The test of exactness would pass whatever the rule does."""
    paths, _ = decoded(rule)
    assert p_value(paths) < FAIL_BELOW


def test_the_mean_path_is_that_of_the_mixture():
    """The rule of means would feed back a draw, or the mean of a Gaussian that is not there."""
    alone, _ = decoded(Mean(0.0), draft=None, num_paths=None)
    zero, _ = decoded(draft=None, num_paths=None, sigma=0.0)
    both, info = decoded(Mean(0.0), num_paths=None)
    np.testing.assert_array_equal(alone, zero)
    np.testing.assert_allclose(both, alone, atol=1e-6)
    np.testing.assert_allclose(alone[:P], mixture(jnp.asarray(CONTEXT[-1])).mean(), atol=1e-6)
    assert info.accepted.tolist() == [0, 0]


def test_rules_for_gaussians_refuse_the_target(monkeypatch):
    """A mixture would be taken for a Gaussian of the given sigma, without a word."""
    monkeypatch.setattr("stride_jax.decoding.speculative._decode", None)  # nothing is compiled
    refused = [name for name, rule in RULES.items() if not rule.densities]
    assert refused == ["maximal", "block", "resample", "shared_noise", "as_released"]
    for name in refused:
        with pytest.raises(InputError, match=f"rule '{name}' needs Gaussian predictions"):
            decoded(RULES[name]())
    covariance = PatchCovariance(np.eye(P, dtype=np.float32))
    with pytest.raises(InputError, match="density of its own"):
        Pair(TARGET, covariance=covariance)
    with pytest.raises(InputError, match="whose steps are independent"):
        decoded(Residual(), sigma=covariance)


def without(window):
    return guess(window)


def misshapen(window):
    density = mixture(window[-1])
    return PatchDistribution(density.mean(), density=density._replace(df=density.df[0]))


def test_a_target_that_breaks_its_word_is_refused():
    """A density would be missing or of another patch, and be found out by a shape error."""
    for wrong, message in ((without, "its prediction has none"), (misshapen, "a density with an")):
        target = window_process(Partial(wrong), P, context_len=1, predicts_density=True)
        with pytest.raises(InputError, match=message):
            decoded(Residual(), target=target, num_paths=1)
    plain = window_process(Partial(predict), P, context_len=1)
    paths, _ = decoded(draft=None, target=plain, num_paths=1, sigma=1e-6)
    np.testing.assert_allclose(paths[0, :P], mixture(jnp.asarray(CONTEXT[-1])).mean(), atol=1e-4)


def test_the_rarest_draw_is_no_outlier_of_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of 8 million draws would be 1e19 scales off, and be fed back into a path."""
    least = []

    def lowest(key, shape, dtype, minval):
        least.append(minval)
        return jnp.full(shape, minval, dtype)

    monkeypatch.setattr(jax.random, "uniform", lowest)
    ones = jnp.ones((4, 1, 1))
    drawn = StudentMixture(2 * ones, 0 * ones, ones, 0 * ones).sample(jax.random.key(0))
    assert least[0] >= 2.0**-24
    assert np.abs(drawn).max() < 1e4  # sqrt(df (u^(-2 / df) - 1)) at df 2 is 5.8e3


def test_weights_that_round_to_less_than_one_have_no_gap_behind_them(monkeypatch):
    """The largest draws would pick a component that is not there: NaN, fed back into the path."""
    highest = float(np.nextafter(np.float32(1), np.float32(0)))

    def largest(key, shape, dtype, minval):
        return jnp.full(shape, highest, dtype)

    monkeypatch.setattr(jax.random, "uniform", largest)
    ones = jnp.ones((4, 1, 2))
    weights = jnp.log(jnp.broadcast_to(jnp.asarray([0.5, 0.5 - 1e-6]), ones.shape))
    drawn = StudentMixture(3 * ones, 0 * ones, ones, weights).sample(jax.random.key(0))
    assert np.isfinite(drawn).all()
