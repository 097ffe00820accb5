"""Which of the parts of a date is the day: decided once for a column, by the clock it gives."""

from __future__ import annotations

import datetime
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from stride_jax.data.clock import Clock, infer_clock
from stride_jax.data.frequencies import given_clock
from stride_jax.errors import InputError

ORDERS = {"dmy": "day first", "mdy": "month first", "ymd": "year first"}


class Reading(NamedTuple):
    """The wishes of a user about stamps.

    Attributes:
        dayfirst: the day comes before the month in `01/02/2026`; None decides by the clock.
        date_format: of `strptime`, for all of them; None for the usual ones.
        freq: of the clock, or None.
    """

    dayfirst: bool | None = None
    date_format: str | None = None
    freq: Any = None


USUAL = Reading()
"""No wishes: everything is read off the data."""


class Stamps(NamedTuple):
    """The stamps of a column.

    Attributes:
        wall: `[T]` datetime64[us] of the local wall clock, or int64 for whole numbers.
        offset: `[T]` timedelta64[us] east of UTC, or None for stamps without a zone.
        zone: of a column with a zone; None for offsets that stand in text.
        unit: of the column's datetimes.
        note: how they were read, where that is not plain.
    """

    wall: np.ndarray
    offset: np.ndarray | None = None
    zone: Any = None
    unit: Literal["s", "ms", "us", "ns"] = "us"
    note: str = ""

    @property
    def instant(self) -> np.ndarray:
        """The stamps in UTC, or unchanged where they have no zone."""
        instant: np.ndarray = self.wall if self.offset is None else self.wall - self.offset
        return instant

    def as_pandas(self) -> pd.Series:
        """Datetimes with their offset, or whole numbers; objects where the offsets change."""
        if self.offset is None:
            return pd.Series(self.wall)
        utc = pd.DatetimeIndex(self.instant, tz="UTC")
        if self.zone is not None or (self.offset == self.offset[0]).all():
            zone = self.zone or datetime.timezone(self.offset[0].item())
            return pd.Series(utc.tz_convert(zone))
        zones = [datetime.timezone(offset) for offset in self.offset.tolist()]
        stamps = [stamp.tz_convert(zone) for stamp, zone in zip(utc, zones, strict=True)]
        return pd.Series(stamps, dtype=object)


def choose_order(readings: dict[str, Stamps], codes: np.ndarray, how: Reading, name: str) -> str:
    """The order of the dates of a column: the one that gives a regular clock.

    Raises:
        InputError: several do.
    """
    different = {order: stamps.wall.tobytes() for order, stamps in readings.items()}
    if len(set(different.values())) == 1:
        return next(iter(readings))
    quality = {order: _regularity(stamps, codes, how.freq) for order, stamps in readings.items()}
    best, second = sorted(quality, key=lambda order: quality[order], reverse=True)[:2]
    (sorted_best, filled_best), (sorted_second, filled_second) = quality[best], quality[second]
    clear = filled_best == 1 > filled_second or filled_best >= 2 * filled_second
    if filled_best > 0 and (sorted_best > sorted_second or clear):
        return best
    shown = " or ".join(f"{ORDERS[o]} {_continues(readings[o], codes)}" for o in (best, second))
    raise InputError(
        f"the dates of column {name!r} can be read {shown}; say which with --dayfirst, "
        "--no-dayfirst or --date-format (dayfirst=, date_format=)."
    )


def _ordered(stamps: Stamps, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Wall and instant in the order of series and time, and the series."""
    order = np.lexsort((stamps.instant, codes))
    return stamps.wall[order], stamps.instant[order], codes[order]


def _regularity(stamps: Stamps, codes: np.ndarray, freq: Any) -> tuple[bool, float]:
    """Whether the rows of each series are sorted by time, and how much of the clock has a row."""
    same = codes[1:] == codes[:-1]
    steps = np.diff(stamps.instant)[same].astype(np.int64)
    is_sorted = bool((steps >= 0).all() or (steps <= 0).all())
    wall, instant, codes = _ordered(stamps, codes)
    try:
        clock = infer_clock(wall, instant, codes) if freq is None else given_clock(freq, wall)
    except InputError:
        return is_sorted, 0.0
    return is_sorted, 1.0 if clock is None else _filled(clock, wall, instant, codes)


def _filled(clock: Clock, wall: np.ndarray, instant: np.ndarray, codes: np.ndarray) -> float:
    rows = steps = 0
    starts = np.flatnonzero(np.diff(codes, prepend=codes[:1] - 1))
    for part in np.split(np.arange(len(codes)), starts[1:]):
        times = (instant if clock.unit == "microsecond" else wall)[part]
        if clock.off(times).any():
            return 0.0
        numbers = np.unique(clock.numbers(times))
        rows += len(numbers)
        steps += int(numbers[-1] - numbers[0]) // clock.step + 1
    return rows / steps


def _continues(stamps: Stamps, codes: np.ndarray) -> str:
    wall, instant, codes = _ordered(stamps, codes)
    clock = infer_clock(wall, instant, codes)
    rhythm = "" if clock is None else f", {clock.describe()}"
    return f"({str(wall[0])[:10]} to {str(wall[-1])[:10]}{rhythm})"
