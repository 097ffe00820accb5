"""Causal attention of one series with a prefill and a cache, and rotation of the halves of a head.

The families of foundation models share it; Timer-XL has a form of its own across variables.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from stride_jax.config import require


class Heads:
    """A config with attention heads, whose pairs of numbers are rotated.

    Attributes:
        d_model: D, width of a token.
        num_heads: H.
    """

    d_model: int
    num_heads: int

    @property
    def head_width(self) -> int:
        """E, numbers in a head."""
        return self.d_model // self.num_heads

    def check_heads(self) -> None:
        """Raises InputError where the heads have no even number of numbers each."""
        require(
            self.d_model % (2 * self.num_heads) == 0,
            f"d_model {self.d_model} over num_heads {self.num_heads} must be even, because rotary "
            "pairs fill a head; change one of the two.",
        )


class Arithmetic(Protocol):
    """The fields of a config that say how to compute."""

    @property
    def dtype(self) -> str:
        """Dtype of the computation."""

    @property
    def precision(self) -> str:
        """Precision of float32 products, see `jax.lax.Precision`."""


def dense(config: Arithmetic, width: int, name: str, *, use_bias: bool = False) -> nn.Dense:
    """An affine layer in the dtype and the precision of the config."""
    return nn.Dense(
        width,
        use_bias=use_bias,
        dtype=jnp.dtype(config.dtype),
        precision=config.precision,
        name=name,
    )


class Sizes(Arithmetic, Protocol):
    """The fields of a config of a decoder with attention and feed-forward layers."""

    @property
    def d_model(self) -> int:
        """D, width of a token."""

    @property
    def num_heads(self) -> int:
        """H."""

    @property
    def head_width(self) -> int:
        """E, numbers in a head."""

    @property
    def d_ff(self) -> int:
        """Width of the feed-forward layers."""


def queries_keys_values(
    config: Sizes, x: jax.Array, *, use_bias: bool = False
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The layer `qkv`: `[B, n, D]` -> queries, keys and values, `[B, n, H, E]` each."""
    qkv = dense(config, 3 * config.d_model, "qkv", use_bias=use_bias)(x)
    # [B, n, 3 D] -> [B, n, 3, H, E] -> [3, B, n, H, E]
    parts = qkv.reshape(*x.shape[:2], 3, config.num_heads, config.head_width)
    query, key, value = jnp.moveaxis(parts, 2, 0)
    return query, key, value


def gated(config: Sizes, x: jax.Array, *, use_bias: bool = False) -> jax.Array:
    """The layers `gate_up` and `down`: `down(silu(gate(x)) * up(x))` (SwiGLU), `[B, n, D]`."""
    # gate and value in one product, [B, n, 2 d_ff]
    both = dense(config, 2 * config.d_ff, "gate_up", use_bias=use_bias)(x)
    gate, y = jnp.split(both, 2, axis=-1)
    return dense(config, config.d_model, "down", use_bias=use_bias)(jax.nn.silu(gate) * y)


