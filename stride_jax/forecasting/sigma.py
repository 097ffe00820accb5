"""The std of a target's predictions: one for a split, or one for each history.

Both compare one-patch forecasts with what came: of a split in the windows of a validation set, of a
history in its last patches, as far as there are any; else the spread of its values stands for it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtri, stdtrit

from stride_jax.data.gaps import Gaps
from stride_jax.data.windows import Windows, padded_batches
from stride_jax.decoding.base import Process
from stride_jax.decoding.batching import in_chunks
from stride_jax.decoding.compiled import compiled
from stride_jax.decoding.traits import traits_of
from stride_jax.errors import InputError
from stride_jax.forecasting.contexts import Contexts
from stride_jax.forecasting.lengths import groups

PRIOR_SIGMA = 0.5
"""Share of the std of the context in the prior beside eight measured patches."""
RESIDUALS = 8
"""The last patches of a history whose one-patch errors give its sigma."""
AFIELD = 4.0
"""Largest weight of a forecast's squared distance from the mean, over the squared spread."""
ENOUGH = 2
"""Patches of history from which a target may know the std of its own errors."""
FLOOR = 1e-6
"""sigma at least, over the std of a history (over its absolute value where that is constant)."""
SERIES_AT_ONCE = 256
"""Series whose sigma is measured at once, at most."""


def calibrate_sigma(
    target: Process, values: jax.Array | Gaps, windows: Windows, batch_size: int
) -> float:
    """One sigma for a split: the root of the target's one-patch MSE, in the units of `values`.

    Every observed value counts once.

    Args:
        target: the process.
        values: `[T, C]`, or with gaps; what was not observed does not count.
        windows: validation windows of the context and one patch.
        batch_size: windows at once.

    Raises:
        InputError: a step of a patch was observed in none of the windows.
    """
    error, count = _one_patch_errors(target, values, windows, batch_size)
    return float(jnp.sqrt(jnp.sum(error) / jnp.sum(count)))


def calibrate_scale(
    target: Process, values: jax.Array | Gaps, windows: Windows, batch_size: int
) -> jax.Array:
    """`calibrate_sigma` for each step and variable of a patch: a diagonal, `[P, C]`.

    Separate windows hold one variable, and share one diagonal: `[P, 1]`.
    """
    error, count = _one_patch_errors(target, values, windows, batch_size)
    return jnp.sqrt(error / count)


def _one_patch_errors(
    target: Process, values: jax.Array | Gaps, windows: Windows, batch_size: int
) -> tuple[jax.Array, jax.Array]:
    """The sum of squared errors and the number of observed values, both `[P, C]`.

    Raises:
        InputError: a step of a patch was observed in none of the windows.
    """
    error, count = _summed_errors(target, values, windows=windows, batch_size=batch_size)
    if not bool(jnp.all(count > 0)):
        raise InputError(
            "sigma cannot be calibrated: some steps were observed in none of the "
            f"{windows.count} validation windows; give --sigma."
        )
    return error, count


