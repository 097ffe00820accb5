"""Frames of every kind and type: what goes in comes back in kind, with the right stamps."""

import decimal
import fractions
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from helpers.frames import POINT, REPEAT, hours, long

from stride_jax.data.long_frames import read_panel
from stride_jax.errors import InputError
from stride_jax.forecasting.frames import backtest, forecast_df

SAMPLED = {**POINT, "num_samples": 10, "quantiles": (0.1, 0.9)}
NAMES = ("unique_id", "ds", "y")


def days(start: str, count: int, **settings: Any) -> pd.DatetimeIndex:
    """A daily clock."""
    return pd.date_range(start, periods=count, freq="D", **settings)


# --- values --------------------------------------------------------------------------------------

NUMBERS: dict[str, Any] = {
    "Decimal": lambda y: pd.Series([decimal.Decimal(str(v)) for v in y], dtype=object),
    "Decimal with None": lambda y: pd.Series([decimal.Decimal(str(v)) for v in y], dtype=object),
    "Fraction": lambda y: pd.Series([fractions.Fraction(v) for v in y], dtype=object),
    "int objects": lambda y: pd.Series([int(v) for v in y], dtype=object),
    "mixed objects": lambda y: pd.Series(
        [int(v) if i % 2 else v for i, v in enumerate(y)], dtype=object
    ),
    "categories": lambda y: pd.Series(y).astype("category"),
    "Int64": lambda y: pd.Series(y).astype("Int64"),
    "Float32": lambda y: pd.Series(y).astype("Float32"),
    "uint8": lambda y: pd.Series(y).astype("uint8"),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_values_of_every_type_are_numbers(kind: str) -> None:
    """A column straight from a data base would be refused."""
    df = long(a=hours(9), b=hours(6))
    df["y"] = np.arange(15.0)
    typed = df.assign(y=NUMBERS[kind](df["y"].tolist()))
    expected = np.arange(15.0)
    if kind == "Decimal with None":
        typed.loc[3, "y"] = None
        expected[3] = np.nan
    found = read_panel(typed, *NAMES).grids
    np.testing.assert_array_equal(np.concatenate([grid.values for grid in found]), expected)


@pytest.mark.parametrize("values", [["1", "2"], [1.0, "x"], [True, 1], [1j, 2.0], [[1], [2]]])
def test_what_is_no_number_is_named(values: list[Any]) -> None:
    """Text would be taken for numbers, truth for 1, or a list end in a traceback."""
    df = pd.DataFrame({"unique_id": "a", "ds": hours(2), "y": pd.Series(values, dtype=object)})
    with pytest.raises(InputError, match="'y' must be numbers"):
        read_panel(df, *NAMES)


# --- ids -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype", ["category", "string", "int32", "Int64", "float32", "datetime64[ns]", "object"]
)
def test_ids_keep_their_type(dtype: str) -> None:
    """A merge of forecasts and stock would find no id again, or 01 beside 1."""
    names = {"object": ("01", "1"), "category": ("01", "1"), "string": ("01", "1e5")}
    first, second = names.get(dtype, (7, 12))
    df = long(a=hours(9), b=hours(6))
    df["unique_id"] = pd.Series([first] * 9 + [second] * 6).astype(dtype)
    found = forecast_df(df, 2, **POINT)
    assert found["unique_id"].dtype == df["unique_id"].dtype
    assert found["unique_id"].tolist() == [df["unique_id"][0]] * 2 + [df["unique_id"][9]] * 2


def test_ids_that_cannot_be_compared_are_refused() -> None:
    """Lists as ids would be a traceback of pandas."""
    df = long(a=hours(9))
    with pytest.raises(InputError, match=r"'unique_id' has ids .*\['a'\]"):
        read_panel(df.assign(unique_id=[["a"]] * 9), *NAMES)


def test_a_column_that_is_there_twice_is_refused() -> None:
    """Which of two columns y is meant would be a traceback, or a guess."""
    df = long(a=hours(9))
    for name in NAMES:
        twice = pd.concat([df, df[[name]]], axis=1)
        with pytest.raises(InputError, match=f"several columns '{name}'"):
            forecast_df(twice, 2, **POINT)


# --- stamps --------------------------------------------------------------------------------------


def test_midnights_of_a_zone_stay_midnights() -> None:
    """A day that is missing, and summer time: forecasts would stand at one o'clock."""
    times = days("2026-03-20", 8, tz="Europe/Berlin")
    for known in (times, times.delete(3)):
        found = forecast_df(long(a=known), 4, **POINT)
        assert found["ds"].tolist() == days("2026-03-28", 4, tz="Europe/Berlin").tolist()
        assert found["ds"].dtype == pd.Series(times).dtype


@pytest.mark.parametrize("freq", ["h", "D", "B", "W", "MS", "ME"])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "UTC"])
def test_clocks_of_every_zone_go_on(freq: str, zone: str) -> None:
    """A change of the clocks would move every stamp after it."""
    times = pd.date_range("2026-02-01", periods=120, freq=freq, tz=zone)
    for known in (times[:100], times[:100].delete(50)):
        (grid,) = read_panel(long(a=known), *NAMES).grids
        assert grid.ahead(20).tolist() == times[100:].tolist()
        assert grid.times.tolist() == times[:100].tolist()


