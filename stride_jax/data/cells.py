"""From the bytes of a file to a table of text cells: packing, encoding, separator, decimal mark."""

from __future__ import annotations

import csv
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
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from stride_jax.data.dates import is_date, is_time_of_day
from stride_jax.errors import InputError

KINDS = (".csv", ".txt", ".npz", ".npy", ".tsv")
BROKEN = (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error, zipfile.BadZipFile)
SEPARATORS = {",": "comma", ";": "';'", "\t": "tab", "|": "'|'"}
MISSING = {"", "?", "-", "--", "na", "n/a", "#n/a", "<na>", "nan", "null", "none"}
_PACKED = {".gz": gzip.decompress, ".xz": lzma.decompress}
# Text first, numbers later: pandas before 3.1 rounds the last digit of some floats.
_CELLS: dict[str, Any] = {"dtype": object, "na_filter": False, "skipinitialspace": True}
_SAMPLE = 64_000
"""Characters that the separator is sniffed on."""


class Marks(NamedTuple):
    """How the cells and numbers of a file are written.

    Attributes:
        separator: between two cells.
        decimal: mark of the decimals, a point or a comma.
    """

    separator: str = ","
    decimal: str = "."

    def describe(self) -> list[str]:
        """The marks that are not the usual ones, in words."""
        words = []
        if self.separator != ",":
            words.append(f"separator {SEPARATORS[self.separator]}")
        return [*words, "decimal comma"] if self.decimal == "," else words


class Table(NamedTuple):
    """The text cells of a file.

    Attributes:
        columns: by name, each `[T]` text.
        marks: how they were written.
    """

    columns: dict[str, pd.Series]
    marks: Marks


def read_bytes(path: Path) -> tuple[str, bytes]:
    """The suffix of a file in small letters, without that of its packing, and its unpacked bytes.

    Raises:
        InputError: no such file, an unknown suffix, or a broken package.
    """
    if not path.is_file():
        raise InputError("there is no such file; check the path")
    unpack = _PACKED.get(path.suffix.lower())
    kind = Path(path.stem if unpack else path.name).suffix.lower()
    if kind not in KINDS:
        suffixes = f"{', '.join(KINDS)}, each also with .gz or .xz after it"
        raise InputError(f"the suffix {kind!r} is not supported; use one of {suffixes}")
    try:
        raw = path.read_bytes()
        return kind, unpack(raw) if unpack else raw
    except BROKEN as error:
        raise InputError(f"the file cannot be read ({error}); get a fresh copy") from error


def decode(raw: bytes) -> str:
    """The text of a file: UTF-8, UTF-16 with a byte-order mark, else latin-1.

    Raises:
        InputError: the bytes are no text.
    """
    try:
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")  # takes any bytes, so it comes last
    if "\0" in text:
        raise InputError("the file holds NUL bytes, so it is no text table; save it as UTF-8")
    return text.strip("\r\n")


def read_cells(text: str, *, plain: bool = False, decimal: str | None = None) -> Table:
    """The cells of separated text; separator and decimal mark are sniffed together.

    Blank lines, rows of separators alone at the end, and columns without name and content are left
    out. In a table of one column a blank line is a missing value.

    Args:
        text: the content of a file.
        plain: there is no header.
        decimal: the decimal mark, `"."` or `","`; None sniffs it.

    Raises:
        InputError: no rows, rows of different lengths, a name twice, or numbers that can be read
            with either decimal mark.
    """
    if decimal not in (None, ".", ","):
        raise InputError(f"decimal must be '.' or ',', got {decimal!r}")
    separator = _separator(text)
    buffer = io.StringIO(text, newline=None)
    try:
        first = next(csv.reader(buffer, delimiter=separator, skipinitialspace=True), [])
        first = [cell.strip() for cell in first]
        headed = not plain and not _is_data(first)
        if not headed:
            buffer.seek(0)
        frame = _rows(buffer, separator, len(first)) if first else pd.DataFrame()
    except (csv.Error, pd.errors.ParserError, pd.errors.ParserWarning) as error:
        reason = str(error).strip()
        raise InputError(f"the file is not a regular table ({reason}); repair it") from error
    frame = _without_blanks(frame)
    if frame.empty:
        raise InputError("the file has no rows; it needs at least one row of numbers")
    columns = _named(frame, first if headed else [f"var{i}" for i in range(len(first))])
    quoted = separator != "," or '"' in text
    mark = decimal or (_decimal(columns, separator) if quoted else ".")
    return Table(columns, Marks(separator if len(first) > 1 else ",", mark))


