"""Both heads of TimesFM 2.5 at every token of a context, without caches."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from stride_jax.models.causal import Place
from stride_jax.models.timesfm.config import TimesFMConfig
from stride_jax.models.timesfm.module import Params, TimesFM
from stride_jax.models.timesfm.process import TimesFMProcess
from stride_jax.models.timesfm.statistics import std, token_moments


def outputs_at_tokens(
    config: TimesFMConfig, params: Params, context: jax.Array, length: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Both heads at every token of a context `[L, C]`: one ordinary pass, without caches.

    Args:
        config: sizes.
        params: of the model.
        context: L a multiple of the token length.
        length: int32, steps of the history at its end; None for all.

    Returns:
        The next patch `[N, P, C, Q]` and the long forecast `[N, long_len, C, Q]` after each token,
        in the units of the series; those of tokens of padding mean nothing.
    """
    process = TimesFMProcess(params, config)
    values, padding = process.tokens(context, length)
    real = jnp.arange(values.shape[0] * config.token_len).reshape(values.shape[:2]) >= padding
    values = jnp.where(real[..., None], values, 0)
    running = token_moments(values, real)
    place = Place(jnp.zeros((), jnp.int32), padding // config.token_len)
    x, _ = process.features(values, real, running, place, None)  # [C, N, D]
    in_units = jax.vmap(process.in_units, in_axes=(1, 0, 0, None))
    stats = running.mean, std(running), jnp.zeros_like(running.mean[0])
    patch, long = (
        in_units(process.apply(x, method=method), *stats)
        for method in (TimesFM.patches, TimesFM.long_patches)
    )
    return patch, long
