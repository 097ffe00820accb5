"""Augmentation of windows that a teacher labels: mixtures, stretches, gains and trends."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def augment(key: jax.Array, windows: jax.Array, share: float) -> jax.Array:
    """Replaces a share of the windows by made-up ones; the others stay as they are.

    A made-up window is a random mixture of two windows (each stretched in time, and with variables
    in another order), with a gain and a sign for each variable, a linear trend and a wave.

    Args:
        key: consumed.
        windows: `[B, T, C]`, standardised.
        share: of the windows, in [0, 1].
    """
    batch, _, num_vars = windows.shape
    keys = jax.random.split(key, 8)
    mixed = stretch(keys[0], windows)
    order = jax.vmap(lambda k: jax.random.permutation(k, num_vars))(
        jax.random.split(keys[1], batch)
    )
    partner = jnp.take_along_axis(
        stretch(keys[2], windows)[jax.random.permutation(keys[3], batch)], order[:, None], axis=2
    )
    weight = jax.random.uniform(keys[4], (batch, 1, 1))
    mixed = weight * mixed + (1 - weight) * partner
    gain_key, sign_key = jax.random.split(keys[5])
    gain = jnp.exp(0.5 * jax.random.normal(gain_key, (batch, 1, num_vars)))
    sign = jax.random.rademacher(sign_key, (batch, 1, num_vars), jnp.float32)
    mixed = mixed * gain * sign + drift(keys[6], windows.shape)
    replaced = jax.random.bernoulli(keys[7], share, (batch, 1, 1))
    return jnp.where(replaced, mixed, windows)


def stretch(key: jax.Array, windows: jax.Array) -> jax.Array:
    """The last part of each window, a half to all of it, stretched to the length; `key` consumed.

    Values between two steps are interpolated.
    """
    steps = windows.shape[1]
    part = jax.random.uniform(key, (len(windows),), minval=0.5, maxval=1.0)  # [B]
    place = (steps - 1) * (1 - part[:, None] * (1 - jnp.linspace(0, 1, steps)[None]))  # [B, T]
    low = jnp.floor(place).astype(jnp.int32)
    high = jnp.minimum(low + 1, steps - 1)
    share = (place - low)[..., None]

    def at(index: jax.Array) -> jax.Array:
        return jnp.take_along_axis(windows, index[..., None], axis=1)

    return at(low) * (1 - share) + at(high) * share


def drift(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """A linear trend and a wave of 2 to 200 steps for each window and variable; `key` consumed."""
    batch, steps, num_vars = shape
    keys = jax.random.split(key, 4)
    each = (batch, 1, num_vars)
    time = jnp.linspace(-1, 1, steps)[None, :, None]
    period = jnp.exp(jax.random.uniform(keys[0], each, minval=jnp.log(2.0), maxval=jnp.log(200.0)))
    phase = jax.random.uniform(keys[1], each, maxval=2 * jnp.pi)
    wave = jnp.sin(2 * jnp.pi * jnp.arange(steps)[None, :, None] / period + phase)
    size = 0.5 * jax.random.normal(keys[2], each)
    return 0.5 * jax.random.normal(keys[3], each) * time + size * wave
