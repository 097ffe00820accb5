"""Training objectives, one value per entry; the caller takes the mean."""

from __future__ import annotations

import jax
import jax.numpy as jnp

VARIANCE_FLOOR_LOGVAR = -5.0
"""Log variance below which `variance_regulariser` grows."""


def gaussian_nll(mean: jax.Array, logvar: jax.Array, truth: jax.Array) -> jax.Array:
    """Negative log-likelihood of N(mean, exp(logvar)) without its constant log(2 pi) / 2.

    `(logvar + (truth - mean)^2 / exp(logvar)) / 2`.

    Args:
        mean: Any shape.
        logvar: The same shape.
        truth: The same shape.

    Returns:
        The same shape.
    """
    return 0.5 * (logvar + jnp.square(truth - mean) * jnp.exp(-logvar))


def variance_regulariser(logvar: jax.Array) -> jax.Array:
    """`relu(-logvar - 5)`, which keeps the variance of a draft from collapsing.

    References:
        STRIDE, https://arxiv.org/abs/2511.18191, in its released code.
    """
    return jax.nn.relu(VARIANCE_FLOOR_LOGVAR - logvar)


def gaussian_kl(
    mean_p: jax.Array, sigma_p: float | jax.Array, mean_q: jax.Array, logvar_q: jax.Array
) -> jax.Array:
    """KL(N(mean_p, sigma_p^2) || N(mean_q, exp(logvar_q))).

    `(logvar_q - 2 log sigma_p + (sigma_p^2 + (mean_p - mean_q)^2) / exp(logvar_q) - 1) / 2`.

    Args:
        mean_p: Any shape.
        sigma_p: Std of the first distribution, a scalar or the same shape.
        mean_q: The same shape.
        logvar_q: The same shape.

    Returns:
        The same shape.
    """
    gap = jnp.square(sigma_p) + jnp.square(mean_p - mean_q)
    return 0.5 * (logvar_q - 2 * jnp.log(sigma_p) + gap * jnp.exp(-logvar_q) - 1)
