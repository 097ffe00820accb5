"""Timer-XL for decoding: weights packed once, and the blocks as pure functions of them.

A decode runs the same weights thousands of times on a few tokens, so its cost is the number of
operations, not their arithmetic. `pack` prepares the parameters of a trained `TimerXL`: query, key
and value are one product, their numbers are ordered so that a rotation needs no shuffle, the scale
of the logits is in the weights, and everything has the dtype it is computed in. The results are
those of the module to float rounding.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.models.attention import Layout
from stride_jax.models.config import LOGVAR_LIMIT, TimerXLConfig
from stride_jax.models.rotary import frequencies
from stride_jax.types import PatchDistribution

Params = dict[str, Any]


class Dense(NamedTuple):
    """An affine map: kernel `[in, out]` and bias `[out]`."""

    kernel: jax.Array
    bias: jax.Array


class Norm(NamedTuple):
    """A layer norm: scale and bias `[D]`, float32."""

    scale: jax.Array
    bias: jax.Array


class PackedBlock(NamedTuple):
    """The weights of one block.

    Attributes:
        qkv: query, key and value in one map, `[D, 3 D]`; see `rotary_order`. None in the first
            block, where it is a part of the embedding.
        variable_bias: `[2, H]`, added to the logits of other and same variables; scaled.
        out: of the attention, `[D, D]`.
        norm1: after the attention.
        ffn_in: `[D, d_ff]`.
        ffn_out: `[d_ff, D]`.
        norm2: after the feed-forward layers.
    """

    qkv: Dense | None
    variable_bias: jax.Array
    out: Dense
    norm1: Norm
    ffn_in: Dense
    ffn_out: Dense
    norm2: Norm


class PackedTimerXL(NamedTuple):
    """The weights of a model.

    Attributes:
        embedding: of a token as the first block takes it, and the query, key and value that the
            first block makes of that, `[P, D + 3 D]`.
        blocks: one per layer.
        norm: the last one.
        head: means, and after them the log variances of a gaussian head, `[D, M * P or 2 M * P]`.
    """

    embedding: Dense
    blocks: tuple[PackedBlock, ...]
    norm: Norm
    head: Dense


def rotary_order(width: int) -> np.ndarray:
    """An order of the `[E]` numbers of a head in which rotated pairs stand E / 4 apart.

    First the even, then the odd numbers of the rotated half, then the other half. Queries and keys
    in the same order have the same products.
    """
    half = width // 2
    return np.concatenate([np.arange(0, half, 2), np.arange(1, half, 2), np.arange(half, width)])


def pack(config: TimerXLConfig, params: Params) -> PackedTimerXL:
    """The parameters of `TimerXL(config)` as decoding takes them.

    Arrays are packed on the host, where no operation has to be compiled, and put on the device
    once; inside a jitted function they are packed there.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(params)):
        return _packed(config, params, jnp)
    packed: PackedTimerXL = jax.device_put(_packed(config, jax.tree.map(np.asarray, params), np))
    return packed


def _packed(config: TimerXLConfig, params: Params, lib: Any) -> PackedTimerXL:
    """See `pack`; `lib` is numpy or jax.numpy."""

    def dense(*layers: Params) -> Dense:
        parts = ([layer[name] for layer in layers] for name in ("kernel", "bias"))
        return Dense(*(lib.concatenate(part, axis=-1).astype(config.dtype) for part in parts))

    def norm(layer: Params) -> Norm:
        return Norm(layer["scale"], layer["bias"])

    def block(number: int) -> PackedBlock:
        layers = params[f"block_{number}"]
        attention = layers["attention"]
        return PackedBlock(
            qkv=dense(*_ordered(config, attention)) if number else None,
            variable_bias=attention["variable_bias"] / math.sqrt(config.head_width),
            out=dense(attention["out"]),
            norm1=norm(layers["norm1"]),
            ffn_in=dense(layers["ffn_in"]),
            ffn_out=dense(layers["ffn_out"]),
            norm2=norm(layers["norm2"]),
        )

    first = _ordered(config, params["block_0"]["attention"])
    heads = ("head",) if config.head == "mean" else ("head_mean", "head_logvar")
    return PackedTimerXL(
        embedding=dense(params["embedding"], *(_after(params["embedding"], x, lib) for x in first)),
        blocks=tuple(map(block, range(config.num_layers))),
        norm=norm(params["norm"]),
        head=dense(*(params[name] for name in heads)),
    )


