"""Histories as users have them: of any length, with gaps, at any level. Host code, float64."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from stride_jax.errors import InputError, counted

Missing = Literal["interpolate", "error"]
LARGEST = 1e150
"""Largest absolute value of a history."""


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
    if listed and _is_series(history[0]):
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


def _is_series(entry: Any) -> bool:
    """Whether an entry of a list is a series of its own, of any library, and no number."""
    axes = getattr(entry, "ndim", None)
    return hasattr(entry, "__len__") if axes is None else axes > 0


def _numbers(values: Any, name: str) -> np.ndarray:
    """Numbers of any real type, float64; NaN where they are masked.

    Raises:
        InputError: they are no array, or no real numbers.
    """
    try:
        if isinstance(values, np.ma.MaskedArray):
            values = np.ma.filled(values.astype(np.float64), np.nan)
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is not an array of numbers: {error}") from error
    if array.dtype.kind not in "iu" and not jnp.issubdtype(array.dtype, jnp.floating):
        raise InputError(f"{name} must be real numbers, got {array.dtype}.")
    return array.astype(np.float64)


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
