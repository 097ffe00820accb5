"""What both decoders share: checks of the input, keys, batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.errors import InputError

ACCEPTED, RECOVERED, BONUS, AUTOREGRESSIVE = 0, 1, 2, 3
"""Where an emitted patch comes from; the values of `DecodeInfo.kind`."""
KIND_NAMES = ("accepted", "recovered", "bonus", "autoregressive")


class DecodeInfo(NamedTuple):
    """What a decode did; each field gets a leading B for a batch. N is ceil(horizon / P).

    Only patches within the N count, so accepted + recovered + bonus = N.

    Attributes:
        accepted: `[K]` int32, accepted proposals by their place in the round.
        proposed: `[K]` int32, proposals tested at that place (all before them were accepted).
        rounds: int32, draft-and-verify rounds.
        target_passes: int32, sequential calls of the target; one verification is one pass over
            K + 1 prefixes.
        kind: `[N]` int32: 0 accepted, 1 recovered, 2 bonus, 3 autoregressive (also for K = 0).
        proposal: `[N, P, C]`, what the draft proposed last at each patch: the patch itself where
            accepted, the rejected one where recovered, NaN where nothing was proposed.
    """

    accepted: jax.Array
    proposed: jax.Array
    rounds: jax.Array
    target_passes: jax.Array
    kind: jax.Array
    proposal: jax.Array


class StepKeys(NamedTuple):
    """Keys of one round (or of one autoregressive step, which uses `next` and `fresh`)."""

    next: jax.Array
    draft: jax.Array
    rule: jax.Array
    fresh: jax.Array


def split_keys(key: jax.Array) -> StepKeys:
    """Consumes `key`. Both decoders draw the patch after the last accepted one from `fresh`."""
    return StepKeys(*jax.random.split(key, 4))


def num_patches(horizon: int, patch_len: int) -> int:
    """N, the patches that cover the horizon."""
    return -(-horizon // patch_len)


def layout(horizon: int, patch_len: int, num_vars: int, sigma: Any) -> tuple[int, jax.Array]:
    """N, and sigma as float32 of the shape of a patch, `[P, C]`."""
    scale = jnp.broadcast_to(jnp.asarray(sigma, jnp.float32), (patch_len, num_vars))
    return num_patches(horizon, patch_len), scale


def check_scalar(name: str, value: Any, *, at_least: float) -> None:
    """Raises InputError unless a concrete `value` is a finite number, at least `at_least`."""
    if np.ndim(value) != 0:
        raise InputError(f"{name} must be a scalar, got shape {np.shape(value)}.")
    if isinstance(value, jax.core.Tracer):
        return
    if not (np.isfinite(value) and value >= at_least):
        raise InputError(f"{name} must be finite and at least {at_least}, got {value}.")


def check_inputs(
    context: Any, sigma: Any, series_index: Any, patch_len: int, *, sampling: bool
) -> None:
    """Checks shapes always, and values where they are concrete (not inside a caller's jit).

    Raises:
        InputError: context not `[L, C]` or `[B, L, C]`, shorter than a patch, or not finite; sigma
            of a shape that does not broadcast to `[P, C]`, negative, not finite, or 0 where a rule
            samples; a series index that is not one number a series.
    """
    shape = np.shape(context)
    if len(shape) not in (2, 3) or 0 in shape:
        raise InputError(f"context must be [L, C] or [B, L, C] without empty axes, got {shape}.")
    if shape[-2] < patch_len:
        raise InputError(f"context has {shape[-2]} steps, fewer than one patch of {patch_len}.")
    if series_index is not None and np.shape(series_index) != shape[:-2]:
        raise InputError(
            f"series_index must have one number a series, shape {shape[:-2]}, got "
            f"{np.shape(series_index)}."
        )
    if series_index is not None and not np.issubdtype(_dtype(series_index), np.integer):
        raise InputError(f"series_index must be whole numbers, got {_dtype(series_index)}.")
    if not isinstance(context, jax.core.Tracer):
        bad = ~np.isfinite(np.asarray(context, np.float32))
        if bad.any():
            where = tuple(int(i) for i in np.argwhere(bad)[0])
            raise InputError(
                f"context has {int(bad.sum())} values that are NaN or infinite, the first at "
                f"{where}; fill or drop them before forecasting."
            )
    _check_sigma(sigma, (patch_len, shape[-1]), sampling)


def _dtype(value: Any) -> np.dtype[Any]:
    return np.dtype(value.dtype) if hasattr(value, "dtype") else np.asarray(value).dtype


def _check_sigma(sigma: Any, patch: tuple[int, int], sampling: bool) -> None:
    sizes = np.shape(sigma)[::-1]
    if len(sizes) > 2 or any(n not in (1, p) for n, p in zip(sizes, patch[::-1], strict=False)):
        raise InputError(
            f"sigma must be a scalar, [C] or [P, C] for patches of {patch}, got shape "
            f"{np.shape(sigma)}."
        )
    if isinstance(sigma, jax.core.Tracer):
        return
    values = np.asarray(sigma)
    if not np.isfinite(values).all() or (values < 0).any():
        raise InputError(f"sigma must be finite and not negative, got {sigma}.")
    if sampling and (values == 0).any():
        raise InputError(
            f"sigma must be > 0 for a rule that samples, got {sigma}; sigma 0, the mean path, is "
            "for decode_autoregressive."
        )


def decode_batch(
    one: Callable[[jax.Array, jax.Array], tuple[jax.Array, DecodeInfo]],
    key: jax.Array,
    context: jax.Array,
    series_index: jax.Array | None,
) -> tuple[jax.Array, DecodeInfo]:
    """Decodes one series or a batch; series i gets `fold_in(key, series_index[i])`.

    Args:
        one: `(key, context [L, C]) -> (forecast, info)`.
        key: folded, not consumed; a typed key or its raw key data.
        context: `[L, C]` or `[B, L, C]`.
        series_index: scalar or `[B]` int, default 0..B-1.
    """
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    if context.ndim == 2:
        return one(jax.random.fold_in(key, 0 if series_index is None else series_index), context)
    if series_index is None:
        series_index = jnp.arange(context.shape[0])
    series_index = jnp.asarray(series_index)
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(series_index)
    return jax.vmap(one)(keys, context)