def _separator(text: str) -> str:
    """The separator with which rows are equally long and cells can be read; else a comma."""
    sample = text[:_SAMPLE]
    if len(text) > _SAMPLE:
        sample = sample[: sample.rfind("\n") + 1] or sample
    scores = {mark: _regularity(sample, mark) for mark in SEPARATORS}
    best = max(scores, key=lambda mark: scores[mark])  # the first of several
    if scores[best] > 0:
        return best
    lines = [line for line in sample.splitlines() if line.strip()]
    alone = len(lines) > 1 and all(number(line, ",") is not None for line in lines[1:])
    return "\t" if alone else ","  # one column, with decimal commas


def _regularity(sample: str, separator: str) -> float:
    """The share of regular rows times the share of cells in them that are values or stamps."""
    buffer = io.StringIO(sample, newline=None)
    try:
        rows = list(csv.reader(buffer, delimiter=separator, skipinitialspace=True))
    except csv.Error:
        return 0.0
    rows = [row for row in rows if any(cell.strip() for cell in row)][:200]
    width = len(rows[0]) if rows else 0
    if width < 2:
        return 0.0
    regular = [row for row in rows if len(row) == width]
    cells = [cell.strip() for row in regular[1:] or regular for cell in row]
    legible = sum(_is_value(cell) for cell in cells) / max(1, len(cells))
    return len(regular) / len(rows) * (0.01 + legible)


def _is_value(cell: str) -> bool:
    numbers = (number(cell, decimal) is not None for decimal in ".,")
    return any(numbers) or is_date(cell) or is_time_of_day(cell)


def _rows(buffer: io.StringIO, separator: str, width: int) -> pd.DataFrame:
    """The rows from here on, `[T, width]` text; shorter ones are filled up with blanks."""
    with warnings.catch_warnings():
        # Rows longer than this only warn, and their last cells would be lost.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            frame = pd.read_csv(
                buffer,
                sep=separator,
                header=None,
                index_col=False,
                names=range(width + 1),  # one more, for rows that end in a separator
                skip_blank_lines=width > 1,
                **_CELLS,
            ).fillna("")
        except pd.errors.EmptyDataError:
            return pd.DataFrame()
    extra = frame.pop(width).str.strip() != ""
    if extra.any():
        row = int(np.argmax(extra)) + 1
        raise csv.Error(f"data row {row} has more cells than the {width} of the first row")
    return frame


