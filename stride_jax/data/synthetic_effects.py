"""Effects of how a series is recorded: outliers, shifts, limits, rounding, gaps.

Functions take uniform numbers `u` (see `synthetic_parts.draws`), keys that they consume, and a
series `[T]`, and return `[T]`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from stride_jax.data import synthetic_parts as parts


def outliers(u: jax.Array, key: jax.Array, x: jax.Array) -> jax.Array:
    """A few single values far off; `u` is `[2]`."""
    size = parts.log_uniform(u[0], 1.0, 6.0)
    hit = jax.random.uniform(key, x.shape, minval=1e-7) / parts.log_uniform(u[1], 0.001, 0.02)
    return x + jnp.where(hit < 1, size * parts.normal(jnp.minimum(hit, 1 - 1e-6)), 0.0)


def shifted(u: jax.Array, x: jax.Array) -> jax.Array:
    """One lasting change of the level and of the scale; `u` is `[3]`."""
    after = jnp.arange(x.shape[0]) >= u[0] * x.shape[0]
    return jnp.where(after, jnp.exp(0.4 * parts.normal(u[1])) * x + 1.5 * parts.normal(u[2]), x)


def censored(u: jax.Array, x: jax.Array) -> jax.Array:
    """Cut off below a level, as at zero, or above one, as at a capacity; `u` is `[2]`."""
    level = parts.between(u[0], -1.2, 0.5)
    return jnp.where(u[1] < 0.8, jnp.maximum(x, level), jnp.minimum(x, -level))


def rounded(u: jax.Array, x: jax.Array) -> jax.Array:
    """Multiples of a step of a fiftieth to once the std; `u` is a scalar."""
    step = parts.log_uniform(u, 0.02, 1.0)
    return jnp.round(x / step) * step


def missing(u: jax.Array, key: jax.Array, length: int) -> jax.Array:
    """`[T]` bool, stretches without a value, of 1 to about 40 steps; about 5 % of all steps.

    A gap begins with a small probability at each step and goes on with another one.
    """
    mean = parts.log_uniform(u, 1.0, 40.0)
    begin, stop = jax.random.uniform(key, (2, length))
    time = jnp.arange(length)
    begins = begin < 0.05 / mean
    started = jax.lax.cummax(jnp.where(begins, time, -1))
    stopped = jax.lax.cummax(jnp.where((stop < 1 / mean) & ~begins, time, -1))
    return started > stopped


def interpolated(x: jax.Array, gaps: jax.Array) -> jax.Array:
    """Straight lines across gaps `[T]` bool; the nearest value at the ends."""
    length = x.shape[0]
    time = jnp.arange(length)
    before = jax.lax.cummax(jnp.where(gaps, -1, time))
    after = jax.lax.cummin(jnp.where(gaps, length, time), reverse=True)
    low = jnp.where(before < 0, jnp.minimum(after, length - 1), before)
    high = jnp.where(after >= length, jnp.maximum(before, 0), after)
    share = (time - low) / jnp.maximum(high - low, 1)
    return jnp.where(gaps, x[low] + share * (x[high] - x[low]), x)


def observed(key: jax.Array, x: jax.Array) -> jax.Array:
    """The series after each effect with a small probability, and upside down at times.

    Args:
        key: consumed.
        x: `[T]`, standardised.
    """
    u, keys = parts.draws(key, 15, 2)
    x = jnp.where(u[0] < 0.06, outliers(u[6:8], keys[0], x), x)
    x = jnp.where(u[1] < 0.06, shifted(u[8:11], x), x)
    x = jnp.where(u[2] < 0.06, censored(u[11:13], x), x)
    x = jnp.where(u[3] < 0.1, rounded(u[13], x), x)
    gaps = missing(u[14], keys[1], x.shape[0]) & (u[4] < 0.06)
    return jnp.where(u[5] < 0.2, -1.0, 1.0) * interpolated(x, gaps)
