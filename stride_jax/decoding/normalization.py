"""Instance normalisation: of a whole window, or causal by running statistics. All in float32."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

EPS = 1e-5
"""Added to the variance: a constant window is divided by sqrt(1e-5), not by zero."""


class Moments(NamedTuple):
    """Sufficient statistics of a stretch of each variable, merged without cancellation.

    Attributes:
        total: `[...]` float32, values seen.
        mean: `[..., C]`.
        m2: `[..., C]`, sum of squared deviations from the mean.
    """

    total: jax.Array
    mean: jax.Array
    m2: jax.Array


def window_stats(
    x: jax.Array, real: jax.Array | None = None, *, unbiased: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Mean and std of each variable over the time axis, in float32.

    Args:
        x: `[..., L, C]`.
        real: `[L]` bool, the steps that count; None for all.
        unbiased: the sum of squares over N - 1, nothing added, and 1 for a std of 0.

    Returns:
        `(mean, std)`, each `[..., 1, C]` float32, with the population's `std = sqrt(var + 1e-5)`
        unless it is unbiased.
    """
    x = x.astype(jnp.float32)
    where = None if real is None else jnp.broadcast_to(real[:, None], x.shape)
    mean = jnp.mean(x, axis=-2, keepdims=True, where=where)
    var = jnp.mean(jnp.square(x - mean), axis=-2, keepdims=True, where=where)
    if not unbiased:
        return mean, jnp.sqrt(var + EPS)
    count = x.shape[-2] if real is None else jnp.sum(real)
    scale = jnp.sqrt(var * count / jnp.maximum(count - 1, 1))
    return mean, jnp.where(scale == 0, 1.0, scale)


def patch_moments(patches: jax.Array, real: jax.Array | None = None) -> Moments:
    """Statistics of each patch alone: `[..., P, C]` -> total `[...]`, mean and m2 `[..., C]`.

    Patches that are not `real` (`[...]` bool) are padding, of which nothing is seen.
    """
    patches = patches.astype(jnp.float32)
    mean = jnp.mean(patches, axis=-2)
    m2 = jnp.sum(jnp.square(patches - mean[..., None, :]), axis=-2)
    total = jnp.full(mean.shape[:-1], patches.shape[-2], jnp.float32)
    per_patch = Moments(total, mean, m2)
    if real is None:
        return per_patch
    return jax.tree.map(lambda x: jnp.where(real[(...,) + (None,) * (x.ndim - 1)], x, 0), per_patch)


def merge(first: Moments, second: Moments) -> Moments:
    """Statistics of two stretches together (Chan, Golub and LeVeque 1979; Welford for blocks)."""
    total = first.total + second.total
    share = (second.total / jnp.maximum(total, 1))[..., None]  # nothing and nothing is nothing
    step = second.mean - first.mean
    m2 = first.m2 + second.m2 + jnp.square(step) * first.total[..., None] * share
    return Moments(total, first.mean + step * share, m2)


def running_moments(
    patches: jax.Array, before: Moments | None = None, real: jax.Array | None = None
) -> Moments:
    """Statistics of everything up to and including each patch.

    Args:
        patches: `[..., N, P, C]`.
        before: statistics of what came before, total `[...]`; None for nothing.
        real: `[N]` bool, patches that count; None for all.

    Returns:
        total `[..., N]`, mean and m2 `[..., N, C]`.
    """
    per_patch = patch_moments(patches, real)
    axis = per_patch.total.ndim - 1
    if before is not None:
        start = jax.tree.map(lambda x: jnp.expand_dims(x, axis), before)
        per_patch = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis), start, per_patch)
    running: Moments = jax.lax.associative_scan(merge, per_patch, axis=axis)
    if before is None:
        return running
    return jax.tree.map(lambda x: jax.lax.slice_in_dim(x, 1, x.shape[axis], axis=axis), running)


def extended_moments(
    before: Moments,
    patches: jax.Array,
    counted: jax.Array | np.ndarray,
    numbers: jax.Array | np.ndarray,
) -> Moments:
    """Statistics of what came before and of some of the k patches after it, j times.

    Like `merge`, but in one sum over all values, for the few patches of one pass. Values are
    counted from the mean before, so that an offset costs no precision.

    Args:
        before: total scalar, mean and m2 `[C]`.
        patches: `[k, P, C]`.
        counted: `[j, k]` bool, the patches of each result; the others do not matter, also where
            they are not finite.
        numbers: `[j]`, how many patches each result counts.

    Returns:
        total `[j]`, mean and m2 `[j, C]`.
    """
    shifted = (patches - before.mean[None, None])[None]
    shifted = jnp.where(counted[:, :, None, None], shifted, 0)  # [j, k, P, C]
    first, second = jnp.sum(shifted, axis=(1, 2)), jnp.sum(jnp.square(shifted), axis=(1, 2))
    total = before.total + jnp.asarray(numbers * patches.shape[1], jnp.float32)
    step = first / jnp.maximum(total, 1)[:, None]
    return Moments(total, before.mean[None] + step, before.m2[None] + second - first * step)


def packed(moments: Moments) -> jax.Array:
    """Statistics of one stretch in one array `[C, 3]`, which a loop carries with one write."""
    total = jnp.broadcast_to(moments.total, moments.mean.shape)
    return jnp.stack([total, moments.mean, moments.m2], axis=-1)


def unpacked(array: jax.Array) -> Moments:
    """Inverse of `packed`."""
    return Moments(array[0, 0], array[:, 1], array[:, 2])


def last(moments: Moments) -> Moments:
    """The last of running statistics."""
    return jax.tree.map(lambda x: x[-1], moments)


def std(moments: Moments) -> jax.Array:
    """`sqrt(m2 / count + 1e-5)`, the shape of the mean."""
    return jnp.sqrt(moments.m2 / jnp.maximum(moments.total, 1)[..., None] + EPS)
