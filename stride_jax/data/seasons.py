"""Season of a clock: the steps after which a series is likely to look like itself again.

| clock | season, steps |
|---|---|
| every N seconds, below a minute | an hour: 3600 / N |
| every N minutes or hours, below a day | a day: 1440 / N or 24 / N, so 24 for hourly |
| daily | a week: 7; of weekdays 5, of other days of the week as many as there are |
| weekly | a year: 52 |
| every N months | a year: 12 / N, so 12 for monthly and 4 for quarterly |
| yearly, whole numbers, and any clock that does not divide the above | 1 |
"""

from __future__ import annotations

from stride_jax.data.clock import Clock

_SECOND = 1_000_000
_MINUTE, _HOUR, _DAY = 60 * _SECOND, 3600 * _SECOND, 86_400 * _SECOND


def season_of(clock: Clock) -> int:
    """The steps of a season, 1 where the clock has none; the table of the module says which."""
    if clock.unit == "microsecond":
        whole = _HOUR if clock.step < _MINUTE else _DAY
        return _parts(whole, clock.step) if clock.step >= _SECOND else 1
    if clock.unit == "day":
        week = _parts(clock.week.count("1"), clock.step)
        return 52 if (clock.week.count("1"), week) == (clock.step, 1) else week
    return _parts(12, clock.step) if clock.unit == "month" else 1


def _parts(whole: int, step: int) -> int:
    """The steps in a whole; 1 where they do not fill it."""
    return 1 if whole % step else whole // step
