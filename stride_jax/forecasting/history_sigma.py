"""sigma of a history: what its model got wrong on the last patches, or how far it spreads."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from stride_jax.decoding.base import Process, traits_of
from stride_jax.decoding.batching import in_chunks
from stride_jax.decoding.compiled import compiled
from stride_jax.forecasting.histories import Contexts
from stride_jax.forecasting.lengths import groups

PRIOR_SIGMA = 0.5
"""Share of the std of the context that stands beside eight measured patches, as a ninth."""
RESIDUALS = 8
"""The last patches of a history whose one-patch errors give its sigma."""
AFIELD = 4.0
"""How much the distance of a forecast from the mean counts at most, over the spread's square."""
FLOOR = 1e-6
"""sigma at least, over the std of a history (over its absolute value where that is constant)."""
SERIES_AT_ONCE = 256
"""Series whose sigma is measured at once, at most."""


def sigmas(
    target: Process, contexts: Contexts, context_len: int, batch_size: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Sigma of each series over its scale, `[B, 1, C]` float64, see `forecast`.

    Args:
        target: the process.
        contexts: with up to eight patches more than is decoded from.
        context_len: L, steps that are decoded from.
        batch_size: series at once; None for 256.

    Returns:
        `(sigma, unsure)`: unsure, `[B]` bool, where a history tells nothing of how it varies.
    """
    squares, known, ahead = _errors(target, contexts, batch_size)
    total = squares + _prior(contexts, context_len, known, ahead)
    least = FLOOR * np.where(contexts.spread > 0, contexts.spread, contexts.size)
    unsure = (contexts.spread == 0) & (known == 0)
    return np.maximum(np.sqrt(total / (known + 1)), least), unsure.any(axis=(1, 2))


def _prior(
    contexts: Contexts, context_len: int, known: np.ndarray, ahead: np.ndarray
) -> np.ndarray:
    """The square that counts as one patch beside those that were measured, `[B, 1, C]`.

    As long as fewer than eight are known, part of it is the spread of the values, corrected for
    how few they are, and how far the forecast goes from their mean, up to a limit: nothing is known
    yet of what it is worth. See `forecast`.

    Args:
        contexts: as in `sigmas`.
        context_len: L.
        known: `[B, 1, C]`, patches that were measured.
        ahead: `[B, P, C]`, the forecast of the next patch.
    """
    real = contexts.observed[:, -context_len:]
    values = real.sum(axis=1, keepdims=True)
    sums = np.where(real, contexts.values[:, -context_len:], 0).sum(axis=1, keepdims=True)
    off = np.square(ahead - sums / np.maximum(values, 1)).mean(axis=1, keepdims=True)
    count = np.maximum(values, 2)
    student = stats.t.ppf(0.9, count - 1) / stats.norm.ppf(0.9)
    # n / (n - 1) for an unbiased variance, 1 + 1 / n for the mean and the next value
    few = np.square(contexts.spread * student) * (count + 1) / (count - 1)
    share = np.minimum(known / RESIDUALS, 1)
    early = (1 - share) * (few + np.minimum(off, AFIELD * few))
    prior = early + share * np.square(PRIOR_SIGMA * contexts.spread)
    alone = np.where(known == 0, np.square(contexts.size / np.maximum(values, 1)), 0)
    return np.where(contexts.spread > 0, prior, alone)


def _errors(
    target: Process, contexts: Contexts, batch_size: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the last patches of a history: the sums of mean squares and of what is known of them.

    Both are `[B, 1, C]`; with them comes the forecast of the next patch, `[B, P, C]`.
    """
    together, masked = batch_size or SERIES_AT_ONCE, traits_of(target).supports_padding
    counts = _counts(target, contexts.lengths)
    squares, known = np.zeros((2, *contexts.scale.shape))
    ahead = np.zeros((len(counts), target.patch_len, squares.shape[-1]))
    for rows in groups(masked, contexts.lengths, counts):
        lengths, first = contexts.lengths[rows], 0
        if not masked:
            first = contexts.values.shape[1] - int(lengths[0])
        parts = _residuals(
            target,
            jnp.asarray(contexts.values[rows, first:]),
            jnp.asarray(contexts.observed[rows, first:]),
            jnp.asarray(lengths) if masked else None,
            count=int(counts[rows[0]]),
            together=together,
        )
        errors, there, ahead[rows] = (np.asarray(part, np.float64) for part in parts)
        squares[rows], known[rows] = (x.sum(axis=1, keepdims=True) for x in (errors, there))
    return squares, known, ahead


def _counts(target: Process, lengths: np.ndarray) -> np.ndarray:
    """Patches of each history that are forecast from what was before them, `[B]`."""
    traits, size = traits_of(target), target.patch_len
    if traits.supports_padding:
        none = (not traits.starts_empty) & (lengths <= RESIDUALS * size)
        return np.where(none, 0, RESIDUALS)
    return np.clip((lengths - (traits.context_len or size)) // size, 0, RESIDUALS)


@compiled
def _residuals(
    target: Process,
    contexts: jax.Array,
    observed: jax.Array,
    lengths: jax.Array | None,
    *,
    count: int,
    together: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Squares of the one-patch errors of the last M patches, and what is known, `[B, M, C]` each.

    The target verifies the true patches as if they were proposals. Squares are summed over the
    observed steps of a patch, and like the number of these divided by P. Errors of a patch that has
    no history before it are 0 and not known. The third is the forecast of the next, `[B, P, C]`.
    """
    size, total = target.patch_len, contexts.shape[1]
    start = total - count * size

    def one(context: jax.Array, seen: jax.Array, length: jax.Array | None) -> Any:
        before = context[:start]
        patches = context[start:].reshape(count, size, context.shape[1])  # [M * P, C] -> [M, P, C]
        real = seen[start:].reshape(patches.shape)
        memory = target.prepare(before, None if length is None else length - count * size)
        laws, _ = target.verify(memory, target.start(memory, max(1, count)), patches)
        if length is not None:
            first = (total - length) // size  # number of the first real patch
            real &= (start // size + jnp.arange(count) > first)[:, None, None]
        squares = jnp.where(real, jnp.square(laws.mean[:-1] - patches), 0)
        return jnp.mean(squares, axis=1), jnp.mean(real, axis=1), laws.mean[-1]

    # a length of None has no leaves, and stays None
    return in_chunks(lambda part: jax.vmap(one)(*part), (contexts, observed, lengths), together)