def _ordered(config: TimerXLConfig, attention: Params) -> tuple[Params, Params, Params]:
    """Query, key and value; the first two in `rotary_order`, the query divided by sqrt(E)."""
    order, scale = rotary_order(config.head_width), 1 / math.sqrt(config.head_width)

    def ordered(array: Any) -> Any:
        heads = array.reshape(-1, config.num_heads, config.head_width)
        return heads[..., order].reshape(array.shape)  # [.., H, E] -> [.., D]

    query = {name: ordered(array) * scale for name, array in attention["query"].items()}
    key = {name: ordered(array) for name, array in attention["key"].items()}
    return query, key, attention["value"]


def _after(first: Params, second: Params, lib: Any) -> Params:
    """Two affine maps, one after the other, as one; computed in float32."""
    exact = {} if lib is np else {"precision": "highest"}
    kernels = (layer["kernel"].astype(np.float32) for layer in (first, second))
    kernel = lib.matmul(*kernels, **exact)
    bias = lib.matmul(first["bias"], second["kernel"], **exact) + second["bias"]
    return {"kernel": kernel, "bias": bias}


class KeyValues(NamedTuple):
    """Keys and values of one layer; two arrays, because a product of a part copies that part.

    They have the shape and the order in which attention reads them, patch after patch: what is
    written and read in two shapes is copied in every pass on a CPU.

    Attributes:
        keys: `[H, N * C, E]`, rotated, in `rotary_order`; that of (n, c) is `n * C + c`.
        values: `[H, N * C, E]`.
    """

    keys: jax.Array
    values: jax.Array


class Rotation(NamedTuple):
    """Cosines and sines of the tokens' positions, each `[C, k, E / 4]`."""

    cosine: jax.Array
    sine: jax.Array


