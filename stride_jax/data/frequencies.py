"""The clock of a frequency that a user gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from stride_jax.data.clock import MONTH_END, WEEKDAYS, Clock, day_of_month, month_clock
from stride_jax.errors import InputError

_OLD = {"H": "h", "T": "min", "S": "s", "L": "ms", "U": "us", "BM": "BME", "BQ": "BQE", "BA": "BYE"}
_LOOSE = {"M": 1, "Q": 3, "Y": 12, "A": 12}
"""Months between the stamps of a rhythm without a day, whose day is that of the data."""


def given_clock(freq: Any, wall: np.ndarray) -> Clock:
    """The clock of a frequency that a user gives.

    Names of pandas, also the old ones (`H`, `M`). `W` fits weeks that begin on any day, and `M`,
    `Q`, `Y` months of any day; `W-MON`, `MS`, `ME` and so on only the one they name.

    Args:
        freq: a pandas offset or its alias, a duration, or a whole number for numbers.
        wall: `[T]` datetime64[us] or int64, what it has to fit.

    Raises:
        InputError: it is none, not above 0, or not of the kind of the stamps.
    """
    whole = isinstance(freq, int | np.integer) and not isinstance(freq, bool)
    numbers = wall.dtype.kind == "i"
    if whole and freq < 1:
        raise InputError(f"freq must be a step of 1 or more, got {freq}.")
    if numbers != whole:
        kind = "whole numbers" if numbers else "stamps"
        raise InputError(
            f"freq {freq!r} does not fit times that are {kind}: whole numbers need a whole number, "
            "stamps an offset such as 'h' or 'D'."
        )
    if whole:
        return Clock("number", int(freq))
    text = freq.strip() if isinstance(freq, str) else ""
    count = text.rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
    name = text[len(count) :]
    if name in _LOOSE and (not count or count.isdecimal()):
        return _loose(int(count or 1) * _LOOSE[name], wall, freq)
    if name in _OLD:
        text = count + _OLD[name]
    try:
        offset = pd.tseries.frequencies.to_offset(text or freq)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"freq {freq!r} is no pandas offset: {error}") from error
    return _of_offset(offset, freq, wall)


def _loose(step: int, wall: np.ndarray, freq: Any) -> Clock:
    if step < 1:
        raise InputError(f"freq must be a step above 0, got {freq!r}.")
    days = np.unique(wall.astype("datetime64[D]"))
    day: int | str = MONTH_END
    if not (Clock("month", day=day).days(days.astype("M8[M]").astype(np.int64)) == days).all():
        clock = month_clock(days, np.ones(len(days) - 1, bool)) if len(days) > 1 else None
        day = clock.day if clock is not None else int(day_of_month(days)[0])
    return Clock("month", step, day=day)


def _of_offset(offset: Any, freq: Any, wall: np.ndarray) -> Clock:
    """The clock of an offset of pandas."""
    of, count = pd.offsets, getattr(offset, "n", 1)
    if count < 1:
        raise InputError(f"freq must be a step above 0, got {freq!r}.")
    strict = isinstance(freq, str) and "-" in freq
    if type(offset) is of.Day:
        return Clock("day", count)
    if isinstance(offset, of.Tick):
        step, rest = divmod(pd.Timedelta(offset).value, 1000)
        if rest or step < 1:
            raise InputError(f"freq {freq!r} is finer than a microsecond.")
        return Clock("microsecond", step)
    if isinstance(offset, of.Week):
        weekday = getattr(offset, "weekday", None)
        if weekday is None or not strict:
            return Clock("day", 7 * count)
        return Clock("day", count, "".join("01"[day == weekday] for day in range(7)))
    if type(offset) is of.BusinessDay:
        return Clock("day", count, WEEKDAYS)
    return _of_months(offset, count, strict) or _of_duration(offset) or _of_table(offset, wall)


def _of_months(offset: Any, count: int, strict: bool) -> Clock | None:
    of = pd.offsets
    days: dict[int | str, tuple[type, ...]] = {
        1: (of.MonthBegin, of.QuarterBegin, of.YearBegin),
        MONTH_END: (of.MonthEnd, of.QuarterEnd, of.YearEnd),
        "first weekday": (of.BusinessMonthBegin, of.BQuarterBegin, of.BYearBegin),
        "last weekday": (of.BusinessMonthEnd, of.BQuarterEnd, of.BYearEnd),
    }
    for day, kinds in days.items():
        if type(offset) in kinds:
            size = (1, 3, 12)[kinds.index(type(offset))]
            month = getattr(offset, "startingMonth", getattr(offset, "month", None))
            phase = (month - 1) % size if strict and month and count == 1 else None
            return Clock("month", size * count, day=day, phase=phase)
    return None


def _of_duration(offset: Any) -> Clock | None:
    """The clock of a plain `DateOffset` of one length; its months keep the day of the data."""
    if type(offset) is not pd.DateOffset or len(offset.kwds) != 1:
        return None
    ((name, count),) = offset.kwds.items()
    count *= offset.n
    if name in ("weeks", "days"):
        return Clock("day", count * (7 if name == "weeks" else 1))
    sizes = {"hours": 3_600_000_000, "minutes": 60_000_000, "seconds": 1_000_000}
    return Clock("microsecond", count * sizes[name]) if name in sizes else None


def _of_table(offset: Any, wall: np.ndarray) -> Clock:
    """The clock of any other offset, which lists its stamps."""
    if type(offset) is pd.DateOffset and set(offset.kwds) in ({"months"}, {"years"}):
        ((name, count),) = offset.kwds.items()
        return _loose(count * offset.n * (12 if name == "years" else 1), wall, offset)
    first = pd.Timestamp(wall.min())
    origin = first if offset.is_on_offset(first) else offset.rollback(first)
    return Clock("offset", offset=offset, origin=origin)
