"""Plain autoregressive decoding: one target pass a patch. The baseline of every speedup."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from stride_jax.config import DecodeConfig
from stride_jax.decoding import (
    AUTOREGRESSIVE,
    DecodeInfo,
    check_inputs,
    decode_batch,
    layout,
    split_keys,
)
from stride_jax.processes import WindowProcess


def decode_autoregressive(
    key: jax.Array,
    context: jax.Array,
    *,
    target: WindowProcess,
    sigma: float | jax.Array,
    config: DecodeConfig,
    series_index: jax.Array | None = None,
) -> tuple[jax.Array, DecodeInfo]:
    """Rolls a process patch by patch: x_{n+1} ~ N(mean of the target after x_1..x_n, sigma^2).

    Args:
        key: PRNG key (typed, or raw key data); folded with the series index.
        context: `[L, C]` or `[B, L, C]`; taken as float32.
        target: the process.
        sigma: std of a patch in the units of the context; scalar, `[C]` or `[P, C]`. 0 gives the
            mean path. Traced.
        config: the horizon; the rest is not used.
        series_index: `[B]` global numbers of the series, default 0..B-1; with them a chunk of a
            batch is the same as in the whole.

    Returns:
        `(forecast, info)`: `[horizon, C]` or `[B, horizon, C]`, float32.

    Raises:
        InputError: see `decoding.check_inputs`.
    """
    check_inputs(context, sigma, series_index, target.patch_len, sampling=False)
    context = jnp.asarray(context, jnp.float32)
    return _decode(key, context, target, sigma, series_index, config=config)


@functools.partial(jax.jit, static_argnames="config")
def _decode(
    key: jax.Array,
    context: jax.Array,
    target: WindowProcess,
    sigma: jax.Array,
    series_index: jax.Array | None,
    *,
    config: DecodeConfig,
) -> tuple[jax.Array, DecodeInfo]:
    count, scale = layout(config.horizon, target.patch_len, context.shape[-1], sigma)

    def one(key: jax.Array, context: jax.Array) -> tuple[jax.Array, DecodeInfo]:
        def step(
            carry: tuple[jax.Array, jax.Array], _: None
        ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
            key, state = carry
            keys = split_keys(key)
            mean = target.law(state).mean
            patch = mean + scale * jax.random.normal(keys.fresh, scale.shape, jnp.float32)
            return (keys.next, target.append(state, patch)), patch

        _, patches = jax.lax.scan(step, (key, target.init(context)), length=count)
        info = DecodeInfo(
            accepted=jnp.zeros(0, jnp.int32),
            proposed=jnp.zeros(0, jnp.int32),
            rounds=jnp.asarray(count, jnp.int32),
            target_passes=jnp.asarray(count, jnp.int32),
            kind=jnp.full(count, AUTOREGRESSIVE, jnp.int32),
            proposal=jnp.full((count, *scale.shape), jnp.nan),
        )
        # [N, P, C] -> [N * P, C]
        return patches.reshape(-1, scale.shape[1])[: config.horizon], info

    return decode_batch(one, key, context, series_index)
