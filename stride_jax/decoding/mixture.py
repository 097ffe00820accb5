"""A mixture of Student's t distributions for each step of a patch: densities and draws."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln, logsumexp

LEAST = 2.0**-24
"""The least uniform number that is drawn: a radius from 0 would be without bound."""
LARGE = 8.0
"""From here on the ratio of two gamma functions is a series: their logarithms would be large."""


class StudentMixture(NamedTuple):
    """Mixtures of M Student's t distributions, one for each step; see `types.Density`.

    Attributes:
        df: `[..., P, C, M]` degrees of freedom, above 1, so that there is a mean.
        loc: `[..., P, C, M]` in the units of the series.
        scale: `[..., P, C, M]` in the same units, above 0.
        log_weights: `[..., P, C, M]`, their exponentials sum to 1.
    """

    df: jax.Array
    loc: jax.Array
    scale: jax.Array
    log_weights: jax.Array

    def mean(self) -> jax.Array:
        """The mean of each step, `[..., P, C]`."""
        return jnp.sum(jnp.exp(self.log_weights) * self.loc, axis=-1)

    def moved(self, shift: jax.Array, factor: jax.Array) -> StudentMixture:
        """The mixture of `shift + factor * x`; both broadcast to `[..., P, C]`, factor above 0."""
        rank = self.loc.ndim
        shift, factor = (leading(jnp.asarray(x)[..., None], rank) for x in (shift, factor))
        return self._replace(loc=shift + factor * self.loc, scale=factor * self.scale)

    def log_prob(self, values: jax.Array) -> jax.Array:
        """See `types.Density`."""
        rank = max(values.ndim + 1, self.df.ndim)
        values = leading(values[..., None], rank)
        df, loc, scale, log_weights = (leading(x, rank) for x in self)
        half, z = 0.5 * df, (values - loc) / scale
        constant = log_gamma_step(half) - 0.5 * jnp.log(np.pi * df) - jnp.log(scale)
        tail = (half + 0.5) * jnp.log1p(jnp.square(z) / df)
        return logsumexp(log_weights + constant - tail, axis=-1)

    def sample(self, key: jax.Array, count: int | None = None) -> jax.Array:
        """See `types.Density`.

        A component by the inverse of the weights' distribution function, then its t by the polar
        method, without a loop (Bailey, Mathematics of Computation 62, 1994): with U and V uniform,
        `sqrt(df (U^(-2 / df) - 1)) cos(2 pi V)`.
        """
        front = () if count is None else (count,)
        shape = (*front, *self.df.shape[:-1])
        # A draw has 23 bits; the lowest one stands for the middle of its bin, not for 0.
        pick, u, v = jax.random.uniform(key, (3, *shape), jnp.float32, minval=LEAST)

        # The component of each step.
        shares = jnp.cumsum(jnp.exp(self.log_weights), axis=-1)
        below = pick[..., None] > leading(shares, pick.ndim + 1)
        number = jnp.sum(below, axis=-1, keepdims=True)
        number = jnp.minimum(number, self.df.shape[-1] - 1)  # where the weights sum to less than 1

        def of_component(values: jax.Array) -> jax.Array:
            whole = jnp.broadcast_to(leading(values, len(shape) + 1), (*shape, values.shape[-1]))
            return jnp.take_along_axis(whole, number, axis=-1)[..., 0]

        df, loc, scale = (of_component(x) for x in (self.df, self.loc, self.scale))
        radius = jnp.sqrt(df * jnp.expm1(-2 / df * jnp.log(u)))
        return loc + scale * radius * jnp.cos(2 * np.pi * v)


def leading(x: jax.Array, rank: int) -> jax.Array:
    """The array with axes of length 1 in front, so that it has at least `rank` axes."""
    return x.reshape((1,) * (rank - x.ndim) + x.shape)


def log_gamma_step(x: jax.Array) -> jax.Array:
    """`log Gamma(x + 1/2) - log Gamma(x)` for x > 0, in float32 without the loss of a difference.

    From 8 on by the series `log(x) / 2 - 1 / (8 x) + 1 / (192 x^3)`, whose next term is below 1e-7
    there.
    """
    far = jnp.maximum(x, LARGE)
    series = 0.5 * jnp.log(far) - 1 / (8 * far) + 1 / (192 * far**3)
    near = jnp.minimum(x, LARGE)
    return jnp.where(x >= LARGE, series, gammaln(near + 0.5) - gammaln(near))
