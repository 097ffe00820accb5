"""Stamps with a time zone lie on a clock as strictly as those without."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from stride_jax.data.long_frames import read_panel
from stride_jax.data.panel import Panel
from stride_jax.errors import InputError


def read(stamps: Any, **options: Any) -> Panel:
    """The panel of one series with these stamps."""
    frame = pd.DataFrame({"unique_id": "a", "ds": stamps, "y": np.arange(len(stamps)) + 1.0})
    return read_panel(frame, "unique_id", "ds", "y", options.pop("freq", None), **options)


def with_a_row_moved(zone: str | None) -> pd.Series:
    """Hours, the last one 45 minutes early."""
    stamps = pd.date_range("2026-01-01", periods=100, freq="h").to_series().reset_index(drop=True)
    stamps[99] -= pd.Timedelta("45min")
    return stamps.dt.tz_localize(zone)


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin", "+02:00"])
@pytest.mark.parametrize(
    ("start", "every", "freq"),
    [("2026-01-01", "30min", "h"), ("2026-01-05", "D", "W"), ("2016-01-01", "MS", "QS")],
)
def test_a_coarser_frequency_loses_no_rows(
    zone: str | None, start: str, every: str, freq: str
) -> None:
    """Half of the rows would be overwritten by their neighbours, without a word."""
    stamps = pd.date_range(start, periods=100, freq=every, tz=zone)
    with pytest.raises(InputError, match="does not lie on its clock"):
        read(stamps, freq=freq)


@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_a_row_between_two_hours_is_refused(zone: str | None) -> None:
    """It would take the place of the hour before it."""
    with pytest.raises(InputError, match="does not lie on its clock"):
        read(with_a_row_moved(zone))


def test_wall_clock_steps_of_six_hours_are_refused_across_summer_time() -> None:
    """Every stamp after the change would be an hour late, and so would the forecast."""
    stamps = pd.date_range("2026-03-20", periods=60, freq="6h").tz_localize("Europe/Berlin")
    with pytest.raises(InputError, match="does not lie on its clock"):
        read(stamps)


def test_instants_of_six_hours_go_on_across_summer_time() -> None:
    """They are regular, though the wall clock shows other hours after the change."""
    stamps = pd.date_range("2026-03-20", periods=60, freq="6h", tz="Europe/Berlin")
    panel = read(stamps)
    assert panel.grids[0].ahead(1)[0] == stamps[-1] + pd.Timedelta("6h")
    assert not np.isnan(panel.grids[0].values).any()


def test_days_at_an_hour_that_summer_time_skips() -> None:
    """The one day that has no half past two would be an error, or off by one."""
    walls = pd.date_range("2026-03-20 02:30", periods=20, freq="D")
    stamps = walls.tz_localize("Europe/Berlin", nonexistent="shift_forward")
    panel = read(stamps)
    np.testing.assert_array_equal(panel.grids[0].values, np.arange(20) + 1.0)


def test_an_hour_that_comes_twice_on_a_clock_of_days() -> None:
    """The second row of that day would take the place of the first."""
    walls = pd.DatetimeIndex([*pd.date_range("2026-10-15 02:30", periods=20, freq="D")])
    twice = walls.insert(11, walls[10])
    first = np.ones(len(twice), bool)
    first[11] = False
    with pytest.raises(InputError, match=r"2026-10-25 02:30:00 twice on its clock"):
        read(twice.tz_localize("Europe/Berlin", ambiguous=first))
