"""The uncertainty of a draft about its own proposals, in units of sigma."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def draft_uncertainty(mean: jax.Array, logvar: jax.Array | None, sigma: jax.Array) -> jax.Array:
    """How unsure a draft is of each of its K patches, `[K]`, not negative.

    With a learned variance it is the RMS of the draft's std. Without one it is the RMS change of
    the draft's mean from the patch before in the round: a forecast that still moves is less certain
    than one that has settled. The first patch has no patch before it, and counts as certain.

    The number of a patch depends on the proposals before it alone, not on its own noise.

    Args:
        mean: `[K, P, C]` of the draft.
        logvar: `[K, P, C]`, its learned log variance, or None.
        sigma: std of a patch, `[P, C]` or `[K, P, C]`; the unit.
    """
    sigma = jnp.broadcast_to(sigma, mean.shape)
    if logvar is not None:
        return rms(jnp.exp(0.5 * logvar) / sigma)
    change = (mean - jnp.roll(mean, 1, axis=0)) / sigma
    return rms(change).at[0].set(0.0)


def rms(patches: jax.Array) -> jax.Array:
    """Root of the mean square of each patch, `[..., P, C] -> [...]`."""
    return jnp.sqrt(jnp.mean(jnp.square(patches), axis=(-2, -1)))
