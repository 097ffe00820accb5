"""Quantities that several acceptance rules need: gaps, ratios, draws."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from stride_jax.decoding.base import Round
from stride_jax.decoding.scale import apply, whiten
from stride_jax.decoding.traits import density_at


def num_leading(accepted: jax.Array, length: jax.Array) -> jax.Array:
    """How many of the first `length` entries of `[K]` bool are true before one is false; int32."""
    places = jnp.arange(accepted.shape[0], dtype=jnp.int32)
    first_false = jnp.min(jnp.where(accepted, accepted.shape[0], places))
    return jnp.minimum(first_false, length).astype(jnp.int32)


def log_uniform(key: jax.Array, count: int) -> jax.Array:
    """`log u` of `[count]` uniform draws, never minus infinity; `key` is consumed."""
    tiny = jnp.finfo(jnp.float32).tiny
    return jnp.log(jax.random.uniform(key, (count,), jnp.float32, minval=tiny))


def gaps(current: Round) -> jax.Array:
    """`(target mean - draft mean) / sigma` at each proposal, `[K, P, C]`.

    With a covariance `L L'` it is `L^-1 (target mean - draft mean)`.
    """
    apart = current.target_mean[:-1] - current.draft_mean
    return whiten(apart, current.target_sigma[:-1], current.correlation)


def gap_at(current: Round, place: jax.Array) -> jax.Array:
    """`gaps(current)[place]`, `[P, C]`, without the others."""
    if current.correlation is not None:  # the compiler computes the products of `gaps` once
        return gaps(current)[place]
    return (current.target_mean[place] - current.draft_mean[place]) / current.target_sigma[place]


def gap_products(current: Round) -> tuple[jax.Array, jax.Array]:
    """`d . z` and `|d|^2` of the gap d and the noise z of each proposal, each `[K]`."""
    d = gaps(current)
    return jnp.sum(d * current.noise, axis=(1, 2)), jnp.sum(jnp.square(d), axis=(1, 2))


def log_ratios(current: Round) -> jax.Array:
    """`log p(x) - log q(x)` of each proposal under one sigma for both distributions, `[K]`.

    With the gap d and the noise z of the proposal it is `d . z - |d|^2 / 2`: no difference of two
    large squares, and nothing is read back from the rounded proposal.
    """
    product, square = gap_products(current)
    return product - 0.5 * square


def target_draw(current: Round, place: jax.Array) -> jax.Array:
    """A fresh draw from the target's distribution after `place` proposals, `[P, C]`."""
    if current.density is not None and current.keys is not None:
        return density_at(current.density, place).sample(current.keys[place])
    return target_patch(current, place, current.fresh[place])


def target_patch(current: Round, place: jax.Array, noise: jax.Array) -> jax.Array:
    """The patch that the target makes of noise `[P, C]` after `place` proposals, `[P, C]`."""
    sigma = current.target_sigma[place]
    return current.target_mean[place] + apply(noise, sigma, current.correlation)
