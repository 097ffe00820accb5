"""Theory of rejections against draws: closed forms, each rule, and wrong rules that show."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toys import registered
from scipy import integrate, stats

from stride_jax.decoding.base import Outcome, Rule
from stride_jax.decoding.rules import Block, Maximal, Resample, Several, SharedNoise
from stride_jax.decoding.rules.common import log_ratios, log_uniform, num_leading, target_draw
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError
from stride_jax.evaluation import rejections
from stride_jax.testing.analytic import (
    closed_form_covariance,
    gap_moments,
    innovations,
    make_problem,
    processes,
)

PATHS, PLACES = 4_000, 4
PROBLEM = make_problem(num_patches=PLACES)
CONTEXT = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)


@registered
class Wasteful(Rule):
    """A wrong rule: halves the chance of every proposal."""

    exact: ClassVar = True

    def decide(self, key, current):
        """See `Rule`."""
        keep = log_uniform(key, len(current.proposals)) <= log_ratios(current) - np.log(2)
        count = num_leading(keep, current.length)
        return Outcome(count, target_draw(current, count))


@registered
class Lenient(Resample):
    """A wrong rule: a biased ratio that claims to be exact."""

    exact: ClassVar = True


def target_paths(seed: int) -> rejections.Along:
    """Paths of the target, drawn by numpy from the closed form of its distribution."""
    width = PROBLEM.patch_len * PROBLEM.num_vars
    means = CONTEXT.astype(np.float64).reshape(-1)
    for _ in range(PLACES):
        means = np.concatenate([means, PROBLEM.weight @ means[-2 * width :]])
    rng = np.random.default_rng(seed)
    drawn = rng.multivariate_normal(means[2 * width :], closed_form_covariance(PROBLEM), PATHS)
    # [S, N * P * C] -> [S, N * P, C]
    forecast = drawn.reshape(PATHS, -1, PROBLEM.num_vars)
    return rejections.Along.of(*innovations(PROBLEM, CONTEXT, forecast))


def measured(rule: Rule, num_draft: int = PLACES) -> np.ndarray:
    """Rejections of decoded paths, `[S]`."""
    target, draft = processes(PROBLEM, "window")
    horizon = PLACES * PROBLEM.patch_len
    config = DecodeConfig(horizon, num_draft, num_paths=PATHS, compactions=0)
    models = {"target": target, "draft": draft, "rule": rule}
    context = jnp.asarray(CONTEXT)
    _, info = decode(jax.random.key(0), context, **models, sigma=PROBLEM.sigma, config=config)
    return np.sum(np.asarray(info.proposed - info.accepted), axis=-1)


def closed_form() -> float:
    """The sum of the expected total variations."""
    moments = gap_moments(PROBLEM, CONTEXT)
    return sum(rejections.expected_total_variation(*one) for one in moments)


@pytest.mark.parametrize("proposals", [1, 3])
@pytest.mark.parametrize("delta", [0.05, 1.0, 4.0])
def test_the_mass_above_is_that_of_quadrature(delta, proposals):
    """The bounds of rules of one and of several proposals would be wrong."""

    def above(x):
        return max(stats.norm.pdf(x - delta) - proposals * stats.norm.pdf(x), 0)

    crossing = delta / 2 + np.log(proposals) / delta
    expected = integrate.quad(above, crossing, max(crossing, delta) + 12)[0]
    np.testing.assert_allclose(rejections.mass_above(delta, proposals), expected, atol=1e-9)


def test_the_closed_form_of_a_place_is_that_of_draws():
    """The sum of total variations, the bound that every rule is held against, would be wrong."""
    rng = np.random.default_rng(3)
    for size, scale in ((1, 0.3), (2, 2.0), (5, 0.05)):
        factor = scale * rng.normal(size=(size, size))
        mean = rng.normal(size=size)
        gaps = mean + rng.normal(size=(200_000, size)) @ factor.T
        drawn = rejections.mass_above(np.linalg.norm(gaps, axis=1))
        exact = rejections.expected_total_variation(mean, factor @ factor.T)
        assert rejections.compare(drawn, exact).side == "at"
    known = rejections.expected_total_variation(mean, np.zeros((5, 5)))
    np.testing.assert_allclose(known, rejections.mass_above(np.linalg.norm(mean)))


def test_the_closed_form_of_a_path_is_that_of_paths_of_the_target():
    """The moments of the gaps would be those of another context, or of the draft's own paths."""
    drawn = rejections.mass_above(target_paths(1).delta).sum(axis=1)
    assert rejections.compare(drawn, closed_form()).side == "at"


@pytest.mark.parametrize(
    ("rule", "num_draft"),
    [(Maximal(), 2), (Block(), PLACES), (Several(Block(), chains=2), PLACES)],
    ids=["maximal, with bonus", "block", "several"],
)
def test_rules_reject_as_often_as_expected(rule, num_draft):
    """The page would compare rules with a theory that is not theirs."""
    expected = rejections.expected_rejections(rule, target_paths(2), num_draft)
    assert rejections.compare(measured(rule, num_draft), expected).side == "at"


def test_maximal_is_at_the_bound_and_wrong_rules_show():
    """A rule that rejects too often, or too rarely to be exact, would pass unseen."""
    along, bound = target_paths(2), closed_form()
    rules = (Maximal(), Wasteful(), Lenient(bias=2.0), SharedNoise(0.7))
    counts = [measured(rule) for rule in rules]
    sides = [rejections.compare(count, bound).side for count in counts]
    assert sides == ["at", "above", "below", "below"]

    rows = [
        rejections.rejection_row("maximal", Maximal(), counts[0], along, bound),
        rejections.rejection_row("wasteful", Maximal(), counts[1], along, bound),
        rejections.rejection_row("lenient", Maximal(), counts[2], along, bound),
        rejections.rejection_row("resample", Resample(bias=2.0), counts[2], along, bound),
    ]
    wrong = [row["rule"] for row in rejections.contradictions(rows)]
    assert wrong == ["wasteful", "lenient"]


def test_block_and_several_are_between_their_bounds():
    """A bound that a right rule breaks is none."""
    along = target_paths(4)
    single = rejections.fewest(Maximal(), along).mean()
    for rule in (Block(), Several(Maximal(), chains=3), Several(Block(), chains=3)):
        expected = rejections.expected_rejections(rule, along, PLACES).mean()
        assert rejections.fewest(rule, along).mean() < expected < single
    same = rejections.expected_rejections(Several(Maximal(), chains=1), along, PLACES)
    np.testing.assert_allclose(same.mean(), single, rtol=0.02)


def test_a_rule_without_a_formula_is_refused():
    """Its expectation would be that of another rule."""
    with pytest.raises(InputError, match="SharedNoise"):
        rejections.expected_rejections(SharedNoise(0.2), target_paths(0), 2)
