"""One model rolled by itself: the target (the baseline of every speedup) or the draft."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from stride_jax.decoding.base import Draft, Process
from stride_jax.decoding.batching import (
    decode_batch,
    normals,
    over_lanes,
    patch_keys,
    path_keys,
    with_single,
    without_single,
)
from stride_jax.decoding.checks import Inputs
from stride_jax.decoding.compiled import compiled
from stride_jax.decoding.drafts import prediction_sigma, propose
from stride_jax.decoding.info import named_reports
from stride_jax.decoding.scale import apply, correlated
from stride_jax.decoding.traits import density_of, for_paths, traits_of
from stride_jax.decoding.types import (
    AUTOREGRESSIVE,
    DecodeConfig,
    DecodeInfo,
    no_value,
    num_patches,
)


class Rolled(NamedTuple):
    """The next K patches of a path, `[K, P, C]`, and what is reported of them, `[K, P, C, Q]`."""

    patches: jax.Array
    reported: jax.Array | None = None


Path = tuple[jax.Array, Any]
"""The key of a path's noise, and its state."""


@compiled
def roll_process(
    inputs: Inputs, process: Process, *, config: DecodeConfig
) -> tuple[jax.Array, DecodeInfo]:
    """Rolls a process patch by patch: x_{n+1} ~ N(mean after x_1..x_n, sigma^2); one pass each.

    Where the process predicts a density, that is what x_{n+1} is drawn from, unless sigma is 0.
    """
    process = for_paths(process, config.paths_at_once)
    outputs = len(traits_of(process).reports)

    def step(memory: Any, state: Any, keys: jax.Array) -> tuple[Rolled, Any]:
        memory, (sigma, correlation) = memory
        noise = normals(keys, sigma.shape)
        predictions, state = process.verify(memory, state, noise[:0])  # no proposals
        first = jax.tree.map(lambda x: x[0], predictions)
        spread = prediction_sigma(first, sigma, config.learned_scale)
        patch = first.mean + apply(noise[0], spread, correlation)
        density = density_of(process, first)
        if density is not None:
            patch = jnp.where(sigma > 0, density.sample(keys[0]), first.mean)
        state = process.commit(state, patch[None], jnp.ones((), jnp.int32))
        reported = named_reports(first, outputs)
        return Rolled(patch[None], None if reported is None else reported[None]), state

    return unroll(inputs, process, step, 1, config)


def roll_draft(
    inputs: Inputs, draft: Draft | Process, *, config: DecodeConfig
) -> tuple[jax.Array, DecodeInfo]:
    """Rolls a draft by itself; every proposal stays.

    A process is rolled patch by patch, any other draft K patches at a time. No target pass counts.
    """
    size = 1
    if hasattr(draft, "verify"):
        forecast, info = roll_process(inputs, draft, config=config)
    else:
        size = min(config.num_draft, num_patches(config.horizon, draft.patch_len))
        forecast, info = _roll_proposals(inputs, draft, size=size, config=config)
    nothing = jnp.zeros_like(info.target_passes)
    return forecast, info._replace(target_passes=nothing, drafted=info.rounds * size)


@compiled
def _roll_proposals(
    inputs: Inputs, draft: Draft, *, size: int, config: DecodeConfig
) -> tuple[jax.Array, DecodeInfo]:
    """Rolls a draft `size` patches at a time."""
    draft = for_paths(draft, config.paths_at_once)

    def step(memory: Any, state: Any, keys: jax.Array) -> tuple[Rolled, Any]:
        memory, (sigma, correlation) = memory
        noise = correlated(normals(keys, sigma.shape), correlation)
        proposals, state = propose(
            draft, memory, state, noise, sigma, size, learned=config.learned_scale
        )
        # `commit` takes K + 1 patches; the last one does not stay.
        grown = jnp.concatenate([proposals.patches, proposals.patches[-1:]])
        state = draft.commit(state, grown, jnp.asarray(size, jnp.int32))
        return Rolled(proposals.patches), state

    return unroll(inputs, draft, step, size, config)


Step = Callable[[Any, Any, jax.Array], tuple[Rolled, Any]]
"""`((memory, Scale), state, keys [K] of patches) -> (the next K patches, state)`."""


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
        size: K, patches per step.
        config: horizon and chunks.

    Returns:
        `(forecast, info)`; one target pass per step.
    """
    count = num_patches(config.horizon, source.patch_len)
    rounds, shape = -(-count // size), (source.patch_len, inputs.context.shape[-1])

    def play(memory: Any, path: Path, number: jax.Array) -> tuple[Path, Rolled]:
        key, state = path
        rolled, state = step(memory, state, patch_keys(key, number * size, size))
        return (key, state), rolled

    def run(memory: Any, keys: jax.Array) -> tuple[jax.Array, DecodeInfo]:
        lanes = keys.shape

        def first(memory: Any, key: jax.Array) -> Path:
            return path_keys(key).noise, source.start(memory[0], rounds * size)

        def body(paths: Path, number: jax.Array) -> tuple[Path, Rolled]:
            paths, rolled = over_lanes(play, lanes)(memory, with_single(paths, lanes), number)
            return without_single(paths, lanes), rolled

        start = without_single(over_lanes(first, lanes)(memory, keys), lanes)
        _, rolled = jax.lax.scan(body, start, jnp.arange(rounds))
        # [R, B, S, K, P, ...] -> [B, S, R, K, P, ...]
        patches, reported = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 2), rolled)
        if reported is not None:  # [B, S, R, 1, P, C, Q] -> [B, S, N, P, C, Q]
            reported = reported.reshape(*lanes, count, *reported.shape[4:])
        info = DecodeInfo(
            accepted=jnp.zeros((*lanes, 0), jnp.int32),
            proposed=jnp.zeros((*lanes, 0), jnp.int32),
            rounds=jnp.full(lanes, rounds, jnp.int32),
            target_passes=jnp.full(lanes, rounds, jnp.int32),
            drafted=jnp.zeros(lanes, jnp.int32),
            overflow=jnp.zeros(lanes, jnp.int32),
            origin=jnp.full((*lanes, count), AUTOREGRESSIVE, jnp.int32),
            proposal=jnp.full((*lanes, count, *shape), no_value(), jnp.float32),
            reported=reported,
        )
        # [B, S, R, K, P, C] -> [B, S, R * K * P, C]
        return patches.reshape(*lanes, -1, shape[1])[:, :, : config.horizon], info

    stepwise = size == 1
    return decode_batch(source.prepare, run, inputs, source.patch_len, config, stepwise=stepwise)
