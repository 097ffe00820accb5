"""Keys, noise, lanes and chunks of a batch of series and paths."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from stride_jax.decoding.checks import Inputs
from stride_jax.decoding.types import DecodeConfig, DecodeInfo


class PathKeys(NamedTuple):
    """Keys of one path: of the noise of its patches, and of its rounds, split in every round."""

    noise: jax.Array
    rounds: jax.Array


def path_keys(key: jax.Array) -> PathKeys:
    """Consumes the key of a path."""
    return PathKeys(*jax.random.split(key))


def patch_keys(key: jax.Array, first: jax.Array | int, count: int) -> jax.Array:
    """Keys `[count]` of the noise of the patches `first`, `first + 1`, ...: `fold_in(key, n)`.

    So patch n of a path has the same noise in both decoders and in every round.
    """
    return jax.vmap(lambda n: jax.random.fold_in(key, n))(first + jnp.arange(count))


def normals(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal noise `[count, P, C]`, one patch from each of the keys `[count]`."""
    return jax.vmap(lambda k: jax.random.normal(k, shape, jnp.float32))(keys)


Prepare = Callable[[jax.Array, jax.Array | None], Any]
"""`(context [L, C], length) -> memory`."""
Run = Callable[[Any, jax.Array], tuple[jax.Array, DecodeInfo]]
"""`(memory [B, ...], keys [B, S]) -> (forecast [B, S, H, C], info)`."""


def over_lanes(fn: Callable[..., Any], shape: tuple[int, ...]) -> Callable[..., Any]:
    """Maps `fn(memory, path, *shared)` over B contexts and S paths of each.

    The memory of a context has a leading B and is shared by its paths; a path has `[B, S]`. An
    axis of size 1 is dropped instead of mapped: a mapped write at a traced place is a scatter, see
    `overwrite`.
    """
    batch, paths = shape
    return _mapped(_mapped(fn, paths, shared=True), batch, shared=False)


def _mapped(fn: Callable[..., Any], size: int, *, shared: bool) -> Callable[..., Any]:
    def single(memory: Any, path: Any, *rest: Any) -> Any:
        take = functools.partial(jax.tree.map, lambda x: x[0])
        out = fn(memory if shared else take(memory), take(path), *rest)
        return jax.tree.map(lambda x: jnp.asarray(x)[None], out)

    def several(memory: Any, path: Any, *rest: Any) -> Any:
        axes = (None if shared else 0, 0)
        return jax.vmap(lambda m, p: fn(m, p, *rest), in_axes=axes)(memory, path)

    return single if size == 1 else several


def without_single(states: Any, shape: tuple[int, ...]) -> Any:
    """States `[B, S, ...]` as a loop carries them: without the axes of size 1.

    A cache that a loop carries in one shape and writes in another is copied in every round on a
    CPU.
    """
    several = [size for size in shape if size > 1]
    return jax.tree.map(lambda x: x.reshape(*several, *x.shape[len(shape) :]), states)


def with_single(states: Any, shape: tuple[int, ...]) -> Any:
    """`[B, S, ...]` again; undoes `without_single`."""
    several = sum(size > 1 for size in shape)
    return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[several:]), states)


def overwrite(buffer: jax.Array, rows: jax.Array, first: jax.Array) -> jax.Array:
    """`buffer [room, ...]` with `rows [k, ...]` at the places `first`, `first + 1`, ...

    A choice at every place, not a write of the slice: that would be a scatter where paths are
    mapped. It touches the whole buffer, but is one operation of an accelerator, fuses with what
    makes the rows, and is as fast as the scatter on a CPU.
    """
    row = jnp.arange(buffer.shape[0]) - first
    inside = (row >= 0) & (row < rows.shape[0])
    new = jnp.take(rows, row, axis=0, mode="clip")
    return jnp.where(inside.reshape(-1, *[1] * (buffer.ndim - 1)), new, buffer)


class SeriesBatch(NamedTuple):
    """The series of a decode; every leaf has a leading B.

    Attributes:
        contexts: `[B, L, C]`.
        numbers: `[B]`, folded into the key.
        lengths: `[B]` int32, or None.
        scales: a `Scale` of each.
    """

    contexts: jax.Array
    numbers: jax.Array
    lengths: jax.Array | None
    scales: Any


