"""Periods of a window, their phases, and the mean over the phases of the strongest one.

Without parameters. The periods are the highest peaks of the normalised periodogram that a white
window would exceed with a probability of at most alpha (Bonferroni over its frequencies).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


def filled_with_mean(values: jax.Array, real: jax.Array) -> jax.Array:
    """`[W]` with the mean of its real values in place of the others; `real [W]` bool."""
    mean = jnp.where(real, values, 0).sum() / jnp.maximum(real.sum(), 1)
    return jnp.where(real, values, mean)


def strongest_periods(values: jax.Array, count: int, alpha: float) -> jax.Array:
    """The periods of a window `[W]` in steps, strongest first: `[count]` float32, 0 for none.

    A period is a local maximum of the periodogram at W/2 steps at most; it is the size of the
    transform over its frequency, rounded to whole steps.

    Args:
        values: the window, without missing values.
        count: periods at most.
        alpha: level of the test.
    """
    steps = len(values)
    size = 1 << math.ceil(math.log2(max(2, steps)))
    spectrum = jnp.fft.rfft(values - values.mean(), n=size)[1:]  # [F], without the mean
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    power = power / jnp.maximum(power.sum(), 1e-12)

    # Peaks among the frequencies of periods from 2 steps to half the window.
    bins = len(power)
    frequency = jnp.arange(1, bins + 1)
    lowest, highest = max(0, size // max(2, steps // 2) - 1), min(bins - 1, size // 2 - 1)
    inside = (frequency - 1 >= lowest) & (frequency - 1 <= highest)
    middle = (power[1:-1] > power[:-2]) & (power[1:-1] > power[2:])
    peak = jnp.pad(middle, 1) & inside
    threshold = math.log(max(2, bins) / max(alpha, 1e-12)) / max(2, bins)

    # The highest that pass the test.
    scores = jnp.where(peak & (power >= threshold), power, -jnp.inf)
    best, place = jax.lax.top_k(scores, min(count, bins))
    return jnp.where(jnp.isfinite(best), jnp.round(size / frequency[place].astype(jnp.float32)), 0)


def phases(positions: jax.Array, periods: jax.Array) -> jax.Array:
    """Sine and cosine of the phase in each period, `[T, 2 K]`: sin, cos, sin, cos, ...

    Args:
        positions: `[T]`, steps from the start of the window.
        periods: `[K]`; both are 0 for a period of 0.
    """
    turns = 2.0 * math.pi * positions.astype(jnp.float32)[:, None]
    angle = turns / jnp.maximum(periods, 1)[None]  # [T, K]
    both = jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1)
    both = jnp.where((periods > 0)[None, :, None], both, 0)
    return both.reshape(len(positions), -1)  # [T, K, 2] -> [T, 2 K]


def seasonal_mean(
    values: jax.Array, real: jax.Array, ahead: jax.Array, period: jax.Array, bins: int
) -> jax.Array:
    """The mean of the window over the steps with the phase of each future step, `[H]`.

    Args:
        values: `[W]`; those that are not real do not count.
        real: `[W]` bool.
        ahead: `[H]`, positions of the future steps.
        period: in steps; 0 for none, which makes one phase of all.
        bins: the phase is rounded down to one of so many; a bin without values has the mean of all.
    """
    period = jnp.maximum(period, 1)

    def bin_of(positions: jax.Array) -> jax.Array:
        share = jnp.mod(positions.astype(jnp.float32), period) / period
        return jnp.minimum((share * bins).astype(jnp.int32), bins - 1)

    weights = real.astype(jnp.float32)
    values = jnp.where(real, values, 0)
    member = jax.nn.one_hot(bin_of(jnp.arange(len(values))), bins) * weights[:, None]  # [W, bins]
    counts, totals = member.sum(axis=0), jnp.sum(member * values[:, None], axis=0)
    overall = values.sum() / jnp.maximum(weights.sum(), 1)
    means = jnp.where(counts > 0, totals / jnp.maximum(counts, 1), overall)
    return means[bin_of(ahead)]
