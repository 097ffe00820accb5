"""Reads a time series from a file: CSV, headerless text, PEMS archives and NumPy arrays."""

from __future__ import annotations

import difflib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from stride_jax.data.cells import (
    BROKEN,
    MISSING,
    Marks,
    Table,
    blank_rows,
    decode,
    number,
    numbers,
    read_bytes,
    read_cells,
)
from stride_jax.data.dates import has_time, is_date, is_time_of_day
from stride_jax.data.orders import USUAL, Reading, Stamps
from stride_jax.data.stamps import compact_dates, read_stamps
from stride_jax.errors import InputError
from stride_jax.types import Series

_COUNTER = re.compile(r"no\.?|index|idx|id|unnamed: \d+", re.IGNORECASE)
_CLOCK = re.compile(
    r"(unnamed: 0|.*(date|time|stamp).*|ds|day|week|month|quarter|year|period)", re.IGNORECASE
)
"""Names of columns of whole numbers that are a clock if they only grow."""
_STAMP = re.compile(r"date|ds|time_?stamp|date_?time", re.IGNORECASE)
"""Names of columns that can only be a clock."""


class Wide(NamedTuple):
    """A table with one column per variable, as it stands in a file.

    Attributes:
        values: `[T, C]` float64, NaN for missing cells.
        names: C variable names.
        stamps: of the rows, or None.
        marks: separator and decimal mark.
    """

    values: np.ndarray
    names: tuple[str, ...]
    stamps: Stamps | None = None
    marks: Marks = Marks()


def load_file(
    path: str | Path,
    *,
    columns: Sequence[str] | None = None,
    missing: str = "error",
    dayfirst: bool | None = None,
    date_format: str | None = None,
    decimal: str | None = None,
) -> Series:
    """Reads the series in one file; the suffix says how, after a `.gz` or `.xz` is taken off.

    `.csv` and `.tsv`: UTF-8, latin-1, or UTF-16 with a byte-order mark; separator and decimal mark
    are sniffed; a first row of numbers is no header. The clock is a column of dates (of several,
    the one with the most different stamps), with one of times of day if need be, or whole numbers
    that are plausible dates (20260131, Unix times), or columns year, month[, day[, hour[,
    minute]]], or there is none. Stamps with an offset become UTC. Dates that can be read month
    first or day first are read so that they lie on a regular clock. A column like `No` that only
    counts is left out. `.txt`: the same without a header. `.npz`: the array `data`, `[T, N, F]`
    (the first feature is taken) or `[T, N]`. `.npy`: `[T]` or `[T, C]`. Without a header names are
    `var0`, `var1`, ...

    Args:
        path: The file.
        columns: The variables to keep, in this order; None keeps all but clock and row counter.
        missing: What to do about empty and `?`-like cells: `"error"` refuses them,
            `"interpolate"` draws a straight line over the rows between (every row one step) and
            repeats the nearest value at the ends, `"keep"` leaves them as NaN.
        dayfirst: Whether the day comes first in `01/02/2026`; None decides by the clock.
        date_format: Of `strptime`, for all stamps.
        decimal: The decimal mark, `"."` or `","`.

    Returns:
        The series: values `[T, C]` float64, finite, in the units of the file; times `[T]`
        datetime64[us], never decreasing, or None.

    Raises:
        InputError: The file is no such series, or a column is unknown or not numeric, or cells are
            infinite, or missing where they may not be filled, or time goes backwards, or dates or
            numbers can be read in two ways.
    """
    if missing not in ("error", "interpolate", "keep"):
        known = "'error', 'interpolate' or 'keep'"
        raise InputError(f"{path}: missing={missing!r} is not known; use {known}")
    try:
        wide = read_wide(path, columns=columns, how=Reading(dayfirst, date_format), decimal=decimal)
        dated = wide.stamps is not None and wide.stamps.wall.dtype.kind == "M"
        times = wide.stamps.instant if dated and wide.stamps is not None else None
        series = Series(wide.values, wide.names, times)
        return series._replace(values=_fill(series, missing))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error.__cause__


def read_wide(
    path: str | Path,
    *,
    columns: Sequence[str] | None = None,
    how: Reading = USUAL,
    decimal: str | None = None,
) -> Wide:
    """The variables of a file as they are, gaps included; see `load_file`.

    Raises:
        InputError: see `load_file`; the message does not name the file.
    """
    if isinstance(columns, str):
        raise InputError(f"columns={columns!r} is one string; pass a list: [{columns!r}]")
    kind, raw = read_bytes(Path(path).expanduser())
    if kind in (".npz", ".npy"):
        return from_array(raw, columns, archive=kind == ".npz")
    table = read_cells(decode(raw), plain=kind == ".txt", decimal=decimal)
    return wide_of(table, columns, how)


