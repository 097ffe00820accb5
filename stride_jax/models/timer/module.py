"""Timer (thuml/timer-base-84m, arXiv 2402.02368) in Flax: patches to features and to next patches.

A block has its norms after attention and after the gated (SwiGLU) feed-forward layers. Patches are
normalised outside.
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
    attend,
    dense,
    gated,
    queries_keys_values,
    rotate_halves,
)
from stride_jax.models.timer.config import TimerConfig

Params = dict[str, Any]


def norm(config: TimerConfig, name: str) -> nn.LayerNorm:
    """A layer norm with an epsilon of 1e-5."""
    return nn.LayerNorm(epsilon=1e-5, dtype=jnp.dtype(config.dtype), name=name)


class Attention(nn.Module):
    """Causal multi-head attention over prefill, cache and the tokens themselves."""

    config: TimerConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, place: Place, past: Past | None
    ) -> tuple[jax.Array, KeyValues]:
        """`[B, n, D]` -> `[B, n, D]`, and the keys and values of the tokens or the new cache."""
        config = self.config
        query, key, value = queries_keys_values(config, x, use_bias=True)
        positions = place.first - place.skip + jnp.arange(x.shape[1])
        query = rotate_halves(query, positions) / math.sqrt(config.head_width)
        new = KeyValues(rotate_halves(key, positions), value)
        read, new = attend(query, new, place, past, config.precision)
        # [B, n, H, E] -> [B, n, D]
        return dense(config, config.d_model, "out")(jnp.reshape(read, x.shape)), new


class Layer(nn.Module):
    """A post-norm block."""

    config: TimerConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, place: Place, past: Past | None
    ) -> tuple[jax.Array, KeyValues]:
        """`[B, n, D]` -> `[B, n, D]`, and see `Attention`."""
        config = self.config
        y, new = Attention(config, name="attention")(x, place, past)
        x = norm(config, "norm1")(x + y)
        return norm(config, "norm2")(x + gated(config, x)), new


class Timer(nn.Module):
    """Forecasts the next patch at every patch of the input."""

    config: TimerConfig

    def setup(self) -> None:
        """Layers; their names are those of the stored parameters."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        options = {"use_bias": False, "dtype": dtype, "precision": config.precision}
        self.embedding = nn.Dense(config.d_model, **options)
        self.layer = [Layer(config) for _ in range(config.num_layers)]
        self.norm = nn.LayerNorm(epsilon=1e-5, dtype=dtype)
        self.head = nn.Dense(config.patch_len, **options)

    def __call__(
        self, patches: jax.Array, place: Place, past: list[Past] | None = None
    ) -> tuple[jax.Array, jax.Array, list[KeyValues]]:
        """Next patches of normalised patches `[B, n, P]`.

        Args:
            patches: float32.
            place: of the patches in their sequence.
            past: of each layer; None where the sequence begins here.

        Returns:
            The next patch after each, `[B, n, P]` float32; the features `[B, n, D]` it is read
            from; and of each layer the keys and values of these patches (the cache with them
            written, where there is a past).
        """
        x, written = self.embedding(patches), []
        for i, layer in enumerate(self.layer):
            x, new = layer(x, place, None if past is None else past[i])
            written.append(new)
        x = self.norm(x)
        return self.head(x).astype(jnp.float32), x, written


def init_params(key: jax.Array, config: TimerConfig) -> Params:
    """New parameters; `key` is consumed."""
    zero: Any = jax.ShapeDtypeStruct((), jnp.int32)
    patches = jax.ShapeDtypeStruct((1, 1, config.patch_len), jnp.float32)
    params: Params = Timer(config).lazy_init({"params": key}, patches, Place(zero, zero))["params"]
    return params
