"""A file as a long frame: as it is, or a wide one with one row per variable and time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from stride_jax.data.cells import Marks, Table, blank_rows, decode, read_bytes, read_cells
from stride_jax.data.loaders import Wide, column_values, from_array, wide_of
from stride_jax.data.orders import USUAL, Reading
from stride_jax.errors import InputError, nearest


class LongFile(NamedTuple):
    """A file in long form.

    Attributes:
        frame: id (text), time (text of a long file, else stamps or whole numbers), value (float64,
            NaN where a cell is missing); rows in the order of the file.
        note: how the cells and stamps were read, where that is not plain.
    """

    frame: pd.DataFrame
    note: str = ""


def read_long(
    path: Path,
    names: tuple[str, str, str],
    *,
    columns: Sequence[str] | None = None,
    how: Reading = USUAL,
    decimal: str | None = None,
) -> LongFile:
    """The series of a file of either form; see `loaders.load_file` for what is read.

    Args:
        path: the file; a table with all three columns is long.
        names: of the columns of ids, times and values in a long file.
        columns: the variables of a wide file; None for all.
        how: the wishes of the user about stamps.
        decimal: the decimal mark; None sniffs it.

    Raises:
        InputError: see `loaders.load_file`; or columns are named of a long file, or a row of a long
            one has no id.
    """
    try:
        kind, raw = read_bytes(path.expanduser())
        if kind in (".npz", ".npy"):
            return _of_wide(from_array(raw, columns, archive=kind == ".npz"), names)
        table = read_cells(decode(raw), plain=kind == ".txt", decimal=decimal)
        if set(names) <= set(table.columns):
            if columns:
                raise InputError("--columns is for wide files; this one has ids in a column")
            return _of_long(table, names)
        if {names[0], names[1]} <= set(table.columns):
            others = [name for name in table.columns if name not in names]
            raise InputError(
                f"there is no column of values {names[2]!r}; name it with --target-col. "
                f"{nearest(names[2], others)}"
            )
        return _of_wide(wide_of(table, columns, how), names)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error.__cause__


def _of_long(table: Table, names: tuple[str, str, str]) -> LongFile:
    filled = ~blank_rows(list(table.columns.values()))
    cells = {name: table.columns[name][filled].reset_index(drop=True) for name in names}
    ids = cells[names[0]]
    blank = (ids.str.strip() == "").to_numpy()
    if blank.any():
        raise InputError(f"data row {int(np.argmax(blank)) + 1} has no {names[0]!r}; give it one")
    values = column_values({names[2]: cells[names[2]]}, table.marks.decimal)[:, 0]
    frame = pd.DataFrame({names[0]: ids, names[1]: cells[names[1]], names[2]: values})
    return LongFile(frame, _note(table.marks))


def _of_wide(wide: Wide, names: tuple[str, str, str]) -> LongFile:
    steps, count = wide.values.shape
    times = pd.Series(np.arange(steps)) if wide.stamps is None else wide.stamps.as_pandas()
    frame = pd.DataFrame(
        {
            names[0]: np.repeat(np.array(wide.names, object), steps),
            names[1]: pd.concat([times] * count, ignore_index=True),
            names[2]: wide.values.T.ravel(),
        }
    )
    return LongFile(frame, _note(wide.marks, "" if wide.stamps is None else wide.stamps.note))


def _note(marks: Marks, stamps: str = "") -> str:
    return ", ".join([*marks.describe(), *([stamps] if stamps else [])])
