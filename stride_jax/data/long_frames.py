"""Long frames in: one row per series and time, of pandas, polars and whatever narwhals reads."""

from __future__ import annotations

import numbers
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from stride_jax.data.interchange import as_pandas
from stride_jax.data.orders import Reading
from stride_jax.data.panel import Panel, lay_out
from stride_jax.data.stamps import read_stamps
from stride_jax.errors import InputError

Freq = str | int | pd.DateOffset | None


def read_panel(
    df: Any,
    id_col: str,
    time_col: str,
    target_col: str,
    freq: Freq = None,
    *,
    dayfirst: bool | None = None,
    date_format: str | None = None,
) -> Panel:
    """The series of a long frame on one clock, and how it was read.

    Args:
        df: one row per series and time, a frame of pandas or another library that narwhals reads;
            other columns are not looked at. Rows may be in any order.
        id_col: names the series; of any type.
        time_col: timestamps with or without a zone, text, or whole numbers; see
            `data.stamps.read_stamps`.
        target_col: values; also Decimal, nullable, or numbers as objects or categories.
        freq: pandas offset alias, or a whole number for a clock of numbers; None infers it from
            all series together.
        dayfirst: whether the day comes first in `01/02/2026`; None decides by the clock.
        date_format: of `strptime`, for times that are text.

    Raises:
        InputError: no frame, a missing column, an empty frame, a time that is missing or twice
            there, values that are not numbers, times that can be read in two ways, series of
            different frequencies, or a stamp that does not lie on the clock.
    """
    frame = as_pandas(df, (id_col, time_col, target_col))
    if len(frame) == 0:
        raise InputError("the frame has no rows.")
    if frame[[id_col, time_col]].isna().any(axis=None):
        raise InputError(f"columns {id_col!r} and {time_col!r} must not have missing entries.")
    values = _values(frame[target_col])
    codes, names = _ids(frame[id_col])
    how = Reading(dayfirst, date_format, freq)
    stamps = read_stamps(frame[time_col], time_col, codes, how)
    return lay_out(names, codes, stamps, values, freq)._replace(ids=frame[id_col])


def _ids(column: pd.Series) -> tuple[np.ndarray, list[Any]]:
    """The number of each row's id `[T]` in the order of the ids, and the ids.

    Raises:
        InputError: ids that cannot be compared, such as lists.
    """
    try:
        table = pd.DataFrame({"id": column.to_numpy(), "row": np.arange(len(column))})
        groups = table.groupby("id", sort=True)
        return groups.ngroup().to_numpy(), [name for name, _ in groups]
    except TypeError as error:
        raise InputError(
            f"column {column.name!r} has ids that cannot name a series, such as "
            f"{column.iloc[0]!r}; use text, numbers or tuples."
        ) from error


def _values(column: pd.Series) -> np.ndarray:
    """Values `[T]` float64, NaN where they are missing.

    Raises:
        InputError: they are not numbers.
    """
    kind, wrong = pd.api.types, f"column {column.name!r} must be numbers, got {column.dtype}"
    if kind.is_bool_dtype(column) or kind.is_complex_dtype(column):
        raise InputError(f"{wrong}.")
    if kind.is_numeric_dtype(column):
        return column.to_numpy(np.float64, na_value=np.nan)
    loose = pd.CategoricalDtype | pd.ArrowDtype
    if not (kind.is_object_dtype(column) or isinstance(column.dtype, loose)):
        raise InputError(f"{wrong}.")
    column = column.astype(object)
    values = np.full(len(column), np.nan)
    for row in np.flatnonzero(column.notna()):
        value = column.iloc[row]
        truth = isinstance(value, bool | np.bool_)
        if truth or not isinstance(value, numbers.Real | Decimal):
            raise InputError(f"{wrong} with {value!r} in data row {row + 1}.")
        values[row] = float(value)
    return values
