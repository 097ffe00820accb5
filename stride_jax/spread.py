"""sigma of a history: what its model got wrong on the last patches, or how far it spreads."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from stride_jax.decoding import compiled, in_chunks
from stride_jax.history import Contexts
from stride_jax.processes import CachedProcess, Process

PRIOR_SIGMA = 0.5
"""Share of the std of the context that stands beside eight measured patches, as a ninth."""
RESIDUALS = 8
"""The last patches of a history whose one-patch errors give its sigma."""
FLOOR = 1e-6
"""sigma at least, over the std of a history (over its absolute value where that is constant)."""
SERIES_AT_ONCE = 256
"""Series whose sigma is measured at once, at most."""


def groups(
    target: Process, lengths: np.ndarray, patches: np.ndarray | None = None
) -> list[np.ndarray]:
    """Series that are decoded together: of one number of patches, and without a mask one length."""
    keys = np.zeros((2, len(lengths)), np.int64)
    if not isinstance(target, CachedProcess):
        keys[0] = lengths
    if patches is not None:
        keys[1] = patches
    return [np.flatnonzero((key == keys.T).all(axis=1)) for key in np.unique(keys.T, axis=0)]


def sigmas(
    target: Process, contexts: Contexts, context_len: int, batch_size: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Std of the law of each series over its scale, `[B, 1, C]` float64, see `forecast`.

    Args:
        target: the process.
        contexts: with up to eight patches more than is decoded from.
        context_len: L, steps that are decoded from.
        batch_size: series at once; None for 256.

    Returns:
        `(sigma, unsure)`: unsure, `[B]` bool, where a history tells nothing of how it varies.
    """
    squares, known = _errors(target, contexts, context_len, batch_size)
    values = contexts.observed[:, -context_len:].sum(axis=1, keepdims=True)
    total = squares + _prior(contexts, values, known)
    least = FLOOR * np.where(contexts.spread > 0, contexts.spread, contexts.size)
    unsure = (contexts.spread == 0) & (known == 0)
    return np.maximum(np.sqrt(total / (known + 1)), least), unsure.any(axis=(1, 2))


def _prior(contexts: Contexts, values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The square that counts as one patch beside those that were measured, `[B, 1, C]`.

    From the spread of so many values, corrected for how few they are, to the square of half of it
    as eight patches become known; see `forecast`.
    """
    count = np.maximum(values, 2)
    student = stats.t.ppf(0.9, count - 1) / stats.norm.ppf(0.9)
    few = (count + 1) / (count - 1) * np.square(student)  # n / (n - 1) unbiased, 1 + 1 / n ahead
    share = np.minimum(known / RESIDUALS, 1)
    spread = np.square(contexts.spread) * ((1 - share) * few + share * PRIOR_SIGMA**2)
    alone = np.where(known == 0, np.square(contexts.size / np.maximum(values, 1)), 0)
    prior: np.ndarray = np.where(contexts.spread > 0, spread, alone)
    return prior


def _errors(
    target: Process, contexts: Contexts, context_len: int, batch_size: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Sums over the last patches of a history, `[B, 1, C]` each: mean squares, and how many."""
    together, size = batch_size or SERIES_AT_ONCE, target.patch_len
    fixed = getattr(target, "context_len", None)
    totals = np.zeros((2, *contexts.scale.shape))
    for rows in groups(target, contexts.lengths):
        values, observed = contexts.values[rows], contexts.observed[rows]
        lengths, count = contexts.lengths[rows], RESIDUALS
        asked, masked = target, None
        if isinstance(target, CachedProcess):
            asked = dataclasses.replace(target, context_len=context_len)
            masked = jnp.asarray(lengths)
        else:
            first, steps = values.shape[1] - int(lengths[0]), int(lengths[0])
            count = min(RESIDUALS, (steps - (fixed or size)) // size)
            if count < 1:
                continue
            values, observed = values[:, first:], observed[:, first:]
        sums = _residuals(
            asked,
            jnp.asarray(values),
            jnp.asarray(observed),
            masked,
            count=count,
            together=together,
        )
        for total, patches in zip(totals, sums, strict=True):
            total[rows] = np.asarray(patches, np.float64).sum(axis=1, keepdims=True)
    return totals[0], totals[1]


@compiled
def _residuals(
    target: Process,
    contexts: jax.Array,
    observed: jax.Array,
    lengths: jax.Array | None,
    *,
    count: int,
    together: int,
) -> tuple[jax.Array, jax.Array]:
    """Squares of the one-patch errors of the last M patches, and what is known, `[B, M, C]` each.

    The target verifies the true patches as if they were proposals. Squares are summed over the
    observed steps of a patch, and like the number of these divided by P. Errors of a patch that has
    no history before it are 0 and not known.
    """
    size = target.patch_len
    total = contexts.shape[1]

    def one(context: jax.Array, seen: jax.Array, length: jax.Array | None) -> Any:
        before = context[: -count * size]
        # [M * P, C] -> [M, P, C]
        patches = context[-count * size :].reshape(count, size, -1)
        real = seen[-count * size :].reshape(patches.shape)
        memory = target.prepare(before, None if length is None else length - count * size)
        laws, _ = target.verify(memory, target.start(memory, count), patches)
        if length is not None:
            first = (total - length) // size  # number of the first real patch
            known = (total // size - count) + jnp.arange(count) > first
            if getattr(target, "norm", None) == "frozen":
                known &= length > count * size  # its statistics are those of the part before
            real &= known[:, None, None]
        squares = jnp.where(real, jnp.square(laws.mean[:-1] - patches), 0)
        return jnp.mean(squares, axis=1), jnp.mean(real, axis=1)

    # a length of None has no leaves, and stays None
    return in_chunks(lambda part: jax.vmap(one)(*part), (contexts, observed, lengths), together)
