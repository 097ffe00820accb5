"""Running statistics of the tokens of TimesFM 2.5, with steps that do not count."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.decoding.normalization import Moments, extended_moments, merge


def token_moments(values: jax.Array, real: jax.Array) -> Moments:
    """Statistics of everything up to and including each token.

    Args:
        values: `[N, T, C]`, 0 where they do not count.
        real: `[N, T]` bool, steps that count.

    Returns:
        total `[N]`, mean and m2 `[N, C]`.
    """
    weight = real.astype(jnp.float32)[..., None]  # [N, T, 1]
    total = jnp.sum(weight, axis=(1, 2))
    mean = jnp.sum(values * weight, axis=1) / jnp.maximum(total, 1)[:, None]
    m2 = jnp.sum(jnp.square(values - mean[:, None]) * weight, axis=1)
    running: Moments = jax.lax.associative_scan(merge, Moments(total, mean, m2))
    return running


def extended(
    before: Moments, values: jax.Array, real: jax.Array, counted: jax.Array | np.ndarray
) -> Moments:
    """Statistics of what came before and of some tokens `[n, T, C]` after it, j times.

    Steps that are not `real` count as nothing; `counted` is `[j, n]` bool, the tokens of a result.
    """
    values = jnp.where(real[..., None], values, before.mean[None, None])
    share = jnp.mean(real, axis=1, dtype=jnp.float32)  # [n], of a token
    numbers = jnp.sum(jnp.where(counted, share[None], 0), axis=1)
    return extended_moments(before, values, counted, numbers)


def std(moments: Moments) -> jax.Array:
    """Population std without an epsilon, the shape of the mean."""
    return jnp.sqrt(jnp.maximum(moments.m2, 0) / jnp.maximum(moments.total, 1)[..., None])


def nothing(like: jax.Array) -> Moments:
    """Statistics of no value, for C variables."""
    zero = jnp.zeros_like(like, jnp.float32)
    return Moments(jnp.zeros((), jnp.float32), zero, zero)
