"""Histories as users have them: of any length, with gaps, at any level. Host code, float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from stride_jax.errors import InputError

Missing = Literal["interpolate", "error"]
LARGEST = 1e150
"""Of the absolute values of a history."""


class Histories(NamedTuple):
    """A batch of histories as they came.

    Attributes:
        series: arrays `[T, C]` float64, finite; T may differ. B of them, or where variables are
            apart B C of one variable each, those of a series next to each other.
        num_vars: C as they came.
        batched: they came as a batch, so forecasts have a leading axis.
        flat: they came without an axis for variables, so forecasts have none.
    """

    series: list[np.ndarray]
    num_vars: int
    batched: bool
    flat: bool


class Contexts(NamedTuple):
    """The same as a decoder takes them.

    Attributes:
        values: `[B, L, C]` float32, each history's last steps at its end; 0 before.
        lengths: `[B]` int32, steps of history in each, whole patches.
        mean: `[B, 1, C]` float64, and
        scale: `[B, 1, C]` float64: a history is `values * scale + mean`.
        spread: `[B, 1, C]`, its std in units of the scale; 0 where it is constant.
    """

    values: np.ndarray
    lengths: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    spread: np.ndarray


def read_histories(
    history: Any, missing: Missing = "interpolate", *, apart: bool = False
) -> Histories:
    """Takes what a user has: `[T]`, `[T, C]`, `[B, T, C]`, or a list of the first two.

    Args:
        history: numbers; a list of arrays may hold series of different lengths.
        missing: NaN inside a series is interpolated along time (the nearest value at its end, and
            values before the first one are cut off), or an error.
        apart: make each variable a series of its own.

    Raises:
        InputError: no numbers, an empty series, infinities, NaN where that is an error, or nothing
            but NaN; with the series and variable it is in.
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
    filled = []
    for i, one in enumerate(series):
        _check_series(one, i, missing)
        parts = [one[:, [c]] for c in range(num_vars)] if apart else [one]
        filled += [_filled(part) for part in parts]
    return Histories(filled, num_vars, batched, flat)


def _numbers(values: Any, name: str) -> np.ndarray:
    try:
        if isinstance(values, np.ma.MaskedArray):
            values = np.ma.filled(values.astype(np.float64), np.nan)
        found = np.asarray(values)
        if found.dtype.kind not in "iuf":
            raise InputError(f"{name} must be real numbers, got {found.dtype}.")
        return found.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is not an array of numbers: {error}") from error


def _check_series(series: np.ndarray, number: int, missing: Missing) -> None:
    if 0 in series.shape:
        raise InputError(f"series {number} is empty, shape {series.shape}.")
    if np.isinf(series).any():
        row, column = np.argwhere(np.isinf(series))[0]
        raise InputError(
            f"series {number} is infinite at step {row}, variable {column}; replace it by NaN or "
            "a number."
        )
    if (np.abs(series) > LARGEST).any():
        row, column = np.argwhere(np.abs(series) > LARGEST)[0]
        raise InputError(
            f"series {number} is {series[row, column]:g} at step {row}, variable {column}; numbers "
            f"beyond {LARGEST:g} cannot be squared, take other units."
        )
    gaps = np.isnan(series)
    if gaps.any() and missing == "error":
        row, column = np.argwhere(gaps)[0]
        raise InputError(
            f"series {number} has {int(gaps.sum())} missing values, the first at step {row}, "
            f"variable {column}; fill them, or use missing='interpolate'."
        )
    if gaps.all(axis=0).any():
        column = int(np.argmax(gaps.all(axis=0)))
        raise InputError(f"series {number}, variable {column} has no value at all.")


def _filled(series: np.ndarray) -> np.ndarray:
    """The series without gaps, from the first step at which every variable is known."""
    gaps = np.isnan(series)
    if not gaps.any():
        return series
    steps = np.arange(len(series))
    columns = [
        np.interp(steps, steps[~gap], column[~gap])
        for column, gap in zip(series.T, gaps.T, strict=True)
    ]
    first = int(np.argmin(gaps, axis=0).max())  # of each variable its first value
    filled: np.ndarray = np.stack(columns, axis=1)[first:]
    return filled


def make_contexts(
    series: Sequence[np.ndarray],
    context_len: int,
    patch_len: int,
    *,
    more: int = 0,
    standardise: bool = True,
) -> Contexts:
    """The last steps of each history, in whole patches.

    A history of less than a patch is filled up in front with its first value. Standardising by
    their mean and std in float64 keeps what float32 would round away of a small spread around a
    large level; a model that normalises its input does not see the difference otherwise.

    Args:
        series: `[T, C]` each, finite.
        context_len: L, steps at most; a multiple of the patch length.
        patch_len: P.
        more: steps before these L that are taken too, where there are any; L stands for both above.
        standardise: else the values are as they came, mean 0 and scale 1.
    """
    num_vars = series[0].shape[1]
    values = np.zeros((len(series), context_len + more, num_vars), np.float32)
    mean, scale, wide = np.zeros((3, len(series), 1, num_vars))
    lengths = np.zeros(len(series), np.int32)
    for i, one in enumerate(series):
        if len(one) < patch_len:
            front = np.broadcast_to(one[:1], (patch_len - len(one), num_vars))
            one = np.concatenate([front, one])
        length = min(context_len + more, len(one) // patch_len * patch_len)
        last, context = one[len(one) - length :], one[len(one) - min(context_len, length) :]
        spread = context.std(axis=0)
        still = spread <= 1e-14 * np.abs(context).max(axis=0)  # a constant series' std is rounding
        if standardise:
            mean[i], scale[i] = context.mean(axis=0), np.where(still, 1.0, spread)
        else:
            scale[i] = 1.0
        wide[i] = np.where(still, 0.0, spread / scale[i])
        values[i, values.shape[1] - length :] = (last - mean[i]) / scale[i]
        lengths[i] = length
    return Contexts(values, lengths, mean, scale, wide)
