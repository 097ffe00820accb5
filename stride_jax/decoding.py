"""What both decoders share: checks of the input, keys, batches."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.config import LARGEST_INDEX, DecodeConfig, whole_number
from stride_jax.errors import InputError

ACCEPTED, RECOVERED, BONUS, AUTOREGRESSIVE = 0, 1, 2, 3
"""Where an emitted patch comes from; the values of `DecodeInfo.origin`."""
ORIGIN_NAMES = ("accepted", "recovered", "bonus", "autoregressive")


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`jax.jit` over the positional arguments; those by keyword are static.

    jaxlib (0.10 to 0.12) compares two registered dataclasses by their fields, not by their class,
    and only its hash knows the class: once in about a hundred times the program of one class is
    run for another with the same fields. So the hash is an argument of its own.
    """

    def program(*args: Any, structure: int, static: tuple[tuple[str, Any], ...]) -> Any:
        return function(*args, **dict(static))

    program.__name__ = function.__name__  # what profiles and the cache on disk show
    jitted = jax.jit(program, static_argnames=("structure", "static"), **options)

    @functools.wraps(function)
    def call(*args: Any, **static: Any) -> Any:
        structure = hash(jax.tree.structure(args))
        return jitted(*args, structure=structure, static=tuple(static.items()))

    return call


class Trace(NamedTuple):
    """What the rule saw, round by round; R = N rounds have room.

    Attributes:
        start: `[R]` int32, the patch its first proposal stood for; -1 in rounds not played.
        log_ratio: `[R, K]`, what the rule compared.
        threshold: `[R, K]`, what it compared it with, see `trace.rows`.
        accepted: `[R, K]` bool, kept.
        gap: `[R, K]`, RMS distance of the two means in units of sigma.
        length: `[R]` int32, proposals drafted; what stands from there on means nothing.
    """

    start: jax.Array
    log_ratio: jax.Array
    threshold: jax.Array
    accepted: jax.Array
    gap: jax.Array
    length: jax.Array


class DecodeInfo(NamedTuple):
    """What a decode did, a path; fields get leading axes as the forecast does. N: ceil(horizon/P).

    Only patches within the N count, so accepted + recovered + bonus = N.

    Attributes:
        accepted: `[K]` int32, accepted proposals by their place in the round.
        proposed: `[K]` int32, proposals tested at that place (all before them were accepted).
        rounds: int32, draft-and-verify rounds.
        target_passes: int32, sequential calls of the target; one verification is one pass over
            K + 1 prefixes. The pass over the context is not counted.
        drafted: int32, proposals drafted.
        overflow: int32, patches for which a rule's bounded loop ran out; 0 or say so.
        origin: `[N]` int32: 0 accepted, 1 recovered, 2 bonus, 3 autoregressive (also for K = 0).
        proposal: `[N, P, C]`, what the draft proposed last at each patch: the patch itself where
            accepted, the rejected one where recovered, NaN where nothing was proposed.
        trace: with `DecodeConfig.trace`, else None.
    """

    accepted: jax.Array
    proposed: jax.Array
    rounds: jax.Array
    target_passes: jax.Array
    drafted: jax.Array
    overflow: jax.Array
    origin: jax.Array
    proposal: jax.Array
    trace: Trace | None = None


class PathKeys(NamedTuple):
    """Keys of one path: `noise` stays, `rounds` is split anew every round."""

    noise: jax.Array
    rounds: jax.Array


def path_keys(key: jax.Array) -> PathKeys:
    """Consumes the key of a path."""
    return PathKeys(*jax.random.split(key))


def patch_noise(key: jax.Array, first: jax.Array, count: int, shape: tuple[int, ...]) -> jax.Array:
    """Noise of the patches `first`, `first + 1`, ...: `[count, P, C]`, standard normal.

    Patch n of a path has the same noise in both decoders and in every round: `fold_in(key, n)`.
    """
    keys = jax.vmap(lambda n: jax.random.fold_in(key, n))(first + jnp.arange(count))
    return jax.vmap(lambda k: jax.random.normal(k, shape, jnp.float32))(keys)