class ResidualBlock(nn.Module):
    """`output(silu(hidden(x))) + residual(x)`.

    Attributes:
        config: how to compute.
        hidden: width between the two layers.
        width: of the output.
        use_bias: whether all three layers have a bias.
    """

    config: Arithmetic
    hidden: int
    width: int
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., I]` -> `[..., width]`."""

        def layer(width: int, name: str) -> nn.Dense:
            return dense(self.config, width, name, use_bias=self.use_bias)

        y = layer(self.width, "output")(jax.nn.silu(layer(self.hidden, "hidden")(x)))
        return y + layer(self.width, "residual")(x)


class KeyValues(NamedTuple):
    """Keys and values of a stretch of tokens, `[B, S, H, E]` each."""

    keys: jax.Array
    values: jax.Array


class Place(NamedTuple):
    """Where the tokens of a pass stand in their sequence.

    Attributes:
        first: int32, index of the first of them.
        skip: int32, so many tokens at the start of the sequence are padding, which no later token
            sees; a token of padding sees itself, so that its softmax is over something.
    """

    first: jax.Array
    skip: jax.Array


class Past(NamedTuple):
    """Tokens before those of a pass, in one layer.

    Attributes:
        prefill: those of the context.
        cache: room for those after it.
        entry: int32, entry of the cache where the new ones are written.
    """

    prefill: KeyValues
    cache: KeyValues
    entry: jax.Array


def empty_cache(config: Sizes, layers: int, num_vars: int, count: int) -> list[KeyValues]:
    """Caches of some layers with room for `count` tokens of each variable, zeros."""
    shape = num_vars, count, config.num_heads, config.head_width
    zeros = jnp.zeros(shape, jnp.dtype(config.dtype))
    return [KeyValues(zeros, zeros)] * layers


def pasts(prefill: list[KeyValues], cache: list[KeyValues], entry: jax.Array) -> list[Past]:
    """Prefill and cache of each layer, for a pass that is written from an entry of the cache on."""
    return [Past(first, room, entry) for first, room in zip(prefill, cache, strict=True)]


def rotate_halves(x: jax.Array, positions: jax.Array) -> jax.Array:
    """Rotates the pairs (i, i + E / 2) of each head by `position / 10000 ** (2 i / E)`.

    Args:
        x: `[B, n, H, E]`.
        positions: `[n]` int32.
    """
    half = x.shape[-1] // 2
    timescale = 10000.0 ** (jnp.arange(half, dtype=jnp.float32) / half)  # [E / 2]
    angle = positions.astype(jnp.float32)[:, None] / timescale[None]  # [n, E / 2]
    angle = angle[None, :, None]  # [1, n, 1, E / 2]
    cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def visible(place: Place, count: int, prefill: int, room: int) -> jax.Array:
    """Which key each of `count` tokens sees, `[n, S]` bool; keys are prefill and cache, in order.

    Without a prefill the cache is the tokens themselves. A token of padding sees itself.
    """
    asking = place.first + jnp.arange(count)[:, None]  # [n, 1]
    keys = jnp.arange(prefill + room)[None]  # [1, S]
    return ((keys <= asking) & (keys >= place.skip)) | (keys == asking)


def attend(
    query: jax.Array, new: KeyValues, place: Place, past: Past | None, precision: str
) -> tuple[jax.Array, KeyValues]:
    """Attention of tokens to what came before and themselves; the logits are not scaled.

    Args:
        query: `[B, n, H, E]`.
        new: keys and values of the same tokens.
        place: of the tokens.
        past: what came before; None where the sequence begins here.
        precision: of float32 products.

    Returns:
        `[B, n, H, E]` in the dtype of the query, and `new`, or the cache with it written.
    """
    # Keys and values: of these tokens alone, or after what came before.
    segments = [new]
    if past is not None:
        new = KeyValues(
            *(
                jax.lax.dynamic_update_slice_in_dim(room, some, past.entry, axis=1)
                for room, some in zip(past.cache, new, strict=True)
            )
        )
        segments = [past.prefill, new]
    sizes = [part.keys.shape[1] for part in segments]
    seen = visible(place, query.shape[1], sum(sizes[:-1]), sizes[-1])

    # Attention over the segments together; [B, H, n, S]
    logits = jnp.concatenate(
        [jnp.einsum("bnhe,bshe->bhns", query, part.keys, precision=precision) for part in segments],
        axis=-1,
    ).astype(jnp.float32)
    logits = jnp.where(seen[None, None], logits, -jnp.inf)
    weights = jax.nn.softmax(logits, axis=-1).astype(query.dtype)
    split = jnp.split(weights, [sizes[0]], axis=-1) if len(sizes) > 1 else [weights]
    read = sum(
        jnp.einsum("bhns,bshe->bnhe", part, segment.values, precision=precision)
        for part, segment in zip(split, segments, strict=True)
    )
    return jnp.asarray(read), new
