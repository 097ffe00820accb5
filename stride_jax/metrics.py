"""Scores of forecasts: means by MSE and MAE, sample paths by CRPS.

All work on one window and average over its steps and variables; the caller averages over windows.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def mse(forecast: jax.Array, truth: jax.Array) -> jax.Array:
    """Mean squared error of `[H, C]` against `[H, C]`."""
    return jnp.mean(jnp.square(forecast - truth))


def mae(forecast: jax.Array, truth: jax.Array) -> jax.Array:
    """Mean absolute error of `[H, C]` against `[H, C]`."""
    return jnp.mean(jnp.abs(forecast - truth))


def crps(paths: jax.Array, truth: jax.Array) -> jax.Array:
    """Continuous ranked probability score of sample paths, the fair estimator.

    Per entry `mean |x_i - y| - sum_{i<j} |x_i - x_j| / (S (S - 1))`, unbiased for any number of
    paths (Zamo and Naveau 2018). The pairs come from the sorted sample: with x_(0) <= x_(1) <= ...
    `sum_{i<j} (x_(j) - x_(i)) = sum_i (2 i - S + 1) x_(i)`.

    Args:
        paths: `[S, H, C]`, S >= 2.
        truth: `[H, C]`.
    """
    count = paths.shape[0]
    weight = 2.0 * jnp.arange(count) - count + 1
    spread = jnp.tensordot(weight, jnp.sort(paths, axis=0), axes=1)  # [S] x [S, H, C] -> [H, C]
    error = jnp.mean(jnp.abs(paths - truth[None]), axis=0)
    return jnp.mean(error - spread / (count * (count - 1)))
