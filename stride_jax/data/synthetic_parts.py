"""Building blocks of synthetic series: seasons, noises, walks, segments and counts.

Functions that need few random numbers take them as `u`, uniform in (0, 1), drawn together by
`draws`: a call of the generator costs more to compile than all that is done with its numbers.
No loop has a length that depends on drawn values, so everything runs under jit and vmap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

HARMONICS = 6
"""Harmonics of a seasonal waveform."""
STAIRS = 24
"""Levels of a waveform of steps."""
SEGMENTS = 64
"""Different levels of a piecewise constant series; later segments take the first ones again."""
SLOW = 12
"""Uniform numbers that `slow` takes,"""
WAVEFORM = 2 * HARMONICS + 2 * STAIRS + 3
"""`waveform`,"""
SEASON = 4 + 2 * SLOW + WAVEFORM
"""`season`, and"""
TREND = 2 + SEGMENTS
"""`trend`."""
SMALL_RATE = 8.0
"""Counts of a smaller rate follow the Poisson distribution, others its normal limit."""


def draws(key: jax.Array, numbers: int, keys: int = 0) -> tuple[jax.Array, list[jax.Array]]:
    """Uniform numbers `[numbers]` in (0, 1), and so many further keys; `key` is consumed."""
    first, *rest = jax.random.split(key, keys + 1)
    tiny = float(jnp.finfo(jnp.float32).tiny)
    return jax.random.uniform(first, (numbers,), minval=tiny), rest


def log_uniform(u: jax.Array, low: float, high: float) -> jax.Array:
    """Numbers whose logarithm is uniform between those of low and high."""
    return low * jnp.exp(u * math.log(high / low))


def between(u: jax.Array, low: float, high: float) -> jax.Array:
    """Numbers that are uniform between low and high."""
    return low + (high - low) * u


def normal(u: jax.Array) -> jax.Array:
    """Standard normal numbers of uniform ones, within 6 standard deviations.

    Written so that a GPU's compiler is quick: with `jax.scipy.special.ndtri`, which is many more
    operations, fused into the sums that follow, a step with all families took minutes.
    """
    numbers = jnp.clip(math.sqrt(2) * jax.lax.erf_inv(2 * u - 1), -6, 6)
    return jax.lax.optimization_barrier(numbers)


def pick(u: jax.Array, shares: Sequence[float]) -> jax.Array:
    """An index, int32, with probabilities in proportion to the shares."""
    ends = np.cumsum(shares) / np.sum(shares)
    return jnp.sum(u >= jnp.asarray(ends[:-1], jnp.float32)).astype(jnp.int32)


def standardised(x: jax.Array) -> jax.Array:
    """`[T]` with mean 0 and std 1; a constant series becomes 0."""
    x = x - jnp.mean(x)
    return x / jnp.sqrt(jnp.mean(jnp.square(x)) + 1e-12)


def heavy_normal(key: jax.Array, length: int, heaviness: jax.Array | float) -> jax.Array:
    """Tukey's h distribution, `z exp(h z^2 / 2)` for a standard normal z, scaled to variance 1.

    Args:
        key: consumed.
        length: T.
        heaviness: h in [0, .4]; 0 is normal, moments of order 1 / h and above do not exist.
    """
    z = jax.random.normal(key, (length,))
    return z * jnp.exp(heaviness * jnp.square(z) / 2) * (1 - 2 * heaviness) ** 0.75


def volatility(u: jax.Array, key: jax.Array, length: int) -> jax.Array:
    """Positive, clustered: the exponential of a slow autoregression of random size.

    Args:
        u: `[2]`.
        key: consumed.
        length: T.
    """
    keep = 1 - log_uniform(u[0], 0.003, 0.3)
    noise = jax.random.normal(key, (length,)) * jnp.sqrt(1 - jnp.square(keep))
    noise = noise.at[0].divide(jnp.sqrt(1 - jnp.square(keep)))  # starts in equilibrium
    return jnp.exp(0.8 * u[1] * recurrence(jnp.full((length,), keep), noise))


def recurrence(keep: jax.Array, add: jax.Array) -> jax.Array:
    """`x[t] = keep[t] x[t - 1] + add[t]` from x = 0, both `[T]`, in O(log T) steps."""

    def joined(
        first: tuple[jax.Array, jax.Array], second: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        return first[0] * second[0], first[1] * second[0] + second[1]

    result: jax.Array = jax.lax.associative_scan(joined, (keep, add))[1]
    return result


def slow(u: jax.Array, length: int) -> jax.Array:
    """A smooth wander of about unit size: four waves of a sixth to four times the length.

    Args:
        u: `[SLOW]`.
        length: T.
    """
    period, phase, size = u.reshape(3, 4, 1)
    angle = jnp.arange(length)[None] / (length * log_uniform(period, 1 / 6, 4.0)) + phase
    return jnp.sum(normal(size) * jnp.sin(2 * math.pi * angle), axis=0) / math.sqrt(2.0)


def waveform(u: jax.Array, phase: jax.Array) -> jax.Array:
    """A random periodic function: smooth, a bump, or steps, of about mean 0 and std 1.

    Args:
        u: `[WAVEFORM]`.
        phase: `[T]`, in cycles.
    """
    size, shift = u[:HARMONICS], u[HARMONICS : 2 * HARMONICS]
    stairs, holds = u[2 * HARMONICS : -3].reshape(2, STAIRS)
    order = jnp.arange(1, HARMONICS + 1)
    size = normal(size) / order ** between(u[-1], 0.3, 2.5)
    size = size * jnp.sqrt(2 / (jnp.sum(jnp.square(size)) + 1e-6))
    angle = order[:, None] * phase[None] + shift[:, None]
    smooth = jnp.sum(size[:, None] * jnp.sin(2 * math.pi * angle), axis=0)
    sharp = log_uniform(u[-2], 0.5, 20.0)
    grid, bump = (
        jnp.exp(sharp * (jnp.cos(2 * math.pi * x) - 1)) for x in (jnp.arange(48) / 48, phase)
    )
    bump = (bump - jnp.mean(grid)) / jnp.std(grid)
    steps = normal(stairs) * (holds < 0.5)
    steps = (steps - jnp.mean(steps)) / (jnp.std(steps) + 1e-3)
    stepped = steps[jnp.floor((phase % 1.0) * STAIRS).astype(jnp.int32) % STAIRS]
    return jnp.stack([smooth, bump, stepped])[pick(u[-3], (0.6, 0.25, 0.15))]


def season(u: jax.Array, length: int, period: jax.Array | float) -> jax.Array:
    """A waveform of random phase, its size and phase drifting.

    Args:
        u: `[SEASON]`.
        length: T.
        period: steps of a cycle.
    """
    drift = 0.15 * u[0] * (u[1] < 0.3)
    wander, swell = u[4 : 4 + 2 * SLOW].reshape(2, SLOW)
    phase = jnp.arange(length) / period + u[2] + drift * slow(wander, length)
    return waveform(u[4 + 2 * SLOW :], phase) * (1 + 0.5 * u[3] * slow(swell, length))


def segment_ids(key: jax.Array, length: int, rate: jax.Array | float) -> jax.Array:
    """`[T]` int32 that grows by one at each step with probability `rate`."""
    return jnp.cumsum(jax.random.bernoulli(key, rate, (length,)).astype(jnp.int32))


def levels(u: jax.Array, ids: jax.Array) -> jax.Array:
    """A standard normal level for each segment of `segment_ids`; `u` is `[SEGMENTS]`."""
    return normal(u)[ids % SEGMENTS]


def spectral_noise(key: jax.Array, length: int, density: jax.Array) -> jax.Array:
    """A stationary Gaussian process of a power spectrum, standardised over the window.

    Args:
        key: consumed.
        length: T.
        density: `[T + 1]`, power at the frequencies k / (2 T), k = 0, ..., T.
    """
    real, imaginary = jax.random.normal(key, (2, length + 1))
    size = jnp.sqrt(density / jnp.max(density))
    wave = jnp.fft.irfft(jax.lax.complex(real * size, imaginary * size), n=2 * length)
    return standardised(wave[:length])


def frequencies(length: int) -> jax.Array:
    """`[T + 1]`, in cycles a step, from 0 to one half."""
    return jnp.arange(length + 1) / (2 * length)


def filtered(noise: jax.Array, roots: jax.Array, angles: jax.Array) -> jax.Array:
    """An autoregression with pairs of conjugate roots, by its transfer function.

    Args:
        noise: `[2 T]` innovations; the first half only starts the process.
        roots: `[R]`, absolute values of the roots in (0, 1).
        angles: `[R]`, their angles in radians; 0 gives a double real root.

    Returns:
        `[T]`, `prod_r (1 - 2 r cos(a) L + r^2 L^2) x = noise` with the lag operator L.
    """
    size = noise.shape[0]
    turn = jnp.exp(-2j * math.pi * jnp.arange(size // 2 + 1) / size)[:, None]  # e^(-i w)
    poles = 1 - 2 * (roots * jnp.cos(angles))[None] * turn + jnp.square(roots)[None] * turn**2
    wave = jnp.fft.irfft(jnp.fft.rfft(noise) / jnp.prod(poles, axis=1), n=size)
    return wave[size // 2 :]


def counts(key: jax.Array, rate: jax.Array) -> jax.Array:
    """Poisson draws of `rate` `[T]`: exact below a rate of 8, else a rounded normal.

    The distribution function is summed for 24 counts, past which a rate of 8 has 2e-6 left.
    """
    uniform = jax.random.uniform(key, rate.shape, minval=1e-7)
    small = jnp.minimum(rate, SMALL_RATE)
    term = jnp.exp(-small)
    below, number = term, jnp.zeros_like(rate)
    for k in range(1, 25):
        number = number + (uniform > below)
        term = term * small / k
        below = below + term
    large = jnp.maximum(jnp.round(rate + jnp.sqrt(rate) * normal(uniform)), 0.0)
    return jnp.where(rate < SMALL_RATE, number, large)


def trend(u: jax.Array, key: jax.Array, length: int, period: jax.Array | float) -> jax.Array:
    """A piecewise linear path: its slope is drawn anew now and then.

    Args:
        u: `[TREND]`.
        key: consumed.
        length: T.
        period: steps in which a typical slope changes the level by a twentieth to one.
    """
    ids = segment_ids(key, length, log_uniform(u[0], 0.5, 8.0) / length)
    return jnp.cumsum(levels(u[2:], ids) * log_uniform(u[1], 0.05, 1.0) / period)


def noise(u: jax.Array, key: jax.Array, length: int) -> jax.Array:
    """White noise or an autoregression of one root, with tails, of variance about 1.

    Args:
        u: `[3]`.
        key: consumed.
        length: T.
    """
    keep = jnp.where(u[0] < 0.5, 0.0, 1 - log_uniform(u[1], 0.02, 1.0))
    steps = heavy_normal(key, length, 0.2 * u[2]) * jnp.sqrt(1 - jnp.square(keep))
    return recurrence(jnp.full((length,), keep), steps)
