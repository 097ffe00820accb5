"""Fracast-0 in Flax: one dilated causal block at many scales, and a head of quantiles.

The arithmetic is that of the PyPI package fracast 0.1.0.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from stride_jax.models.fracast.config import FracastConfig
from stride_jax.models.fracast.periods import (
    filled_with_mean,
    phases,
    seasonal_mean,
    strongest_periods,
)

EPSILON = float(jnp.finfo(jnp.float32).eps)
"""Added to mean squares, the default of PyTorch's RMSNorm."""


def recency(positions: jax.Array, length: int) -> jax.Array:
    """Features `[T, 5]` of the distance of steps from the last one of a window.

    Args:
        positions: `[T]`; `length - 1` is the last step of the window.
        length: W.
    """
    distance = (positions.astype(jnp.float32) - (length - 1)) / length
    size = jnp.abs(distance)
    logarithm = jnp.sign(distance) * jnp.log1p(size) / math.log(2.0)
    fading = [jnp.exp(-rate * size) for rate in (0.5, 2.0, 8.0)]
    return jnp.stack([distance, logarithm, *fading], axis=-1)


def norm(name: str) -> nn.RMSNorm:
    """Root mean square normalisation over the width."""
    return nn.RMSNorm(epsilon=EPSILON, name=name)


class CausalConvolution(nn.Module):
    """Each channel convolved along time with its own taps, which see no later step."""

    kernel_size: int

    @nn.compact
    def __call__(self, x: jax.Array, dilation: int) -> jax.Array:
        """`[T, D]` -> `[T, D]`; the taps are `dilation` steps apart."""
        width = x.shape[-1]
        taps = self.param("taps", nn.initializers.lecun_normal(), (width, 1, self.kernel_size))
        bias = self.param("bias", nn.initializers.zeros_init(), (width,))
        reach = (self.kernel_size - 1) * dilation
        grown = jnp.pad(x, ((reach, 0), (0, 0)))
        shifted = [
            grown[i * dilation : i * dilation + len(x)] * taps[None, :, 0, i]
            for i in range(self.kernel_size)
        ]
        return sum(shifted[1:], shifted[0]) + bias[None]


