"""Series of one frame share a clock, or are refused."""

import numpy as np
import pandas as pd
import pytest

from stride_jax.data.long_frames import read_panel
from stride_jax.data.panel import Panel
from stride_jax.errors import InputError

DAYS = pd.date_range("2026-01-05", periods=90, freq="D")


def read(*stamps: pd.DatetimeIndex, freq: str | None = None) -> Panel:
    """The panel of one series for each of these stamps, called 0, 1, ..."""
    parts = [pd.DataFrame({"id": i, "ds": s, "y": np.ones(len(s))}) for i, s in enumerate(stamps)]
    return read_panel(pd.concat(parts), "id", "ds", "y", freq)


WEEKDAYS = DAYS[DAYS.day_of_week < 5]


@pytest.mark.parametrize(
    ("skipped", "words"),
    [((5, 6), "weekdays"), ((6,), "Mon Tue Wed Thu Fri Sat"), ((0, 3), "Tue Wed Fri Sat Sun")],
)
def test_a_series_of_fewer_days_of_the_week(skipped: tuple[int, ...], words: str) -> None:
    """Its forecast, of days that it never has, would depend on the series beside it."""
    days = DAYS[~DAYS.day_of_week.isin(skipped)]
    with pytest.raises(InputError, match=rf"is {words}, the others are daily"):
        read(days, DAYS)


def test_a_frequency_that_is_given_counts_the_days_as_missing() -> None:
    """The message offers this way out."""
    panel = read(WEEKDAYS, DAYS, freq="D")
    assert int(np.isnan(panel.grids[0].values).sum()) == 24


def test_a_few_missing_days_are_no_clock_of_their_own() -> None:
    """A shop that was closed on some days, or on one weekend, would be refused."""
    holidays = DAYS.delete([3, 17, 40])
    for days in (holidays, DAYS[:12][DAYS[:12].day_of_week < 5], WEEKDAYS.delete([3, 17, 40])):
        assert read(days, DAYS).clock.describe() == "daily"
