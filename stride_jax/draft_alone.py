"""The draft without its target: what its forecasts are worth by themselves."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from stride_jax.autoregressive import unroll
from stride_jax.config import DecodeConfig
from stride_jax.decoding import DecodeInfo, Inputs, check_inputs, compiled, num_patches
from stride_jax.drafts import Draft, as_draft, propose
from stride_jax.errors import InputError
from stride_jax.processes import Process


def decode_draft(
    key: jax.Array,
    context: jax.Array,
    *,
    draft: Draft | Process,
    sigma: float | jax.Array,
    config: DecodeConfig,
    series_index: jax.Array | None = None,
) -> tuple[jax.Array, DecodeInfo]:
    """Every proposal of any draft is kept, K at a time.

    Args:
        key: PRNG key; folded with the series index. A patch has the noise it has in the decoders.
        context: `[L, C]` or `[B, L, C]`; taken as float32.
        draft: see `drafts.Draft`.
        sigma: std of a patch in the units of the context; 0 gives the mean path. Traced.
        config: horizon, num_draft, num_paths, batch_size, path_chunk, learned_scale.
        series_index: `[B]` global numbers of the series, default 0..B-1.

    Returns:
        `(forecast, info)` as `decode_autoregressive`; `info.rounds` counts the proposals' calls,
        and no target pass.

    Raises:
        InputError: K = 0; see `decoding.check_inputs`.
    """
    if config.num_draft == 0:
        raise InputError("num_draft must be at least 1 where the draft decodes alone.")
    draft = as_draft(draft)
    inputs = Inputs(key, context, sigma, series_index, None)
    check_inputs(inputs, draft.patch_len, config, sampling=False)
    return _decode(inputs.as_float32(), draft, config=config)


@compiled
def _decode(inputs: Inputs, draft: Draft, *, config: DecodeConfig) -> tuple[jax.Array, DecodeInfo]:
    size = min(config.num_draft, num_patches(config.horizon, draft.patch_len))

    def step(memory: Any, state: Any, noise: jax.Array) -> tuple[jax.Array, Any]:
        memory, scale = memory
        made, state = propose(
            draft, memory, state, noise, scale, size, learned=config.learned_scale
        )
        # `commit` takes K + 1 patches; the last one is not kept.
        grown = jnp.concatenate([made.patches, made.patches[-1:]])
        return made.patches, draft.commit(state, grown, jnp.asarray(size, jnp.int32))

    forecast, info = unroll(inputs, draft, step, size, config)
    nothing = jnp.zeros_like(info.target_passes)
    return forecast, info._replace(target_passes=nothing, drafted=info.rounds * size)
