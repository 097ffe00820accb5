"""The clock of a wide table: the columns of dates, parts of dates or numbers that date its rows."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from stride_jax.data.cells import MISSING, blank_rows, number, numbers
from stride_jax.data.dates import has_time, is_date, is_time_of_day
from stride_jax.data.stamps import compact_dates
from stride_jax.errors import InputError

_COUNTER = re.compile(r"no\.?|index|idx|id|unnamed: \d+", re.IGNORECASE)
_CLOCK = re.compile(
    r"(unnamed: 0|.*(date|time|stamp).*|ds|day|week|month|quarter|year|period)", re.IGNORECASE
)
"""Names of columns of whole numbers that are a clock if they only grow."""
_STAMP = re.compile(r"date|ds|time_?stamp|date_?time", re.IGNORECASE)
"""Names of columns that can only be a clock."""


def find_clock(
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
        if grows and not is_counter(name, cells):
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


def is_counter(name: str, cells: pd.Series) -> bool:
    """Whether a column only numbers the rows from 0 or from 1."""
    values = numbers(cells)[0] if _COUNTER.fullmatch(name) else np.full(1, np.nan)
    return values[0] in (0, 1) and np.array_equal(values, values[0] + np.arange(len(cells)))
