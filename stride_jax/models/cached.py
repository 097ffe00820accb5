"""Timer-XL as the cached process wants it: a prefill pass, and passes that continue from caches."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from stride_jax.errors import InputError
from stride_jax.models.attention import Layout, cached_layout, full_layout, keys_by_patch, padded
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.packed import (
    KeyValues,
    PackedTimerXL,
    Params,
    after_attention,
    apply_norm,
    attend,
    embedded,
    new_tokens,
    pack,
    predictions,
    projected,
    rotation,
    tokens_of,
)
from stride_jax.types import PatchDistribution

Cache = list[KeyValues]
"""Keys and values of each layer."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Prefill:
    """The prefilled context.

    Attributes:
        cache: keys and values of its patches.
        skip: int32, patches of padding at the start of the sequence, or None.
        num_vars: C.
    """

    cache: Cache
    skip: jax.Array | None
    num_vars: int = dataclasses.field(metadata={"static": True})


@dataclass(frozen=True)
class CachedTimerXL:
    """A `processes.CachedModel` of packed weights.

    Attributes:
        config: of the model; for several variables with an integer variable_stride.
        joined: a context has one path, whose cache begins with a copy of the prefill; attention
            then reads one array instead of two.
    """

    config: TimerXLConfig
    joined: bool = False

    def pack(self, params: Params) -> PackedTimerXL:
        """The parameters of the trained model as the other methods take them."""
        return pack(self.config, params)

    def for_paths(self, paths: int) -> CachedTimerXL:
        """See `traits.for_paths`."""
        return dataclasses.replace(self, joined=paths == 1)

    def prefill(self, params: PackedTimerXL, patches: jax.Array, skip: jax.Array | None) -> Prefill:
        """Keys and values of the context's patches `[N, P, C]`."""
        count, _, num_vars = patches.shape
        if num_vars > 1 and self.config.variable_stride is None:
            raise InputError(
                "this model was trained with variable_stride None, its positions depend on the "
                f"length of the input; load it for {num_vars} variables (num_vars of load_pair), "
                "or give an integer, the number of patches it was trained on (see `cacheable`)."
            )
        if count == 0:
            return Prefill(self._empty(num_vars, 0), skip, num_vars)
        layout = padded(full_layout(self.config, num_vars, count), num_vars, skip)
        layout = keys_by_patch(layout, num_vars)
        turn = rotation(self.config, layout.positions, num_vars)
        (x, qkv), cache = embedded(self.config, params, tokens_of(patches)), []
        for block in params.blocks:
            queries, new = new_tokens(self.config, projected(self.config, block, x, qkv), turn)
            read = attend(self.config, block, queries, [new], layout)
            x = after_attention(self.config, block, x, read)
            cache.append(new)
        return Prefill(cache, skip, num_vars)

    def empty_cache(self, params: PackedTimerXL, prefill: Prefill, count: int) -> Cache:
        """Zeros for `count` patches, after the prefill where the two are joined."""
        empty = self._empty(prefill.num_vars, count)
        if not self.joined:
            return empty
        return jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), prefill.cache, empty)

    def _empty(self, num_vars: int, count: int) -> Cache:
        config = self.config
        zeros = jnp.zeros((config.num_heads, count * num_vars, config.head_width), config.dtype)
        return [KeyValues(zeros, zeros) for _ in range(config.num_layers)]

    def extend(
        self,
        params: PackedTimerXL,
        prefill: Prefill,
        cache: Cache,
        patches: jax.Array,
        start: jax.Array,
    ) -> tuple[PatchDistribution, Cache]:
        """One causal pass over `[k, P, C]`; the prediction's features are `[k, C, D]`."""
        count, _, num_vars = patches.shape
        start, layout = self._layout(prefill, cache, num_vars, count, start)
        (x, qkv), written = embedded(self.config, params, tokens_of(patches)), []
        turn = rotation(self.config, layout.positions, num_vars)
        for block, first, room in zip(params.blocks, prefill.cache, cache, strict=True):
            queries, new = new_tokens(self.config, projected(self.config, block, x, qkv), turn)
            grown = KeyValues(
                *(
                    jax.lax.dynamic_update_slice_in_dim(z, n, start * num_vars, axis=1)
                    for z, n in zip(room, new, strict=True)
                )
            )
            segments = [grown] if self.joined else [first, grown]
            read = attend(self.config, block, queries, segments, layout)
            x = after_attention(self.config, block, x, read)
            written.append(grown)
        features = apply_norm(params.norm, x)
        return predictions(self.config, params, features, patches), written

    def _layout(
        self, prefill: Prefill, cache: Cache, num_vars: int, count: int, start: jax.Array
    ) -> tuple[jax.Array, Layout]:
        """The entry of the first new patch in the array it is written to, and the layout."""
        before, room = (x[0].keys.shape[1] // num_vars for x in (prefill.cache, cache))
        if self.joined:
            before, start = 0, start + before
        sizes = (num_vars, before, room, count)
        return start, cached_layout(self.config, *sizes, start, prefill.skip)


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