def as_series(inputs: Inputs, patch_len: int) -> SeriesBatch:
    """The series of a decode with a leading B, also where there is one alone."""
    _, context, _, series_index, lengths = inputs
    contexts = context[None] if context.ndim == 2 else context
    # A leading B for each array of the scale, as of the contexts.
    scales = jax.tree.map(
        lambda x: x.reshape(len(contexts), *x.shape[context.ndim - 2 :]), inputs.scale(patch_len)
    )
    index = jnp.arange(len(contexts)) if series_index is None else jnp.asarray(series_index)
    if lengths is not None:
        lengths = jnp.asarray(lengths, jnp.int32).reshape(len(contexts))
    return SeriesBatch(contexts, index.reshape(len(contexts)), lengths, scales)


def typed_key(key: jax.Array) -> jax.Array:
    """A typed key as it is, or that of raw key data."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return key if typed else jax.random.wrap_key_data(key)


def lane_keys(key: jax.Array, series: jax.Array, paths: jax.Array, config: DecodeConfig) -> Any:
    """The keys `[B, S]` of paths `[S]` of series `[B]`: `fold_in(fold_in(key, series), path)`.

    With `num_paths` None the key of a path is that of its series. The key is folded, not consumed.
    """

    def one(i: jax.Array, path: jax.Array) -> jax.Array:
        series_key = jax.random.fold_in(key, i)
        return series_key if config.num_paths is None else jax.random.fold_in(series_key, path)

    return jax.vmap(lambda i: jax.vmap(lambda p: one(i, p))(paths))(series)


def prepare_series(prepare: Prepare, series: SeriesBatch) -> Any:
    """`prepare(context, length)` of every series, each leaf with a leading B."""
    contexts, lengths = series.contexts, series.lengths
    if len(contexts) > 1:
        return jax.vmap(prepare)(contexts, lengths)
    # One is not mapped: see `over_lanes`.
    memory = prepare(contexts[0], None if lengths is None else lengths[0])
    return jax.tree.map(lambda x: jnp.asarray(x)[None], memory)


def decode_batch(
    prepare: Prepare,
    run: Run,
    inputs: Inputs,
    patch_len: int,
    config: DecodeConfig,
    *,
    stepwise: bool,
) -> tuple[jax.Array, DecodeInfo]:
    """Decodes every path of every series, in chunks that bound the memory.

    Series i has the key `fold_in(key, series_index[i])`, its path s that one folded with s again
    (with num_paths None it is the series' key itself). So a result does not depend on what else is
    decoded beside it, up to float rounding of the batched model.

    Args:
        prepare: `(context [L, C], length) -> memory`, called once a series.
        run: decodes all paths of one chunk; its memory is `(memory, Scale)` of each series.
        inputs: series and key.
        patch_len: P.
        config: num_paths, batch_size, path_chunk.
        stepwise: a model predicts one patch at a time; see `DecodeConfig.least_lanes`.
    """
    key, alone = typed_key(inputs.key), inputs.context.ndim == 2
    series, paths = as_series(inputs, patch_len), jnp.arange(config.num_paths or 1)

    def decode_series(part: SeriesBatch) -> tuple[jax.Array, DecodeInfo]:
        memory = prepare_series(prepare, part), part.scales

        def decode_paths(chunk: jax.Array) -> Any:
            out = run(memory, lane_keys(key, part.numbers, chunk, config))
            return jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), out)  # paths in front

        out = in_chunks(decode_paths, paths, config.path_chunk)
        return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), out)

    batch, _, num_vars = series.contexts.shape
    doubled = stepwise and num_vars * batch * len(paths) == 1
    doubled = doubled and config.batch_size != 1 and _least_lanes(config) == 2
    if doubled:
        series = jax.tree.map(lambda x: jnp.concatenate([x, x]), series)
    out = in_chunks(decode_series, series, config.batch_size)
    if doubled:
        out = jax.tree.map(lambda x: x[:1], out)
    if config.num_paths is None:
        out = jax.tree.map(lambda x: x[:, 0], out)
    return jax.tree.map(lambda x: x[0], out) if alone else out


def _least_lanes(config: DecodeConfig) -> int:
    """See `DecodeConfig.least_lanes`."""
    if config.least_lanes is not None:
        return config.least_lanes
    return 2 if jax.default_backend() == "gpu" else 1


def in_chunks(fn: Callable[[Any], Any], items: Any, size: int | None) -> Any:
    """`fn(items)`, at most `size` of the leading axis at a time; the last chunk is filled up."""
    total = jax.tree.leaves(items)[0].shape[0]
    if size is None or size >= total:
        return fn(items)
    chunks = -(-total // size)
    place = jnp.minimum(jnp.arange(chunks * size), total - 1).reshape(chunks, size)
    out = jax.lax.map(fn, jax.tree.map(lambda x: x[place], items))
    # [chunks, size, ...] -> [chunks * size, ...]
    return jax.tree.map(lambda x: x.reshape(chunks * size, *x.shape[2:])[:total], out)
