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
from stride_jax.decoding.processes.lagged import LaggedProcess
from stride_jax.errors import InputError
from stride_jax.models.causal import KeyValues, Past, Place
from stride_jax.models.patchfm.config import LEVELS, MEDIAN, PatchFMConfig
from stride_jax.models.patchfm.module import Params, PatchFM
from stride_jax.models.patchfm.statistics import extended, in_units, normalised, running
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


class State(NamedTuple):
    """One path.

    Attributes:
        cache: of each layer.
        moments: `[C, 3]`, statistics of everything before `pending`.
        ahead: `[C, 3]`, of everything fed.
        length: int32, patches before `pending` that are in the cache.
        pending: `[lag, P, C]`, the last kept patches, which are fed (again) next.
        fed: int32, patches in the cache, rejected and proposed ones included.
        origin: of the memory, and
        padding: of the memory, for `commit`.
    """

    cache: list[KeyValues]
    moments: jax.Array
    ahead: jax.Array
    length: jax.Array
    pending: jax.Array
    fed: jax.Array
    origin: jax.Array
    padding: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PatchFMProcess(LaggedProcess):
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
    def patch_len(self) -> int:
        """P."""
        return self.config.patch_len

    @property
    def supports_padding(self) -> bool:
        """Whether padding is masked, see `Traits`."""
        return True

    @property
    def masks_steps(self) -> bool:
        """Whether a history has any number of steps, see `Traits`: it is filled up in front."""
        return True

    @property
    def reports(self) -> tuple[float | str, ...]:
        """The levels of the nine quantiles of a step."""
        return LEVELS

    @property
    def normalises(self) -> bool:
        """Whether the process normalises, see `Traits`."""
        return True

    @property
    def starts_empty(self) -> bool:
        """Whether no history is needed, see `Traits`."""
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
        origin = first_value(patches, real)
        count = len(patches)
        before = count - self.lag

        # All patches but the pending ones in one pass.
        moments, prefill = jnp.zeros((len(origin), 3)), self._empty(len(origin), 0)
        if before:
            shifted = patches[:before] - origin[None, None]
            so_far = running(shifted, real[:before])
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
        if longest < context.shape[0]:
            length = None if length is None else jnp.minimum(length, longest)
            context = context[context.shape[0] - longest :]
        steps, num_vars = context.shape
        if steps == 0:
            raise InputError("the context has no step; PatchFM needs one at least.")
        count = max(-(-steps // self.patch_len), self.lag)
        front = count * self.patch_len - steps
        whole = jnp.concatenate([jnp.zeros((front, num_vars), jnp.float32), context])
        padding = jnp.asarray(front if length is None else front + steps - length, jnp.int32)
        # [N * P, C] -> [N, P, C]
        return whole.reshape(count, self.patch_len, num_vars), padding

    def start(self, memory: Memory, room: int) -> State:
        """An empty cache for `room` patches."""
        zero = jnp.zeros((), jnp.int32)
        return State(
            cache=self._empty(len(memory.origin), room + self.lag),
            moments=memory.moments,
            ahead=memory.moments,
            length=zero,
            pending=memory.pending,
            fed=zero,
            origin=memory.origin,
            padding=memory.padding,
        )

    def _empty(self, num_vars: int, count: int) -> list[KeyValues]:
        """Keys and values of no patch, with room for `count`."""
        config = self.config
        shape = num_vars, count, config.num_heads, config.head_width
        zeros = jnp.zeros(shape, jnp.dtype(config.dtype))
        return [KeyValues(zeros, zeros)] * config.num_layers

    def commit(self, state: State, patches: jax.Array, count: jax.Array) -> State:
        """Moves the length by `count`; see `Process`."""
        grown = jnp.concatenate([state.pending, patches])
        count = jnp.asarray(count, jnp.int32)
        whole, real = filled(grown, state.length, state.padding)
        counted = (jnp.arange(len(grown)) < count) & real  # they are no longer pending
        moments = extended(state.moments, whole - state.origin[None, None], counted[None])
        return state._replace(
            moments=moments[0],
            length=state.length + count,
            pending=jax.lax.dynamic_slice_in_dim(grown, count, self.lag),
        )

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
        past = [
            Past(first, room, start)
            for first, room in zip(memory.prefill, state.cache, strict=True)
        ]
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


def first_value(patches: jax.Array, real: jax.Array) -> jax.Array:
    """The first value of each variable that is there, `[C]`; 0 for none.

    Args:
        patches: `[N, P, C]`, NaN where a value is missing.
        real: `[N]` bool, patches that count.
    """
    seen = ~jnp.isnan(patches) & real[:, None, None]
    # [N, P, C] -> [N * P, C]
    values, seen = (x.reshape(-1, x.shape[-1]) for x in (patches, seen))
    place = jnp.argmax(seen, axis=0)[None]  # [1, C]
    return jnp.where(seen.any(axis=0), jnp.take_along_axis(values, place, axis=0)[0], 0)


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
