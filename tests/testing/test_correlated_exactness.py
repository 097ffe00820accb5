"""Exactness with a covariance of a patch's errors; rules that overlook it fail the same test."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toys import one_loop, registered

from stride_jax.decoding.base import Outcome, Round, Rule
from stride_jax.decoding.gaussian import mirror
from stride_jax.decoding.rules import RULES, Block, Maximal, Resample
from stride_jax.decoding.rules.common import log_ratios, log_uniform, num_leading, target_draw
from stride_jax.decoding.scale import correlated
from stride_jax.testing import check_exact, exactness
from stride_jax.testing.analytic import closed_form_covariance, make_problem

CORRELATION = 0.8

check = functools.partial(exactness.check, decoder=one_loop, num_series=10_000)


@registered
class MirroredInSeriesUnits(Rule):
    """Wrong on purpose: accepts by the right ratio, and mirrors the error instead of the noise."""

    correlated = True

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        ratio = log_ratios(current)
        count = num_leading(log_uniform(key, len(ratio)) <= ratio, current.length)
        first = jnp.minimum(count, len(ratio) - 1)
        sigma = current.target_sigma[first]
        gap = (current.target_mean[first] - current.draft_mean[first]) / sigma
        error = mirror(correlated(current.noise[first], current.correlation), gap)
        mirrored = current.target_mean[first] + sigma * error
        return Outcome(
            count, jnp.where(count < current.length, mirrored, target_draw(current, count))
        )


@registered
class BlindToCorrelation(Rule):
    """Wrong on purpose: maximal with the correlation left out of the gap and of its draws."""

    correlated = True

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        return Maximal().decide(key, current._replace(correlation=None))


@pytest.mark.parametrize(
    ("rule", "kind", "shape"),
    [
        ("maximal", "window", "two, joint"),
        pytest.param("block", "cached", "two, separate", marks=pytest.mark.slow),
        pytest.param("maximal", "cached", "one", marks=pytest.mark.slow),
        pytest.param("block", "window", "two, joint", marks=pytest.mark.slow),
        pytest.param("residual", "cached", "two, joint", marks=pytest.mark.slow),
    ],
)
def test_exact_rules_follow_a_correlated_target(rule, kind, shape):
    """Paths would not have the covariance that was fitted: sums and thresholds would be wrong."""
    scale = 1.3 if RULES[rule].scales == "free" else 1.0
    sizes = exactness.SHAPES[shape]
    problem = make_problem(delta=1.0, draft_scale=scale, correlation=CORRELATION, **sizes)
    result = check(problem, RULES[rule](), kind=kind)
    assert result["p"] > exactness.PASS_ABOVE
    assert 0.2 < result["acceptance"] < 0.8


@pytest.mark.parametrize("rule", [MirroredInSeriesUnits(), BlindToCorrelation(), Resample()])
def test_rules_that_overlook_the_correlation_fail(rule):
    """The test above would pass whatever a rule does with the correlation."""
    problem = make_problem(delta=1.3, correlation=CORRELATION, num_vars=1, patch_len=3)
    assert check(problem, rule)["p"] < exactness.FAIL_BELOW


@pytest.mark.slow
def test_the_planted_rules_are_right_where_nothing_is_correlated():
    """They would fail for another reason than the one they were planted for."""
    for rule in (MirroredInSeriesUnits(), BlindToCorrelation()):
        problem = make_problem(delta=1.3, num_vars=1, patch_len=3)
        assert check(problem, rule, num_series=20_000)["p"] > exactness.PASS_ABOVE


@pytest.mark.slow
def test_check_exact_takes_a_correlation():
    """A rule of one's own could not be tested with a covariance."""
    check_exact(Block(), correlation=CORRELATION, num_paths=10_000)
    with pytest.raises(AssertionError, match="BlindToCorrelation is not exact"):
        check_exact(BlindToCorrelation(), correlation=CORRELATION, num_paths=10_000)


def test_closed_form_covariance_is_that_of_a_correlated_simulation():
    """The covariance test is only as good as its closed form."""
    problem = make_problem(seed=3, correlation=0.7)
    rng, size, width = np.random.default_rng(0), 100_000, 4
    window, patches = np.zeros((size, 2 * width)), []
    for _ in range(problem.num_patches):
        noise = rng.normal(size=(size, 2, 2))  # [S, P, C]
        errors = problem.sigma * np.einsum("cpq,sqc->spc", problem.factor, noise)
        patch = window @ problem.weight.T + errors.reshape(size, width)
        window = np.concatenate([window[:, width:], patch], axis=1)
        patches.append(patch)
    found = np.cov(np.concatenate(patches, axis=1).T)
    np.testing.assert_allclose(found, closed_form_covariance(problem), atol=0.015)
