"""Training objectives; pure, means over all entries unless said otherwise."""

from __future__ import annotations

import jax
import jax.numpy as jnp

VARIANCE_FLOOR_LOGVAR = -5.0
"""The variance regulariser of the original starts below this log variance."""


def mse(prediction: jax.Array, truth: jax.Array) -> jax.Array:
    """Mean squared error of two arrays of one shape."""
    return jnp.mean(jnp.square(prediction - truth))


def gaussian_nll(mean: jax.Array, logvar: jax.Array, truth: jax.Array) -> jax.Array:
    """Negative log-likelihood of N(mean, exp(logvar)) without its constant log(2 pi) / 2.

    One entry: `(logvar + (truth - mean)^2 / exp(logvar)) / 2`.
    """
    return 0.5 * jnp.mean(logvar + jnp.square(truth - mean) * jnp.exp(-logvar))


def variance_regulariser(logvar: jax.Array) -> jax.Array:
    """`relu(-logvar - 5)`: keeps the draft's variance from collapsing (STRIDE's released code)."""
    return jnp.mean(jax.nn.relu(VARIANCE_FLOOR_LOGVAR - logvar))


def gaussian_kl(
    mean_p: jax.Array, sigma_p: float | jax.Array, mean_q: jax.Array, logvar_q: jax.Array
) -> jax.Array:
    """KL(N(mean_p, sigma_p^2) || N(mean_q, exp(logvar_q))), an average per entry.

    One entry: `(logvar_q - 2 log sigma_p + (sigma_p^2 + (mean_p - mean_q)^2) / exp(logvar_q)
    - 1) / 2`.
    """
    gap = jnp.square(sigma_p) + jnp.square(mean_p - mean_q)
    return 0.5 * jnp.mean(logvar_q - 2 * jnp.log(sigma_p) + gap * jnp.exp(-logvar_q) - 1)
