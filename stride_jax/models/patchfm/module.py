"""PatchFM 3.2 (PyPI `patchfm`) in Flax: normalised patches to nine quantiles of the next patch.

A block has a norm before its attention and before its gated (SwiGLU) feed-forward layers. Rotation
turns the first half of a head, before the norm of queries and keys; each number of a query has a
learned scale of its own.
"""

from __future__ import annotations

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
    gated,
    queries_keys_values,
)
from stride_jax.models.patchfm.config import LEVELS, PatchFMConfig
from stride_jax.models.rotary import rotate

Params = dict[str, Any]
EPS = float(jnp.finfo(jnp.float32).eps)
"""Added to the mean square of a query or a key."""


def layer_norm(config: PatchFMConfig, name: str) -> nn.LayerNorm:
    """A layer norm with an epsilon of 1e-5."""
    return nn.LayerNorm(epsilon=1e-5, dtype=jnp.dtype(config.dtype), name=name)


def turned(x: jax.Array, positions: jax.Array) -> jax.Array:
    """Rotates the first half of each head, `[B, n, H, E]`."""
    return jnp.swapaxes(rotate(jnp.swapaxes(x, 1, 2), positions), 1, 2)


class Attention(nn.Module):
    """Causal multi-head attention over prefill, cache and the patches themselves."""

    config: PatchFMConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, place: Place, past: Past | None
    ) -> tuple[jax.Array, KeyValues]:
        """`[B, n, D]` -> `[B, n, D]`, and the keys and values of the patches or the new cache."""
        config = self.config
        width = config.head_width
        query, key, value = queries_keys_values(config, x, use_bias=True)

        # Rotation, then the norms; a key never changes again, so that it is cached after them.
        positions = place.first - place.skip + jnp.arange(x.shape[1])
        query, key = (
            nn.RMSNorm(epsilon=EPS, dtype=jnp.dtype(config.dtype), name=name)(
                turned(part, positions)
            )
            for name, part in (("query_norm", query), ("key_norm", key))
        )
        scale = self.param("query_scale", nn.initializers.zeros, (width,))
        # 1.442695041 / sqrt(E) is that of the learned scale, 1 / sqrt(E) that of the attention
        scale = 1.442695041 / width * jax.nn.softplus(scale.astype(jnp.float32))
        query = query * scale.astype(query.dtype)[None, None, None]

        read, new = attend(query, KeyValues(key, value), place, past, config.precision)
        # [B, n, H, E] -> [B, n, D]
        read = jnp.reshape(read, x.shape)
        return dense(config, config.d_model, "out", use_bias=True)(read), new


class Layer(nn.Module):
    """A pre-norm block."""

    config: PatchFMConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, place: Place, past: Past | None
    ) -> tuple[jax.Array, KeyValues]:
        """`[B, n, D]` -> `[B, n, D]`, and see `Attention`."""
        config = self.config
        y = layer_norm(config, "norm1")(x)
        y, new = Attention(config, name="attention")(y, place, past)
        x = x + y
        return x + gated(config, layer_norm(config, "norm2")(x)), new


class PatchFM(nn.Module):
    """Nine quantiles of the next patch at every patch of the input."""

    config: PatchFMConfig

    def setup(self) -> None:
        """Layers; their names are those of the stored parameters."""
        config = self.config
        self.embedding = ResidualBlock(config, config.d_hidden, config.d_model, use_bias=True)
        self.layer = [Layer(config) for _ in range(config.num_layers)]
        self.norm = nn.LayerNorm(epsilon=1e-5, dtype=jnp.dtype(config.dtype))
        outputs = config.patch_len * len(LEVELS)
        self.head = ResidualBlock(config, config.d_hidden, outputs, use_bias=True)

    def __call__(
        self, patches: jax.Array, place: Place, past: list[Past] | None = None
    ) -> tuple[jax.Array, list[KeyValues]]:
        """Next patches of normalised patches `[B, n, P]`.

        Args:
            patches: float32.
            place: of the patches in their sequence.
            past: of each layer; None where the sequence begins here.

        Returns:
            The quantiles after each patch, `[B, n, P, Q]` float32, normalised; and of each layer
            the keys and values of these patches (the cache with them written, where there is a
            past).
        """
        x, written = self.embedding(patches), []
        for i, layer in enumerate(self.layer):
            x, new = layer(x, place, None if past is None else past[i])
            written.append(new)
        out = self.head(self.norm(x)).astype(jnp.float32)
        # [B, n, P * Q] -> [B, n, P, Q]
        return out.reshape(*patches.shape, len(LEVELS)), written


def init_params(key: jax.Array, config: PatchFMConfig) -> Params:
    """New parameters; `key` is consumed."""
    zero: Any = jax.ShapeDtypeStruct((), jnp.int32)
    patches = jax.ShapeDtypeStruct((1, 1, config.patch_len), jnp.float32)
    params: Params = PatchFM(config).lazy_init({"params": key}, patches, Place(zero, zero))[
        "params"
    ]
    return params
