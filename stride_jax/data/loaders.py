"""Reads a time series from a file: CSV, headerless text, PEMS archives and NumPy arrays."""

from __future__ import annotations

import difflib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from stride_jax.data.cells import (
    BROKEN,
    Marks,
    Table,
    blank_rows,
    decode,
    numbers,
    read_bytes,
    read_cells,
)
from stride_jax.data.clock_columns import find_clock, is_counter
from stride_jax.data.orders import USUAL, Reading, Stamps
from stride_jax.data.stamps import read_stamps
from stride_jax.errors import InputError
from stride_jax.types import Series


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
    clock, used = find_clock(cells, mark, columns)
    if clock is not None:
        blank = blank_rows(list(cells.values()))
        cells = {name: column[~blank].reset_index(drop=True) for name, column in cells.items()}
        clock = clock[~blank].reset_index(drop=True)
    measured = [n for n in cells if n not in used and not is_counter(n, cells[n])]
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
