"""Scores of forecasts: means by MSE and MAE, sample paths by CRPS.

All average over every entry. Scores of a test set work on one window, `[H, C]`, and the caller
averages over windows. With `seen`, a bool array of the truth's shape, only entries whose truth was
observed count; where there are none, the errors are 0.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


def _mean(score: jax.Array, seen: jax.Array | None) -> jax.Array:
    """The mean over all entries, or over those with `seen`."""
    if seen is None:
        return jnp.mean(score)
    return jnp.sum(jnp.where(seen, score, 0.0)) / jnp.maximum(jnp.sum(seen), 1)


def mse(forecast: jax.Array, truth: jax.Array, seen: jax.Array | None = None) -> jax.Array:
    """Mean squared error of two arrays of one shape."""
    return _mean(jnp.square(forecast - truth), seen)


def mae(forecast: jax.Array, truth: jax.Array, seen: jax.Array | None = None) -> jax.Array:
    """Mean absolute error of two arrays of one shape."""
    return _mean(jnp.abs(forecast - truth), seen)


def crps(paths: jax.Array, truth: jax.Array, seen: jax.Array | None = None) -> jax.Array:
    """Continuous ranked probability score of sample paths, the fair estimator.

    Per entry `mean |x_i - y| - sum_{i<j} |x_i - x_j| / (S (S - 1))`, unbiased for any number of
    paths. The pairs come from the sorted sample: with x_(0) <= x_(1) <= ...
    `sum_{i<j} (x_(j) - x_(i)) = sum_i (2 i - S + 1) x_(i)`.

    Args:
        paths: `[S, H, C]`, S >= 2.
        truth: `[H, C]`.
        seen: `[H, C]` bool, entries that count; None for all.

    References:
        Zamo and Naveau, Estimation of the continuous ranked probability score with limited
        information, Mathematical Geosciences 50, 2018.
    """
    count = paths.shape[0]
    weight = 2.0 * jnp.arange(count) - count + 1
    spread = jnp.tensordot(weight, jnp.sort(paths, axis=0), axes=1)  # [S] x [S, H, C] -> [H, C]
    error = jnp.mean(jnp.abs(paths - truth[None]), axis=0)
    return _mean(error - spread / (count * (count - 1)), seen)


def least_paths(level: float) -> int:
    """The fewest sample paths whose extremes span an interval of this coverage: 9 for .8.

    A new draw falls outside the range of S others with probability 2 / (S + 1).
    """
    return math.ceil(2 / (1 - level) - 1 - 1e-9)


def coverage(
    paths: jax.Array, truth: jax.Array, level: float = 0.8, seen: jax.Array | None = None
) -> jax.Array:
    """Share of the truth inside the central interval of sample paths, unbiased for any number.

    With S paths and a truth of the same distribution, the truth is below the k-th smallest path
    with probability k / (S + 1). Where (S + 1) times the tail's probability is no whole number, the
    two paths around that place share the count, so the right distribution has the expected
    coverage `level`.

    Args:
        paths: `[S, H, C]`, S at least `least_paths(level)`.
        truth: `[H, C]`.
        level: Coverage of the interval, in (0, 1).
        seen: `[H, C]` bool, entries that count; None for all.
    """
    ordered = jnp.sort(paths, axis=0)
    place = (paths.shape[0] + 1) * (1 - level) / 2  # a path's number, from 1
    low = max(1, math.floor(place + 1e-9))
    share = max(place - low, 0.0)

    def missed(ends: jax.Array, sign: int) -> jax.Array:
        first, second = (sign * (truth - end) < 0 for end in ends)
        return (1 - share) * first + share * second

    below = missed(ordered[low - 1 : low + 1], 1)
    above = missed(ordered[::-1][low - 1 : low + 1], -1)
    return 1 - _mean(below + above, seen)
