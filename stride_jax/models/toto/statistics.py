"""Running statistics of patches of Toto, with steps of each variable that do not count."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

MINIMUM = 0.1
"""Added to a variance, and the least std, as in the original."""
RANGE = 1e10
"""A running std is at most so many times that of the context, and not less than its reciprocal."""


class Running(NamedTuple):
    """Statistics of a stretch of each variable, merged without cancellation; each `[..., C]`.

    Attributes:
        total: float32, values seen.
        mean: of them, 0 of none.
        m2: sum of squared deviations from the mean.
    """

    total: jax.Array
    mean: jax.Array
    m2: jax.Array


def of_patches(values: jax.Array, real: jax.Array) -> Running:
    """Statistics of each patch alone, `[N, C]`, of values `[N, P, C]` where they are `real`."""
    count = jnp.sum(real, axis=1).astype(jnp.float32)
    values = jnp.where(real, values, 0)
    mean = jnp.sum(values, axis=1) / jnp.maximum(count, 1)
    m2 = jnp.sum(jnp.where(real, jnp.square(values - mean[:, None]), 0), axis=1)
    return Running(count, mean, m2)


def merge(first: Running, second: Running) -> Running:
    """Statistics of two stretches together (Chan, Golub and LeVeque 1979)."""
    count = first.total + second.total
    share = second.total / jnp.maximum(count, 1)
    step = second.mean - first.mean
    m2 = first.m2 + second.m2 + jnp.square(step) * first.total * share
    return Running(count, first.mean + step * share, m2)


def extended(before: jax.Array, values: jax.Array, real: jax.Array) -> jax.Array:
    """Statistics of what came before and of 0, 1, ..., N patches after it.

    Args:
        before: `[C, 3]`, the fields of `Running`, see `packed`.
        values: `[N, P, C]`.
        real: the same shape, bool: values that count.

    Returns:
        `[N + 1, C, 3]`; entry n is not touched by the patches from n on.
    """
    parts = jnp.concatenate([before[None], packed(of_patches(values, real))])
    running: Running = jax.lax.associative_scan(merge, unpacked(parts))
    return packed(running)


def packed(running: Running) -> jax.Array:
    """Statistics in one array `[..., C, 3]`, which a loop carries with one write."""
    return jnp.stack(running, axis=-1)


def unpacked(array: jax.Array) -> Running:
    """Inverse of `packed`."""
    return Running(*jnp.moveaxis(array, -1, 0))


def context_std(running: Running) -> jax.Array:
    """The std that bounds all others, `sqrt(m2 / n + 0.1)`."""
    return jnp.sqrt(running.m2 / jnp.maximum(running.total, 1) + MINIMUM)


def std(running: Running, context: jax.Array) -> jax.Array:
    """`sqrt(m2 / (n - 1) + 0.1)`, bounded by that of the context.

    Args:
        running: each `[n, C]`.
        context: `[C]`, see `context_std`.
    """
    free = jnp.maximum(running.total - 1, 1)
    least, most = jnp.maximum(MINIMUM, context / RANGE)[None], (context * RANGE)[None]
    return jnp.clip(jnp.sqrt(running.m2 / free + MINIMUM), least, most)