def wide_of(table: Table, columns: Sequence[str] | None = None, how: Reading = USUAL) -> Wide:
    """The variables of a table of text cells and its clock.

    Raises:
        InputError: see `load_file`.
    """
    cells, mark = table.columns, table.marks.decimal
    clock, used = _clock(cells, mark, columns)
    if clock is not None:
        blank = blank_rows(list(cells.values()))
        cells = {name: column[~blank].reset_index(drop=True) for name, column in cells.items()}
        clock = clock[~blank].reset_index(drop=True)
    measured = [n for n in cells if n not in used and not _counts(n, cells[n])]
    selected = measured if columns is None else _choose(columns, list(cells))
    if not selected:
        clocks = f" besides the clock {sorted(used)}" if used else ""
        raise InputError(f"there are no numeric columns{clocks} among {list(cells)}; add one")
    values = column_values({name: cells[name] for name in selected}, mark)
    stamps = None
    if clock is not None:
        stamps = read_stamps(clock, str(clock.name), np.zeros(len(clock), int), how)
        _forward(stamps.instant)
    return Wide(values, tuple(selected), stamps, table.marks)


def _forward(times: np.ndarray) -> None:
    """Refuses times that go backwards."""
    if (back := np.diff(times) < np.zeros(1, times.dtype).astype(np.diff(times).dtype)).any():
        row = int(np.argmax(back)) + 1
        order = f"{times[row]} comes after {times[row - 1]}"
        raise InputError(f"time goes backwards in data row {row + 1}: {order}; sort by time")


def column_values(cells: dict[str, pd.Series], decimal: str) -> np.ndarray:
    """Numbers `[T, C]` float64, NaN where a cell is missing.

    Raises:
        InputError: text that is no number, or an infinite one.
    """
    values, text = {}, []
    for name, column in cells.items():
        values[name], odd = numbers(column, decimal)
        if odd is not None:
            text.append(f"{name!r} (for example {column.iloc[odd]!r}, data row {odd + 1})")
        elif np.isinf(values[name]).any():
            row = int(np.argmax(np.isinf(values[name])))
            raise InputError(
                f"column {name!r} is infinite, {column.iloc[row]!r} in data row {row + 1}; empty "
                "that cell if the value is not known, or give a number"
            )
    if text:
        raise InputError(f"not numbers: {', '.join(text)}; name the columns to use with columns=")
    return np.column_stack(list(values.values()))


def from_array(raw: bytes, columns: Sequence[str] | None, *, archive: bool) -> Wide:
    """Variables out of the bytes of a `.npy` or `.npz` file."""
    ranks, wanted = ((2, 3), "[T, N, F] or [T, N]") if archive else ((1, 2), "[T] or [T, C]")
    try:
        # Pickles run code when they are opened, so none ever is.
        data = np.load(io.BytesIO(raw), allow_pickle=False)
        keys = [] if isinstance(data, np.ndarray) else list(data)
        data = data["data"] if "data" in keys else data
    except BROKEN as error:
        raise InputError(f"the file is not a readable array of numbers ({error})") from error
    if not isinstance(data, np.ndarray):
        raise InputError(f"the archive has no array 'data' but {keys}; save [T, N] as 'data'")
    if data.dtype.kind not in "iuf" or data.ndim not in ranks or data.size == 0:
        held = f"{data.dtype} of shape {data.shape}"
        raise InputError(f"the file holds {held}; it must be numbers of shape {wanted}, not empty")
    data = data[..., 0] if data.ndim == 3 else data.reshape(len(data), -1)
    names = [f"var{i}" for i in range(data.shape[1])]
    selected = names if columns is None else _choose(columns, names)
    values = data[:, [names.index(n) for n in selected]].astype(np.float64)
    if np.isinf(values).any():
        row, column = np.argwhere(np.isinf(values))[0]
        raise InputError(f"column {selected[column]!r} is infinite in row {row}; make it NaN")
    return Wide(values, tuple(selected))


def _choose(columns: Sequence[str], known: list[str]) -> list[str]:
    """The requested columns, each known and asked for once."""
    if len(columns) == 0 or len(set(columns)) < len(columns):
        raise InputError(f"columns={list(columns)} must name at least one column, each once")
    for name in columns:
        if name not in known:
            near = difflib.get_close_matches(str(name), known) or known
            raise InputError(f"there is no column {name!r}; did you mean one of {near}?")
    return list(columns)


def _counts(name: str, cells: pd.Series) -> bool:
    """Whether a column only numbers the rows from 0 or from 1."""
    values = numbers(cells)[0] if _COUNTER.fullmatch(name) else np.full(1, np.nan)
    return values[0] in (0, 1) and np.array_equal(values, values[0] + np.arange(len(cells)))


