"""Reads a time series from a file: CSV, headerless text, PEMS archives and NumPy arrays."""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import lzma
import math
import re
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stride_jax.errors import InputError
from stride_jax.types import Series

_KINDS = (".csv", ".txt", ".npz", ".npy")
_PACKED = {".gz": gzip.decompress, ".xz": lzma.decompress}
_BROKEN = (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error, zipfile.BadZipFile)
_MARKS = {"", "?", "-", "--", "na", "n/a", "#n/a", "<na>", "nan", "null", "none"}
_COUNTER = re.compile(r"no\.?|index|idx|id|unnamed: \d+", re.IGNORECASE)
# Text first, numbers later: pandas before 3.1 rounds the last digit of some floats. A blank line
# in a table of one column is a missing value, so no line is skipped.
_CELLS: dict[str, Any] = {"dtype": object, "na_filter": False, "skipinitialspace": True}
_LINES: dict[str, Any] = {"header": None, "index_col": False, "skip_blank_lines": False}
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}")
_TIME_OF_DAY = re.compile(r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?$")
_DAYS = ("%Y-%m-%d", "%Y/%m/%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%m-%d-%Y", "%d-%m-%Y")
_HOURS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
_FORMATS = ("ISO8601", *(day + hour for day in _DAYS for hour in _HOURS))


def load_file(
    path: str | Path, *, columns: Sequence[str] | None = None, missing: str = "error"
) -> Series:
    """Reads the series in one file; the suffix says how, after a `.gz` or `.xz` is taken off.

    `.csv`: UTF-8, latin-1, or UTF-16 with a byte-order mark; a first row of numbers is no header.
    The clock is a column of dates (of several, the one with the most different stamps), with one
    of times of day if need be, or columns year, month, day[, hour[, minute]], or there is none.
    Stamps with an offset become UTC. Dates that can be read month first or day first are read so
    that their steps vary less, else month first. A column like `No` that only counts is left out.
    `.txt`: the same without a header. `.npz`: the array `data`, `[T, N, F]` (the first feature is
    taken) or `[T, N]`. `.npy`: `[T]` or `[T, C]`. Without a header names are `var0`, `var1`, ...

    Args:
        path: The file.
        columns: The variables to keep, in this order; None keeps all but clock and row counter.
        missing: What to do about empty, infinite and `?`-like cells: `"error"` refuses them,
            `"interpolate"` draws a straight line over the rows between (every row one step) and
            repeats the nearest value at the ends, `"keep"` leaves them as NaN.

    Returns:
        The series: values `[T, C]` float64, finite, in the file's own units; times `[T]`
        datetime64[us], never decreasing, or None.

    Raises:
        InputError: The file is no such series, or a column is unknown or not numeric, or cells are
            missing that may not be filled, or time goes backwards.
    """
    try:
        if missing not in ("error", "interpolate", "keep"):
            known = "'error', 'interpolate' or 'keep'"
            raise InputError(f"missing={missing!r} is not known; use {known}")
        if isinstance(columns, str):
            raise InputError(f"columns={columns!r} is one string; pass a list: [{columns!r}]")
        kind, raw = _read(Path(path).expanduser())
        if kind in (".npz", ".npy"):
            series = _from_array(raw, columns, archive=kind == ".npz")
        else:
            series = _from_table(_table(_decode(raw), plain=kind == ".txt"), columns)
        return series._replace(values=_fill(series, missing))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error.__cause__


def _read(path: Path) -> tuple[str, bytes]:
    """The kind of a file and its unpacked bytes."""
    if not path.is_file():
        raise InputError("there is no such file; check the path")
    unpack = _PACKED.get(path.suffix.lower())
    kind = Path(path.stem if unpack else path.name).suffix.lower()
    if kind not in _KINDS:
        known = f"{', '.join(_KINDS)}, each also with .gz or .xz after it"
        raise InputError(f"the suffix {kind!r} is not supported; use one of {known}")
    try:
        raw = path.read_bytes()
        return kind, unpack(raw) if unpack else raw
    except _BROKEN as error:
        raise InputError(f"the file cannot be read ({error}); get a fresh copy") from error


def _from_array(raw: bytes, columns: Sequence[str] | None, *, archive: bool) -> Series:
    """A series out of the bytes of a `.npy` or `.npz` file."""
    ranks, wanted = ((2, 3), "[T, N, F] or [T, N]") if archive else ((1, 2), "[T] or [T, C]")
    try:
        # Pickles run code when they are opened, so none ever is.
        data = np.load(io.BytesIO(raw), allow_pickle=False)
        keys = [] if isinstance(data, np.ndarray) else list(data)
        data = data["data"] if "data" in keys else data
    except _BROKEN as error:
        raise InputError(f"the file is not a readable array of numbers ({error})") from error
    if not isinstance(data, np.ndarray):
        raise InputError(f"the archive has no array 'data' but {keys}; save [T, N] as 'data'")
    if data.dtype.kind not in "iuf" or data.ndim not in ranks or data.size == 0:
        held = f"{data.dtype} of shape {data.shape}"
        raise InputError(f"the file holds {held}; it must be numbers of shape {wanted}, not empty")
    data = data[..., 0] if data.ndim == 3 else data.reshape(len(data), -1)
    names = [f"var{i}" for i in range(data.shape[1])]
    chosen = names if columns is None else _choose(columns, names)
    return Series(data[:, [names.index(n) for n in chosen]].astype(np.float64), tuple(chosen))


def _decode(raw: bytes) -> str:
    """The text of a file; latin-1 takes any bytes, so it comes last."""
    try:
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    if "\0" in text:
        raise InputError("the file holds NUL bytes, so it is no text table; save it as UTF-8")
    return text.strip("\r\n")


def _table(text: str, *, plain: bool) -> dict[str, pd.Series]:
    """The cells of comma-separated text, still as text; a `plain` table has no header."""
    buffer = io.StringIO(text, newline=None)
    try:
        first = [cell.strip() for cell in next(csv.reader(buffer, skipinitialspace=True), [])]
        if plain or _is_data(first):
            names = [f"var{i}" for i in range(len(first))]
            buffer.seek(0)
        else:
            # pandas writes its row counter without a name and reads it back as "Unnamed: 0".
            names = [cell or f"Unnamed: {i}" for i, cell in enumerate(first)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"several columns are named {twice}; rename all but one")
        with warnings.catch_warnings():
            # Rows longer than the header only warn, and their last cells would be lost.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(buffer, names=names, **_CELLS, **_LINES) if names else None
    except (csv.Error, pd.errors.ParserError, pd.errors.ParserWarning) as error:
        reason = str(error).strip()
        raise InputError(f"the file is not a regular table ({reason}); repair it") from error
    if frame is None or frame.empty:
        raise InputError("the file has no rows; it needs at least one row of numbers")
    return {name: frame[name] for name in names}


def _is_data(cells: Sequence[str]) -> bool:
    """Whether a first row is data: numbers, besides at most stamps and missing marks."""
    numbers = [_number(cell) for cell in cells]
    # A blank first cell is a header: it stands over the row counter that pandas writes.
    return any(number == number for number in numbers if number is not None and cells[0]) and all(
        number is not None or _DATE.match(cell) or _TIME_OF_DAY.match(cell)
        for number, cell in zip(numbers, cells, strict=True)
    )


def _number(cell: str) -> float | None:
    """The number in a cell, NaN for a missing mark, None for any other text."""
    text = cell.strip().lower()
    try:
        # Python would read 1_000 as a number; in a file it is a label.
        return math.nan if text in _MARKS else float(text.replace("_", " "))
    except ValueError:
        return None


def _from_table(table: dict[str, pd.Series], columns: Sequence[str] | None) -> Series:
    """A series out of a table of text cells."""
    times, used = _clock(table)
    if times is not None and (back := np.diff(times) < np.timedelta64(0, "us")).any():
        row = int(np.argmax(back)) + 1
        order = f"{times[row]} comes after {times[row - 1]}"
        raise InputError(f"time goes backwards in data row {row + 1}: {order}; sort by time")
    measured = [name for name in table if name not in used and not _counts(name, table[name])]
    chosen = measured if columns is None else _choose(columns, list(table))
    if not chosen:
        raise InputError(f"there are no numeric columns among {list(table)}; add one")
    values, text = {}, []
    for name in chosen:
        values[name], odd = _numbers(table[name])
        if odd is not None:
            text.append(f"{name!r} (for example {table[name].iloc[odd]!r}, data row {odd + 1})")
    if text:
        raise InputError(f"not numbers: {', '.join(text)}; name the columns to use with columns=")
    return Series(np.column_stack(list(values.values())), tuple(chosen), times)


def _choose(columns: Sequence[str], known: list[str]) -> list[str]:
    """The requested columns, each known and asked for once."""
    if len(columns) == 0 or len(set(columns)) < len(columns):
        raise InputError(f"columns={list(columns)} must name at least one column, each once")
    for name in columns:
        if name not in known:
            near = difflib.get_close_matches(str(name), known) or known
            raise InputError(f"there is no column {name!r}; did you mean one of {near}?")
    return list(columns)


def _numbers(cells: pd.Series) -> tuple[np.ndarray, int | None]:
    """Numbers `[T]` with NaN for missing marks, and the first row that is neither, if any."""
    # Measured values repeat a lot: each different text is read once.
    codes, texts = pd.factorize(cells)
    found = [_number(text) for text in texts]
    values = np.array(found, np.float64)[codes]
    return values, int(np.argmax(codes == found.index(None))) if None in found else None


def _counts(name: str, cells: pd.Series) -> bool:
    """Whether a column only numbers the rows from 0 or from 1."""
    values = _numbers(cells)[0] if _COUNTER.fullmatch(name) else np.full(1, np.nan)
    return values[0] in (0, 1) and np.array_equal(values, values[0] + np.arange(len(cells)))


def _clock(table: dict[str, pd.Series]) -> tuple[np.ndarray | None, set[str]]:
    """The stamps `[T]` datetime64[us], or None, and the columns that were part of the clock."""
    dates = {name: found for name in table if (found := _dates(table[name])) is not None}
    if dates:
        times = max(dates.values(), key=lambda found: np.unique(found).size)
        hours = [name for name in table if _TIME_OF_DAY.match(_head(table[name]))]
        if len(hours) == 1 and (times == times.astype("datetime64[D]")).all():
            clock = _parse_all(table[hours[0]], "ISO8601", before="1970-01-01 ")
            return times + (clock - np.datetime64("1970-01-01")), {*dates, *hours}
        return times, set(dates)
    lower = {name.lower(): name for name in table}
    if not {"year", "month", "day"} <= lower.keys():
        return None, set()
    used = [part for part in ("year", "month", "day", "hour", "minute") if part in lower]
    parts = pd.DataFrame({part: _numbers(table[lower[part]])[0] for part in used})
    whole = (parts % 1 == 0).all(axis=1)
    stamps = pd.to_datetime(parts.where(whole, 0).astype(np.int64), errors="coerce")
    if stamps.isna().any():
        row = int(np.argmax(stamps.isna()))
        shown = ", ".join(f"{part} {table[lower[part]].iloc[row]!r}" for part in used)
        raise InputError(f"data row {row + 1} has no valid date: {shown}; repair it")
    return stamps.to_numpy().astype("datetime64[us]"), {lower[part] for part in used}


def _head(cells: pd.Series) -> str:
    """The first cell that is not missing."""
    return next((cell.strip() for cell in cells if cell.strip().lower() not in _MARKS), "")


def _dates(cells: pd.Series) -> np.ndarray | None:
    """The stamps in a column of dates, or None if its first filled cell is not a date."""
    head = _head(cells)
    if _number(head) is not None or not _DATE.match(head):
        return None
    fits = [form for form in _FORMATS if not np.isnat(_parse(pd.Series([head]), form)[0])]

    def misfit(form: str) -> tuple[int, int]:
        stamps = _parse(cells, form)
        return int(np.isnat(stamps).sum()), np.unique(np.diff(stamps)).size

    return _parse_all(cells, min(fits, key=misfit)) if fits else None


def _parse(texts: pd.Series, form: str) -> np.ndarray:
    """Stamps `[T]` datetime64[us] without zone, NaT where the text does not fit the format."""
    stamps = pd.to_datetime(texts.str.strip(), format=form, errors="coerce", utc=True)
    return stamps.dt.tz_convert(None).to_numpy().astype("datetime64[us]")


def _parse_all(cells: pd.Series, form: str, before: str = "") -> np.ndarray:
    """Stamps `[T]` of all cells, each with the text `before` in front of it."""
    stamps = _parse(before + cells.str.strip(), form)
    if np.isnat(stamps).any():
        row = int(np.argmax(np.isnat(stamps)))
        cell = f"{cells.iloc[row]!r} in data row {row + 1} of column {cells.name!r}"
        raise InputError(f"{cell} is no stamp like {_head(cells)!r}; repair or remove that row")
    return stamps


def _fill(series: Series, missing: str) -> np.ndarray:
    """The values with every cell finite, or an error, as `missing` says."""
    bad = ~np.isfinite(series.values)
    if not bad.any():
        return series.values
    if missing == "error":
        row = int(np.argmax(bad.any(axis=1)))
        name = series.names[int(np.argmax(bad[row]))]
        where = f"{bad.sum()}, the first in data row {row + 1} of column {name!r}"
        hint = "fill them with missing='interpolate' or leave columns out with columns="
        raise InputError(f"there are missing or infinite cells: {where}; {hint}")
    if bad.all(axis=0).any():
        name = series.names[int(np.argmax(bad.all(axis=0)))]
        raise InputError(f"column {name!r} is wholly missing; leave it out with columns=")
    if missing == "keep":
        return np.where(bad, np.nan, series.values)
    values, rows = series.values.copy(), np.arange(len(bad))
    for i, gap in enumerate(bad.T):
        values[gap, i] = np.interp(rows[gap], rows[~gap], values[~gap, i])
    return values
