"""Toto 1.0 (Datadog, arXiv 2505.14766) in Flax: patches of several variables to mixtures.

A block has its norms before attention and before the gated (SwiGLU) feed-forward layers. Most
blocks attend to the past of each variable, some to the other variables at the same time step.
Patches are normalised outside.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.decoding.mixture import StudentMixture
from stride_jax.models.causal import KeyValues, Past, Place, attend, dense, gated
from stride_jax.models.toto.config import TotoConfig

Params = dict[str, Any]
DECAY_STEPS = 512
"""Patches after which the product of a query and a key has decayed by one power of its scale."""
LEAST = float(np.finfo(np.float32).eps)
"""The least scale of a distribution, and of its degrees of freedom above 2."""


def norm(config: TotoConfig, name: str) -> nn.RMSNorm:
    """`x / sqrt(mean(x^2) + 1e-8) * scale` over the last axis."""
    return nn.RMSNorm(epsilon=1e-8, dtype=jnp.dtype(config.dtype), name=name)


def rotate_pairs(x: jax.Array, positions: jax.Array, *, power: float) -> jax.Array:
    """Rotates the pairs (2 i, 2 i + 1) of each head and scales its numbers (xPos, 2212.10554).

    The angle of pair i is `position / 10000 ** (2 i / E)`. Number j is multiplied by
    `s_j ** (power * position / 512)`, `s_j = (2 (j mod E/2) + 0.4 E) / (1.4 E)`: the scales repeat
    after half a head, as in the original, and so the two numbers of a pair have different ones.
    Queries have power 1 and keys -1, so their products depend on differences of positions alone.
    The original counts positions from the middle of each pass, which changes no product of one
    pass. Here they are counted from one place for all passes.

    Args:
        x: `[B, n, H, E]`.
        positions: `[n]` int32.
        power: 1 for queries, -1 for keys.
    """
    width, half = x.shape[-1], x.shape[-1] // 2
    steps = positions.astype(jnp.float32)[:, None]
    pair = np.arange(half, dtype=np.float32)
    angle = steps / 10000.0 ** (pair / half)[None]  # [n, E / 2]
    cos, sin = jnp.cos(angle)[None, :, None], jnp.sin(angle)[None, :, None]
    first, second = x[..., 0::2].astype(jnp.float32), x[..., 1::2].astype(jnp.float32)
    turned = jnp.stack([first * cos - second * sin, second * cos + first * sin], axis=-1)
    scale = (2 * pair + 0.4 * width) / (1.4 * width)
    scales = np.concatenate([scale, scale])[None] ** (power / DECAY_STEPS * steps)  # [n, E]
    # [B, n, H, E / 2, 2] -> [B, n, H, E]
    return (turned.reshape(x.shape) * scales[None, :, None]).astype(x.dtype)


class Attention(nn.Module):
    """Multi-head attention: causal over time, or over the variables of a time step."""

    config: TotoConfig
    in_space: bool

    @nn.compact
    def __call__(
        self, x: jax.Array, place: Place, past: Past | None
    ) -> tuple[jax.Array, KeyValues | None]:
        """`[C, n, D]` -> `[C, n, D]`, and keys and values of the patches, or the new cache."""
        config = self.config
        heads, width = config.num_heads, config.head_width
        qkv = dense(config, 3 * config.d_model, "qkv", use_bias=True)(x)
        # [C, n, 3 D] -> [C, n, 3, E, H] -> [3, C, n, H, E]
        qkv = qkv.reshape(*x.shape[:2], 3, width, heads).transpose(2, 0, 1, 4, 3)
        query, key, value = qkv[0] / math.sqrt(width), qkv[1], qkv[2]
        new = None
        if self.in_space:
            read = across(query, KeyValues(key, value), config.precision)
        else:
            positions = place.first - place.skip + jnp.arange(x.shape[1])
            query = rotate_pairs(query, positions, power=1)
            keys = KeyValues(rotate_pairs(key, positions, power=-1), value)
            read, new = attend(query, keys, place, past, config.precision)
        # [C, n, H, E] -> [C, n, D]
        read = jnp.reshape(read, x.shape)
        return dense(config, config.d_model, "out", use_bias=True)(read), new


def across(query: jax.Array, known: KeyValues, precision: str) -> jax.Array:
    """Attention of every variable to all at the same time step, `[C, n, H, E]` in and out."""
    logits = jnp.einsum("cnhe,dnhe->nhcd", query, known.keys, precision=precision)
    weights = jax.nn.softmax(logits.astype(jnp.float32), axis=-1).astype(query.dtype)
    return jnp.einsum("nhcd,dnhe->cnhe", weights, known.values, precision=precision)


class Layer(nn.Module):
    """A pre-norm block."""

    config: TotoConfig
    in_space: bool

    @nn.compact
    def __call__(
        self, x: jax.Array, place: Place, past: Past | None
    ) -> tuple[jax.Array, KeyValues | None]:
        """`[C, n, D]` -> `[C, n, D]`, and see `Attention`."""
        config = self.config
        attention = Attention(config, self.in_space, name="attention")
        y, new = attention(norm(config, "norm1")(x), place, past)
        x = x + y
        return x + gated(config, norm(config, "norm2")(x), use_bias=True), new


class Toto(nn.Module):
    """Forecasts the next patch at every patch of the input, as a mixture for each step."""

    config: TotoConfig

    def setup(self) -> None:
        """Layers; their names are those of the stored parameters."""
        config = self.config
        options = {"dtype": jnp.dtype(config.dtype), "precision": config.precision}
        self.embedding = nn.Dense(config.d_model, **options)
        self.layer = [Layer(config, config.in_space(i)) for i in range(config.num_layers)]
        self.unembedding = nn.Dense(config.patch_len * config.d_model, **options)
        self.df = nn.Dense(config.num_components, **options)
        self.loc = nn.Dense(config.num_components, **options)
        self.scale = nn.Dense(config.num_components, **options)
        self.weights = nn.Dense(config.num_components, **options)

    def __call__(
        self, patches: jax.Array, place: Place, past: list[Past] | None = None
    ) -> tuple[StudentMixture, list[KeyValues]]:
        """Mixtures of the next patches of normalised patches `[C, n, P]`.

        Args:
            patches: float32, those of C variables of one series.
            place: of the patches in their sequence.
            past: of each layer over time; None where the sequence begins here.

        Returns:
            The mixture after each patch, `[C, n, P, M]` float32, normalised; and of each layer over
            time the keys and values of these patches (the cache with them written, where there is a
            past).
        """
        config, x = self.config, self.embedding(patches)
        written: list[KeyValues] = []
        for i, layer in enumerate(self.layer):
            known = None if past is None or config.in_space(i) else past[len(written)]
            x, new = layer(x, place, known)
            if new is not None:
                written.append(new)
        # [C, n, P * D] -> [C, n, P, D]
        x = self.unembedding(x).reshape(*x.shape[:2], config.patch_len, config.d_model)
        df, loc, scale, logits = (
            head(x).astype(jnp.float32) for head in (self.df, self.loc, self.scale, self.weights)
        )
        mixture = StudentMixture(
            df=2 + jnp.maximum(jax.nn.softplus(df), LEAST),
            loc=loc,
            scale=jnp.maximum(jax.nn.softplus(scale), LEAST),
            log_weights=jax.nn.log_softmax(logits, axis=-1),
        )
        return mixture, written


def init_params(key: jax.Array, config: TotoConfig) -> Params:
    """New parameters; `key` is consumed."""
    zero: Any = jax.ShapeDtypeStruct((), jnp.int32)
    patches = jax.ShapeDtypeStruct((1, 1, config.patch_len), jnp.float32)
    params: Params = Toto(config).lazy_init({"params": key}, patches, Place(zero, zero))["params"]
    return params
