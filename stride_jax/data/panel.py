"""Series on one regular clock: each laid out on its grid, with NaN where there is no row."""

from __future__ import annotations

import datetime
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from stride_jax.data.clock import MOST, Clock, infer_clock
from stride_jax.data.frequencies import given_clock
from stride_jax.data.orders import Stamps
from stride_jax.errors import InputError, counted

FAR = 100
"""Steps without a row before a few rows at an end that count as stray."""


class Timeline(NamedTuple):
    """The clock of one series, and how its stamps are written.

    Attributes:
        clock: of the panel.
        time: of the day, see `Clock.stamps`.
        zone: of the stamps, or None.
        offset: timedelta64[us] east of UTC of the last row of stamps with offsets in text, or None.
        unit: of the datetimes, such as "us".
    """

    clock: Clock
    time: np.timedelta64
    zone: Any = None
    offset: np.timedelta64 | None = None
    unit: Literal["s", "ms", "us", "ns"] = "us"

    def at(self, numbers: np.ndarray) -> pd.Index:
        """The stamps of numbers of the clock.

        Raises:
            InputError: they are beyond what the type of the stamps can hold.
        """
        stamps = self.clock.stamps(numbers, self.time)
        if self.clock.unit == "number":
            return pd.Index(stamps)
        if len(stamps) and stamps.max() > np.datetime64("9999-12-31T23:59:59"):
            raise InputError(f"the stamps would go on beyond the year 9999, to {stamps.max()}.")
        try:
            return self._dated(pd.DatetimeIndex(stamps)).as_unit(self.unit)
        except (pd.errors.OutOfBoundsDatetime, OverflowError) as error:
            raise InputError(
                f"the stamps would go on beyond what their type holds: {error}"
            ) from error

    def _dated(self, stamps: pd.DatetimeIndex) -> pd.DatetimeIndex:
        zone = self.zone
        if zone is None and self.offset is not None:
            zone = datetime.timezone(pd.Timedelta(self.offset).to_pytimedelta())
        if zone is None:
            return stamps
        if self.clock.unit == "microsecond":
            return stamps.tz_localize("UTC").tz_convert(zone)
        # an hour that comes twice is the first one; one that summer time skips, the next
        first = np.ones(len(stamps), bool)
        return stamps.tz_localize(zone, ambiguous=first, nonexistent="shift_forward")


class Grid(NamedTuple):
    """One series on a regular clock.

    Attributes:
        name: its id.
        numbers: `[T]` int64, of its stamps on the clock, without gaps.
        values: `[T]` float64; NaN where the frame has no row or no value.
        timeline: what turns numbers into stamps.
        row: the number of its first row in the frame.
        offsets: `[T]` timedelta64[us], where the offsets of its stamps change; that of the stamp
            before where there is no row.
    """

    name: Any
    numbers: np.ndarray
    values: np.ndarray
    timeline: Timeline
    row: int = 0
    offsets: np.ndarray | None = None

    @property
    def times(self) -> pd.Index:
        """The stamps, `[T]`."""
        if self.offsets is None:
            return self.timeline.at(self.numbers)
        parts = zip(self.numbers, self.offsets, strict=True)
        lines = [(n, self.timeline._replace(offset=offset)) for n, offset in parts]
        return pd.Index([line.at(np.array([n]))[0] for n, line in lines], dtype=object)

    def until(self, stop: int) -> Grid:
        """The series up to a step."""
        offsets = None if self.offsets is None else self.offsets[:stop]
        return self._replace(
            numbers=self.numbers[:stop], values=self.values[:stop], offsets=offsets
        )

    def known(self) -> Grid:
        """The series from its first value to its last one.

        Raises:
            InputError: it has no value.
        """
        steps = np.flatnonzero(~np.isnan(self.values))
        if not len(steps):
            raise InputError(f"series {self.name!r} has no value at all.")
        first = int(steps[0])
        offsets = None if self.offsets is None else self.offsets[first:]
        later = self._replace(
            numbers=self.numbers[first:], values=self.values[first:], offsets=offsets
        )
        return later.until(int(steps[-1]) + 1 - first)

    @property
    def clock(self) -> Clock:
        """The clock of the panel."""
        return self.timeline.clock

    def ahead(self, horizon: int) -> pd.Index:
        """The `horizon` stamps after the last one; see `Clock.ahead` for errors."""
        return self.timeline.at(self.clock.ahead(int(self.numbers[-1]), horizon))


