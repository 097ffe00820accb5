"""Timer as a process: patches normalised by the context's statistics, decoded from caches.

The original normalises by the mean and the unbiased std of the whole context, and so does this
process, once: all patches that follow have the same normalisation. The original's own decode
differs where it normalises each new patch by that patch alone (`generate` with `revin=True`, its
default, when it continues from a cache); with `revin=False` on values normalised before, it is this
process. The two agree for the first patch of 96 steps. Several variables are independent series.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from stride_jax.config import whole_number
from stride_jax.decoding.processes.cached import CachedProcess, Memory
from stride_jax.errors import InputError
from stride_jax.models.causal import KeyValues, Past, Place, empty_cache, pasts
from stride_jax.models.timer.config import TimerConfig
from stride_jax.models.timer.module import Params, Timer
from stride_jax.types import PatchDistribution

Cache = list[KeyValues]
"""Keys and values of each layer, `[C, S, H, E]`."""


class Prefill(NamedTuple):
    """The prefilled context.

    Attributes:
        cache: keys and values of its patches.
        skip: int32, patches of padding at the start of the sequence.
    """

    cache: Cache
    skip: jax.Array


@dataclass(frozen=True)
class CachedTimer:
    """A `processes.cached.CachedModel` of Timer.

    Attributes:
        config: sizes.
    """

    config: TimerConfig

    def prefill(self, params: Params, patches: jax.Array, skip: jax.Array | None) -> Prefill:
        """Keys and values of the context's patches `[N, P, C]`."""
        count, _, num_vars = patches.shape
        zero = jnp.zeros((), jnp.int32)
        skip = zero if skip is None else skip
        if count == 0:
            return Prefill(self._empty(num_vars, 0), skip)
        _, _, cache = self._run(params, patches, Place(zero, skip), None)
        return Prefill(cache, skip)

    def empty_cache(self, params: Params, prefill: Prefill, count: int) -> Cache:
        """Zeros for `count` patches."""
        return self._empty(prefill.cache[0].keys.shape[0], count)

    def _empty(self, num_vars: int, count: int) -> Cache:
        return empty_cache(self.config, self.config.num_layers, num_vars, count)

    def extend(
        self, params: Params, prefill: Prefill, cache: Cache, patches: jax.Array, start: jax.Array
    ) -> tuple[PatchDistribution, Cache]:
        """One causal pass over `[k, P, C]`; the prediction's features are `[k, C, D]`."""
        before = prefill.cache[0].keys.shape[1]
        past = pasts(prefill.cache, cache, start)
        place = Place(before + start, prefill.skip)
        mean, features, written = self._run(params, patches, place, past)
        # [C, k, P] -> [k, P, C], and [C, k, D] -> [k, C, D]
        prediction = PatchDistribution(mean.transpose(1, 2, 0), None, features.transpose(1, 0, 2))
        return prediction, written

    def _run(
        self, params: Params, patches: jax.Array, place: Place, past: list[Past] | None
    ) -> tuple[jax.Array, jax.Array, Cache]:
        """The model over `[k, P, C]`, each variable a series of its own."""
        series = patches.transpose(2, 0, 1)  # [C, k, P]
        out: tuple[jax.Array, jax.Array, Cache]
        out = Timer(self.config).apply({"params": params}, series, place, past)
        return out


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TimerProcess(CachedProcess):
    """A cached process that sees no more steps than the model was trained on.

    Without a `context_len` it takes any context, and the last whole patches within the limit count.
    """

    model: CachedTimer = dataclasses.field(metadata={"static": True})

    def prepare(self, context: jax.Array, length: jax.Array | None = None) -> Memory:
        """Runs the model over the last steps of a context `[L, C]`; see `CachedProcess.prepare`."""
        limit = self.model.config.context_limit // self.patch_len * self.patch_len
        if self.context_len is None and limit < context.shape[0]:
            context = context[context.shape[0] - limit :]
            length = None if length is None else jnp.minimum(length, limit)
        return super().prepare(context, length)


def timer_process(
    config: TimerConfig, params: Params, context_len: int | None = None
) -> TimerProcess:
    """The process of a Timer.

    Args:
        config: sizes.
        params: from `params.read`.
        context_len: last steps of a context that it sees, whole patches, at most
            `config.context_limit`; None for all within that limit.

    Raises:
        InputError: a context_len that is no whole number of patches, or beyond the limit.
    """
    if context_len is not None:
        context_len = whole_number("context_len", context_len, least=config.patch_len)
        if context_len % config.patch_len:
            raise InputError(
                f"context_len {context_len} must be whole patches of {config.patch_len} steps."
            )
        if context_len > config.context_limit:
            raise InputError(
                f"context_len {context_len} is more than the {config.context_limit} steps that "
                "Timer was trained on; give fewer."
            )
    return TimerProcess(
        params, CachedTimer(config), config.patch_len, "frozen", context_len, unbiased=True
    )
