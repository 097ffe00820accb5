"""The correction of drafts of several patches: the map it finds, exactness, and what it brings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toys import one_loop, registered
from jax.tree_util import Partial

from stride_jax.decoding.base import Rule
from stride_jax.decoding.corrected_draft import corrected_draft
from stride_jax.decoding.drafts import multi_patch_draft
from stride_jax.decoding.linear_draft import (
    linear_draft,
)
from stride_jax.decoding.naive_drafts import last_value_draft, seasonal_draft
from stride_jax.decoding.processes import window_process
from stride_jax.decoding.rules import Block
from stride_jax.errors import InputError
from stride_jax.testing import check_draft
from stride_jax.testing.analytic import Linear, make_problem, processes
from stride_jax.testing.exactness import FAIL_BELOW, PASS_ABOVE, check, decode_problem
from stride_jax.training.responses import fit_responses
from stride_jax.types import PatchDistribution

PATCH, PLACES, PATHS = 2, 3, 10_000
POOR = make_problem(num_vars=1, num_patches=4)
STRONG = 2 * POOR.weight
NEAR = POOR._replace(weight=STRONG, draft_weight=STRONG, draft_bias=0 * POOR.draft_bias)
"""A draft that would be the target if it saw the noise, to which the target responds strongly."""


def continued(params, window):
    """M patches of a linear model that sees no noise, `[2 * P, C] -> [M * P, C]`."""
    patches = []
    for _ in range(PLACES):
        patches.append(Linear(PATCH)(params, window).mean)
        window = jnp.concatenate([window[PATCH:], patches[-1]])
    return PatchDistribution(jnp.concatenate(patches))


def plain(problem):
    """The problem's draft, but all patches at once."""
    arrays = (problem.draft_weight, problem.draft_bias, 0.0)
    params = tuple(jnp.asarray(x, jnp.float32) for x in arrays)
    return multi_patch_draft(Partial(continued, params), PATCH, context_len=2 * PATCH)


def fitted(problem, **options):
    """The plain draft, corrected for the problem's target."""
    target, _ = processes(problem, "window")
    contexts = [jax.random.normal(jax.random.key(1), (64, 2 * PATCH, 1))]
    options = {"num_draft": PLACES, "regularisation": 1e-6, **options}
    key = jax.random.key(0)
    return fit_responses(key, target, plain(problem), contexts, problem.sigma, **options)


@pytest.fixture(scope="module")
def near():
    """A draft that knows the target's path without noise, corrected."""
    return fitted(NEAR)


@pytest.fixture(scope="module")
def poor():
    """A poor draft, corrected."""
    return fitted(POOR)


@registered
class Forgetful(Rule):
    """A wrong block: told the means without the correction that moved the proposals."""

    responses: jax.Array

    def decide(self, key, current):
        """See `Rule`."""
        errors = current.proposals - current.draft_mean
        moved = jnp.einsum("kpjq,jqc->kpc", self.responses, errors)
        return Block().decide(key, current._replace(draft_mean=current.draft_mean - moved))


def test_the_response_of_a_linear_target_is_found(near):
    """The correction would move means by something else than what the target does."""
    older, newer = NEAR.weight[:, :PATCH], NEAR.weight[:, PATCH:]
    found = np.asarray(near.responses)
    np.testing.assert_allclose(found[1, :, 0], newer, atol=1e-3)
    np.testing.assert_allclose(found[2, :, 1], newer, atol=1e-3)
    np.testing.assert_allclose(found[2, :, 0], older + newer @ newer, atol=1e-3)


def test_more_is_accepted_where_the_target_responds_linearly(near):
    """A correction that brings nothing would be a cost."""
    rates = []
    for draft in (plain(NEAR), near):
        options = {"draft": draft, "decoder": one_loop}
        _, _, info = decode_problem(NEAR, Block(), PATHS, PLACES, 0, **options)
        rates.append(float(info.accepted.sum() / info.proposed.sum()))
    assert rates[0] < 0.9
    assert rates[1] > 0.99


