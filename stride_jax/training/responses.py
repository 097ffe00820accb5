"""Fit of the correction of a draft of K patches: what its errors do to the target's later means."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.decoding.base import Process
from stride_jax.decoding.corrected_draft import CorrectedDraft, corrected_draft
from stride_jax.decoding.drafts import propose
from stride_jax.errors import InputError


class Trials(NamedTuple):
    """Rounds that were proposed and verified, one row for each variable.

    Attributes:
        errors: `[R, K, P]`, proposals minus means, in the units of the series.
        missing: `[R, K, P]`, the target's means minus the draft's.
    """

    errors: jax.Array
    missing: jax.Array


def fit_responses(
    key: jax.Array,
    target: Process,
    draft: Any,
    contexts: Iterable[jax.Array],
    sigma: float,
    *,
    num_draft: int,
    draws: int = 4,
    regularisation: float = 0.01,
) -> CorrectedDraft:
    """A draft of K patches corrected by a ridge regression on the target's own predictions.

    Place by place: the proposals before it are drawn with the correction so far, the target
    predicts after them, and what the draft misses there is regressed on their errors. No gradient.

    Args:
        key: of the noise; folded with the place and the number of the batch, not consumed.
        target: predicts after the proposals.
        draft: see `corrected_draft`.
        contexts: batches `[B, L, C]`; gone through once for each place.
        sigma: std of the proposals.
        num_draft: K, at least 2.
        draws: rounds drawn for each context.
        regularisation: penalty of a squared weight, over the number of rows and `sigma^2`.

    Raises:
        InputError: no contexts, K below 2, or see `corrected_draft`.
    """
    if num_draft < 2:
        raise InputError(f"num_draft must be at least 2 to correct later patches, got {num_draft}.")
    size, batches = int(draft.patch_len), list(contexts)
    if not batches:
        raise InputError("there are no contexts to fit responses to.")
    responses = np.zeros((num_draft, size, num_draft, size))
    for place in range(1, num_draft):
        corrected = corrected_draft(draft, responses)
        place_key, width = jax.random.fold_in(key, place), place * size
        gram, cross, rows = np.zeros((width, width)), np.zeros((width, size)), 0
        for number, context in enumerate(batches):
            batch_key = jax.random.fold_in(place_key, number)
            keys = jax.random.split(batch_key, (len(context), draws))
            trials = _trials(target, corrected, context, keys, jnp.float32(sigma))
            # [R, K, P] -> [R, place * P]
            errors = np.asarray(trials.errors, np.float64)[:, :place].reshape(-1, width)
            missing = np.asarray(trials.missing, np.float64)[:, place]
            gram, cross = gram + errors.T @ errors, cross + errors.T @ missing
            rows += len(errors)
        penalty = regularisation * rows * sigma**2 * np.eye(width)
        fitted = np.linalg.solve(gram + penalty, cross)  # [place * P, P]
        # [place * P, P] -> [P, place, P]
        responses[place, :, :place] = fitted.T.reshape(size, place, size)
    return corrected_draft(draft, responses)


@jax.jit
def _trials(
    target: Process, draft: CorrectedDraft, contexts: jax.Array, keys: jax.Array, sigma: jax.Array
) -> Trials:
    """Rounds of contexts `[B, L, C]` with keys `[B, draws]`, as `R = B * draws * C` rows."""
    num_draft, size = draft.responses.shape[:2]
    shape = (num_draft, size, contexts.shape[2])

    def drawn(context: jax.Array, keys: jax.Array) -> Trials:
        memory, drafted = target.prepare(context), draft.prepare(context)

        def one(key: jax.Array) -> Trials:
            noise = jax.random.normal(key, shape)
            state = draft.start(drafted, num_draft)
            scale = jnp.broadcast_to(sigma, shape[1:])
            proposals, _ = propose(draft, drafted, state, noise, scale, num_draft, learned=False)
            state = target.start(memory, num_draft)
            predictions, _ = target.verify(memory, state, proposals.patches)
            return Trials(scale[None] * noise, predictions.mean[:-1] - proposals.mean)

        return jax.vmap(one)(keys)

    trials = jax.vmap(drawn)(contexts, keys)
    # [B, draws, K, P, C] -> [B, draws, C, K, P] -> [R, K, P]
    return jax.tree.map(lambda x: jnp.moveaxis(x, -1, 2).reshape(-1, num_draft, size), trials)
