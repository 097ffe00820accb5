"""Training objectives, one value per entry; the caller takes the mean."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm

UNIT_FLOOR = 0.2
"""Smallest unit that errors are counted in, as a share of the std of the whole window."""
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


def gaussian_crps(mean: jax.Array, logvar: jax.Array, truth: jax.Array) -> jax.Array:
    """Continuous ranked probability score of N(mean, exp(logvar)), entry by entry.

    With z = (truth - mean) / s: `s (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi))` (Gneiting and
    Raftery 2007, equation 21). It grows like the absolute error far from the mean.
    """
    scale = jnp.exp(logvar / 2)
    z = (truth - mean) / scale
    return scale * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - jnp.pi**-0.5)


def running_unit(running: jax.Array, windows: jax.Array, floor: float) -> jax.Array:
    """The unit that errors of a window are counted in: its running std, at least a share of all.

    Args:
        running: `[B, N, 1, C]`, the std up to and including each patch.
        windows: `[B, T, C]`; NaN where nothing was observed.
        floor: share of the whole window's std; keeps a flat start from dominating.

    Returns:
        `[B, N, 1, C]`, positive also where the window is constant.
    """
    whole = jnp.nanstd(windows, axis=1)[:, None, None]
    return jnp.maximum(running, jnp.maximum(floor * whole, 1e-6))


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


def patch_gaps(mean_q: jax.Array, mean_p: jax.Array, logvar_p: jax.Array) -> jax.Array:
    """Distance of two predictions of a patch in stds of the second: `|| (m_q - m_p) / s_p ||`.

    A maximal coupling of two Gaussians with the std s_p accepts with probability `2 Phi(-gap / 2)`.

    Args:
        mean_q: Means of the draft, `[..., P, C]`.
        mean_p: Means of the target.
        logvar_p: Log variances of the target.

    Returns:
        `[...]`; its gradient is 0 where the means are equal.
    """
    squared = jnp.sum(jnp.square(mean_q - mean_p) * jnp.exp(-logvar_p), axis=(-2, -1))
    return jnp.sqrt(squared + 1e-12)
