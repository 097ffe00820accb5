"""Running statistics of patches of Toto, with steps of each variable that do not count.

They are arrays `[..., 3]` as of `models.running`: number of values, mean, and sum of squared
deviations from the mean, for each variable.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from stride_jax.models.running import accumulated, patch_statistics

MINIMUM = 0.1
"""Added to a variance, and the least std, as in the original."""
RANGE = 1e10
"""A running std is at most so many times that of the context, and not less than its reciprocal."""


def extended(before: jax.Array, values: jax.Array, real: jax.Array) -> jax.Array:
    """Statistics of what came before and of 0, 1, ..., N patches after it.

    Args:
        before: `[C, 3]`.
        values: `[N, P, C]`.
        real: the same shape, bool: values that count.

    Returns:
        `[N + 1, C, 3]`; entry n is not touched by the patches from n on.
    """
    return accumulated(jnp.concatenate([before[None], patch_statistics(values, real)]))


def context_std(statistics: jax.Array) -> jax.Array:
    """The std that bounds all others, `sqrt(m2 / n + 0.1)`, `[C]` of `[C, 3]`."""
    return jnp.sqrt(statistics[..., 2] / jnp.maximum(statistics[..., 0], 1) + MINIMUM)


def std(statistics: jax.Array, context: jax.Array) -> jax.Array:
    """`sqrt(m2 / (n - 1) + 0.1)`, bounded by that of the context, `[n, C]`.

    Args:
        statistics: `[n, C, 3]`.
        context: `[C]`, see `context_std`.
    """
    free = jnp.maximum(statistics[..., 0] - 1, 1)
    least, most = jnp.maximum(MINIMUM, context / RANGE)[None], (context * RANGE)[None]
    return jnp.clip(jnp.sqrt(statistics[..., 2] / free + MINIMUM), least, most)
