"""Running statistics of patches with missing values, and what the model sees of a patch.

The original takes mean and population variance of everything up to and including a patch from sums
in float64. Here they are merged without such sums, in float32 and less the first value of the
history, which loses no more. Statistics are arrays `[..., 3]`: number of values, mean, and sum of
squared deviations from the mean, for each variable, as missing values differ between variables.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.decoding.normalization import EPS
from stride_jax.models.running import LARGEST


def extended(before: jax.Array, patches: jax.Array, counted: jax.Array | np.ndarray) -> jax.Array:
    """Statistics of what came before and of some of the k patches after it, j times.

    Args:
        before: `[C, 3]`.
        patches: `[k, P, C]`, NaN where a value is missing.
        counted: `[j, k]` bool, the patches of each result; the others do not matter, also where
            they are not finite.

    Returns:
        `[j, C, 3]`.
    """
    total, mean, m2 = (before[:, i] for i in range(3))
    seen = ~jnp.isnan(patches)
    shifted = jnp.where(seen, patches - mean[None, None], 0)
    # Sums of each patch, [3, k, C], and of the patches that count, [3, j, C].
    sums = jnp.stack(
        [jnp.sum(x, axis=1) for x in (seen.astype(jnp.float32), shifted, jnp.square(shifted))]
    )
    counted_sums = jnp.where(jnp.asarray(counted)[None, :, :, None], sums[:, None], 0)
    number, first, second = jnp.sum(counted_sums, axis=2)
    step = first / jnp.maximum(total[None] + number, 1)
    more = total[None] + number, mean[None] + step, m2[None] + second - first * step
    return jnp.stack(more, axis=-1)


def center(statistics: jax.Array) -> jax.Array:
    """The mean, `[...]`."""
    return statistics[..., 1]


def scale(statistics: jax.Array) -> jax.Array:
    """The std, `sqrt(m2 / number + 1e-5)`, `[...]`."""
    number, m2 = statistics[..., 0], statistics[..., 2]
    return jnp.sqrt(jnp.maximum(m2, 0) / jnp.maximum(number, 1) + EPS)


def normalised(patches: jax.Array, statistics: jax.Array) -> jax.Array:
    """Patches as the model sees them: asinh of the distance from the mean over the std, filled up.

    A missing value is the last one before it in its patch, or 0 where there is none, as in the
    original.

    Args:
        patches: `[n, P, C]`, NaN where a value is missing.
        statistics: `[n, C, 3]`, of each.

    Returns:
        `[C, n, P]`, finite.
    """
    apart = (patches - center(statistics)[:, None]) / scale(statistics)[:, None]
    # A wild proposal must not reach those before it: a weight of 0 times inf is NaN.
    normal = jnp.arcsinh(jnp.clip(apart, -LARGEST, LARGEST)).transpose(2, 0, 1)  # [C, n, P]
    seen, steps = ~jnp.isnan(normal), jnp.arange(normal.shape[-1])
    latest = jax.lax.cummax(jnp.where(seen, steps, 0), axis=2)
    return jnp.take_along_axis(jnp.where(seen, normal, 0), latest, axis=2)


def in_units(out: jax.Array, statistics: jax.Array, origin: jax.Array) -> jax.Array:
    """The model's outputs in the units of the series; the inverse of `normalised`.

    Args:
        out: `[C, n, P, Q]`.
        statistics: `[n, C, 3]`, of the patches they follow.
        origin: `[C]`, added.

    Returns:
        `[n, P, C, Q]`.
    """
    apart = jnp.sinh(out).transpose(1, 2, 0, 3)
    level = center(statistics) + origin[None]  # [n, C]
    return apart * scale(statistics)[:, None, :, None] + level[:, None, :, None]