def _clock(
    table: dict[str, pd.Series], decimal: str, columns: Sequence[str] | None
) -> tuple[pd.Series | None, set[str]]:
    """The column of stamps, or None, and the names of the columns that were part of the clock."""
    dates = [name for name in table if _is_dates(table[name], decimal)]
    if dates:
        name = max(dates, key=lambda name: table[name].nunique())
        hours = [n for n in table if is_time_of_day(_head(table[n]))]
        if len(hours) == 1 and not has_time(_head(table[name])):
            return _joined(table[name], table[hours[0]]), {*dates, *hours}
        return table[name], set(dates)
    free = {name: cells for name, cells in table.items() if name not in (columns or ())}
    return _of_columns(free) or _of_numbers(free) or (None, set())


def _is_dates(cells: pd.Series, decimal: str) -> bool:
    """Whether the first filled cell of a column is a date and no number."""
    head = _head(cells)
    return number(head, decimal) is None and is_date(head)


def _head(cells: pd.Series) -> str:
    """The first cell that is not missing."""
    return next((cell.strip() for cell in cells if cell.strip().lower() not in MISSING), "")


def _joined(days: pd.Series, hours: pd.Series) -> pd.Series:
    """Dates with the times of day beside them."""
    blank = (days.str.strip() == "") & (hours.str.strip() == "")
    odd = [not gap and not is_time_of_day(hour) for gap, hour in zip(blank, hours, strict=True)]
    if any(odd):
        row = odd.index(True)
        cell = f"{hours.iloc[row]!r} in data row {row + 1} of column {hours.name!r}"
        raise InputError(f"{cell} is no time like {_head(hours)!r}; repair or remove that row")
    return (days.str.strip() + " " + hours.str.strip()).str.strip().rename(str(days.name))


def _of_columns(table: dict[str, pd.Series]) -> tuple[pd.Series, set[str]] | None:
    """The stamps in columns of years, months, days, hours and minutes."""
    lower = {name.lower(): name for name in table}
    if not {"year", "month"} <= lower.keys():
        return None
    used = [part for part in ("year", "month", "day", "hour", "minute") if part in lower]
    parts = pd.DataFrame({part: numbers(table[lower[part]])[0] for part in used})
    blank = blank_rows(list(table.values()))
    whole = (parts % 1 == 0).all(axis=1)
    dated = parts.where(whole, 0).astype(np.int64).assign(**({} if "day" in lower else {"day": 1}))
    dated[blank] = (1970, *[1] * (dated.shape[1] - 1))  # left out later
    stamps = pd.to_datetime(dated, errors="coerce")
    if stamps.isna().any():
        row = int(np.argmax(stamps.isna()))
        shown = ", ".join(f"{part} {table[lower[part]].iloc[row]!r}" for part in used)
        raise InputError(f"data row {row + 1} has no valid date: {shown}; repair it")
    return stamps.rename("date"), {lower[part] for part in used}


def _of_numbers(table: dict[str, pd.Series]) -> tuple[pd.Series, set[str]] | None:
    """A column of whole numbers that grow and are plausible dates, or are named like a clock.

    Raises:
        InputError: a column named like a date holds other numbers.
    """
    for place, (name, cells) in enumerate(table.items()):
        filled = cells[cells.str.strip() != ""]
        values, odd = numbers(filled)
        whole = odd is None and len(values) > 1 and bool((np.mod(values, 1) == 0).all())
        whole = whole and bool((np.abs(values) < 2**62).all())
        grows = whole and bool((np.diff(values) > 0).all())
        if grows and not _counts(name, cells):
            named = _CLOCK.fullmatch(name) is not None
            dates = compact_dates(values.astype(np.int64))
            if named or (dates is not None and (place == 0 or len(str(int(values[0]))) == 8)):
                return cells, {name}
        if _STAMP.fullmatch(name) and odd is None and len(values) > 1 and not grows:
            raise InputError(
                f"column {name!r} is named like a clock, but holds other numbers than dates and "
                "whole ones that grow; repair it, or name the variables with columns= (--columns)"
            )
    return None


def _fill(series: Series, missing: str) -> np.ndarray:
    """The values with every cell filled, or an error, as `missing` says."""
    bad = ~np.isfinite(series.values)
    if not bad.any():
        return series.values
    if missing == "error":
        row = int(np.argmax(bad.any(axis=1)))
        name = series.names[int(np.argmax(bad[row]))]
        where = f"{bad.sum()}, the first in data row {row + 1} of column {name!r}"
        hint = "fill them with missing='interpolate' or leave columns out with columns="
        raise InputError(f"there are missing cells: {where}; {hint}")
    if bad.all(axis=0).any():
        name = series.names[int(np.argmax(bad.all(axis=0)))]
        raise InputError(f"column {name!r} is wholly missing; leave it out with columns=")
    if missing == "keep":
        return np.where(bad, np.nan, series.values)
    values, rows = series.values.copy(), np.arange(len(bad))
    for i, gap in enumerate(bad.T):
        values[gap, i] = np.interp(rows[gap], rows[~gap], values[~gap, i])
    return values