class GatedFeedForward(nn.Module):
    """`down(silu(gate(x)) * value(x))`, gate and value in one product."""

    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[T, D]` -> `[T, D]`."""
        gate, value = jnp.split(nn.Dense(2 * self.hidden, name="up")(x), 2, axis=-1)
        return nn.Dense(x.shape[-1], name="down")(nn.silu(gate) * value)


class Block(nn.Module):
    """A causal convolution by channels, a product over them, and a gated feed-forward layer."""

    config: FracastConfig

    @nn.compact
    def __call__(self, x: jax.Array, dilation: int) -> jax.Array:
        """`[T, D]` -> `[T, D]`."""
        size = self.config
        mixed = CausalConvolution(size.kernel_size, name="convolution")(x, dilation)
        x = norm("norm1")(x + nn.Dense(size.d_model, name="pointwise")(mixed))
        return norm("norm2")(x + GatedFeedForward(size.d_ff, name="ffn")(x))


class Encoder(nn.Module):
    """A window to a state for each of its steps: one block at the dilations 1, 2, 4, ..."""

    config: FracastConfig

    @nn.compact
    def __call__(self, values: jax.Array, real: jax.Array, periods: jax.Array) -> jax.Array:
        """`[W]` values, 0 where they are not real, and the periods `[K]` -> `[W, D]`."""
        size, steps = self.config, jnp.arange(len(values))

        # Value, whether there is one, distance from now, and phases.
        columns = jnp.stack([values, real.astype(jnp.float32)], axis=-1)
        features = jnp.concatenate([columns, recency(steps, len(values))], axis=-1)
        x = nn.Dense(size.d_model, name="in_proj")(features)
        x += nn.Dense(size.d_model, name="phase_proj")(phases(steps, periods))

        # The same block at every scale, told the scale by a gain and a shift.
        film = nn.Dense(2 * size.d_model, name="film")
        block = Block(size, name="block")
        for scale in range(size.num_scales):
            angle = scale / 2.0 ** jnp.arange(size.scale_frequencies) * math.pi
            told = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)])
            gain, shift = jnp.split(film(told), 2)
            x = block(x * (1 + gain)[None] + shift[None], 2**scale)
        return norm("norm")(x)


class Future(nn.Module):
    """States of the future steps: the last states of the window go on over a seasonal mean."""

    config: FracastConfig

    @nn.compact
    def __call__(self, states: jax.Array, seasonal: jax.Array, distance: jax.Array) -> jax.Array:
        """States `[W, D]`, seasonal mean `[H]` and recency `[H, 5]` -> `[H, D]`."""
        size, count = self.config, len(seasonal)
        features = jnp.concatenate([seasonal[:, None], distance], axis=-1)
        ahead = nn.Dense(size.d_model, name="in_proj")(features)
        x = jnp.concatenate([states[-min(size.future_seed, len(states)) :], ahead])
        block = Block(size, name="block")
        for layer in range(size.future_layers):
            x = block(x, 2**layer)
        return nn.Dense(size.d_model, name="out_proj")(x[-count:])


class Head(nn.Module):
    """States of a window to the quantiles of the steps after it."""

    config: FracastConfig

    @nn.compact
    def __call__(self, states: jax.Array, seasonal: jax.Array) -> jax.Array:
        """States `[W, D]` and seasonal mean `[P]` -> `[P, Q]`."""
        size, length = self.config, len(states)
        distance = recency(length + jnp.arange(size.patch_len), length)
        summary = jnp.concatenate([states.mean(axis=0), states[-1]])
        asked = jnp.broadcast_to(summary, (size.patch_len, len(summary)))
        x = nn.Dense(size.d_model, name="summary")(jnp.concatenate([distance, asked], axis=-1))
        queries = nn.initializers.normal(size.d_model**-0.5)
        x += self.param("queries", queries, (size.patch_len, size.d_model))
        for layer in range(size.head_layers):
            x = norm(f"norm_{layer}")(x + GatedFeedForward(size.head_d_ff, name=f"ffn_{layer}")(x))
        for layer in range(size.head_convolutions):
            mixed = CausalConvolution(size.kernel_size, name=f"convolution_{layer}")(x, 2**layer)
            x = norm(f"convolution_norm_{layer}")(x + mixed)
        x += Future(size, name="future")(states, seasonal, distance)
        return nn.Dense(len(size.levels), name="out_proj")(x)


class Fracast(nn.Module):
    """A window, scaled to its range, to the quantiles of the next patch in the same scale."""

    config: FracastConfig

    @nn.compact
    def __call__(self, values: jax.Array, real: jax.Array) -> jax.Array:
        """`[W]` and `[W]` bool -> `[P, Q]`; values that are not real do not matter."""
        size = self.config
        values = jnp.where(real, values, 0)
        filled = filled_with_mean(values, real)
        periods = strongest_periods(filled, size.num_periods, size.period_alpha)
        states = Encoder(size, name="encoder")(values, real, periods)
        ahead = len(values) + jnp.arange(size.patch_len)
        seasonal = seasonal_mean(values, real, ahead, periods[0], size.phase_bins)
        return Head(size, name="head")(states, seasonal)


@functools.partial(jax.jit, static_argnums=0)
def quantiles(config: FracastConfig, params: Any, window: jax.Array, real: jax.Array) -> jax.Array:
    """The quantiles of the next patch in the units of the window, `[P, Q]` float32.

    Args:
        config: sizes.
        params: of `Fracast`.
        window: `[W]`.
        real: `[W]` bool; the other values do not matter.
    """
    low = jnp.min(jnp.where(real, window, jnp.inf))
    high = jnp.max(jnp.where(real, window, -jnp.inf))
    low, high = (jnp.where(jnp.any(real), x, 0.0) for x in (low, high))
    span = jnp.maximum(high - low, 1e-5)
    scaled = jnp.where(real, (window - low) / span, 0)
    with jax.default_matmul_precision("highest"):  # as in the original, also on a GPU
        predicted = Fracast(config).apply({"params": params}, scaled, real)
    return jnp.asarray(predicted, jnp.float32) * span + low
