"""Stamps as people write them: one text to its parts, and dates of them in a given order."""

from __future__ import annotations

import calendar
import datetime
import re
from typing import NamedTuple

import numpy as np

DAY = 86_400_000_000
"""Length of a day in microseconds."""


class Parts(NamedTuple):
    """The parts of one stamp that is written as text.

    Attributes:
        numbers: three, in the order of the text, or year, month, day.
        order: `"ymd"` where that is certain; `"day"` and `"short"` where day and month can be
            exchanged, with a year of four and of two digits.
        time: microseconds since midnight.
        offset: microseconds east of UTC, or None.
    """

    numbers: tuple[int, int, int]
    order: str
    time: int
    offset: int | None


_NAMES = {
    name.lower(): i
    for i in range(1, 13)
    for name in (calendar.month_name[i], calendar.month_abbr[i])
}
_NAMES["sept"] = 9
_TIME = (
    r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<part>\d{1,9}))?)?"
    r"(?:\s*(?P<half>[ap])\.?m\.?)?"
)
_ZONE = r"\s*(?P<zone>z|utc|gmt|[+-]\d{2}:?\d{2}|[+-]\d{2})"
_AFTER = rf"(?:(?:t|,?\s+)\s*{_TIME}(?:{_ZONE})?)?"
_MONTH = rf"(?P<name>{'|'.join(sorted(_NAMES, key=len, reverse=True))})\.?"
_FORMS = tuple(
    re.compile(form + _AFTER, re.IGNORECASE)
    for form in (
        r"(?P<a>\d{1,4})(?P<mark>[-/.])(?P<b>\d{1,2})(?P=mark)(?P<c>\d{1,4})",
        rf"(?P<d>\d{{1,2}})[-/ .]\s*{_MONTH}[-/ ,]\s*(?P<y>\d{{4}}|\d{{2}})",
        rf"{_MONTH}\s*(?P<d>\d{{1,2}}),?\s+(?P<y>\d{{4}})",
        rf"(?P<y>\d{{4}})[-/ ]{_MONTH}[-/ ](?P<d>\d{{1,2}})",
        rf"{_MONTH}[-/ ]\s*(?P<y>\d{{4}}|\d{{2}})",
        rf"(?P<y>\d{{4}})[-/ ]{_MONTH}",
        r"(?P<y>\d{4})[-/](?P<m>\d{1,2})",
        r"(?P<m>\d{1,2})[-/](?P<y>\d{4})",
        r"(?P<y>\d{4})[- ]?q(?P<q>[1-4])",
        r"q(?P<q>[1-4])[- /](?P<y>\d{4})",
        r"(?P<y>\d{4})-?w(?P<w>\d{2})(?:-?(?P<wd>[1-7]))?",
    )
)
_DAYTIME = re.compile(_TIME, re.IGNORECASE)
_PLAIN = re.compile(r"\d+\.\d+")


def is_time_of_day(text: str) -> bool:
    """Whether a text is like `7:30` or `07:30:00`."""
    return _DAYTIME.fullmatch(text.strip()) is not None


def is_date(text: str) -> bool:
    """Whether a text has the form of a date, with or without a time of day."""
    return read_parts(text) is not None


def has_time(text: str) -> bool:
    """Whether a text names a time of day."""
    return ":" in text


def read_parts(text: str) -> Parts | None:
    """The parts of a stamp, or None for any other text; `01.2026` is a number."""
    text = text.strip()
    if _PLAIN.fullmatch(text):
        return None
    for form in _FORMS:
        if match := form.fullmatch(text):
            return _parts(match.groupdict())
    return None


def _parts(groups: dict[str, str | None]) -> Parts | None:
    time, offset = _time(groups), _offset(groups.get("zone"))
    if time is None:
        return None
    a, b, c = (groups.get(name) for name in "abc")
    if a and b and c:
        numbers = int(a), int(b), int(c)
        if len(a) == 4 and len(c) <= 2:
            return Parts(numbers, "ymd", time, offset)
        if len(c) == 4 and len(a) <= 2:
            if groups["mark"] == ".":  # nobody writes the month first with points
                return Parts(numbers[::-1], "ymd", time, offset)
            return Parts(numbers, "day", time, offset)
        return Parts(numbers, "short", time, offset) if len(a) == len(c) == 2 else None
    year = _full(int(groups["y"] or 0), len(groups["y"] or ""))
    day = int(groups.get("d") or 1)
    if groups.get("w"):
        return _week(year, int(groups["w"] or 0), int(groups.get("wd") or 1), time, offset)
    month = 3 * int(groups.get("q") or 0) - 2 if groups.get("q") else int(groups.get("m") or 0)
    if groups.get("name"):
        month = _NAMES[str(groups["name"]).lower()]
    return Parts((year, month, day), "ymd", time, offset)


def _full(year: int, digits: int) -> int:
    """A year of two digits as POSIX reads it: 1969 to 2068."""
    return year if digits == 4 else year + (1900 if year >= 69 else 2000)


def _week(year: int, week: int, day: int, time: int, offset: int | None) -> Parts | None:
    """A day of an ISO week, the first where none is named."""
    try:
        date = datetime.date.fromisocalendar(year, week, day)
    except ValueError:
        return None
    return Parts((date.year, date.month, date.day), "ymd", time, offset)


def _time(groups: dict[str, str | None]) -> int | None:
    """Microseconds since midnight; `24:00` is the end of the day."""
    hour, minute = int(groups.get("hour") or 0), int(groups.get("minute") or 0)
    second, part = int(groups.get("second") or 0), groups.get("part") or ""
    if half := groups.get("half"):
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half.lower() == "p" else 0)
    if hour > 24 or minute > 59 or second > 59 or (hour == 24 and minute + second > 0):
        return None
    return ((hour * 60 + minute) * 60 + second) * 1_000_000 + int(part.ljust(6, "0")[:6] or 0)


def _offset(zone: str | None) -> int | None:
    if zone is None:
        return None
    digits = re.sub(r"\D", "", zone)
    if not digits:
        return 0  # Z, UTC
    minutes = 60 * int(digits[:2]) + int(digits[2:] or 0)
    return (-minutes if zone[0] == "-" else minutes) * 60_000_000


def arrange(numbers: np.ndarray, orders: np.ndarray, order: str) -> tuple[np.ndarray, np.ndarray]:
    """Dates of three numbers each, and which of them are dates of the calendar.

    Args:
        numbers: `[T, 3]` as in `Parts`.
        orders: `[T]`, see `Parts`.
        order: of those that are not certain: `"mdy"`, `"dmy"` or `"ymd"`.

    Returns:
        `[T]` datetime64[D] and `[T]` bool.
    """
    places = [order.index(part) for part in "ymd"]
    turned = np.where((orders == "ymd")[:, None], numbers, numbers[:, places])
    year, month, day = turned.T
    short = orders == "short"
    year = np.where(short, year + np.where(year >= 69, 1900, 2000), year)
    fits = (month >= 1) & (month <= 12) & (day >= 1) & (year >= 1) & (year <= 9999)
    base = (np.where(fits, (year - 1970) * 12 + month - 1, 0)).astype("datetime64[M]")
    length = ((base + 1).astype("datetime64[D]") - base.astype("datetime64[D]")).astype(int)
    fits &= day <= length
    dates: np.ndarray = base.astype("datetime64[D]") + np.where(fits, day - 1, 0)
    return dates, fits
