"""The average of two trained forecasters."""

from __future__ import annotations

import jax

from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.errors import InputError


def average(first: Checkpoint, second: Checkpoint, share: float) -> Checkpoint:
    """A forecaster with the parameters `(1 - share) first + share second`.

    Where the second was trained on from the first, the average is often better than both, and keeps
    what the second would have forgotten.

    Args:
        first: gives the rest.
        second: of the same config and context.
        share: from 0 to 1.

    Raises:
        InputError: another share, or models that differ in more than their parameters.

    References:
        Wortsman et al., Robust fine-tuning of zero-shot models, https://arxiv.org/abs/2109.01903.
    """
    if not 0 <= share <= 1:
        raise InputError(f"the share of the second model must be from 0 to 1, got {share}.")
    if (first.model, first.context_len) != (second.model, second.context_len):
        raise InputError(
            "only models that differ in nothing but their parameters can be averaged, got "
            f"{first.model} of context {first.context_len} and {second.model} of context "
            f"{second.context_len}."
        )
    params = jax.tree.map(lambda a, b: (1 - share) * a + share * b, first.params, second.params)
    return first._replace(params=params)
