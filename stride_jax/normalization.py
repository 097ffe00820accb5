"""Instance normalisation of windows."""

from __future__ import annotations

import jax
import jax.numpy as jnp

EPS = 1e-5
"""Added to the variance: a constant window is divided by sqrt(1e-5), not by zero."""


def window_stats(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and population std of each variable over the time axis, in float32.

    Args:
        x: `[..., L, C]`.

    Returns:
        `(mean, std)`, each `[..., 1, C]` float32, with `std = sqrt(var + 1e-5)`.
    """
    x = x.astype(jnp.float32)
    mean = jnp.mean(x, axis=-2, keepdims=True)
    var = jnp.mean(jnp.square(x - mean), axis=-2, keepdims=True)
    return mean, jnp.sqrt(var + EPS)
