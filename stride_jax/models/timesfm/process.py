"""TimesFM 2.5 as a process: the released autoregressive decode, and K patches verified in one pass.

A patch of P = 128 steps is four tokens of T = 32. The model forecasts a patch at every token; as
released, the median of that patch is fed back as four tokens, and the next patch is read at the
last of them. So K proposals are 4 K tokens of one causal pass, read at every fourth token.

Statistics are running ones: a token is normalised by the mean and the population std of all steps
up to and including its own, so nothing that was fed is ever normalised again. Steps of padding
before a history are masked one by one, so that a history has any number of steps; several variables
are independent series.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.config import whole_number
from stride_jax.decoding.normalization import (
    Moments,
    last,
    packed,
    unpacked,
)
from stride_jax.errors import InputError
from stride_jax.models.causal import KeyValues, Past, Place, empty_cache, pasts
from stride_jax.models.running import RunningProcess, State, split_context, tamed
from stride_jax.models.timesfm.config import LEVELS, MEDIAN, TimesFMConfig
from stride_jax.models.timesfm.module import Params, TimesFM
from stride_jax.models.timesfm.statistics import extended, nothing, std, token_moments
from stride_jax.types import PatchDistribution

SMALLEST = 1e-6
"""A std below it divides by 1, as in the original."""


class Memory(NamedTuple):
    """The prefilled context; shared by all its sample paths. S tokens are before the last patches.

    Attributes:
        prefill: of each layer, keys and values `[C, S, H, E]`.
        pending: `[lag, P, C]`, the last patches.
        features: `[C, D]`, of the last token.
        center: `[C]`, mean of the history less the origin, and
        scale: `[C]`, its std.
        moments: `[C, 3]`, statistics of everything before `pending`, see `normalization.packed`.
        origin: `[C]`, the first value, taken off every value before float32 statistics.
        padding: int32, steps of padding after the S tokens; not above 0 where those hold a value.
    """

    prefill: list[KeyValues]
    pending: jax.Array
    features: jax.Array
    center: jax.Array
    scale: jax.Array
    moments: jax.Array
    origin: jax.Array
    padding: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TimesFMProcess(RunningProcess):
    """TimesFM 2.5 with caches; build it with `timesfm_process`. See `decoding.base.Process`.

    The mean of a prediction is the model's median, which the original feeds back, and `reported`
    holds its ten outputs of every step: the mean, then the deciles. They are conditioned on the
    patches of this path that were emitted before.

    Attributes:
        params: of the model, traced.
        config: its sizes.
        context_len: last steps of the context it sees, or None for those that leave room in the
            model's limit, see `TimesFMConfig.longest_context`.
        lag: patches that are fed at the start of a pass: 1 for a target, the patch it has just
            emitted; 2 for a draft, whose last proposal may not have been fed to it.
    """

    params: Params
    config: TimesFMConfig = dataclasses.field(metadata={"static": True})
    context_len: int | None = dataclasses.field(default=None, metadata={"static": True})
    lag: int = dataclasses.field(default=1, metadata={"static": True})

    @property
    def reports(self) -> tuple[float | str, ...]:
        """Names of the ten outputs of a step: the mean, and the levels of the deciles."""
        return ("mean", *LEVELS)

    @property
    def normalises(self) -> bool:
        """Whether the process normalises, see `Traits`."""
        return True

    def prepare(self, context: jax.Array, length: jax.Array | None = None) -> Memory:
        """Runs the model over the context `[L, C]`; see `Process`.

        Raises:
            InputError: no step, or more than the model takes.
        """
        values, padding = self.tokens(context, length)  # [N, T, C]
        count, size, _ = values.shape
        real = jnp.arange(count * size).reshape(count, size) >= padding  # [N, T]
        values = jnp.where(real[..., None], values, 0)
        flat = values.reshape(count * size, -1)  # [N, T, C] -> [N * T, C]
        first = jnp.clip(padding, 0, count * size - 1)
        origin = jax.lax.dynamic_index_in_dim(flat, first, keepdims=False)  # [C]
        shifted = values - origin[None, None]
        running = token_moments(shifted, real)

        # All tokens in one pass; the caches keep those before the pending patches.
        place = Place(jnp.zeros((), jnp.int32), padding // size)
        x, written = self.features(shifted, real, running, place, None)
        before = count - self.lag * self.config.tokens_per_patch
        moments = packed(nothing(origin))
        if before:
            moments = packed(jax.tree.map(lambda z: z[before - 1], running))
        return Memory(
            prefill=[KeyValues(*(z[:, :before] for z in part)) for part in written],
            # [N, T, C] -> [N * T, C] -> [lag, P, C]
            pending=flat[before * size :].reshape(self.lag, self.patch_len, -1),
            features=x[:, -1],
            center=running.mean[-1],
            scale=std(running)[-1],
            moments=moments,
            origin=origin,
            padding=padding - before * size,
        )

    def tokens(self, context: jax.Array, length: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """The context in tokens `[N, T, C]`, filled up in front, and its steps of padding."""
        config = self.config
        longest = config.longest_context if self.context_len is None else self.context_len
        least = self.lag * config.tokens_per_patch
        tokens, padding = split_context(
            context, length, longest=longest, size=config.token_len, least=least, title="TimesFM"
        )
        self._check_limit(len(tokens) * config.token_len, self.patch_len)
        return tokens, padding

    def _check_limit(self, steps: int, more: int) -> None:
        limit = self.config.context_limit
        if steps + more > limit:
            raise InputError(
                f"a context of {steps} steps and {more} more to decode are more than the {limit} "
                "that TimesFM takes; take a shorter history or a "
                "shorter horizon."
            )

    def start(self, memory: Memory, room: int) -> State:
        """An empty cache for `room` patches.

        Raises:
            InputError: context and patches together are more than the model takes. A speculative
                decode needs room for its last proposals too.
        """
        config = self.config
        context = memory.prefill[0].keys.shape[1] + self.lag * config.tokens_per_patch
        self._check_limit(context * config.token_len, room * self.patch_len)
        return super().start(memory, room)

    def _empty(self, num_vars: int, patches: int) -> list[KeyValues]:
        config = self.config
        return empty_cache(config, config.num_layers, num_vars, patches * config.tokens_per_patch)

    def _moments_after(self, state: State, patches: jax.Array, count: jax.Array) -> jax.Array:
        values, real = self._split(patches, state, state.length)
        counted = jnp.arange(len(values)) < count * self.config.tokens_per_patch
        return packed(last(extended(unpacked(state.moments), values, real, counted[None])))

    def long_outputs(self, memory: Memory) -> jax.Array:
        """The direct forecast of the long head after the context, `[long_len, C, Q]`."""
        out = self.apply(memory.features, method=TimesFM.long_patches)  # [C, long_len, Q]
        return self.in_units(out, memory.center, memory.scale, memory.origin)

    def next_outputs(self, memory: Memory) -> jax.Array:
        """The forecast of the patch after the context, `[P, C, Q]`; no pass of the model."""
        out = self.apply(memory.features, method=TimesFM.patches)  # [C, P, Q]
        return self.in_units(out, memory.center, memory.scale, memory.origin)

    def in_units(
        self, out: jax.Array, center: jax.Array, scale: jax.Array, origin: jax.Array
    ) -> jax.Array:
        """`[C, steps, Q]` normalised by `[C]` each -> `[steps, C, Q]` in the series' units."""
        moved = out * scale[:, None, None] + (center + origin)[:, None, None]
        return moved.transpose(1, 0, 2)

    def apply(self, *args: Any, method: Any) -> Any:
        """A method of the model with the parameters of this process."""
        return TimesFM(self.config).apply({"params": self.params}, *args, method=method)

    def _split(
        self, patches: jax.Array, state: State, start: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Tokens `[k * m, T, C]` less the origin, of patches `[k, P, C]`, and which steps count."""
        count, size = len(patches) * self.config.tokens_per_patch, self.config.token_len
        steps = start * self.patch_len + jnp.arange(count * size).reshape(count, size)
        # [k, P, C] -> [k * m, T, C]
        return patches.reshape(count, size, -1) - state.origin[None, None], steps >= state.padding

    def features(
        self,
        values: jax.Array,
        real: jax.Array,
        running: Moments,
        place: Place,
        past: list[Past] | None,
    ) -> tuple[jax.Array, list[KeyValues]]:
        """One pass over tokens `[n, T, C]` with statistics `[n, C]`; see `TimesFM.features`."""
        scale = std(running)
        scale = jnp.where(scale < SMALLEST, 1.0, scale)
        normal = (values - running.mean[:, None]) / scale[:, None]
        normal = jnp.where(real[..., None], tamed(normal), 0).transpose(2, 0, 1)  # [C, n, T]
        out: tuple[jax.Array, list[KeyValues]] = self.apply(
            normal, ~real, place, past, method=TimesFM.features
        )
        return out

    def _extend(
        self, memory: Memory, state: State, patches: jax.Array, start: jax.Array
    ) -> tuple[PatchDistribution, State]:
        """Feeds `[k, P, C]` from patch `start` of the cache on: predictions after each.

        `state.ahead` are the statistics of everything before them.
        """
        config, tokens = self.config, self.config.tokens_per_patch
        values, real = self._split(patches, state, start)
        so_far = np.tril(np.ones((len(values), len(values)), bool))
        running = extended(unpacked(state.ahead), values, real, so_far)
        before, entry = memory.prefill[0].keys.shape[1], start * tokens
        padded = (state.padding + before * config.token_len) // config.token_len
        past = pasts(memory.prefill, state.cache, entry)
        x, cache = self.features(values, real, running, Place(before + entry, padded), past)
        # The heads read the last token of every patch.
        out = self.apply(x[:, tokens - 1 :: tokens], method=TimesFM.patches)  # [C, k, P, Q]
        center, scale = running.mean[tokens - 1 :: tokens], std(running)[tokens - 1 :: tokens]
        outputs = jax.vmap(self.in_units, in_axes=(1, 0, 0, None))(
            out, center, scale, state.origin
        )  # [k, P, C, Q]
        state = state._replace(
            cache=cache, ahead=packed(last(running)), fed=start + patches.shape[0]
        )
        return PatchDistribution(outputs[..., MEDIAN], reported=outputs), state


def timesfm_process(
    config: TimesFMConfig, params: Params, context_len: int | None = None
) -> TimesFMProcess:
    """The process of a TimesFM 2.5.

    Args:
        config: sizes.
        params: from `params.read`.
        context_len: last steps of a context that it sees, of any number; None for at most
            `config.longest_context`. With the horizon they are at most `config.context_limit`.

    Raises:
        InputError: a context_len that is no whole number, below 1, or beyond the model's limit.
    """
    if context_len is not None:
        context_len = whole_number("context_len", context_len, least=1)
        if context_len + config.patch_len > config.context_limit:
            raise InputError(
                f"context_len {context_len} leaves no room for a patch of {config.patch_len} steps "
                f"in the {config.context_limit} that TimesFM takes; give at most "
                f"{config.context_limit - config.patch_len}."
            )
    return TimesFMProcess(params, config, context_len)
