"""Timer-XL as the cached process wants it: a prefill pass, and passes that continue from caches."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from stride_jax.errors import InputError
from stride_jax.models.attention import Cached, KeyValues, cached_layout, full_layout, padded
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import Params, TimerXL
from stride_jax.types import PatchDistribution

Cache = list[KeyValues]


class Prefill(NamedTuple):
    """The prefilled context.

    Attributes:
        cache: keys and values of its patches, a layer.
        skip: int32, patches of padding at the start of the sequence, or None.
    """

    cache: Cache
    skip: jax.Array | None


@dataclass(frozen=True)
class CachedTimerXL:
    """A `processes.CachedModel`; keys and values are `[1, H, C, N, E]` a layer.

    Attributes:
        config: of the model; for several variables with an integer variable_stride.
    """

    config: TimerXLConfig

    def prefill(self, params: Params, patches: jax.Array, skip: jax.Array | None) -> Prefill:
        """Keys and values of the context's patches `[N, P, C]`."""
        count, _, num_vars = patches.shape
        if num_vars > 1 and self.config.variable_stride is None:
            raise InputError(
                "this model was trained with variable_stride None, its positions depend on the "
                f"length of the input; load it for {num_vars} variables (num_vars of load_pair), "
                "or give an integer, the number of patches it was trained on (see `cacheable`)."
            )
        if count == 0:
            return Prefill(self._empty(num_vars, 0), skip)
        layout = padded(full_layout(self.config, num_vars, count), num_vars, skip)
        method = TimerXL.features
        _, cache = TimerXL(self.config).apply(
            {"params": params}, patches[None], layout, method=method
        )
        return Prefill(cache, skip)

    def empty_cache(self, params: Params, prefill: Prefill, count: int) -> Cache:
        """Zeros for `count` patches."""
        return self._empty(prefill.cache[0].keys.shape[2], count)

    def _empty(self, num_vars: int, count: int) -> Cache:
        config = self.config
        shape = (1, config.num_heads, num_vars, count, config.d_model // config.num_heads)
        zeros = jnp.zeros(shape, jnp.dtype(config.dtype))
        return [KeyValues(zeros, zeros) for _ in range(config.num_layers)]

    def extend(
        self, params: Params, prefill: Prefill, cache: Cache, patches: jax.Array, start: jax.Array
    ) -> tuple[PatchDistribution, Cache]:
        """One causal pass over `[k, P, C]`; the prediction's features are `[k, C, D]`."""
        num_vars, room = patches.shape[2], cache[0].keys.shape[3]
        sizes = (num_vars, prefill.cache[0].keys.shape[3], room, patches.shape[0])
        layout = cached_layout(self.config, *sizes, start, prefill.skip)
        caches = [Cached(p, s, start) for p, s in zip(prefill.cache, cache, strict=True)]
        model = TimerXL(self.config).bind({"params": params})
        features, written = model.features(patches[None], layout, caches=caches)
        predictions = model.predictions(features, num_vars, patches[None])
        prediction = jax.tree.map(lambda x: x[0], predictions)
        # [1, C * k, D] -> [C, k, D] -> [k, C, D]
        shown = features[0].reshape(num_vars, patches.shape[0], -1).transpose(1, 0, 2)
        return prediction._replace(features=shown), written


def cacheable(config: TimerXLConfig, context_len: int, num_vars: int) -> TimerXLConfig:
    """The config under which a trained model is decoded from caches.

    With several variables and variable_stride None, positions are pinned to those of the trained
    context of N patches. Past `variable_stride` patches neighbouring variables' positions would
    meet, so attention is limited to that many unless `max_patches` says otherwise.

    Args:
        config: of the trained model.
        context_len: steps it was trained on.
        num_vars: C.

    Raises:
        InputError: the original's covariate mask, whose forecasts see future patches.
    """
    if config.covariate and config.covariate_mask == "original":
        raise InputError(
            "the original's covariate mask lets the last variable see future patches of the "
            "others, so K proposals cannot be verified in one causal pass: use the window "
            "process, or train with covariate_mask 'causal'."
        )
    stride = pinned(config, context_len).variable_stride
    if num_vars == 1 or not stride:
        return config
    return dataclasses.replace(
        config, variable_stride=stride, max_patches=config.max_patches or stride
    )


def pinned(config: TimerXLConfig, context_len: int) -> TimerXLConfig:
    """The config with the positions of several variables as they were trained, see `cacheable`.

    One variable has the same positions under every stride.
    """
    if config.variable_stride is not None:
        return config
    return dataclasses.replace(config, variable_stride=context_len // config.patch_len)
