"""The regular clock of a panel, and its inference from all stamps.

A clock numbers its stamps: `numbers` goes from stamps to whole numbers and `stamps` back, so that
gaps are differences, a grid is a range, and going on is adding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from stride_jax.errors import InputError

Unit = Literal["number", "microsecond", "day", "month", "offset"]
DAY = np.timedelta64(86_400_000_000, "us")
WEEK, WEEKDAYS = "1111111", "1111100"
MONTH_END = 31
"""Day of a clock of months that stands for the last one of a shorter month."""
MOST = 10_000_000
"""The most steps of a history or of a forecast."""
_EPOCH = np.datetime64("0001-01-01")
_LAST = np.datetime64("9999-12-31T23:59:59", "us")
_SIZES = {
    "hour": 3_600_000_000,
    "minute": 60_000_000,
    "second": 1_000_000,
    "millisecond": 1_000,
    "microsecond": 1,
}
_NAMES = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True)
class Clock:
    """A regular clock.

    Attributes:
        unit: what is counted: whole numbers as they are, microseconds, days, months, or the
            stamps of a pandas offset. Days and months are those of the wall clock.
        step: units between two stamps.
        week: of days: which days of the week count, Monday first, as numpy's weekmask.
        day: of months: the day of the month, or the last one of a shorter month; or
            "first weekday" or "last weekday".
        phase: of months: the remainder of every stamp's number, or None for any.
        offset: of stamps of an offset: the offset,
        origin: and the one with number 0.
    """

    unit: Unit
    step: int = 1
    week: str = WEEK
    day: int | str = 1
    phase: int | None = None
    offset: Any = None
    origin: Any = None

    def numbers(self, times: np.ndarray) -> np.ndarray:
        """The numbers of stamps, `[T]` int64; a neighbour's for a stamp that is off the clock."""
        if self.unit == "number":
            return times.astype(np.int64)
        if self.unit == "microsecond":
            return times.astype("datetime64[us]").astype(np.int64)
        if self.unit == "month":
            return times.astype("datetime64[M]").astype(np.int64)
        if self.unit == "day":
            days = times.astype("datetime64[D]")
            return np.asarray(np.busday_count(_EPOCH, days, weekmask=self.week), np.int64)
        table = self._table(end=times.max())
        return np.searchsorted(table, times, side="right").astype(np.int64) - 1

    def stamps(self, numbers: np.ndarray, time: np.timedelta64) -> np.ndarray:
        """The stamps of numbers, int64 or datetime64[us].

        Args:
            numbers: `[T]` int64.
            time: of the day, for clocks that count days or months.
        """
        if self.unit == "number":
            return numbers
        if self.unit == "microsecond":
            return numbers.astype("datetime64[us]")
        if self.unit == "offset":
            return self._table(count=int(numbers.max()) + 1)[numbers]
        dates: np.ndarray = self.days(numbers).astype("datetime64[us]") + time
        return dates

    def days(self, numbers: np.ndarray) -> np.ndarray:
        """The dates of numbers of a clock that counts days or months, datetime64[D]."""
        if self.unit == "day":
            zero = np.busday_offset(_EPOCH, 0, roll="forward", weekmask=self.week)
            return np.asarray(np.busday_offset(zero, numbers, weekmask=self.week))
        month = numbers.astype("datetime64[M]")
        first, after = month.astype("datetime64[D]"), (month + 1).astype("datetime64[D]")
        if self.day == "first weekday":
            return np.asarray(np.busday_offset(first, 0, roll="forward"))
        if self.day == "last weekday":
            return np.asarray(np.busday_offset(after, -1, roll="forward"))
        days: np.ndarray = first + np.minimum(int(self.day), (after - first).astype(int)) - 1
        return days

    def _table(self, end: Any = None, count: int | None = None) -> np.ndarray:
        """The stamps of an offset from its origin on."""
        edge: dict[str, Any] = {"periods": count} if end is None else {"end": end}
        stamps = pd.date_range(self.origin, freq=self.offset, **edge)
        return stamps.to_numpy().astype("datetime64[us]")

    def time_of_day(self, times: np.ndarray) -> np.timedelta64:
        """The most common time of day of stamps; 0 for clocks that do not count days."""
        if self.unit not in ("day", "month"):
            return np.timedelta64(0, "us")
        times_of_day, counts = np.unique(times - times.astype("datetime64[D]"), return_counts=True)
        most: np.timedelta64 = times_of_day[np.argmax(counts)].astype("timedelta64[us]")
        return most

    def off(self, times: np.ndarray) -> np.ndarray:
        """Which stamps of one series do not lie on the clock, `[T]` bool."""
        numbers = self.numbers(times)
        unknown = self.unknown(times, numbers)
        return unknown | self.out_of_step(numbers, ~unknown)

    def unknown(self, times: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Which stamps, with these numbers, the clock does not have at any step, `[T]` bool."""
        wrong: np.ndarray = self.stamps(numbers, self.time_of_day(times)) != times
        return wrong

    def out_of_step(self, numbers: np.ndarray, sure: np.ndarray) -> np.ndarray:
        """Which stamps of one series lie between its steps, `[T]` bool.

        Args:
            numbers: `[T]`, of the stamps.
            sure: `[T]` bool, those that tell where the steps are, if the clock does not.
        """
        rest = numbers % self.step
        if self.phase is not None:
            return np.asarray(rest != self.phase % self.step)
        phases, counts = np.unique(rest[sure], return_counts=True)
        return np.asarray(rest != (phases[np.argmax(counts)] if len(phases) else 0))

    def ahead(self, last: int, horizon: int) -> np.ndarray:
        """The numbers of the `horizon` stamps after number `last`.

        Raises:
            InputError: they are more than `MOST`, or end in no year that can be written.
        """
        day = int(DAY.astype(np.int64))
        size = {"day": day, "month": 28 * day}.get(self.unit, 1)
        room = 2**62 if self.unit == "number" else int(_LAST.astype(np.int64))
        longest = min(MOST, room // (size * self.step))
        if horizon > longest:
            raise InputError(
                f"a horizon of {horizon} steps is more than the {longest} that can be forecast on "
                f"a clock that is {self.describe()}."
            )
        return last + self.step * np.arange(1, horizon + 1, dtype=np.int64)

    def describe(self) -> str:
        """The clock in words, such as "hourly" or "monthly, day 15"."""
        if self.unit == "number":
            return "whole numbers" + (f" in steps of {self.step}" if self.step > 1 else "")
        if self.unit == "microsecond":
            return _every(self.step)
        if self.unit == "offset":
            return f"every {self.offset.freqstr}"
        if self.unit == "day":
            return self._describe_days()
        names = {1: "monthly", 3: "quarterly", 12: "yearly"}
        rhythm = names.get(self.step, f"every {self.step} months")
        if self.day == MONTH_END:
            return f"{rhythm}, last day"
        return f"{rhythm}, {self.day if isinstance(self.day, str) else f'day {self.day}'}"

    def _describe_days(self) -> str:
        if self.week == WEEK:
            weeks = self.step // 7
            names = {1: "daily", 7: "weekly"}
            many = f"every {weeks} weeks" if self.step % 7 == 0 else f"every {self.step} days"
            return names.get(self.step, many)
        days = "weekdays"
        if self.week != WEEKDAYS:
            days = " ".join(n for n, on in zip(_NAMES, self.week, strict=True) if on == "1")
        return days if self.step == 1 else f"every {self.step} of {days}"


def _every(step: int) -> str:
    """A duration in microseconds in words."""
    plain = {"hour": "hourly", "minute": "every minute", "second": "every second"}
    name = next(name for name, size in _SIZES.items() if step % size == 0)
    count = step // _SIZES[name]
    return plain.get(name, f"every {name}") if count == 1 else f"every {count} {name}s"


# --- inference -----------------------------------------------------------------------------------


def infer_clock(wall: np.ndarray, instant: np.ndarray, codes: np.ndarray) -> Clock | None:
    """The clock of a panel; None where no series has two different stamps.

    The most common step, the shortest of several. Days of which every one is a weekday are
    weekdays, once they have passed a weekend or stopped before one.

    Args:
        wall: `[T]` datetime64[us] of the wall clock, or int64, ascending in each series.
        instant: `[T]`, the same in UTC.
        codes: `[T]`, numbers of the series, one after the other.
    """
    later = (codes[1:] == codes[:-1]) & (instant[1:] > instant[:-1])
    if not later.any():
        return None
    if wall.dtype.kind == "i":
        return Clock("number", _most_common(np.diff(wall)[later]))
    days = wall.astype("datetime64[D]")
    steps = np.diff(days)[later].astype(np.int64)
    time = wall - days
    same_time = (time[1:] == time[:-1])[later]
    # a midnight that summer time skips may stand at one o'clock
    if np.median(steps) >= 1 and same_time.mean() >= (0.5 if len(steps) > 2 else 1.0):
        return (month_clock(days, later) if np.median(steps) >= 28 else None) or _days(days, steps)
    return Clock("microsecond", _most_common(np.diff(instant)[later].astype(np.int64)))


def _most_common(steps: np.ndarray) -> int:
    lengths, counts = np.unique(steps, return_counts=True)
    return int(lengths[np.argmax(counts)])


def day_of_month(days: np.ndarray) -> np.ndarray:
    """Days of the month from 1 on, of datetime64[D]."""
    first = days.astype("datetime64[M]").astype("datetime64[D]")
    return np.asarray((days - first).astype(np.int64) + 1)


def month_clock(days: np.ndarray, later: np.ndarray) -> Clock | None:
    """A clock of months that three quarters of the days lie on, or None."""
    months = days.astype("datetime64[M]").astype(np.int64)
    steps = np.diff(months)[later]
    step = _most_common(steps)
    if step < 1:
        return None
    in_month = day_of_month(days)
    best, best_fit = None, 0.75
    likely = _most_common(in_month), int(in_month.max())
    for day in (MONTH_END, *likely, "first weekday", "last weekday"):
        clock = Clock("month", step, day=day)
        fit = float((clock.days(months) == days).mean())
        if fit > best_fit or (best is None and fit == best_fit):
            best, best_fit = clock, fit
    return best


def _days(days: np.ndarray, steps: np.ndarray) -> Clock:
    """A clock of days, of the days of the week that occur if they are always the same."""
    step = _most_common(steps[steps > 0])
    if step > 1:
        return Clock("day", step)
    weekday = (days.astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday
    here = "".join("01"[int((weekday == day).any())] for day in range(7))
    first, last = days.min(), days.max()
    possible = int(np.busday_count(first, last + 1, weekmask=here))
    if last - first >= np.timedelta64(28, "D") and 2 * len(np.unique(days)) >= possible:
        return Clock("day", week=here)
    working = not (weekday >= 5).any()
    passed = first.astype("datetime64[D]").astype(int) + 3
    weekend = (last.astype(int) + 3) // 7 > passed // 7
    stopped = weekday[np.argmax(days)] == 4 and len(np.unique(days)) >= 4
    return Clock("day", week=WEEKDAYS if working and (weekend or stopped) else WEEK)