def num_patches(horizon: int, patch_len: int) -> int:
    """N, the patches that cover the horizon."""
    return -(-horizon // patch_len)


class Inputs(NamedTuple):
    """What is decoded.

    Attributes:
        key: folded, not consumed; a typed key or its raw key data.
        context: `[L, C]` or `[B, L, C]`, float32.
        sigma: scalar, `[C]`, `[P, C]`, or with a B in front of the last, one for each series.
        series_index: scalar or `[B]` int, default 0..B-1.
        lengths: scalar or `[B]` int, steps of each history at the end of its context; the steps
            before them are padding. None for all L.
    """

    key: jax.Array
    context: jax.Array
    sigma: float | jax.Array
    series_index: jax.Array | None
    lengths: jax.Array | None

    def as_float32(self) -> Inputs:
        """With context and sigma as float32 arrays."""
        context, sigma = (jnp.asarray(x, jnp.float32) for x in (self.context, self.sigma))
        return self._replace(context=context, sigma=sigma)

    def scale(self, patch_len: int) -> jax.Array:
        """Sigma as float32 for each series, `[P, C]` or `[B, P, C]` as the context has a B."""
        shape = (*self.context.shape[:-2], patch_len, self.context.shape[-1])
        return jnp.broadcast_to(jnp.asarray(self.sigma, jnp.float32), shape)


LARGEST_SEED = 2**32 - 1
"""JAX takes 32 bits of a seed; larger ones would be the same as smaller ones."""


def check_key(key: Any) -> None:
    """Raises InputError unless `key` is one PRNG key, typed or its raw key data."""
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if typed and key.shape == ():
        return
    raw = isinstance(key, jax.Array | np.ndarray) and key.dtype == np.uint32
    if raw and key.shape == jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape:
        return
    said = f"shape {key.shape}" if typed or raw else repr(key)
    raise InputError(f"key must be one PRNG key, such as jax.random.key(0), got {said}.")


def as_key(key: Any) -> jax.Array:
    """A PRNG key as it is, or that of a seed.

    Raises:
        InputError: neither of the two, or a seed that is not in 0 to 2**32 - 1.
    """
    number = isinstance(key, int | np.integer) and not isinstance(key, bool)
    array = isinstance(key, jax.Array | np.ndarray) and key.ndim == 0
    if number or (array and jnp.issubdtype(key.dtype, jnp.integer)):
        return jax.random.key(whole_number("a seed as key", key, least=0, most=LARGEST_SEED))
    check_key(key)
    return jnp.asarray(key)


def check_size(shape: tuple[int, ...], patch_len: int, config: DecodeConfig) -> None:
    """Raises InputError for a forecast of more values than int32 counts.

    Args:
        shape: of the context, `[L, C]` or `[B, L, C]`.
        patch_len: P.
        config: horizon, K and paths.
    """
    series, paths = math.prod(shape[:-2]), config.num_paths or 1
    steps = (num_patches(config.horizon, patch_len) + config.num_draft + 1) * patch_len
    values = series * paths * steps * shape[-1]
    if values > LARGEST_INDEX:
        raise InputError(
            f"horizon {config.horizon} with {series} series, {paths} paths, {shape[-1]} variables "
            f"and num_draft {config.num_draft} is {values} values at once, more than "
            f"{LARGEST_INDEX}; take a shorter horizon, fewer paths or fewer series."
        )


def check_inputs(
    inputs: Inputs,
    patch_len: int,
    config: DecodeConfig,
    *,
    sampling: bool,
) -> None:
    """Checks shapes always, and values where they are concrete (not inside a caller's jit).

    Raises:
        InputError: a key that is not one PRNG key; more values than can be counted; context not
            `[L, C]` or `[B, L, C]`, shorter than a patch, not real numbers or not finite; sigma of
            no real numbers, of a shape that does not broadcast to `[P, C]`, negative, not finite,
            or 0 where a rule samples; a series index that is not one number a series; lengths that
            are not one whole number of patches a series, at most L.
    """
    key, context, sigma, series_index, lengths = inputs
    check_key(key)
    shape = array_shape("context", context)
    if len(shape) not in (2, 3) or 0 in shape:
        raise InputError(f"context must be [L, C] or [B, L, C] without empty axes, got {shape}.")
    kind = _dtype(context)
    if not _is_real(kind):
        raise InputError(f"context must be real numbers, got {kind}.")
    if shape[-2] < patch_len:
        raise InputError(f"context has {shape[-2]} steps, fewer than one patch of {patch_len}.")
    if series_index is not None and np.shape(series_index) != shape[:-2]:
        raise InputError(
            f"series_index must have one number a series, shape {shape[:-2]}, got "
            f"{np.shape(series_index)}."
        )
    if series_index is not None and not np.issubdtype(_dtype(series_index), np.integer):
        raise InputError(f"series_index must be whole numbers, got {_dtype(series_index)}.")
    _check_lengths(lengths, shape, patch_len)
    check_size(shape, patch_len, config)
    if not isinstance(context, jax.core.Tracer):
        bad = ~np.isfinite(np.asarray(context, np.float32))
        if lengths is not None and not isinstance(lengths, jax.core.Tracer):
            # what is before the history is padding
            first = shape[-2] - np.asarray(lengths, np.int64)[..., None]
            bad &= (np.arange(shape[-2]) >= first)[..., None]
        if bad.any():
            where = tuple(int(i) for i in np.argwhere(bad)[0])
            raise InputError(
                f"context has {int(bad.sum())} values that are NaN or infinite, the first at "
                f"{where}; fill or drop them before forecasting."
            )
    _check_sigma(sigma, (*shape[:-2], patch_len, shape[-1]), sampling)


def _check_lengths(lengths: Any, shape: tuple[int, ...], patch_len: int) -> None:
    if lengths is None:
        return
    whole = np.issubdtype(_dtype(lengths), np.integer)
    if np.shape(lengths) != shape[:-2] or not whole:
        raise InputError(
            f"lengths must be one whole number a series, shape {shape[:-2]}, got "
            f"{_dtype(lengths)} of shape {np.shape(lengths)}."
        )
    if isinstance(lengths, jax.core.Tracer):
        return
    values = np.atleast_1d(np.asarray(lengths))
    bad = (values < patch_len) | (values > shape[-2]) | (values % patch_len != 0)
    if bad.any():
        raise InputError(
            f"lengths must be whole patches of {patch_len} steps, at most the {shape[-2]} of the "
            f"context, got {values[bad][0]}."
        )


def array_shape(name: str, value: Any) -> tuple[int, ...]:
    """The shape of what becomes an array, or InputError."""
    try:
        return np.shape(value)
    except ValueError as error:
        raise InputError(f"{name} is not an array: {error}") from error


def _is_real(kind: np.dtype[Any]) -> bool:
    return bool(jnp.issubdtype(kind, jnp.floating) or jnp.issubdtype(kind, jnp.integer))


def _dtype(value: Any) -> np.dtype[Any]:
    return np.dtype(value.dtype) if hasattr(value, "dtype") else np.asarray(value).dtype


def _check_sigma(sigma: Any, shape: tuple[int, ...], sampling: bool) -> None:
    """`shape` is that of a patch of every series, `[P, C]` or `[B, P, C]`."""
    sizes = array_shape("sigma", sigma)[::-1]
    if not _is_real(_dtype(sigma)):
        raise InputError(f"sigma must be real numbers, got {sigma!r}.")
    wrong = any(n not in (1, p) for n, p in zip(sizes, shape[::-1], strict=False))
    if len(sizes) > len(shape) or wrong:
        raise InputError(
            f"sigma must be a scalar, [C], [P, C] or, for each series, [B, P, C]; patches are "
            f"{shape}, got shape {np.shape(sigma)}."
        )
    if isinstance(sigma, jax.core.Tracer):
        return
    values = np.asarray(sigma)
    if not np.isfinite(values).all() or (values < 0).any():
        raise InputError(f"sigma must be finite and not negative, got {sigma}.")
    if sampling and (values == 0).any():
        raise InputError(
            f"sigma must be > 0 for a rule that samples, got {sigma}; sigma 0, the mean path, is "
            "for the target or the draft alone."
        )


Run = Callable[[Any, jax.Array], tuple[jax.Array, DecodeInfo]]
"""`(memory [B, ...], keys [B, S]) -> (forecast [B, S, H, C], info)`."""


def over_lanes(fn: Callable[..., Any], shape: tuple[int, ...]) -> Callable[..., Any]:
    """Maps `fn(memory, path, *shared)` over B contexts and S paths of each.

    The memory of a context has a leading B and is shared by its paths; a path has `[B, S]`. An
    axis of size 1 is dropped instead of mapped: a mapped write at a traced place is a scatter.
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


def decode_batch(
    prepare: Callable[[jax.Array, jax.Array | None], Any],
    run: Run,
    inputs: Inputs,
    patch_len: int,
    config: DecodeConfig,
) -> tuple[jax.Array, DecodeInfo]:
    """Decodes every path of every series, in chunks that bound the memory.

    Series i has the key `fold_in(key, series_index[i])`, its path s that one folded with s again
    (with num_paths None it is the series' key itself). So a result does not depend on what else is
    decoded beside it, up to float rounding of the batched model.

    Args:
        prepare: `(context [L, C], length) -> memory`, called once a series.
        run: decodes all paths of one chunk; its memory is `(memory, sigma [P, C])` of each series.
        inputs: series and key.
        patch_len: P.
        config: num_paths, batch_size, path_chunk.
    """
    key, context, _, series_index, lengths = inputs
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    alone = context.ndim == 2
    contexts = context[None] if alone else context
    scales = inputs.scale(patch_len).reshape(len(contexts), patch_len, -1)  # [B, P, C]
    index = jnp.arange(len(contexts)) if series_index is None else jnp.asarray(series_index)
    index = index.reshape(len(contexts))
    if lengths is not None:
        lengths = jnp.asarray(lengths, jnp.int32).reshape(len(contexts))
    paths = jnp.arange(config.num_paths or 1)

    def keys_of(i: jax.Array, path: jax.Array) -> jax.Array:
        own = jax.random.fold_in(key, i)
        return own if config.num_paths is None else jax.random.fold_in(own, path)

    def decode_series(part: Any) -> tuple[jax.Array, DecodeInfo]:
        contexts, index, lengths, scales = part
        if len(contexts) == 1:  # not mapped: see `over_lanes`
            alone = prepare(contexts[0], None if lengths is None else lengths[0])
            memory = jax.tree.map(lambda x: jnp.asarray(x)[None], alone)
        else:
            memory = jax.vmap(prepare)(contexts, lengths)
        memory = memory, scales

        def decode_paths(chunk: jax.Array) -> Any:
            keys = jax.vmap(lambda i: jax.vmap(lambda p: keys_of(i, p))(chunk))(index)
            out = run(memory, keys)
            return jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), out)  # paths in front

        out = in_chunks(decode_paths, paths, config.path_chunk)
        return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), out)

    out = in_chunks(decode_series, (contexts, index, lengths, scales), config.batch_size)
    if config.num_paths is None:
        out = jax.tree.map(lambda x: x[:, 0], out)
    return jax.tree.map(lambda x: x[0], out) if alone else out


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
