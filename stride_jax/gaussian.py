"""Isotropic and diagonal Gaussians of one scale: sampling, log ratios, reflection.

Letters as in the paper: x a patch proposed from q = N(mean_q, sigma^2), p = N(mean_p, sigma^2) the
target's law; `delta = |(mean_p - mean_q) / sigma|`. Patches are `[P, C]`, sigma a scalar or
`[P, C]`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm


def sample(key: jax.Array, mean: jax.Array, sigma: jax.Array) -> jax.Array:
    """A draw from N(mean, sigma^2), `[P, C]`; `key` is consumed."""
    return mean + sigma * jax.random.normal(key, mean.shape, jnp.float32)


def mean_gap(mean_p: jax.Array, mean_q: jax.Array, sigma: jax.Array) -> jax.Array:
    """delta, a scalar: the distance of the means in units of sigma."""
    return jnp.sqrt(jnp.sum(jnp.square((mean_p - mean_q) / sigma)))


def log_ratio(x: jax.Array, mean_p: jax.Array, mean_q: jax.Array, sigma: jax.Array) -> jax.Array:
    """`log p(x) - log q(x)`, a scalar.

    With `d = (mean_p - mean_q) / sigma` and `z = (x - mean_q) / sigma` it is `d . z - |d|^2 / 2`,
    which has no difference of two large squares.
    """
    d = (mean_p - mean_q) / sigma
    z = (x - mean_q) / sigma
    return jnp.sum(d * z) - 0.5 * jnp.sum(jnp.square(d))


def reflect(x: jax.Array, mean_p: jax.Array, mean_q: jax.Array, sigma: jax.Array) -> jax.Array:
    """The noise of x mirrored at the hyperplane between the means, moved to mean_p; `[P, C]`.

    `mean_p + sigma (z - 2 e (e . z))` with `e = d / |d|`. Equal means leave nothing to mirror and
    give `mean_p + sigma z`.
    """
    d = (mean_p - mean_q) / sigma
    z = (x - mean_q) / sigma
    square = jnp.sum(jnp.square(d))
    along = jnp.where(square > 0, jnp.sum(d * z) / jnp.where(square > 0, square, 1.0), 0.0)
    return mean_p + sigma * (z - 2 * along * d)


def acceptance(delta: jax.Array) -> jax.Array:
    """`2 Phi(-delta / 2)`: the largest probability that a draw from q can serve as one from p."""
    return 2 * norm.cdf(-delta / 2)
