"""Names and types of a frame's columns: nothing is overwritten, and a join with the frame works."""

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from helpers.frames import POINT, hours, long

from stride_jax.errors import InputError, InputWarning
from stride_jax.forecasting.frames import backtest, forecast_df

FRAME = long(a=hours(30))
SAMPLED = {**POINT, "num_samples": 10, "quantiles": (0.1,)}
COLUMNS = {"id_col": "unique_id", "time_col": "ds", "target_col": "y"}


@pytest.mark.parametrize("name", ["stride", "stride-q-10", "cutoff", "seasonal-naive"])
@pytest.mark.parametrize("option", COLUMNS)
def test_a_backtest_overwrites_no_column(option: str, name: str) -> None:
    """The truth would be the forecast, with an error of 0, or all times the cutoff."""
    df = FRAME.rename(columns={COLUMNS[option]: name})
    with pytest.raises(InputError, match=f"{name!r} is the name of a column of the result"):
        backtest(df, 3, **{option: name}, **SAMPLED)


@pytest.mark.parametrize("name", ["stride", "stride-q-10"])
@pytest.mark.parametrize("option", ["id_col", "time_col"])
def test_a_forecast_overwrites_no_column(option: str, name: str) -> None:
    """The forecast would have no times, or no names of series."""
    df = FRAME.rename(columns={COLUMNS[option]: name})
    with pytest.raises(InputError, match=f"{name!r} is the name of a column of the result"):
        forecast_df(df, 3, **{option: name}, **SAMPLED)


def test_values_may_have_the_name_of_a_forecast() -> None:
    """They are no column of the forecast, so nothing is lost."""
    df = FRAME.rename(columns={"y": "stride"})
    expected = forecast_df(FRAME, 3, **POINT)
    pd.testing.assert_frame_equal(forecast_df(df, 3, target_col="stride", **POINT), expected)


@pytest.mark.parametrize("named", [("ds", "ds", "y"), ("unique_id", "ds", "ds"), ("y", "ds", "y")])
@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame])
def test_one_column_has_one_meaning(named: tuple[str, str, str], library: Any) -> None:
    """The other library's traceback would be shown."""
    df = library({name: FRAME[name].tolist() for name in FRAME})
    columns = dict(zip(COLUMNS, named, strict=True))
    with pytest.raises(InputError, match="must be three columns, got"):
        forecast_df(df, 3, **columns, **POINT)


def test_columns_named_by_numbers() -> None:
    """A frame made of an array would end in a traceback, whatever is named."""
    df = FRAME.set_axis([0, 1, 2], axis=1)
    found: Any = forecast_df(df, 3, id_col=0, time_col=1, target_col=2, **POINT)
    expected = forecast_df(FRAME, 3, **POINT)
    np.testing.assert_array_equal(found["stride"], expected["stride"])
    assert list(found.columns) == [0, 1, "stride"]
    with pytest.raises(InputError, match=r"no column '0'. Known: \[0, 1, 2\]\."):
        forecast_df(df, 3, id_col="0", time_col="1", target_col="2", **POINT)


@pytest.mark.parametrize("zone", ["UTC", "Etc/UTC", "GMT", "Europe/Berlin", "+02:00"])
@pytest.mark.parametrize("unit", ["ms", "us"])
def test_polars_stamps_keep_their_zone(zone: str, unit: Any) -> None:
    """A join of forecasts with the frame would fail on the types; those in UTC were text."""
    stamps = pl.Series(FRAME["ds"].tolist()).cast(pl.Datetime(unit)).dt.replace_time_zone("UTC")
    stamps = stamps if zone == "+02:00" else stamps.dt.convert_time_zone(zone)
    frame = pl.DataFrame({"unique_id": FRAME["unique_id"].tolist(), "y": FRAME["y"].tolist()})
    frame = frame.with_columns(ds=stamps)
    assert forecast_df(frame, 3, **POINT).schema["ds"] == frame.schema["ds"]
    tested = backtest(frame, 3, **POINT)
    assert tested.schema["cutoff"] == tested.schema["ds"] == frame.schema["ds"]
    assert len(tested.join(frame, on=["unique_id", "ds"])) == 3


def test_polars_enumerations_stay() -> None:
    """The join would fail on the ids."""
    kind = pl.Enum(["b", "a"])
    frame = pl.DataFrame({name: FRAME[name].tolist() for name in FRAME})
    frame = frame.with_columns(pl.col("unique_id").cast(kind))
    assert forecast_df(frame, 3, **POINT).schema["unique_id"] == kind


@pytest.mark.parametrize("freq", ["M", "Q-DEC", "W-SUN", "D", "h", "Y-JUN"])
def test_periods_come_back_as_periods(freq: str) -> None:
    """A join of a backtest with its frame would be empty, without a word."""
    periods = pd.period_range("2016-01", periods=40, freq=freq)
    df = long(a=periods)
    ahead = forecast_df(df, 2, **POINT)
    assert ahead["ds"].tolist() == [periods[-1] + 1, periods[-1] + 2]
    tested = backtest(df, 2, **POINT)
    assert tested["cutoff"].dtype == df["ds"].dtype
    assert len(tested.merge(df, on=["unique_id", "ds"])) == 2


def test_periods_of_a_finer_clock_are_stamps() -> None:
    """Hours of a series of days would all be the same day."""
    df = long(a=pd.period_range("2026-01-01", periods=3, freq="D"))
    with pytest.warns(InputWarning, match="have no values"):
        found = forecast_df(df, 30, freq="12h", **POINT)
    assert found["ds"].is_unique
    assert found["ds"].dtype.kind == "M"