def test_means_are_those_that_proposals_were_drawn_with(poor):
    """No exact rule would be exact: the density of a proposal would be another one's."""
    check_draft(poor, jax.random.normal(jax.random.key(2), (2 * PATCH, 1)))
    options = {"num_series": PATHS, "num_draft": PLACES, "draft": poor, "decoder": one_loop}
    assert check(POOR, Block(), **options)["p"] > PASS_ABOVE
    assert check(POOR, Forgetful(poor.responses), **options)["p"] < FAIL_BELOW


@pytest.mark.parametrize(
    ("draft", "responses", "message"),
    [
        (linear_draft(np.ones((4, 2))), np.zeros((2, 2, 2, 2)), "response of its own"),
        (processes(NEAR, "window")[1], np.zeros((2, 2, 2, 2)), "patch by patch"),
        (last_value_draft(2), np.zeros((2, 3, 2, 3)), "P = 2"),
        (last_value_draft(2), np.full((2, 2, 2, 2), np.nan), "not finite"),
        (last_value_draft(2), np.ones((2, 2, 2, 2)), "strictly lower triangular"),
    ],
)
def test_drafts_and_responses_that_do_not_fit_are_refused(draft, responses, message):
    """A correction that sees its own error, or another draft's, would break the exact rules."""
    with pytest.raises(InputError, match=message):
        corrected_draft(draft, responses)


def test_rounds_that_cannot_be_corrected_are_refused(near):
    """A longer round would go uncorrected, or fail inside a product."""
    with pytest.raises(InputError, match="up to 3 patches"):
        check_draft(near, jnp.zeros((4, 1)), num_draft=4)
    with pytest.raises(InputError, match="at least 2"):
        fitted(NEAR, num_draft=1)


def bent(window: jax.Array) -> PatchDistribution:
    """Half the last value, bent: the same in any units."""
    level = window[-1:]
    return PatchDistribution(jnp.broadcast_to(0.5 * level + 0.3 * jnp.abs(level), (2, 1)))


def responses(*contexts: jax.Array, sigma: float) -> np.ndarray:
    """Responses that are fitted with a strong penalty."""
    target, draft = window_process(Partial(bent), 2, context_len=4), last_value_draft(2)
    options = {"num_draft": 3, "regularisation": 0.5}
    fitted = fit_responses(jax.random.key(0), target, draft, contexts, sigma, **options)
    return np.asarray(fitted.responses)


def test_responses_do_not_depend_on_the_units() -> None:
    """A series of large numbers would be corrected fully, and one of small numbers not at all."""
    contexts = jax.random.normal(jax.random.key(1), (16, 4, 1))
    found = [responses(scale * contexts, sigma=scale) for scale in (1.0, 100.0)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


def test_every_batch_of_contexts_has_noise_of_its_own() -> None:
    """More contexts would bring fewer new errors than they seem to."""
    contexts = jax.random.normal(jax.random.key(1), (16, 4, 1))
    once, twice = responses(contexts, sigma=1.0), responses(contexts, contexts, sigma=1.0)
    assert np.abs(once - twice).max() > 1e-3


LOWER = np.zeros((2, PATCH, 2, PATCH))


def test_a_mean_that_moves_with_its_own_error_is_refused():
    """The density of a proposal would be another than the rule is told: no rule is exact."""
    own = LOWER.copy()
    own[1, :, 1] = 0.5
    with pytest.raises(InputError, match="strictly lower triangular"):
        corrected_draft(last_value_draft(PATCH), own)


def test_a_draft_inside_its_target_is_refused():
    """The wrapper has no `prepare_beside`: the draft would be prepared without its target."""
    methods = dict.fromkeys(("prepare", "start", "predict_next", "commit"), lambda *a: None)
    inside = type("Inside", (), {**methods, "prepare_beside": None, "patch_len": PATCH})
    with pytest.raises(InputError, match="reads its target's memory"):
        corrected_draft(registered(inside)(), LOWER)


def test_padding_does_not_reach_the_draft_inside():
    """A short history would be drafted from whatever stands before it."""
    draft = corrected_draft(seasonal_draft(PATCH, 4), LOWER)
    context = np.random.default_rng(0).normal(size=(8, 1)).astype(np.float32)
    found = draft.prepare(jnp.asarray(context), jnp.int32(4))
    expected = draft.draft.prepare(jnp.asarray(context), jnp.int32(4))
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(found, context)
