"""TimesFM 2.5 (arXiv 2310.10688, version 2.5) in Flax: tokens to features, features to outputs.

A block has a norm before and after its attention and its feed-forward layers. Rotation comes before
the norm of queries and keys, and each number of a query has a learned scale of its own.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from stride_jax.models.causal import (
    KeyValues,
    Past,
    Place,
    ResidualBlock,
    attend,
    dense,
    queries_keys_values,
    rotate_halves,
)
from stride_jax.models.timesfm.config import NUM_OUTPUTS, TimesFMConfig

Params = dict[str, Any]
EPS = 1e-6
"""Added to the mean square in a norm."""


def norm(config: TimesFMConfig, name: str) -> nn.RMSNorm:
    """`x / sqrt(mean(x^2) + 1e-6) * scale` over the last axis."""
    return nn.RMSNorm(epsilon=EPS, dtype=jnp.dtype(config.dtype), name=name)


class Attention(nn.Module):
    """Causal multi-head attention over prefill, cache and the tokens themselves."""

    config: TimesFMConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, place: Place, past: Past | None
    ) -> tuple[jax.Array, KeyValues]:
        """`[B, n, D]` -> `[B, n, D]`, and the keys and values of the tokens or the new cache."""
        config = self.config
        width = config.head_width
        query, key, value = queries_keys_values(config, x)
        positions = place.first - place.skip + jnp.arange(x.shape[1])
        query = norm(config, "query_norm")(rotate_halves(query, positions))
        key = norm(config, "key_norm")(rotate_halves(key, positions))
        scale = self.param("query_scale", nn.initializers.zeros, (width,))
        # 1.442695041 / sqrt(E), as the original has it; the logits have no other scale
        scale = 1.442695041 / math.sqrt(width) * jax.nn.softplus(scale.astype(jnp.float32))
        query = query * scale.astype(query.dtype)[None, None, None]

        read, new = attend(query, KeyValues(key, value), place, past, config.precision)
        # [B, n, H, E] -> [B, n, D]
        return dense(config, config.d_model, "out")(jnp.reshape(read, x.shape)), new


class Layer(nn.Module):
    """A block: attention, then feed-forward layers, each between two norms."""

    config: TimesFMConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, place: Place, past: Past | None
    ) -> tuple[jax.Array, KeyValues]:
        """`[B, n, D]` -> `[B, n, D]`, and see `Attention`."""
        config = self.config
        y = norm(config, "before_attention")(x)
        y, new = Attention(config, name="attention")(y, place, past)
        x = x + norm(config, "after_attention")(y)
        y = jax.nn.silu(dense(config, config.d_ff, "ffn_in")(norm(config, "before_ffn")(x)))
        y = dense(config, config.d_model, "ffn_out")(y)
        return x + norm(config, "after_ffn")(y), new


class TimesFM(nn.Module):
    """Features of tokens, and the two heads that read them."""

    config: TimesFMConfig

    def setup(self) -> None:
        """Layers; their names are those of the stored parameters."""
        config = self.config
        width = config.d_model
        self.tokenizer = ResidualBlock(config, width, width, use_bias=True)
        self.layer = [Layer(config) for _ in range(config.num_layers)]
        self.point = ResidualBlock(config, width, config.patch_len * NUM_OUTPUTS)
        self.long = ResidualBlock(config, width, config.long_len * NUM_OUTPUTS)

    def __call__(self, tokens: jax.Array, mask: jax.Array, place: Place) -> jax.Array:
        """All parts once, so that `init` makes all parameters; see the methods."""
        x, _ = self.features(tokens, mask, place)
        return jnp.concatenate([self.patches(x), self.long_patches(x)], axis=-2)

    def features(
        self,
        tokens: jax.Array,
        mask: jax.Array,
        place: Place,
        past: list[Past] | None = None,
    ) -> tuple[jax.Array, list[KeyValues]]:
        """Features of tokens `[B, n, T]`, normalised, 0 where masked.

        Args:
            tokens: float32.
            mask: `[n, T]` bool, True for padding.
            place: of the tokens.
            past: of each layer; None where the sequence begins here.

        Returns:
            `[B, n, D]`, and of each layer the keys and values of these tokens (the cache with them
            written, where there is a past).
        """
        flags = jnp.broadcast_to(mask.astype(tokens.dtype), tokens.shape)
        x, written = self.tokenizer(jnp.concatenate([tokens, flags], axis=-1)), []
        for i, layer in enumerate(self.layer):
            x, new = layer(x, place, None if past is None else past[i])
            written.append(new)
        return x, written

    def patches(self, features: jax.Array) -> jax.Array:
        """`[..., D]` -> the next patch, `[..., P, Q]` float32, normalised."""
        return self._steps(self.point(features))

    def long_patches(self, features: jax.Array) -> jax.Array:
        """`[..., D]` -> the next `long_len` steps, `[..., long_len, Q]` float32, normalised."""
        return self._steps(self.long(features))

    def _steps(self, flat: jax.Array) -> jax.Array:
        # [..., steps * Q] -> [..., steps, Q]
        return flat.astype(jnp.float32).reshape(*flat.shape[:-1], -1, NUM_OUTPUTS)


def init_params(key: jax.Array, config: TimesFMConfig) -> Params:
    """New parameters; `key` is consumed."""
    tokens = jax.ShapeDtypeStruct((1, 1, config.token_len), jnp.float32)
    masked = jax.ShapeDtypeStruct((1, config.token_len), bool)
    zero: Any = jax.ShapeDtypeStruct((), jnp.int32)
    args = tokens, masked, Place(zero, zero)
    params: Params = TimesFM(config).lazy_init({"params": key}, *args)["params"]
    return params
