"""Drafts that need no training: seasonal, last value, nearest neighbour (prefill lookup)."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from stride_jax.decoding.drafts import ContinuationDraft
from stride_jax.errors import InputError
from stride_jax.types import PatchDistribution


def _periodic(window: jax.Array, start: jax.Array | int, steps: int) -> jax.Array:
    """Repeats the stretch from `start` to the end of the window, `[steps, C]`."""
    period = window.shape[0] - start
    return window[start + jnp.arange(steps) % period]


def _spread(error: jax.Array, steps: int) -> jax.Array:
    """Log of each variable's mean square of `[..., C]` errors, `[steps, C]`."""
    square = jnp.mean(jnp.square(error), axis=tuple(range(error.ndim - 1)))
    tiny = jnp.finfo(jnp.float32).tiny
    return jnp.broadcast_to(jnp.log(jnp.maximum(square, tiny))[None], (steps, error.shape[-1]))


@dataclass(frozen=True)
class _Seasonal:
    period: int

    def __call__(self, window: jax.Array, steps: int) -> PatchDistribution:
        if window.shape[0] <= self.period:
            raise InputError(
                f"a seasonal draft of period {self.period} needs a longer context than "
                f"{window.shape[0]} steps."
            )
        mean = _periodic(window, window.shape[0] - self.period, steps)
        return PatchDistribution(
            mean, _spread(window[self.period :] - window[: -self.period], steps)
        )


def seasonal_draft(patch_len: int, period: int) -> ContinuationDraft:
    """Seasonal continuation: what stood `period` steps before; no training.

    Its log variance is that of the seasonal differences within the window. Period 1 continues the
    last value.

    Args:
        patch_len: P.
        period: steps in a season, at least 1.

    Raises:
        InputError: a period below 1.
    """
    if period < 1:
        raise InputError(f"period must be at least 1, got {period}.")
    return ContinuationDraft(jax.tree_util.Partial(_Seasonal(period)), patch_len)


@dataclass(frozen=True)
class _LastValue:
    patch_len: int

    def __call__(self, window: jax.Array, steps: int) -> PatchDistribution:
        if window.shape[0] <= self.patch_len:
            raise InputError(
                f"the last-value draft needs a context of more than one patch of {self.patch_len} "
                f"steps, got {window.shape[0]}."
            )
        mean = jnp.broadcast_to(window[-1:], (steps, window.shape[1]))
        return PatchDistribution(
            mean, _spread(window[self.patch_len :] - window[: -self.patch_len], steps)
        )


def last_value_draft(patch_len: int) -> ContinuationDraft:
    """The last value goes on; its log variance is that of the differences over P steps."""
    return ContinuationDraft(jax.tree_util.Partial(_LastValue(patch_len)), patch_len)


@dataclass(frozen=True)
class _Nearest:
    patch_len: int

    def __call__(self, window: jax.Array, steps: int) -> PatchDistribution:
        size, length = self.patch_len, window.shape[0]
        if length < 2 * size:
            raise InputError(
                f"the nearest-neighbour draft needs a context of two patches, {2 * size} steps, "
                f"got {length}."
            )
        level = window[-size:].mean(axis=0, keepdims=True)  # [1, C]
        ends = jnp.arange(size, length - size + 1)  # a match ends where its continuation starts
        stretches = window[ends[:, None] - size + jnp.arange(size)[None, :]]  # [J, P, C]
        levels = stretches.mean(axis=1, keepdims=True)
        error = (stretches - levels) - (window[-size:] - level)[None]
        best = jnp.argmin(jnp.sum(jnp.square(error), axis=(1, 2)))
        mean = _periodic(window, ends[best], steps) + level - levels[best]
        return PatchDistribution(mean, _spread(error[best], steps))


def nearest_draft(patch_len: int) -> ContinuationDraft:
    """Prompt lookup: the continuation of the stretch of the context most like its last patch.

    Stretches are compared over all variables with their level taken off, and the continuation is
    moved to the level of the last patch. Its log variance is that of the mismatch.
    """
    return ContinuationDraft(jax.tree_util.Partial(_Nearest(patch_len)), patch_len)
