"""Histories as a decoder takes them: their last steps, standardised. Host code, float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

STILL = 1e-6
"""Scale of a constant history over its absolute value, so that a model adds next to nothing."""


class Contexts(NamedTuple):
    """Histories as a decoder takes them: their last steps, standardised, one row per series.

    Attributes:
        values: `[B, L, C]` float32, each history's last steps at its end; 0 before.
        lengths: `[B]` int32, steps of history in each.
        similar: `[B]` int32, steps at the end that are like those that are decoded from.
        mean: `[B, 1, C]` float64, and
        scale: `[B, 1, C]` float64: a history is `values * scale + mean`.
        spread: `[B, 1, C]`, the std of its observed values over the scale; 0 where they are one
            value or constant.
        size: `[B, 1, C]`, its largest absolute value over the scale; that of 1 where all are 0.
        observed: `[B, L, C]` bool; False for values that were interpolated and for padding.
        filled: `[B, C]`, the share of interpolated values in the steps that are decoded from.
    """

    values: np.ndarray
    lengths: np.ndarray
    similar: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    spread: np.ndarray
    size: np.ndarray
    observed: np.ndarray
    filled: np.ndarray


def make_contexts(
    series: Sequence[np.ndarray],
    context_len: int,
    patch_len: int,
    *,
    observed: Sequence[np.ndarray] | None = None,
    more: int = 0,
    standardise: bool = True,
    whole_patches: bool = True,
) -> Contexts:
    """The last steps of each history, in whole patches.

    A history of less than a patch is filled up in front with its first value. Standardising by
    their mean and std in float64 keeps what float32 would round away of a small spread around a
    large level; a model that normalises its input does not see the difference otherwise.

    Args:
        series: `[T, C]` each, finite.
        context_len: L, steps at most; of no whole number of patches only a history of L steps and
            more is taken whole.
        patch_len: P.
        observed: `[T, C]` bool each, see `Histories`; None for all.
        more: steps before these L that are taken too, where there are any; L stands for both
            above.
        standardise: else the values are as they came, mean 0 and scale 1.
        whole_patches: else any number of steps is taken, and nothing is filled up.
    """
    num_vars = series[0].shape[1]
    shape = (len(series), context_len + more, num_vars)
    values, real = np.zeros(shape, np.float32), np.zeros(shape, bool)
    mean, scale, spread, size = np.zeros((4, len(series), 1, num_vars))
    filled, (lengths, similar) = (
        np.zeros((len(series), num_vars)),
        np.zeros((2, len(series)), np.int32),
    )
    for i, one in enumerate(series):
        known = np.ones(one.shape, bool) if observed is None else observed[i]
        front = max(0, patch_len - len(one)) if whole_patches else 0
        if front:
            one = np.concatenate([np.broadcast_to(one[:1], (front, num_vars)), one])
            known = np.concatenate([np.zeros((front, num_vars), bool), known])
        whole = len(one) // patch_len * patch_len if whole_patches else len(one)
        if len(one) >= context_len:  # which may be no whole number of patches
            whole = max(whole, context_len)
        start = len(one) - min(context_len, whole)
        context = one[start:]
        filled[i] = 1 - known[max(start, front) :].mean(axis=0)
        wide, large = context.std(axis=0), np.abs(context).max(axis=0)
        still = wide <= 1e-14 * large  # a constant series' std is rounding
        large = np.where(large == 0, 1.0, large)
        scale[i] = 1.0
        if standardise:
            mean[i] = np.where(still, context[-1], context.mean(axis=0))
            scale[i] = np.where(still, STILL * large, wide)
        std = _std(context, known[start:])
        spread[i] = np.where(still | (std <= 1e-14 * large), 0.0, std / scale[i])
        size[i] = large / scale[i]
        lengths[i] = min(context_len + more, whole)
        first = len(one) - int(lengths[i])
        similar[i] = len(context) + alike(one[first:start], context, patch_len)
        values[i, shape[1] - lengths[i] :] = (one[first:] - mean[i]) / scale[i]
        real[i, shape[1] - lengths[i] :] = known[first:]
    return Contexts(values, lengths, similar, mean, scale, spread, size, real, filled)


def _std(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Std of the observed values of each variable, `[T, C]` -> `[C]`; 0 where there are none."""
    count = np.maximum(known.sum(axis=0), 1)
    off = np.where(known, values - np.where(known, values, 0).sum(axis=0) / count, 0)
    std: np.ndarray = np.sqrt(np.square(off).sum(axis=0) / count)
    return std


def alike(older: np.ndarray, context: np.ndarray, patch_len: int) -> int:
    """Steps at the end of `older [T, C]` that are like the context after it, in whole patches.

    A patch is like the context where its values and its mean lie in the range of those of the
    context or beyond it by no more than that range (so that a trend may have begun before; a mean
    of N patches by an N-th of the range of the values more). A level that has changed since says
    nothing of how well the context is forecast.
    """
    count = len(older) // patch_len
    # [N * P, C] -> [N, P, C]
    last = older[len(older) - count * patch_len :]
    before = last.reshape(count, patch_len, older.shape[1])
    size = min(patch_len, len(context))
    after = context[len(context) % size :].reshape(-1, size, context.shape[1])
    near = _near(before, context).all(axis=1)
    near &= _near(before.mean(axis=1), after.mean(axis=1), np.ptp(context, axis=0) / len(after))
    strange = np.flatnonzero(~near.all(axis=1))
    return (count - (int(strange[-1]) + 1 if len(strange) else 0)) * patch_len


def _near(values: np.ndarray, others: np.ndarray, more: np.ndarray | float = 0.0) -> np.ndarray:
    """Whether values `[..., C]` lie in the range of others `[M, C]`, widened by itself and more."""
    low, high = others.min(axis=0), others.max(axis=0)
    wide = high - low + more
    near: np.ndarray = (values >= low - wide) & (values <= high + wide)
    return near