def _without_blanks(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows up to the last one that is not blank."""
    if frame.empty:
        return frame
    filled = ~blank_rows([frame[column] for column in frame])
    return frame[: len(filled) - int(np.argmax(filled[::-1]))] if filled.any() else frame[:0]


def blank_rows(columns: Sequence[pd.Series]) -> np.ndarray:
    """Which rows hold no text at all, `[T]` bool."""
    blank = np.ones(len(columns[0]), bool)
    for cells in columns:
        blank[blank] = [not cell.strip() for cell in cells.to_numpy()[blank]]
        if not blank.any():
            break
    return blank


def _named(frame: pd.DataFrame, names: list[str]) -> dict[str, pd.Series]:
    """The columns by name, without those that have neither a name nor a cell."""
    columns = {}
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise InputError(f"several columns are named {twice}; rename all but one")
    for i, name in enumerate(names):
        if not name and i == len(names) - 1 and i > 0 and blank_rows([frame[i]]).all():
            continue  # every row ends in a separator
        # pandas writes its row counter without a name and reads it back as "Unnamed: 0".
        columns[name or f"Unnamed: {i}"] = frame[i].rename(name or f"Unnamed: {i}")
    return columns


# --- numbers -------------------------------------------------------------------------------------

_GROUPED = {
    ".": re.compile(r"[+-]?\d{1,3}(?:([, '\u2019\u00a0\u202f])\d{3})(?:\1\d{3})*(?:\.\d+)?"),
    ",": re.compile(r"[+-]?\d{1,3}(?:([. '\u2019\u00a0\u202f])\d{3})(?:\1\d{3})*(?:,\d+)?"),
}
"""Numbers whose thousands are set apart, by decimal mark."""
_OPEN = {mark: re.compile(rf"[+-]?[1-9]\d{{0,2}}\{mark}\d{{3}}") for mark in ".,"}
"""`1,200`: a decimal mark or one of thousands."""
_GROUPS = re.compile(r"[^\d,.+-]")


def number(cell: str, decimal: str = ".") -> float | None:
    """The number in a cell, NaN for a missing mark, None for any other text."""
    text = cell.strip()
    if text.lower() in MISSING:
        return math.nan
    if _GROUPED[decimal].fullmatch(text):
        text = _GROUPS.sub("", text).replace("." if decimal == "," else ",", "")
    if decimal == ",":
        text = text.replace(".", "x").replace(",", ".")
    try:
        # Python would read 1_000 as a number; in a file it is a label.
        return float(text.replace("_", "x"))
    except ValueError:
        return None


def numbers(cells: pd.Series, decimal: str = ".") -> tuple[np.ndarray, int | None]:
    """Numbers `[T]` with NaN for missing marks, and the first row that is neither, if any."""
    # Measured values repeat a lot: each different text is read once.
    codes, texts = pd.factorize(cells)
    parsed = [number(text, decimal) for text in texts]
    values = np.array(parsed, np.float64)[codes]
    return values, int(np.argmax(codes == parsed.index(None))) if None in parsed else None


def _decimal(columns: dict[str, pd.Series], separator: str) -> str:
    """The decimal mark of the numbers of a table.

    Raises:
        InputError: both marks are used for decimals, or `1,200` and the like could be either.
    """
    texts = {text.strip() for cells in columns.values() for text in pd.unique(cells)}
    texts = {text for text in texts if "," in text or "." in text}
    sure: dict[str, str] = {}
    unsure: dict[str, str] = {}
    for text in sorted(texts):
        reads = [mark for mark in ".," if number(text, mark) is not None]
        if len(reads) == 1 and not _OPEN["."].fullmatch(text) and not _OPEN[","].fullmatch(text):
            sure.setdefault(reads[0], text)
        elif reads:
            unsure.setdefault(next(c for c in text if c in ".,"), text)
    hint = "say which is the decimal mark with --decimal (decimal=)"
    if len(sure) == 2:
        raise InputError(
            f"{sure['.']!r} has a decimal point and {sure[',']!r} a decimal comma; repair one, or "
            + hint
        )
    if sure:
        return next(iter(sure))
    if not unsure or separator == "," or (set(unsure) == {"."} and separator != ";"):
        return "."
    if set(unsure) == {","} and separator == ";":
        return ","
    shown = next(iter(unsure.values()))
    mark = "." if "." in shown else ","
    raise InputError(
        f"{shown!r} can be {shown.replace(mark, '.')} or {shown.replace(mark, '')}; {hint}"
    )


def _is_data(cells: Sequence[str]) -> bool:
    """Whether a first row is data: numbers, besides at most stamps and missing marks."""

    def reads(cell: str) -> float | None:
        readings = (number(cell, decimal) for decimal in ".,")
        return next((value for value in readings if value is not None), None)

    values = [reads(cell) for cell in cells]
    # A blank first cell is a header: it stands over the row counter that pandas writes.
    return any(value == value for value in values if value is not None and cells[0]) and all(
        value is not None or is_date(cell) or is_time_of_day(cell)
        for value, cell in zip(values, cells, strict=True)
    )