@compiled
def _summed_errors(
    target: Process, values: jax.Array | Gaps, *, windows: Windows, batch_size: int
) -> tuple[jax.Array, jax.Array]:
    """The sums of `_one_patch_errors`, of all windows."""
    index, weight = padded_batches(windows.count, batch_size)

    def error(series: jax.Array) -> jax.Array:
        context = series[: windows.length - target.patch_len]
        memory = target.prepare(context)
        nothing = jnp.zeros((0, target.patch_len, series.shape[1]), jnp.float32)
        predictions, _ = target.verify(memory, target.start(memory, 1), nothing)
        return jnp.square(predictions.mean[0] - series[windows.length - target.patch_len :])

    def body(total: jax.Array, batch: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        errors = jax.vmap(error)(windows.gather(values, batch[0]))  # [B, P, C]
        return total + jnp.tensordot(batch[1], errors, axes=1), None

    def with_missing(sums: jax.Array, batch: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        series = windows.gather(values, batch[0])
        observed = ~jnp.isnan(series[:, windows.length - target.patch_len :])
        errors = jnp.where(observed, jax.vmap(error)(series), 0.0)
        both = jnp.stack([errors, observed.astype(jnp.float32)])  # [2, B, P, C]
        return sums + jnp.tensordot(both, batch[1], axes=((1,), (0,))), None

    shape = target.patch_len, 1 if windows.separate else windows.num_vars
    if isinstance(values, Gaps):
        sums, _ = jax.lax.scan(with_missing, jnp.zeros((2, *shape), jnp.float32), (index, weight))
        return sums[0], sums[1]
    total, _ = jax.lax.scan(body, jnp.zeros(shape, jnp.float32), (index, weight))
    return total, jnp.full(shape, windows.count, jnp.float32)


def history_sigmas(
    target: Process, contexts: Contexts, context_len: int, batch_size: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Sigma of each history over its scale, float64, see `forecast`.

    A target that predicts a std has its own: that of the patch after the context, once values were
    observed in two patches of history.

    Args:
        target: the process.
        contexts: with up to eight patches more than is decoded from.
        context_len: L, steps that are decoded from.
        batch_size: series at once; None for 256.

    Returns:
        `(sigma, unsure)`: sigma `[B, 1, C]`, or `[B, P, C]` of a target that predicts a std; and
        unsure, `[B]` bool, where a history shows no variation at all.
    """
    squares, known, ahead, predicted = _errors(target, contexts, batch_size)
    total = squares + _prior(contexts, context_len, known, ahead)
    measured = np.sqrt(total / (known + 1))
    unsure = (contexts.spread == 0) & (known == 0)
    if predicted is not None:
        enough = _observed_patches(contexts, target.patch_len) >= ENOUGH
        measured, unsure = np.where(enough, predicted, measured), unsure & ~enough
    least = FLOOR * np.where(contexts.spread > 0, contexts.spread, contexts.size)
    return np.maximum(measured, least), unsure.any(axis=(1, 2))


def _observed_patches(contexts: Contexts, patch_len: int) -> np.ndarray:
    """Patches of each history in which a value was observed, counted from its end, `[B, 1, C]`."""
    count, steps, num_vars = contexts.observed.shape
    whole = np.pad(contexts.observed, ((0, 0), (-steps % patch_len, 0), (0, 0)))
    # [B, N * P, C] -> [B, N, P, C]
    patches = whole.reshape(count, -1, patch_len, num_vars).any(axis=2)
    total: np.ndarray = patches.sum(axis=1, keepdims=True)
    return total


def _prior(
    contexts: Contexts, context_len: int, known: np.ndarray, ahead: np.ndarray
) -> np.ndarray:
    """Prior variance, which counts as one patch beside the measured ones, `[B, 1, C]`.

    With fewer than eight measured patches, part of it is the variance of the values, corrected for
    their small number, and the squared distance of the forecast from their mean, up to a limit.
    See `forecast`.

    Args:
        contexts: as in `history_sigmas`.
        context_len: L.
        known: `[B, 1, C]`, patches that were measured.
        ahead: `[B, P, C]`, the forecast of the next patch.
    """
    real = contexts.observed[:, -context_len:]
    values = real.sum(axis=1, keepdims=True)
    sums = np.where(real, contexts.values[:, -context_len:], 0).sum(axis=1, keepdims=True)
    off = np.square(ahead - sums / np.maximum(values, 1)).mean(axis=1, keepdims=True)
    count = np.maximum(values, 2)
    student = stdtrit(count - 1, 0.9) / ndtri(0.9)  # quantiles of Student's t and of a normal
    # n / (n - 1) for an unbiased variance, 1 + 1 / n for the mean and the next value
    few = np.square(contexts.spread * student) * (count + 1) / (count - 1)
    share = np.minimum(known / RESIDUALS, 1)
    early = (1 - share) * (few + np.minimum(off, AFIELD * few))
    prior = early + share * np.square(PRIOR_SIGMA * contexts.spread)
    alone = np.where(known == 0, np.square(contexts.size / np.maximum(values, 1)), 0)
    return np.where(contexts.spread > 0, prior, alone)


def _errors(
    target: Process, contexts: Contexts, batch_size: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Sums of mean squared errors and of observed shares of the last patches, `[B, 1, C]` each.

    The others are the forecast of the next patch, `[B, P, C]`, and its std, where the target
    predicts one.
    """
    together, masked = batch_size or SERIES_AT_ONCE, traits_of(target).supports_padding
    counts = _counts(target, contexts.lengths)
    squares, known = np.zeros((2, *contexts.scale.shape))
    ahead = np.zeros((len(counts), target.patch_len, squares.shape[-1]))
    std, predicts_std = np.zeros_like(ahead), False
    for rows in groups(masked, contexts.lengths, counts):
        lengths, first = contexts.lengths[rows], 0
        if not masked:
            first = contexts.values.shape[1] - int(lengths[0])
        parts = _residuals(
            target,
            contexts.values[rows, first:],
            contexts.observed[rows, first:],
            lengths if masked else None,
            count=int(counts[rows[0]]),
            together=together,
        )
        errors, there, ahead[rows] = (np.asarray(part, np.float64) for part in parts[:3])
        squares[rows], known[rows] = (x.sum(axis=1, keepdims=True) for x in (errors, there))
        if parts[3] is not None:
            std[rows], predicts_std = np.asarray(parts[3], np.float64), True
    return squares, known, ahead, std if predicts_std else None


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
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]:
    """Squared one-patch errors of the last M patches, and their observed shares, `[B, M, C]` each.

    The target verifies the true patches as if they were proposals. Squares are summed over the
    observed steps of a patch, and like the number of these divided by P. Errors of a patch that has
    no history before it are 0 and not known. The third is the forecast of the next, `[B, P, C]`,
    the fourth its std where the target predicts one.
    """
    size, total = target.patch_len, contexts.shape[1]
    start = total - count * size

    def one(context: jax.Array, there: jax.Array, length: jax.Array | None) -> Any:
        before = context[:start]
        patches = context[start:].reshape(count, size, context.shape[1])  # [M * P, C] -> [M, P, C]
        real = there[start:].reshape(patches.shape)
        memory = target.prepare(before, None if length is None else length - count * size)
        predictions, _ = target.verify(memory, target.start(memory, max(1, count)), patches)
        if length is not None:
            first = (total - length) // size  # number of the first real patch
            real &= (start // size + jnp.arange(count) > first)[:, None, None]
        squares = jnp.where(real, jnp.square(predictions.mean[:-1] - patches), 0)
        logvar = predictions.logvar
        std = None if logvar is None else jnp.exp(logvar[-1] / 2)
        return jnp.mean(squares, axis=1), jnp.mean(real, axis=1), predictions.mean[-1], std

    # a length of None has no leaves, and stays None
    return in_chunks(lambda part: jax.vmap(one)(*part), (contexts, observed, lengths), together)
