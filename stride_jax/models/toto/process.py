"""Toto 1.0 as a process: a mixture for each step of a patch, and K patches verified in one pass.

A patch is normalised by the mean and the std of all values up to and including its own, so nothing
that was fed is ever normalised again; the std is bounded by that of the context. Variables see each
other at the same time step alone. So a pass of K patches is causal in time, and predicts what K
single passes predict. The original counts the positions of a cached pass from the middle of that
pass, which moves its own cached decode away from its pass over the whole sequence; here all passes
count from one place, and agree with the latter.

Steps of padding before a history are masked as the original does: they count in no statistics, and
what stands in the first patch before the history is 0 in the units of the series. A whole patch of
padding is not seen at all. Values that are NaN are such masked values too, variable by variable.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from stride_jax.config import whole_number
from stride_jax.decoding.mixture import StudentMixture
from stride_jax.models.causal import KeyValues, Past, Place, empty_cache, pasts
from stride_jax.models.running import RunningProcess, State, first_value, split_context, tamed
from stride_jax.models.toto.config import TotoConfig
from stride_jax.models.toto.module import Params, Toto
from stride_jax.models.toto.statistics import context_std, extended, std
from stride_jax.types import PatchDistribution


class Memory(NamedTuple):
    """The prefilled context; shared by all its sample paths. N patches are before the last ones.

    Attributes:
        prefill: of each layer over time, keys and values `[C, N, H, E]`.
        pending: `[lag, P, C]`, the last patches.
        moments: `[C, 3]`, statistics of everything before `pending`.
        spread: `[C]`, the std of the context, which bounds those of all patches.
        origin: `[C]`, the first value, taken off every value before float32 statistics.
        padding: int32, steps of padding after the N patches; not above 0 where those hold a value.
    """

    prefill: list[KeyValues]
    pending: jax.Array
    moments: jax.Array
    spread: jax.Array
    origin: jax.Array
    padding: jax.Array


class Normal(NamedTuple):
    """Patches as the model sees them.

    Attributes:
        patches: `[C, n, P]`.
        center: `[n, C]`, their means in the units of the series, and
        scale: `[n, C]`, their stds.
        ahead: `[n + 1, C, 3]`, statistics before each of them, and after the last.
    """

    patches: jax.Array
    center: jax.Array
    scale: jax.Array
    ahead: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TotoProcess(RunningProcess):
    """Toto 1.0 with caches. Build it with `toto_process`; see `processes.Process`.

    Attributes:
        params: the model's parameters, traced.
        config: sizes.
        context_len: last steps of the context that it sees; None for as many as
            `config.longest_context`.
        lag: see `LaggedProcess`.
    """

    params: Params
    config: TotoConfig = dataclasses.field(metadata={"static": True})
    context_len: int | None = dataclasses.field(default=None, metadata={"static": True})
    lag: int = dataclasses.field(default=1, metadata={"static": True})

    @property
    def normalises(self) -> bool:
        """Whether a history may be given standardised, see `Traits`: no, for the 0.1 in its std."""
        return False

    @property
    def reports(self) -> tuple[float | str, ...]:
        """Names of outputs beside what is fed back, see `Traits`: none, it predicts a density."""
        return ()

    @property
    def predicts_density(self) -> bool:
        """Whether sample paths come from a density of its own, see `Traits`: the mixture."""
        return True

    def prepare(self, context: jax.Array, length: jax.Array | None = None) -> Memory:
        """Runs the model over the context `[L, C]`; see `Process`.

        Values that are NaN are masked.

        Raises:
            InputError: no step.
        """
        memory, _, _ = self._prefill(context, length)
        return memory

    def mixtures(
        self, context: jax.Array, length: jax.Array | None = None
    ) -> tuple[StudentMixture, jax.Array]:
        """The mixture of the patch after each patch of a context `[L, C]`: one ordinary pass.

        Args:
            context: the history at its end; NaN is masked.
            length: int32, steps of the history; None for all.

        Returns:
            Of N patches, the mixtures `[N, P, C, M]` in the units of the series, those after
            patches of padding mean nothing; and the steps of padding before the history, int32.

        Raises:
            InputError: no step.
        """
        _, mixture, padding = self._prefill(context, length)
        return mixture, padding

    def _prefill(
        self, context: jax.Array, length: jax.Array | None
    ) -> tuple[Memory, StudentMixture, jax.Array]:
        """The memory of a context, its mixtures, and its steps of padding."""
        patches, padding = self._patches(context, length)  # [N, P, C]
        count, size, num_vars = patches.shape
        steps = jnp.arange(count * size).reshape(count, size, 1)
        real = (steps >= padding) & ~jnp.isnan(patches)
        origin = first_value(patches, real)
        nothing = jnp.zeros((num_vars, 3), jnp.float32)
        shifted = jnp.where(real, patches, 0) - origin[None, None]
        ahead = extended(nothing, shifted, real)
        spread = context_std(ahead[-1])

        # All patches in one pass; the caches keep those before the pending ones.
        place = Place(jnp.zeros((), jnp.int32), padding // size)
        normal = self._normal(shifted, steps[:, :1] + size > padding, ahead, origin, spread)
        mixture, written = self._apply(normal, place, None)
        before = count - self.lag
        memory = Memory(
            prefill=[KeyValues(*(z[:, :before] for z in part)) for part in written],
            pending=patches[before:],
            moments=ahead[before],
            spread=spread,
            origin=origin,
            padding=padding - before * size,
        )
        return memory, mixture, padding

    def _patches(self, context: jax.Array, length: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """The context in patches `[N, P, C]`, filled up in front, and its steps of padding."""
        longest = self.config.longest_context if self.context_len is None else self.context_len
        return split_context(
            context, length, longest=longest, size=self.patch_len, least=self.lag, title="Toto"
        )

    def _empty(self, num_vars: int, patches: int) -> list[KeyValues]:
        return empty_cache(self.config, self.config.num_time_layers, num_vars, patches)

    def _moments_after(self, state: State, patches: jax.Array, count: jax.Array) -> jax.Array:
        moments = extended(state.moments, *self._shifted(patches, state, state.length))
        return jax.lax.dynamic_index_in_dim(moments, count, keepdims=False)

    def _shifted(
        self, patches: jax.Array, state: State, start: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Patches `[k, P, C]` less the origin, 0 before where masked, and which values count."""
        steps = start * self.patch_len + jnp.arange(patches.shape[0] * self.patch_len)
        real = steps.reshape(*patches.shape[:2], 1) >= state.padding
        real = real & ~jnp.isnan(patches)
        return jnp.where(real, patches, 0) - state.origin[None, None], real

    def _normal(
        self,
        shifted: jax.Array,
        seen: jax.Array,
        ahead: jax.Array,
        origin: jax.Array,
        spread: jax.Array,
    ) -> Normal:
        """Patches `[n, P, C]` less the origin as the model sees them.

        `seen [n, 1, 1]` is False for whole patches of padding, `ahead` as in `Normal`.
        """
        statistics = ahead[1:]  # [n, C, 3]
        scale = std(statistics, spread)
        # A variable without any value so far has the mean 0, as in the original.
        mean = jnp.where(statistics[..., 0] > 0, statistics[..., 1], -origin[None])
        normal = (shifted - mean[:, None]) / scale[:, None]
        normal = jnp.where(seen, tamed(normal), 0).transpose(2, 0, 1)  # [C, n, P]
        return Normal(normal, mean + origin[None], scale, ahead)

    def _apply(
        self, normal: Normal, place: Place, past: list[Past] | None
    ) -> tuple[StudentMixture, list[KeyValues]]:
        """One pass over n patches: mixtures `[n, P, C, M]` in the units of the series."""
        mixture, written = Toto(self.config).apply(
            {"params": self.params}, normal.patches, place, past
        )
        # [C, n, P, M] -> [n, P, C, M]
        mixture = StudentMixture(*(x.transpose(1, 2, 0, 3) for x in mixture))
        return mixture.moved(normal.center[:, None], normal.scale[:, None]), written

    def _extend(
        self, memory: Memory, state: State, patches: jax.Array, start: jax.Array
    ) -> tuple[PatchDistribution, State]:
        """Feeds `[k, P, C]` from patch `start` of the cache on: predictions after each.

        `state.ahead` are the statistics of everything before them.
        """
        size, before = self.patch_len, memory.prefill[0].keys.shape[1]
        shifted, real = self._shifted(patches, state, start)
        ahead = extended(state.ahead, shifted, real)
        ends = (start + 1 + jnp.arange(len(patches))[:, None, None]) * size
        normal = self._normal(shifted, ends > state.padding, ahead, state.origin, memory.spread)
        past = pasts(memory.prefill, state.cache, start)
        padded = (state.padding + before * size) // size
        mixture, cache = self._apply(normal, Place(before + start, padded), past)
        state = state._replace(cache=cache, ahead=ahead[-1], fed=start + patches.shape[0])
        return PatchDistribution(mixture.mean(), density=mixture), state


def toto_process(config: TotoConfig, params: Params, context_len: int | None = None) -> TotoProcess:
    """The process of a Toto 1.0.

    Args:
        config: sizes.
        params: from `params.read`.
        context_len: last steps of a context that it sees, of any number; None for at most
            `config.longest_context`.

    Raises:
        InputError: a context_len that is no whole number, or below 1.
    """
    if context_len is not None:
        context_len = whole_number("context_len", context_len, least=1)
    return TotoProcess(params, config, context_len)
