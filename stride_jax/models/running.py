"""Base, state and statistics of processes that normalise by running statistics, from caches.

A history is filled up in front to whole patches (or tokens), and its steps of padding are masked.
Statistics are counted from the first value of the history, so that an offset costs no precision.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from stride_jax.decoding.normalization import Moments, merge
from stride_jax.decoding.processes.lagged import LaggedProcess
from stride_jax.errors import InputError
from stride_jax.models.causal import KeyValues

LARGEST = 1e12
"""Stds; values further from the mean are cut off before a model sees them."""


class State(NamedTuple):
    """One path.

    Attributes:
        cache: of each layer.
        moments: `[C, 3]`, statistics of everything before `pending`.
        ahead: `[C, 3]`, of everything fed.
        length: int32, patches before `pending` that are in the cache.
        pending: `[lag, P, C]`, the last kept patches, which are fed (again) next.
        fed: int32, patches in the cache, rejected and proposed ones included.
        origin: `[C]` of the memory, and
        padding: int32, of the memory, for `commit`.
    """

    cache: list[KeyValues]
    moments: jax.Array
    ahead: jax.Array
    length: jax.Array
    pending: jax.Array
    fed: jax.Array
    origin: jax.Array
    padding: jax.Array


class RunningProcess(LaggedProcess):
    """A base of frozen dataclasses; a memory has `moments`, `pending`, `origin` and `padding`.

    Attributes:
        config: sizes of the model.
    """

    config: Any

    @property
    def patch_len(self) -> int:
        """P."""
        return int(self.config.patch_len)

    @property
    def supports_padding(self) -> bool:
        """Whether padding is masked, see `Traits`: it is, step by step."""
        return True

    @property
    def masks_steps(self) -> bool:
        """Whether a history has any number of steps, see `Traits`: it is filled up in front."""
        return True

    @property
    def starts_empty(self) -> bool:
        """Whether no history is needed, see `Traits`."""
        return True

    @abstractmethod
    def _empty(self, num_vars: int, patches: int) -> list[KeyValues]:
        """Caches of no token, with room for some patches of each variable."""

    @abstractmethod
    def _moments_after(self, state: State, patches: jax.Array, count: jax.Array) -> jax.Array:
        """`state.moments` and the first `count` of patches `[k, P, C]` that follow, `[C, 3]`."""

    def start(self, memory: Any, room: int) -> State:
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

    def commit(self, state: State, patches: jax.Array, count: jax.Array) -> State:
        """Moves the length by `count`; see `Process`."""
        grown = jnp.concatenate([state.pending, patches])
        count = jnp.asarray(count, jnp.int32)
        return state._replace(
            moments=self._moments_after(state, grown, count),
            length=state.length + count,
            pending=jax.lax.dynamic_slice_in_dim(grown, count, self.lag),
        )


# --- contexts ------------------------------------------------------------------------------------


def split_context(
    context: jax.Array, length: jax.Array | None, *, longest: int, size: int, least: int, title: str
) -> tuple[jax.Array, jax.Array]:
    """The last steps of a context in patches (or tokens), filled up in front.

    Args:
        context: `[L, C]`.
        length: int32, steps of history at its end; None for all.
        longest: steps that the model sees.
        size: P.
        least: patches, also of a shorter context.
        title: of the model.

    Returns:
        `[N, P, C]` float32, and the steps of padding before the history, int32.

    Raises:
        InputError: no step.
    """
    if longest < context.shape[0]:
        length = None if length is None else jnp.minimum(length, longest)
        context = context[context.shape[0] - longest :]
    steps, num_vars = context.shape
    if steps == 0:
        raise InputError(f"the context has no step; {title} needs one at least.")
    count = max(-(-steps // size), least)
    front = count * size - steps
    context = jnp.concatenate([jnp.zeros((front, num_vars), context.dtype), context])
    padding = jnp.asarray(front if length is None else front + steps - length, jnp.int32)
    # [N * P, C] -> [N, P, C]
    return context.astype(jnp.float32).reshape(count, size, num_vars), padding


def first_value(patches: jax.Array, seen: jax.Array) -> jax.Array:
    """The first value of each variable of `[N, P, C]` that is `seen`, `[C]`; 0 for none."""
    # [N, P, C] -> [N * P, C]
    values, seen = (x.reshape(-1, x.shape[-1]) for x in (patches, seen))
    place = jnp.argmax(seen, axis=0)[None]  # [1, C]
    return jnp.where(seen.any(axis=0), jnp.take_along_axis(values, place, axis=0)[0], 0)


def tamed(normal: jax.Array) -> jax.Array:
    """Normalised values without any that are not finite, or wild.

    A wild proposal must not reach those before it: a weight of 0 times inf is NaN.
    """
    return jnp.clip(jnp.nan_to_num(normal), -LARGEST, LARGEST)


# --- statistics of each variable, whose missing values differ -------------------------------------


def patch_statistics(patches: jax.Array, seen: jax.Array) -> jax.Array:
    """Statistics of each patch alone.

    Args:
        patches: `[N, P, C]`.
        seen: the same shape, bool: values that count; the others may be NaN.

    Returns:
        `[N, C, 3]`: number of values, their mean (0 of none), and sum of squared deviations.
    """
    total = jnp.sum(seen, axis=1, dtype=jnp.float32)  # [N, C]
    mean = jnp.sum(jnp.where(seen, patches, 0), axis=1) / jnp.maximum(total, 1)
    m2 = jnp.sum(jnp.where(seen, jnp.square(patches - mean[:, None]), 0), axis=1)
    return jnp.stack([total, mean, m2], axis=-1)


def accumulated(statistics: jax.Array) -> jax.Array:
    """Statistics `[N, C, 3]` of patches -> those of everything up to and including each."""
    # Every variable is a stretch of its own: [N, C] stretches of one variable.
    alone = Moments(statistics[..., 0], statistics[..., 1:2], statistics[..., 2:3])
    so_far = jax.lax.associative_scan(merge, alone)
    return jnp.concatenate([so_far.total[..., None], so_far.mean, so_far.m2], axis=-1)
