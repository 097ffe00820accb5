"""Histories as users have them: of any length, with gaps, at any level. Host code, float64."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from stride_jax.errors import InputError, counted

Missing = Literal["interpolate", "error"]
LARGEST = 1e150
"""Largest absolute value of a history."""
STILL = 1e-6
"""Scale of a constant history over its absolute value, so that a model adds next to nothing."""


class Histories(NamedTuple):
    """A batch of histories as the user gave them.

    Attributes:
        series: arrays `[T, C]` float64, finite; T may differ. B of them, or where variables are
            apart B C of one variable each, those of a series next to each other.
        num_vars: C as given.
        batched: given as a batch, so forecasts have a leading axis.
        flat: given without an axis for variables, so forecasts have none.
        observed: arrays `[T, C]` bool, as the series; False where a value was interpolated.
        ahead: steps without values that were cut off the end of each series.
        names: how messages call each series.
    """

    series: list[np.ndarray]
    num_vars: int
    batched: bool
    flat: bool
    observed: list[np.ndarray]
    ahead: list[int]
    names: list[str]


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


def read_histories(
    history: Any,
    missing: Missing = "interpolate",
    *,
    apart: bool = False,
    ids: Sequence[str] | None = None,
) -> Histories:
    """Reads histories: `[T]`, `[T, C]`, `[B, T, C]`, or a list of the first two.

    Args:
        history: numbers; a list of arrays may hold series of different lengths.
        missing: NaN inside a series is interpolated along time, or an error. NaN at either end is
            no history: a series begins with the first and ends with the last step at which all of
            its variables are known (each variable for itself where they are apart).
        apart: make each variable a series of its own.
        ids: text, one for each series and all different, which messages call it by; None for
            its number.

    Raises:
        InputError: no numbers, an empty series, infinities, NaN where that is an error, nothing
            but NaN, or variables that are never known at the same time; with the series and
            variable it is in. ids that are no text, not one for each series, or twice there.
    """
    if missing not in ("interpolate", "error"):
        raise InputError(f"missing must be 'interpolate' or 'error', got {missing!r}.")
    listed = isinstance(history, Sequence) and not isinstance(history, str)
    if listed and len(history) == 0:
        raise InputError("there is no series in the list; give at least one.")
    if listed and (isinstance(history[0], Sequence) or getattr(history[0], "ndim", 0) > 0):
        series = [_numbers(one, f"series {i}") for i, one in enumerate(history)]
        batched = True
    else:
        whole = _numbers(history, "the history")
        batched = whole.ndim == 3
        series = list(whole) if batched else [whole]
        if not series:
            raise InputError(f"the batch has no series, shape {whole.shape}.")
    ranks = {one.ndim for one in series}
    if not ranks <= {1, 2} or len(ranks) > 1:
        raise InputError(
            "a history is [T], [T, C], [B, T, C] or a list of arrays of one of the first two, got "
            f"shapes {[one.shape for one in series[:3]]}."
        )
    flat = ranks == {1}
    series = [one[:, None] if flat else one for one in series]
    if len({one.shape[1] for one in series}) > 1:
        raise InputError(
            f"all series must have the same variables, got {[one.shape[1] for one in series[:5]]}."
        )
    num_vars = series[0].shape[1]
    parts, names = [], []
    for label, one in zip(_labels(ids, len(series)), series, strict=True):
        _check_series(one, label, missing)
        parts += np.split(one, num_vars, axis=1) if apart else [one]
        names += [f"{label}, variable {c}" for c in range(num_vars)] if apart else [label]
        if num_vars == 1:
            names[-1] = label
    ends = [_ends(*one) for one in zip(parts, names, strict=True)]
    return Histories(
        [_interpolated(one)[first:last] for one, (first, last) in zip(parts, ends, strict=True)],
        num_vars,
        batched,
        flat,
        observed=[~np.isnan(p[first:last]) for p, (first, last) in zip(parts, ends, strict=True)],
        ahead=[len(one) - last for one, (_, last) in zip(parts, ends, strict=True)],
        names=names,
    )


def _labels(ids: Sequence[str] | None, count: int) -> list[str]:
    """Name of each series in messages."""
    if ids is None:
        return [f"series {i}" for i in range(count)]
    listed = isinstance(ids, Sequence | np.ndarray) and not isinstance(ids, str | bytes)
    if not (listed and all(isinstance(one, str) for one in ids)):
        raise InputError(f"ids must be a list of text, one for each series, got {ids!r}.")
    if len(ids) != count:
        given = f"{count} series, {counted(len(ids), 'id')}"
        raise InputError(f"ids must be one for each series: {given}.")
    twice = [one for one, times in Counter(ids).items() if times > 1]
    if twice:
        raise InputError(f"ids must differ, got {twice[0]!r} {Counter(ids)[twice[0]]} times.")
    return [f"series {str(one)!r}" for one in ids]


def _numbers(values: Any, name: str) -> np.ndarray:
    try:
        if isinstance(values, np.ma.MaskedArray):
            values = np.ma.filled(values.astype(np.float64), np.nan)
        array = np.asarray(values)
        if array.dtype.kind not in "iuf":
            raise InputError(f"{name} must be real numbers, got {array.dtype}.")
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is not an array of numbers: {error}") from error


def _check_series(series: np.ndarray, name: str, missing: Missing) -> None:
    if 0 in series.shape:
        raise InputError(f"{name} is empty, shape {series.shape}.")
    if np.isinf(series).any():
        row, column = np.argwhere(np.isinf(series))[0]
        raise InputError(
            f"{name} is infinite at step {row}, variable {column}; replace it by NaN or a number."
        )
    if (np.abs(series) > LARGEST).any():
        row, column = np.argwhere(np.abs(series) > LARGEST)[0]
        raise InputError(
            f"{name} is {series[row, column]:g} at step {row}, variable {column}; numbers "
            f"beyond {LARGEST:g} cannot be squared, take other units."
        )
    gaps = np.isnan(series)
    if gaps.any() and missing == "error":
        row, column = np.argwhere(gaps)[0]
        raise InputError(
            f"{name} has {counted(int(gaps.sum()), 'missing value')}, the first at step {row}, "
            f"variable {column}; fill them, or use missing='interpolate'."
        )
    if gaps.all(axis=0).any():
        column = int(np.argmax(gaps.all(axis=0)))
        raise InputError(f"{name}, variable {column} has no value at all.")


def _ends(series: np.ndarray, name: str) -> tuple[int, int]:
    """The first step at which all variables are known, and the one after the last."""
    known = ~np.isnan(series)
    first = int(np.argmax(known, axis=0).max())
    last = len(series) - int(np.argmax(known[::-1], axis=0).max())
    if first >= last:
        raise InputError(
            f"{name} has a variable that ends before another one begins; forecast them apart, "
            "with variables='separate'."
        )
    return first, last


def _interpolated(series: np.ndarray) -> np.ndarray:
    """The series with straight lines over its gaps."""
    gaps = np.isnan(series)
    if not gaps.any():
        return series
    steps = np.arange(len(series))
    columns = [
        np.interp(steps, steps[~gap], column[~gap])
        for column, gap in zip(series.T, gaps.T, strict=True)
    ]
    return np.stack(columns, axis=1)


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
