"""The clock that is told from a few stamps, and the rows that do not lie on it."""

import numpy as np
import pandas as pd
import pytest

from stride_jax.data.long_frames import read_panel
from stride_jax.data.panel import Panel
from stride_jax.errors import InputError


def panel_of(*stamps: str) -> Panel:
    """The panel of one series with these times."""
    df = pd.DataFrame({"unique_id": "a", "ds": pd.to_datetime(list(stamps))})
    return read_panel(df.assign(y=np.arange(float(len(df)))), "unique_id", "ds", "y")


def test_the_shortest_month_is_a_month() -> None:
    """Two months of a young series would go on every 28 days: on the 29th of March."""
    panel = panel_of("2026-02-01", "2026-03-01")
    assert panel.clock.describe() == "monthly, day 1"
    assert list(panel.grids[0].ahead(2).strftime("%m-%d")) == ["04-01", "05-01"]


def test_one_mistyped_day_of_four_months_is_named() -> None:
    """The months would be taken for every 28 days, and a row be named that is right."""
    with pytest.raises(InputError, match=r"data row 3\).*monthly, day 1"):
        panel_of("2026-01-01", "2026-02-01", "2026-03-02", "2026-04-01")


def test_a_first_row_off_the_clock_is_the_one_that_is_named() -> None:
    """The user would mend the second row, which is right, and then the third."""
    hours = pd.date_range("2026-01-05 02:00", periods=6, freq="2h").astype(str)
    with pytest.raises(InputError, match=r"data row 1\), which does not lie on its clock"):
        panel_of("2026-01-05 01:00:00", *hours)


def test_a_few_days_far_apart_do_not_tell_the_days_of_a_week() -> None:
    """Two visits of three days each would be forecast on Monday to Wednesday for ever."""
    first, second = (pd.date_range(day, periods=3) for day in ("2026-01-05", "2026-03-02"))
    panel = panel_of(*first.astype(str), *second.astype(str))
    assert panel.clock.describe() == "weekdays"
    assert list(panel.grids[0].ahead(2).strftime("%m-%d")) == ["03-05", "03-06"]


def long(**series: list[str]) -> pd.DataFrame:
    """A frame of series with these times."""
    parts = [pd.DataFrame({"unique_id": name, "ds": times}) for name, times in series.items()]
    df = pd.concat(parts, ignore_index=True)
    return df.assign(y=np.arange(float(len(df))))


def days(start: str, count: int) -> list[str]:
    """Days in a row, as text."""
    return list(pd.date_range(start, periods=count).strftime("%Y-%m-%d"))


def test_some_mistyped_years_of_a_long_series_are_refused() -> None:
    """Three of 400 rows would stretch the series to 36 years of missing values."""
    with pytest.raises(InputError, match=r"2062-.* steps \(daily\) away from its other rows"):
        panel_of(*days("2025-01-01", 400), *days("2062-01-01", 3))


def test_a_first_reading_long_before_the_others_is_no_slip() -> None:
    """A sensor that was tried out half a year before it was installed would be refused."""
    panel = panel_of("2024-01-01", *days("2024-06-01", 400))
    assert len(panel.grids[0].values) == 152 + 400


def test_two_rows_of_a_young_series_tell_no_clock() -> None:
    """A new shop that was closed on its second day would end the forecast of all others."""
    df = long(old=days("2026-01-01", 30), young=["2026-01-28", "2026-01-30"])
    panel = read_panel(df, "unique_id", "ds", "y")
    assert panel.clock.describe() == "daily"
    assert np.isnan(panel.grids[1].values).tolist() == [False, True, False]


def test_offsets_stay_with_their_stamps() -> None:
    """Stamps of before the change to summer time would be printed with the offset of after it."""
    hours = pd.date_range("2026-03-29", periods=12, freq="h", tz="Europe/Berlin")
    texts = [stamp.isoformat() for stamp in hours]
    df = long(a=texts)
    df.loc[0, "y"] = np.nan
    (whole,) = read_panel(df, "unique_id", "ds", "y").grids
    assert [stamp.isoformat() for stamp in whole.times] == texts
    assert [stamp.isoformat() for stamp in whole.known().times] == texts[1:]
    # a step without a row has the offset of the stamp before: 02:00+01:00 is 03:00+02:00
    (gappy,) = read_panel(df.drop(index=2), "unique_id", "ds", "y").grids
    assert gappy.times[2].isoformat() == "2026-03-29T02:00:00+01:00"
