"""PatchFM as a process: its median path from caches, and K patches verified in one causal pass.

The model reads and forecasts patches of P steps, normalised by the mean and the population std of
everything up to and including each of them, so nothing that was fed is ever normalised again. A
history is filled up to whole patches with its first value, which counts in the statistics, as in
the original; patches of padding before it are masked. Several variables are independent series.

The original feeds back nine paths, see `nine_paths`; here it is the median alone.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.config import whole_number
from stride_jax.errors import InputError
from stride_jax.models.causal import KeyValues, Past, Place, empty_cache, pasts
from stride_jax.models.patchfm.config import LEVELS, MEDIAN, PatchFMConfig
from stride_jax.models.patchfm.module import Params, PatchFM
from stride_jax.models.patchfm.statistics import extended, in_units, normalised
from stride_jax.models.running import (
    RunningProcess,
    State,
    accumulated,
    first_value,
    patch_statistics,
    split_context,
)
from stride_jax.types import PatchDistribution


class Memory(NamedTuple):
    """The prefilled context; shared by all its sample paths. S patches are before the last ones.

    Attributes:
        prefill: of each layer, keys and values `[C, S, H, E]`.
        pending: `[lag, P, C]`, the last patches.
        moments: `[C, 3]`, statistics of everything before `pending`, see `statistics`.
        origin: `[C]`, the first value, taken off every value before float32 statistics.
        padding: int32, steps of padding after the S patches; not above 0 where those hold a value.
    """

    prefill: list[KeyValues]
    pending: jax.Array
    moments: jax.Array
    origin: jax.Array
    padding: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PatchFMProcess(RunningProcess):
    """PatchFM with caches; build it with `patchfm_process`. See `decoding.base.Process`.

    The mean of a prediction is the model's median, and `reported` holds its nine quantiles of every
    step. They are conditioned on the patches of this path that were emitted before.

    Attributes:
        params: of the model, traced.
        config: its sizes.
        context_len: last steps of the context it sees, or None for all that the model takes.
        lag: patches that are fed at the start of a pass: 1 for a target, the patch it has just
            emitted; 2 for a draft, whose last proposal may not have been fed to it.
    """

    params: Params
    config: PatchFMConfig = dataclasses.field(metadata={"static": True})
    context_len: int | None = dataclasses.field(default=None, metadata={"static": True})
    lag: int = dataclasses.field(default=1, metadata={"static": True})

    @property
    def reports(self) -> tuple[float | str, ...]:
        """The levels of the nine quantiles of a step."""
        return LEVELS

    @property
    def normalises(self) -> bool:
        """Whether the process normalises, see `Traits`."""
        return True

    def prepare(self, context: jax.Array, length: jax.Array | None = None) -> Memory:
        """Runs the model over the last steps of a context `[L, C]`; see `Process`.

        NaN in it is a missing value: it does not count in the statistics, and the model sees the
        last value before it in its patch.

        Raises:
            InputError: no step.
        """
        patches, padding = self._patches(context, length)  # [N, P, C]
        patches, real = filled(patches, jnp.zeros((), jnp.int32), padding)
        seen = ~jnp.isnan(patches) & real[:, None, None]
        origin = first_value(patches, seen)
        count = len(patches)
        before = count - self.lag

        # All patches but the pending ones in one pass.
        moments, prefill = jnp.zeros((len(origin), 3)), self._empty(len(origin), 0)
        if before:
            shifted = patches[:before] - origin[None, None]
            so_far = accumulated(patch_statistics(shifted, seen[:before]))
            place = Place(jnp.zeros((), jnp.int32), padding // self.patch_len)
            _, prefill = self._run(shifted, so_far, place, None)
            moments = so_far[-1]
        return Memory(
            prefill=prefill,
            pending=patches[before:],
            moments=moments,
            origin=origin,
            padding=padding - before * self.patch_len,
        )

    def _patches(self, context: jax.Array, length: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """The last patches of a context, `[N, P, C]`, and the steps of padding before its history.

        The limit of the model counts whole patches, as the original fills up after it cuts.
        """
        longest = self.config.context_limit if self.context_len is None else self.context_len
        return split_context(
            context, length, longest=longest, size=self.patch_len, least=self.lag, title="PatchFM"
        )

    def _empty(self, num_vars: int, patches: int) -> list[KeyValues]:
        return empty_cache(self.config, self.config.num_layers, num_vars, patches)

    def _moments_after(self, state: State, patches: jax.Array, count: jax.Array) -> jax.Array:
        whole, real = filled(patches, state.length, state.padding)
        counted = (jnp.arange(len(patches)) < count) & real  # they are no longer pending
        return extended(state.moments, whole - state.origin[None, None], counted[None])[0]

    def _run(
        self,
        shifted: jax.Array,
        statistics: jax.Array,
        place: Place,
        past: list[Past] | None,
    ) -> tuple[jax.Array, list[KeyValues]]:
        """One pass over patches `[k, P, C]` less the origin; see `PatchFM`."""
        normal = normalised(shifted, statistics)  # [C, k, P]
        out: tuple[jax.Array, list[KeyValues]]
        out = PatchFM(self.config).apply({"params": self.params}, normal, place, past)
        return out

    def outputs(
        self, memory: Memory, state: State, patches: jax.Array, start: jax.Array
    ) -> tuple[jax.Array, State]:
        """Feeds `[k, P, C]` from cache entry `start` on: quantiles `[k, P, C, Q]` after each.

        `state.ahead` are the statistics of everything before them.
        """
        whole, real = filled(patches, start, state.padding)
        shifted = whole - state.origin[None, None]
        so_far = np.tril(np.ones((len(patches), len(patches)), bool))
        statistics = extended(state.ahead, shifted, so_far & real[None])  # [k, C, 3]
        before = memory.prefill[0].keys.shape[1]
        skip = (state.padding + before * self.patch_len) // self.patch_len
        past = pasts(memory.prefill, state.cache, start)
        out, cache = self._run(shifted, statistics, Place(before + start, skip), past)
        state = state._replace(cache=cache, ahead=statistics[-1], fed=start + len(patches))
        return in_units(out, statistics, state.origin), state

    def _extend(
        self, memory: Memory, state: State, patches: jax.Array, start: jax.Array
    ) -> tuple[PatchDistribution, State]:
        """Predictions after each of some patches, see `outputs`."""
        quantiles, state = self.outputs(memory, state, patches, start)
        return PatchDistribution(quantiles[..., MEDIAN], reported=quantiles), state


def filled(patches: jax.Array, start: jax.Array, padding: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Patches whose steps of padding hold the first value after them.

    Args:
        patches: `[k, P, C]`.
        start: int32, entry of the first of them.
        padding: int32, steps of padding from entry 0 on.

    Returns:
        The patches, and `[k]` bool, which of them are not padding alone.
    """
    count, size = patches.shape[:2]
    front = padding - (start + jnp.arange(count)) * size  # [k]
    places = jnp.maximum(jnp.arange(size)[None], jnp.clip(front, 0, size - 1)[:, None])  # [k, P]
    return jnp.take_along_axis(patches, places[..., None], axis=1), front < size


def patchfm_process(
    config: PatchFMConfig, params: Params, context_len: int | None = None
) -> PatchFMProcess:
    """The process of a PatchFM, which feeds back its median.

    Args:
        config: sizes.
        params: from `params.read`.
        context_len: last steps of a context that it sees, of any number up to
            `config.context_limit`; None for that limit. The steps that are forecast come on top.

    Raises:
        InputError: a context_len that is no whole number, below 1, or beyond the limit.
    """
    return PatchFMProcess(params, config, checked_length(config, context_len))


def checked_length(config: PatchFMConfig, context_len: int | None) -> int | None:
    """A length of the context, or InputError for one that the model does not take."""
    if context_len is None:
        return None
    context_len = whole_number("context_len", context_len, least=1)
    if context_len > config.context_limit:
        raise InputError(
            f"context_len {context_len} is more than the {config.context_limit} steps of a history "
            "that PatchFM sees; give fewer."
        )
    return context_len
