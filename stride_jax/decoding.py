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
        kind: `[N]` int32: 0 accepted, 1 recovered, 2 bonus, 3 autoregressive.
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


def check_inputs(context: Any, sigma: Any, patch_len: int, *, sampling: bool) -> None:
    """Checks shapes always, and values where they are concrete (not inside a caller's jit).

    Raises:
        InputError: context not `[L, C]` or `[B, L, C]`, shorter than a patch, or not finite; sigma
            negative, not finite, or 0 where a rule samples.
    """
    if np.ndim(context) not in (2, 3) or 0 in np.shape(context):
        raise InputError(
            f"context must be [L, C] or [B, L, C] without empty axes, got {np.shape(context)}."
        )
    if np.shape(context)[-2] < patch_len:
        raise InputError(
            f"context has {np.shape(context)[-2]} steps, fewer than one patch of {patch_len}."
        )
    if not isinstance(context, jax.core.Tracer):
        bad = ~np.isfinite(np.asarray(context))
        if bad.any():
            where = tuple(int(i) for i in np.argwhere(bad)[0])
            raise InputError(
                f"context has {int(bad.sum())} values that are NaN or infinite, the first at "
                f"{where}; fill or drop them before forecasting."
            )
    if not isinstance(sigma, jax.core.Tracer):
        values = np.asarray(sigma)
        if not np.isfinite(values).all() or (values < 0).any():
            raise InputError(f"sigma must be finite and not negative, got {sigma}.")
        if sampling and (values == 0).any():
            raise InputError(
                "sigma must be > 0 for a rule that samples; sigma 0, the mean path, is for "
                "decode_autoregressive."
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
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(series_index)
    return jax.vmap(one)(keys, context)
