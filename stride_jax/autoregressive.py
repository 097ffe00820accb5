"""Plain autoregressive decoding: one target pass a patch. The baseline of every speedup."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from stride_jax.config import DecodeConfig
from stride_jax.decoding import (
    AUTOREGRESSIVE,
    DecodeInfo,
    Inputs,
    check_inputs,
    compiled,
    decode_batch,
    num_patches,
    over_lanes,
    patch_noise,
    path_keys,
)
from stride_jax.drafts import Draft, law_sigma
from stride_jax.processes import Process
from stride_jax.processes.base import check_process

Path = tuple[jax.Array, Any]
"""The key of a path's noise, and its state."""


def decode_autoregressive(
    key: jax.Array,
    context: jax.Array,
    *,
    target: Process,
    sigma: float | jax.Array,
    config: DecodeConfig,
    series_index: jax.Array | None = None,
    lengths: jax.Array | None = None,
) -> tuple[jax.Array, DecodeInfo]:
    """Rolls a process patch by patch: x_{n+1} ~ N(mean of the target after x_1..x_n, sigma^2).

    Args:
        key: PRNG key (typed, or raw key data); folded with the series index.
        context: `[L, C]` or `[B, L, C]`; taken as float32.
        target: the process.
        sigma: std of a patch in the units of the context; scalar, `[C]` or `[P, C]`, or with a B in
            front of the last. 0 gives the mean path. Traced.
        config: horizon, num_paths, batch_size, path_chunk, learned_scale; the rest is not used.
        series_index: `[B]` global numbers of the series, default 0..B-1; with them a chunk of a
            batch is the same as in the whole.
        lengths: `[B]` steps of each history at the end of its context, whole patches; what stands
            before is padding and does not matter. Only for a target that supports padding.

    Returns:
        `(forecast, info)`: `[horizon, C]` or `[B, horizon, C]`, float32; with `num_paths` an axis
        of paths before the horizon.

    Raises:
        InputError: see `decoding.check_inputs`.
    """
    check_process(target)
    patch_len = target.patch_len
    inputs = Inputs(key, context, sigma, series_index, lengths)
    check_inputs(inputs, patch_len, config, sampling=False)
    return _decode(inputs.as_float32(), target, config=config)


@compiled
def _decode(
    inputs: Inputs, target: Process, *, config: DecodeConfig
) -> tuple[jax.Array, DecodeInfo]:
    def step(memory: Any, state: Any, noise: jax.Array) -> tuple[jax.Array, Any]:
        memory, scale = memory
        laws, state = target.verify(memory, state, noise[:0])  # no proposals
        law = jax.tree.map(lambda x: x[0], laws)
        patch = law.mean + law_sigma(law, scale, config.learned_scale) * noise[0]
        state = target.commit(state, patch[None], jnp.ones((), jnp.int32))
        return patch[None], state

    return unroll(inputs, target, step, 1, config)


Step = Callable[[Any, Any, jax.Array], tuple[jax.Array, Any]]
"""`((memory, sigma [P, C]), state, noise [K, P, C]) -> (patches [K, P, C], state)`."""


def unroll(
    inputs: Inputs,
    source: Process | Draft,
    step: Step,
    size: int,
    config: DecodeConfig,
) -> tuple[jax.Array, DecodeInfo]:
    """Takes `size` patches at a time from a process or a draft, until there are N; all are kept.

    Args:
        inputs: series and key.
        source: prepares contexts and starts paths.
        step: makes the next patches of a path and keeps them.
        size: K, patches a step.
        config: horizon and chunks.

    Returns:
        `(forecast, info)`; one target pass a step.
    """
    count = num_patches(config.horizon, source.patch_len)
    rounds, shape = -(-count // size), (source.patch_len, inputs.context.shape[-1])

    def play(memory: Any, path: Path, number: jax.Array) -> tuple[Path, jax.Array]:
        key, state = path
        noise = patch_noise(key, number * size, size, shape)
        patches, state = step(memory, state, noise)
        return (key, state), patches

    def run(memory: Any, keys: jax.Array) -> tuple[jax.Array, DecodeInfo]:
        lanes = keys.shape

        def first(memory: Any, key: jax.Array) -> Path:
            return path_keys(key).noise, source.start(memory[0], rounds * size)

        start = over_lanes(first, lanes)(memory, keys)
        body = over_lanes(play, lanes)
        numbers = jnp.arange(rounds)
        _, made = jax.lax.scan(lambda path, n: body(memory, path, n), start, numbers)
        patches = jnp.moveaxis(made, 0, 2)  # [R, B, S, K, P, C] -> [B, S, R, K, P, C]
        info = DecodeInfo(
            accepted=jnp.zeros((*lanes, 0), jnp.int32),
            proposed=jnp.zeros((*lanes, 0), jnp.int32),
            rounds=jnp.full(lanes, rounds, jnp.int32),
            target_passes=jnp.full(lanes, rounds, jnp.int32),
            drafted=jnp.zeros(lanes, jnp.int32),
            overflow=jnp.zeros(lanes, jnp.int32),
            kind=jnp.full((*lanes, count), AUTOREGRESSIVE, jnp.int32),
            proposal=jnp.full((*lanes, count, *shape), jnp.nan),
        )
        # [B, S, R, K, P, C] -> [B, S, R * K * P, C]
        return patches.reshape(*lanes, -1, shape[1])[:, :, : config.horizon], info

    return decode_batch(source.prepare, run, inputs, source.patch_len, config)