class Panel(NamedTuple):
    """All series of a frame.

    Attributes:
        grids: in the order of their ids.
        clock: of all of them.
        rows: of the frame.
        note: how the stamps were read, where that is not plain.
        ids: the ids of the rows, of the type of the frame's.
    """

    grids: list[Grid]
    clock: Clock
    rows: int
    note: str = ""
    ids: Any = None


def lay_out(
    names: list[Any], codes: np.ndarray, stamps: Stamps, values: np.ndarray, freq: Any = None
) -> Panel:
    """The series of a frame on one clock; rows may be in any order.

    Args:
        names: the ids.
        codes: `[T]`, the number of each row's id.
        stamps: `[T]`.
        values: `[T]` float64.
        freq: see `frequencies.given_clock`; None infers it from all series together.

    Raises:
        InputError: a time twice, no frequency, series of different frequencies, a stamp off the
            clock, or one far away from all others.
    """
    order = np.lexsort((stamps.instant, codes))
    sorted_codes = codes[order]
    wall, instant = stamps.wall[order], stamps.instant[order]
    twice = (np.diff(sorted_codes) == 0) & (instant[1:] == instant[:-1])
    if twice.any():
        at = order[1:][twice][0]
        raise InputError(
            f"series {names[codes[at]]!r} has the time {_shown(stamps, at)} twice (data row "
            f"{at + 1}); drop or merge the rows."
        )
    clock = infer_clock(wall, instant, sorted_codes) if freq is None else given_clock(freq, wall)
    if clock is None:
        raise InputError(
            f"series {names[0]!r} has one row, which tells no frequency; give freq (--freq)."
        )
    starts = np.flatnonzero(np.diff(sorted_codes, prepend=-1))
    parts = np.split(order, starts[1:])
    if freq is None:
        _agree(names, parts, codes, stamps, clock)
    grids = [_grid(names[codes[rows[0]]], rows, stamps, values, clock) for rows in parts]
    return Panel(grids, clock, len(codes), stamps.note)


def _agree(
    names: list[Any], parts: list[np.ndarray], codes: np.ndarray, stamps: Stamps, clock: Clock
) -> None:
    """Refuses a series that is regular on another clock than the others."""
    for rows in parts if len(parts) > 1 else []:
        times = _counted(stamps, clock)[rows]
        steps = np.unique(np.diff(clock.numbers(times)))
        fits = len(steps) > 1 or bool((steps == clock.step).all())
        fits &= not _of_fewer_days(times, clock)
        if len(rows) < 3 or (fits and not clock.off(times).any()):
            continue
        single = np.zeros(len(rows), int)
        single_clock = infer_clock(stamps.wall[rows], stamps.instant[rows], single)
        if single_clock is None or single_clock == clock:
            continue
        if not single_clock.off(_counted(stamps, single_clock)[rows]).any():
            raise InputError(
                f"series {names[codes[rows[0]]]!r} is {single_clock.describe()}, the others are "
                f"{clock.describe()}; forecast them apart, or give freq (--freq) if its gaps are "
                "missing values."
            )


def _of_fewer_days(times: np.ndarray, clock: Clock) -> bool:
    """Whether a series leaves out the same days of every week of a clock of days, and no others."""
    if clock.unit != "day" or (np.diff(clock.numbers(times)) > clock.step).sum() < 2:
        return False
    alone = infer_clock(times, times, np.zeros(len(times), int))
    if alone is None or alone.unit != "day" or alone.week == clock.week:
        return False
    return bool((np.diff(alone.numbers(times)) == alone.step).all())


def _counted(stamps: Stamps, clock: Clock) -> np.ndarray:
    """The stamps that a clock counts: of the wall, or in UTC."""
    return stamps.instant if clock.unit == "microsecond" else stamps.wall