def test_a_midnight_that_summer_time_skips() -> None:
    """In a zone whose clocks change at midnight the day would be called off the clock."""
    naive = days("2018-10-25", 20)  # no midnight on 4 November
    times = naive.tz_localize("America/Sao_Paulo", nonexistent="shift_forward")
    (grid,) = read_panel(long(a=times[:15].delete(4)), *NAMES).grids
    assert grid.times[10].hour == 1
    assert grid.times.tolist() == times[:15].tolist()
    assert grid.ahead(5).tolist() == times[15:].tolist()


def test_offsets_that_change_are_kept() -> None:
    """A backtest of days would show the old ones in the offset of the new ones."""
    texts = [f"2026-10-{day}T00:00+0{2 if day < 26 else 1}:00" for day in range(20, 30)]
    df = long(a=pd.DatetimeIndex(days("2026-10-20", 10)))
    df["ds"] = texts
    found = backtest(df, 6, **POINT)
    assert [stamp.isoformat() for stamp in found["ds"]] == [
        text.replace("T00:00", "T00:00:00") for text in texts[4:]
    ]
    future = forecast_df(df, 2, **POINT)
    assert future["ds"].astype(str).tolist() == [f"2026-10-{d} 00:00:00+01:00" for d in (30, 31)]


def test_every_series_may_have_an_offset_of_its_own() -> None:
    """Shops of two countries could not stand in one frame of text."""
    df = long(a=hours(4), b=hours(4))
    east, west = "2026-01-01T0{}:00+02:00", "2026-01-01T0{}:00-05:00"
    df["ds"] = [east.format(i) for i in range(4)] + [west.format(i) for i in range(4)]
    found = forecast_df(df, 2, **POINT)
    hour = [stamp.isoformat()[11:] for stamp in found["ds"]]
    assert hour == ["04:00:00+02:00", "05:00:00+02:00", "04:00:00-05:00", "05:00:00-05:00"]


# --- polars --------------------------------------------------------------------------------------


def assert_same(found: pl.DataFrame, expected: pd.DataFrame) -> None:
    """Equal names and cells."""
    assert isinstance(found, pl.DataFrame)
    assert found.columns == list(expected.columns)
    for name in found.columns:
        values = expected[name].tolist()
        if isinstance(values[0], pd.Timestamp):
            values = [stamp.to_pydatetime() for stamp in values]
        assert found[name].to_list() == values


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_a_polars_frame_comes_back_as_one(zone: str | None) -> None:
    """It would be told that it must be a DataFrame, got DataFrame."""
    times = pd.date_range("2026-03-28 20:00", periods=9, freq="h", tz=zone)
    df = long(a=times, b=times[:6])
    data = {"unique_id": df["unique_id"].tolist(), "y": df["y"].tolist()}
    stamps = pl.Series(
        [t.to_pydatetime().replace(tzinfo=None) for t in df["ds"].dt.tz_convert("UTC")]
        if zone
        else df["ds"].tolist()
    )
    if zone:
        stamps = stamps.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    frame = pl.DataFrame({**data, "ds": stamps.cast(pl.Datetime("us", zone))})
    found = forecast_df(frame, 3, **SAMPLED)
    assert_same(found, forecast_df(df, 3, **SAMPLED))
    assert found.schema["ds"] == frame.schema["ds"]
    tested = backtest(frame, 3, **SAMPLED)
    assert_same(tested, backtest(df, 3, **SAMPLED))
    assert tested.schema["cutoff"] == frame.schema["ds"]


POLARS: dict[str, tuple[Any, Any]] = {
    "dates": (pl.Date, days("2026-01-01", 9)),
    "counts": (pl.Int32, np.arange(9)),
}


@pytest.mark.parametrize("kind", POLARS)
def test_polars_types_are_kept(kind: str) -> None:
    """A join of forecasts with the frame they come from would fail on the types."""
    dtype, times = POLARS[kind]
    df = long(a=times)
    frame = pl.DataFrame({name: df[name].tolist() for name in df}).with_columns(
        pl.col("ds").cast(dtype),
        pl.col("unique_id").cast(pl.Categorical),
        pl.col("y").cast(pl.Decimal(10, 3)),
    )
    found = forecast_df(frame, 2, **POINT)
    assert found.schema["ds"] == dtype
    assert found.schema["unique_id"] == pl.Categorical
    expected = forecast_df(df.assign(y=df["y"].round(3)), 2, **POINT)
    assert found["stride"].to_list() == expected["stride"].tolist()


def test_polars_text_goes_on_as_pandas_text() -> None:
    """Compact numbers and offsets in text would be read in one library and not in the other."""
    df = long(a=np.array([20260129, 20260130, 20260131]))
    frame = pl.DataFrame({name: df[name].tolist() for name in df})
    found = forecast_df(frame, 1, **POINT)
    assert str(found["ds"][0])[:10] == "2026-02-01"
    text = frame.with_columns(ds=pl.Series([f"2026-01-01T0{i}:00+02:00" for i in range(3)]))
    assert forecast_df(text, 1, **POINT)["ds"].to_list() == ["2026-01-01T03:00:00+02:00"]


@pytest.mark.parametrize(
    "frame", [[1], None, {"y": [1]}, np.ones((3, 3)), pl.LazyFrame({"y": [1]})]
)
def test_what_is_no_frame_is_refused(frame: Any) -> None:
    """A traceback of narwhals would be shown."""
    with pytest.raises(InputError, match="df must be a DataFrame"):
        forecast_df(frame, 2, pair=REPEAT)