def rotation(config: TimerXLConfig, positions: jax.Array | np.ndarray, num_vars: int) -> Rotation:
    """The rotation of tokens at `positions [C * k]`, the same for all blocks."""
    host = isinstance(positions, np.ndarray)
    lib: Any = np if host else jnp
    dtype: Any = np.float64 if host else jnp.float32
    each = lib.asarray(frequencies(config.head_width // 2), dtype)
    angle = lib.asarray(positions, dtype)[:, None] * each[None]  # [C * k, E / 4]
    shape = (num_vars, -1, config.head_width // 4)
    return Rotation(
        *(jnp.asarray(f(angle), config.dtype).reshape(shape) for f in (lib.cos, lib.sin))
    )


def rotated(x: jax.Array, turn: Rotation) -> jax.Array:
    """`[H, C, k, E]` in `rotary_order`, turned by the angles of their tokens."""
    quarter = x.shape[-1] // 4
    even, odd, rest = jnp.split(x, [quarter, 2 * quarter], axis=-1)
    cosine, sine = turn.cosine[None], turn.sine[None]
    turned = even * cosine - odd * sine, even * sine + odd * cosine
    return jnp.concatenate([*turned, rest], axis=-1)


def apply_dense(layer: Dense, x: jax.Array, precision: str) -> jax.Array:
    """`x @ kernel + bias`, `[N, in] -> [N, out]`."""
    return jnp.matmul(x, layer.kernel, precision=precision) + layer.bias[None]


def apply_norm(layer: Norm, x: jax.Array) -> jax.Array:
    """Layer norm of `[N, D]` over the last axis; statistics in float32."""
    wide = x.astype(jnp.float32)
    mean = jnp.mean(wide, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(wide - mean), axis=-1, keepdims=True)
    normal = (wide - mean) * jax.lax.rsqrt(variance + 1e-5)
    return (normal * layer.scale[None] + layer.bias[None]).astype(x.dtype)


def new_tokens(
    config: TimerXLConfig, qkv: jax.Array, turn: Rotation
) -> tuple[jax.Array, KeyValues]:
    """Queries `[H, C * k, E]`, and keys and values, of all three `[C * k, 3 D]`."""
    num_vars, count, _ = turn.cosine.shape
    # [C * k, 3 D] -> [C, k, 3, H, E] -> [3, H, C, k, E]
    qkv = qkv.reshape(num_vars, count, 3, -1, config.head_width).transpose(2, 3, 0, 1, 4)
    queries, keys = rotated(qkv[0], turn), rotated(qkv[1], turn)
    queries = queries.reshape(queries.shape[0], -1, config.head_width)  # [H, C * k, E]
    return queries, KeyValues(_patch_by_patch(keys), _patch_by_patch(qkv[2]))


def _patch_by_patch(x: jax.Array) -> jax.Array:
    """`[H, C, k, E]` as `[H, k * C, E]`."""
    return x.swapaxes(1, 2).reshape(x.shape[0], -1, x.shape[-1])


def attend(
    config: TimerXLConfig,
    block: PackedBlock,
    queries: jax.Array,
    segments: list[KeyValues],
    layout: Layout,
) -> jax.Array:
    """Values read by the queries from segments of keys and values, `[Q, D]`."""
    logits = jnp.concatenate(
        [jnp.einsum("hqe,hse->hqs", queries, s.keys, precision=config.precision) for s in segments],
        axis=-1,
    ).astype(jnp.float32)  # [H, Q, S]
    if not layout.same.all():  # a number that is added to all logits changes nothing
        other, same = block.variable_bias[0][:, None, None], block.variable_bias[1][:, None, None]
        logits = logits + jnp.where((layout.same > 0)[None], same, other)
    weights = jax.nn.softmax(jnp.where(layout.visible[None], logits, -jnp.inf), axis=-1)
    ends = np.cumsum([s.keys.shape[1] for s in segments])[:-1]
    parts = jnp.split(weights.astype(config.dtype), ends, axis=-1)
    read = [
        jnp.einsum("hqs,hse->qhe", w, s.values, precision=config.precision)
        for w, s in zip(parts, segments, strict=True)
    ]
    total = functools.reduce(jnp.add, read)
    return total.reshape(total.shape[0], -1)  # [Q, H, E] -> [Q, D]


def after_attention(
    config: TimerXLConfig, block: PackedBlock, x: jax.Array, read: jax.Array
) -> jax.Array:
    """The rest of a block, `[Q, D]`: the sum with the attention's output, and the feed-forward."""
    x = apply_norm(block.norm1, x + apply_dense(block.out, read, config.precision))
    y = apply_dense(block.ffn_in, x, config.precision)
    y = jax.nn.relu(y) if config.activation == "relu" else jax.nn.gelu(y, approximate=False)
    return apply_norm(block.norm2, x + apply_dense(block.ffn_out, y, config.precision))


def tokens_of(patches: jax.Array) -> jax.Array:
    """Tokens `[C * k, P]` of patches `[k, P, C]`; token (c, n) has index c * k + n."""
    # [k, P, C] -> [C, k, P] -> [C * k, P]
    return patches.transpose(2, 0, 1).reshape(-1, patches.shape[1])


def embedded(
    config: TimerXLConfig, params: PackedTimerXL, tokens: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Tokens `[N, P]` as the first block takes them, `[N, D]`, with its query, key and value."""
    both = apply_dense(params.embedding, tokens.astype(config.dtype), config.precision)
    return both[:, : config.d_model], both[:, config.d_model :]


def projected(
    config: TimerXLConfig, block: PackedBlock, x: jax.Array, first: jax.Array
) -> jax.Array:
    """Query, key and value of `x [N, D]` in a block, `[N, 3 D]`; those of the first are given."""
    return first if block.qkv is None else apply_dense(block.qkv, x, config.precision)


def predictions(
    config: TimerXLConfig, params: PackedTimerXL, features: jax.Array, patches: jax.Array
) -> PatchDistribution:
    """Predictions `[k, M * P, C]` after patches `[k, P, C]`, from features `[C * k, D]`."""
    count, _, num_vars = patches.shape
    out = apply_dense(params.head, features, config.precision).astype(jnp.float32)
    # [C * k, M * P (* 2)] -> [C, k, ..] -> [k, .., C]
    out = out.reshape(num_vars, count, -1).transpose(1, 2, 0)
    # [C * k, D] -> [C, k, D] -> [k, C, D]
    shown = features.reshape(num_vars, count, -1).transpose(1, 0, 2)
    mean, logvar = out, None
    if config.head == "gaussian":
        mean, logvar = jnp.split(out, 2, axis=1)
        logvar = jnp.clip(logvar, -LOGVAR_LIMIT, LOGVAR_LIMIT)
    if config.anchor == "last":
        mean = mean + patches[:, -1:].astype(jnp.float32)
    return PatchDistribution(mean, logvar, shown)
