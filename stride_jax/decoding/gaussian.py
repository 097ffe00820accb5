"""Two Gaussians of one scale: a reflection across their gap, the most that can be accepted.

q = N(mean_q, sigma^2) is the draft's distribution, p = N(mean_p, sigma^2) the target's;
`delta = |(mean_p - mean_q) / sigma|`. Patches are `[P, C]`, sigma a scalar or `[P, C]`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm


def mirror(noise: jax.Array, gap: jax.Array) -> jax.Array:
    """The noise mirrored at the hyperplane across the gap, `z - 2 e (e . z)`, `e = d / |d|`.

    Args:
        noise: z, `[P, C]`.
        gap: d = (mean_p - mean_q) / sigma, `[P, C]`; no gap leaves the noise as it is.
    """
    return mirror_along(noise, gap, jnp.sum(gap * noise), jnp.sum(jnp.square(gap)))


def mirror_along(
    noise: jax.Array, gap: jax.Array, product: jax.Array, square: jax.Array
) -> jax.Array:
    """`mirror` where the product `d . z` and the square `|d|^2` are known."""
    safe = jnp.where(square > 0, square, 1.0)
    return noise - 2 * jnp.where(square > 0, product / safe, 0.0) * gap


def acceptance(delta: jax.Array) -> jax.Array:
    """`2 Phi(-delta / 2)`: the largest probability that a draw from q can serve as one from p."""
    return 2 * norm.cdf(-delta / 2)
