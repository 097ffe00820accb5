"""The cached process: the sequence grows, and what the model knows of it is kept.

K proposals are verified in one causal pass over K + 1 patches. A patch is normalised by statistics
that never look ahead, so it keeps its place in the caches: those of the context alone (frozen), or
running ones up to and including itself (causal). Rolling back is moving the length back.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.decoding.normalization import (
    Moments,
    extended_moments,
    last,
    packed,
    running_moments,
    std,
    unpacked,
    window_stats,
)
from stride_jax.decoding.processes.lagged import LaggedProcess
from stride_jax.decoding.traits import check_predictions
from stride_jax.errors import InputError
from stride_jax.types import PatchDistribution

Norm = Literal["frozen", "causal"] | None
LARGEST = 1e12
"""Stds; values further from the mean are cut off before the model sees them."""


class CachedModel(Protocol):
    """The functions of a causal forecaster with caches; hashable, pure, all patches normalised."""

    def prefill(self, params: Any, patches: jax.Array, skip: jax.Array | None) -> Any:
        """Runs the model over the context's patches `[N, P, C]`; the prefill is never changed.

        Args:
            params: the model's parameters.
            patches: N may be 0.
            skip: int32, so many patches of the sequence are padding: the first of these, and of
                those that `extend` brings where it is more than N. No later patch may see them.
                None for no padding.
        """

    def empty_cache(self, params: Any, prefill: Any, count: int) -> Any:
        """Empty room for what `count` patches after them will leave behind."""

    def extend(
        self, params: Any, prefill: Any, cache: Any, patches: jax.Array, start: jax.Array
    ) -> tuple[PatchDistribution, Any]:
        """Predictions after each of k more patches, `[k, P, C]`, and the cache with them written.

        Args:
            params: the model's parameters.
            prefill: from `prefill`.
            cache: entries of earlier patches; those from `start` on are void.
            patches: `[k, P, C]`.
            start: int32, the entry of the first of them: patches since the prefill.
        """


class Memory(NamedTuple):
    """The prefilled context; shared by all its sample paths.

    Attributes:
        prefill: the model's, of all but the last `lag` patches.
        pending: `[lag, P, C]`, those.
        origin: `[1, 1, C]`, taken off every value before float32 statistics.
        center: `[1, 1, C]`, and
        scale: `[1, 1, C]` of the frozen normalisation (0 and 1 in the causal one).
        moments: running statistics of the prefill's patches.
        first: int32, the entry of the first patch that is no padding (0 or less where the prefill
            holds one); None for no padding.
    """

    prefill: Any
    pending: jax.Array
    origin: jax.Array
    center: jax.Array
    scale: jax.Array
    moments: Moments
    first: jax.Array | None


class CachedState(NamedTuple):
    """One path.

    Attributes:
        cache: the model's.
        moments: `[C, 3]`, statistics of everything before `pending`, see `normalization.packed`;
            used by the causal normalisation.
        ahead: `[C, 3]`, statistics of everything fed.
        length: int32, entries of kept patches.
        pending: `[lag, P, C]`, the last kept patches, which are fed (again) next.
        fed: int32, cache written, rejected and proposed patches included.
        origin: of the memory, and
        first: of the memory, for `commit`.
    """

    cache: Any
    moments: jax.Array
    ahead: jax.Array
    length: jax.Array
    pending: jax.Array
    fed: jax.Array
    origin: jax.Array
    first: jax.Array | None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CachedProcess(LaggedProcess):
    """A causal forecaster with caches. Build it with `cached_process`; see `processes.Process`.

    Attributes:
        params: the model's parameters, traced.
        model: its functions.
        patch_len: P.
        norm: frozen, causal, or None for values as they are.
        context_len: steps of the context it sees, or None for all.
        lag: kept patches that are fed at the start of a pass. A target has 1, the patch it has
            just emitted. A draft has 2: after K acceptances its last proposal was never fed to
            it, and feeding a patch twice writes the same entry again. So it sees two patches of
            context at least; where a context has one, a patch of padding stands before it.
        unbiased: the frozen std is that of N - 1, see `normalization.window_stats`.
    """

    params: Any
    model: CachedModel = dataclasses.field(metadata={"static": True})
    patch_len: int = dataclasses.field(metadata={"static": True})
    norm: Norm = dataclasses.field(metadata={"static": True})
    context_len: int | None = dataclasses.field(metadata={"static": True})
    lag: int = dataclasses.field(default=1, metadata={"static": True})
    unbiased: bool = dataclasses.field(default=False, metadata={"static": True})

    @property
    def supports_padding(self) -> bool:
        """See `traits.Traits`: padding is masked."""
        return True

    @property
    def normalises(self) -> bool:
        """See `traits.Traits`."""
        return self.norm is not None

    @property
    def reports(self) -> tuple[float | str, ...]:
        """See `traits.Traits`; the model names them in an attribute `reports`, if it has any."""
        return getattr(self.model, "reports", ())

    @property
    def starts_empty(self) -> bool:
        """See `traits.Traits`: frozen statistics need a history."""
        return self.norm != "frozen"

    def prepare(self, context: jax.Array, length: jax.Array | None = None) -> Memory:
        """Runs the model over the context `[L, C]`; see `Process`.

        Raises:
            InputError: a context shorter than this forecaster needs, or not a whole number of
                patches.
        """
        context, length = self._lengthened(context, length)
        patches = self._patches(context)
        count, num_vars = len(patches), context.shape[1]
        skip, first, real = None, None, None
        if length is not None:
            skip = jnp.maximum(0, count - length // self.patch_len).astype(jnp.int32)
            first = skip - (count - self.lag)
            real = jnp.arange(count) >= skip
            patches = jnp.where(real[:, None, None], patches, 0)
        zero = jnp.zeros((1, 1, num_vars), jnp.float32)
        center, scale, origin = zero, zero + 1, zero
        moments = Moments(jnp.zeros((), jnp.float32), zero[0, 0], zero[0, 0])
        prefilled, pending = patches[: -self.lag], patches[-self.lag :]
        if self.norm == "frozen":
            steps = None if real is None else jnp.repeat(real, self.patch_len)
            flat = patches.reshape(-1, num_vars)  # [N * P, C]
            mean, spread = window_stats(flat, steps, unbiased=self.unbiased)
            center, scale = mean[None], spread[None]
        if self.norm == "causal":
            origin = patches[:1, :1]
            if skip is not None:
                origin = jax.lax.dynamic_slice_in_dim(patches, skip, 1)[:, :1]
            running = running_moments(patches - origin, real=real)  # [N, C]
            if len(prefilled):
                moments = jax.tree.map(lambda x: x[len(prefilled) - 1], running)
            stats = running.mean[: len(prefilled), None], std(running)[: len(prefilled), None]
            normal = (prefilled - origin - stats[0]) / stats[1]
        else:
            normal = (prefilled - center) / scale
        if real is not None:
            normal = jnp.where(real[: len(prefilled), None, None], normal, 0)
        prefill = self.model.prefill(self.params, normal, skip)
        return Memory(prefill, pending, origin, center, scale, moments, first)

    def _lengthened(
        self, context: jax.Array, length: jax.Array | None
    ) -> tuple[jax.Array, jax.Array | None]:
        """A context shorter than the lag with padding in front, and its length."""
        steps, need = context.shape[0], self.lag * self.patch_len
        fits = steps >= need or (self.context_len or 0) > need
        if fits or steps == 0 or steps % self.patch_len:
            return context, length
        front = jnp.zeros((need - steps, context.shape[1]), context.dtype)
        length = jnp.asarray(steps, jnp.int32) if length is None else length
        return jnp.concatenate([front, context]), length

    def _patches(self, context: jax.Array) -> jax.Array:
        """The last patches of a context, `[L, C]` -> `[N, P, C]`."""
        need = self.lag * self.patch_len
        length = max(need, context.shape[0] if self.context_len is None else self.context_len)
        if context.shape[0] < length:
            raise InputError(
                f"the context has {context.shape[0]} steps, this forecaster needs {length}; give a "
                "longer history."
            )
        if length % self.patch_len:
            raise InputError(
                f"the context has {length} steps, not a multiple of patch_len {self.patch_len}; "
                "cut off its first ones or set context_len."
            )
        # [L, C] -> [N, P, C]
        return context[context.shape[0] - length :].reshape(-1, self.patch_len, context.shape[1])

    def start(self, memory: Memory, room: int) -> CachedState:
        """An empty cache for `room` patches."""
        zero = jnp.zeros((), jnp.int32)
        cache = self.model.empty_cache(self.params, memory.prefill, room + self.lag)
        return CachedState(
            cache=cache,
            moments=packed(memory.moments),
            ahead=packed(memory.moments),
            length=zero,
            pending=memory.pending,
            fed=zero,
            origin=memory.origin,
            first=memory.first,
        )

    def _extend(
        self, memory: Memory, state: CachedState, patches: jax.Array, start: jax.Array
    ) -> tuple[PatchDistribution, CachedState]:
        """Feeds `[k, P, C]` from entry `start` on: predictions after each, in the series' units.

        `state.ahead` are the statistics of everything before them.
        """
        shifted, ahead, real = patches - memory.origin, state.ahead, None
        center, scale = memory.center, memory.scale
        if memory.first is not None:
            real = start + jnp.arange(len(patches)) >= memory.first
        if self.norm == "causal":
            so_far = np.tril(np.ones((len(patches), len(patches)), bool))
            counted = so_far if real is None else so_far & real[None]
            running = extended_moments(unpacked(ahead), shifted, counted, counted.sum(axis=1))
            center, scale = running.mean[:, None], std(running)[:, None]  # [k, 1, C]
            ahead = packed(last(running))
        if real is not None:  # a draft still has to feed padding
            shifted = jnp.where(real[:, None, None], shifted, center)
        # A wild proposal must not reach those before it: a weight of 0 times inf is NaN.
        normal = jnp.clip(jnp.nan_to_num((shifted - center) / scale), -LARGEST, LARGEST)
        prediction, cache = self.model.extend(
            self.params, memory.prefill, state.cache, normal, start
        )
        check_predictions(
            prediction, patches.shape, "[k, P, C]", f"extend of {patches.shape[0]} patches"
        )
        mean = jnp.asarray(prediction.mean, jnp.float32) * scale + center + memory.origin
        logvar = None if prediction.logvar is None else prediction.logvar + 2 * jnp.log(scale)
        reported = prediction.reported
        if reported is not None:  # quantiles and means move as the mean does
            reported = reported * scale[..., None] + (center + memory.origin)[..., None]
        fed = start + patches.shape[0]
        state = state._replace(cache=cache, ahead=ahead, fed=fed)
        return prediction._replace(mean=mean, logvar=logvar, reported=reported), state

    def commit(self, state: CachedState, patches: jax.Array, count: jax.Array) -> CachedState:
        """Moves the length by `count`; see `Process`."""
        grown = jnp.concatenate([state.pending, patches])
        count = jnp.asarray(count, jnp.int32)
        moments = state.moments
        if self.norm == "causal":
            place = jnp.arange(len(grown))
            first = 0 if state.first is None else jnp.clip(state.first - state.length, 0, count)
            counted = (place >= first) & (place < count)  # they are no longer pending
            shifted, before = grown - state.origin, unpacked(moments)
            moments = packed(
                last(extended_moments(before, shifted, counted[None], count[None] - first))
            )
        pending = jax.lax.dynamic_slice_in_dim(grown, count, self.lag)
        return state._replace(length=state.length + count, pending=pending, moments=moments)

    def for_paths(self, paths: int) -> CachedProcess:
        """See `traits.for_paths`; the form is that of the model."""
        if not hasattr(self.model, "for_paths"):
            return self
        return dataclasses.replace(self, model=self.model.for_paths(paths))


def cached_process(
    model: CachedModel,
    params: Any,
    patch_len: int,
    *,
    norm: Norm,
    context_len: int | None = None,
    unbiased: bool = False,
) -> CachedProcess:
    """A process from a causal forecaster that can continue from caches.

    Args:
        model: its functions, see `CachedModel`; hashable, equal ones share one compilation.
        params: their first argument, a pytree; traced.
        patch_len: P, steps in a patch.
        norm: frozen (statistics of the context; any trained model), causal (running statistics;
            the model must be trained with them), or None (values as they are). Values go to
            the model normalised, its predictions come back in the units of the series.
        context_len: steps of the context the forecaster sees; None for all.
        unbiased: the frozen std is the root of the sum of squares over N - 1, for a model that was
            trained so, in place of the population's with 1e-5 added to its variance.

    Raises:
        InputError: a size below 1, an unknown norm, or a model without the three functions.
    """
    missing = [
        f for f in ("prefill", "empty_cache", "extend") if not callable(getattr(model, f, None))
    ]
    if missing:
        raise InputError(f"a cached model needs the functions {', '.join(missing)}.")
    if norm not in ("frozen", "causal", None):
        raise InputError(f"norm must be 'frozen', 'causal' or None, got {norm!r}.")
    if patch_len < 1 or (context_len is not None and context_len < 1):
        raise InputError(
            f"patch_len and context_len must be at least 1, got {patch_len} and {context_len}."
        )
    pack = getattr(model, "pack", None)
    packed = params if pack is None else pack(params)
    return CachedProcess(packed, model, patch_len, norm, context_len, unbiased=unbiased)