def _grid(name: Any, rows: np.ndarray, stamps: Stamps, values: np.ndarray, clock: Clock) -> Grid:
    """One series, of these rows in the order of time."""
    times = _counted(stamps, clock)[rows]
    time = clock.time_of_day(times)
    offset = None if stamps.offset is None or stamps.zone is not None else stamps.offset[rows[-1]]
    timeline = Timeline(clock, time, stamps.zone, offset, stamps.unit)
    numbers = clock.numbers(times)
    unknown = clock.unknown(times, numbers)
    if unknown.any() and stamps.zone is not None:
        unknown[unknown] = ~_moved(timeline, numbers[unknown], stamps.instant[rows][unknown])
    off = unknown | clock.out_of_step(numbers, ~unknown)
    if off.any():
        at = rows[int(np.argmax(off))]
        raise InputError(
            f"series {name!r} has the time {_shown(stamps, at)} (data row {at + 1}), which does "
            f"not lie on its clock ({clock.describe()}); mend it, resample, or give freq (--freq)."
        )
    places = (numbers - numbers[0]) // clock.step
    twice = np.flatnonzero(np.diff(places) == 0)
    if len(twice):  # one hour of the change to winter time comes twice
        at = rows[int(twice[0]) + 1]
        raise InputError(
            f"series {name!r} has the time {_shown(stamps, at)} twice on its clock "
            f"({clock.describe()}; data row {at + 1}); drop or merge the rows."
        )
    _near(name, places, rows, stamps, clock)
    grid = np.full(int(places[-1]) + 1, np.nan)
    grid[places] = values[rows]
    whole = numbers[0] + clock.step * np.arange(len(grid), dtype=np.int64)
    offsets = None
    if offset is not None and stamps.offset is not None and (stamps.offset[rows] != offset).any():
        offsets = stamps.offset[rows][np.searchsorted(places, np.arange(len(grid)), "right") - 1]
    return Grid(name, whole, grid, timeline, int(rows.min()), offsets)


def _moved(timeline: Timeline, numbers: np.ndarray, instants: np.ndarray) -> np.ndarray:
    """Which stamps are those of the numbers after the change to summer time, `[T]` bool."""
    utc = pd.DatetimeIndex(timeline.at(numbers)).tz_convert("UTC").tz_localize(None)
    return np.asarray(utc.to_numpy().astype("datetime64[us]") == instants)


def _near(name: Any, places: np.ndarray, rows: np.ndarray, stamps: Stamps, clock: Clock) -> None:
    """Refuses a few rows that are further from the others than those are from each other."""
    gaps = np.diff(places)
    if not len(gaps):
        return
    widest = int(np.argmax(gaps))
    few = max(1, len(rows) // 100)
    front, back = widest + 1, len(rows) - widest - 1
    rest = places[-1] - places[widest + 1] if front <= back else places[widest] - places[0]
    stray = min(front, back) <= few and gaps[widest] > max(FAR, rest)
    if stray or places[-1] >= MOST:
        at = rows[widest if front <= back else widest + 1]
        raise InputError(
            f"series {name!r} has the time {_shown(stamps, at)} (data row {at + 1}), "
            f"{gaps[widest]} steps ({clock.describe()}) away from its other rows; mend or "
            "remove that row."
        )


def _shown(stamps: Stamps, row: int) -> str:
    at = stamps.wall[row]
    return str(at) if stamps.wall.dtype.kind == "i" else str(pd.Timestamp(at))


def describe(panel: Panel, horizon: int | None = None, note: str = "") -> str:
    """One line: the clock, the rows, their first and last stamp, and where forecasts begin.

    Without a horizon nothing is said of forecasts.
    """
    edges = [grid.timeline.at(grid.numbers[[0, -1]]) for grid in panel.grids]
    day = all(_is_midnight(stamp) for edge in edges for stamp in edge)
    day &= panel.clock.unit != "microsecond"
    first, last = min(edge[0] for edge in edges), max(edge[1] for edge in edges)
    gaps = sum(len(grid.values) for grid in panel.grids) - panel.rows
    words = [panel.clock.describe(), counted(panel.rows, "row")]
    words += [f"{len(panel.grids)} series"] if len(panel.grids) > 1 else []
    words.append(f"{_written(first, day)} to {_written(last, day)}")
    words += [f"{counted(gaps, 'step')} without a row"] if gaps else []
    begin = "" if horizon is None else _begin(panel, horizon, day)
    notes = [text for text in (begin, panel.note, note) if text]
    return "; ".join([", ".join(words), *notes])


def _begin(panel: Panel, horizon: int, day: bool) -> str:
    """Where forecasts begin."""
    ahead = [grid.ahead(1)[0] for grid in panel.grids]
    text = f"forecast of {horizon} from {_written(min(ahead), day)}"
    if min(ahead) != max(ahead):
        text += f" (the series that end last, from {_written(max(ahead), day)})"
    return text


def _is_midnight(stamp: Any) -> bool:
    return isinstance(stamp, pd.Timestamp) and stamp == stamp.normalize()


def _written(stamp: Any, day: bool) -> str:
    if not isinstance(stamp, pd.Timestamp):
        return str(stamp)
    if day:
        return stamp.strftime("%Y-%m-%d")
    short = stamp.second == stamp.microsecond == 0
    zone = stamp.strftime("%z")
    text = stamp.strftime("%Y-%m-%d %H:%M" if short else "%Y-%m-%d %H:%M:%S")
    return text + (f"{zone[:3]}:{zone[3:]}" if zone else "")
