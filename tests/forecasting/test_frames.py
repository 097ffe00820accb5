"""Forecasts and backtests of long frames: clocks, gaps, ids, columns; and their pictures."""

import datetime
import re
import sys
from pathlib import Path
from typing import Any

import matplotlib.dates
import numpy as np
import pandas as pd
import pytest
from helpers.frames import POINT, SHORT_REPEAT, P, hours, long
from matplotlib.figure import Figure
from utilsforecast import losses
from utilsforecast.evaluation import evaluate

from stride_jax import metrics
from stride_jax.data.long_frames import read_panel
from stride_jax.errors import InputError
from stride_jax.evaluation.figures import forecasts as plots
from stride_jax.forecasting.forecast import forecast
from stride_jax.forecasting.frames import backtest, forecast_df


def own(found: pd.DataFrame, name: Any) -> pd.DataFrame:
    """The rows of one series."""
    return found[found["unique_id"] == name].reset_index(drop=True)


def repeated(values: Any, horizon: int) -> np.ndarray:
    """What `REPEAT` expects after these values."""
    return np.resize(np.asarray(values, float)[-P:], horizon)


# --- the form ------------------------------------------------------------------------------------


def test_the_output_has_the_form_of_nixtla_s() -> None:
    """Code that takes statsforecast's output could not take this one."""
    df = long(a=hours(9), b=hours(6))
    found = forecast_df(df, 6, **{**POINT, "num_samples": 10}, quantiles=(0.9, 0.1))
    assert list(found.columns) == ["unique_id", "ds", "stride", "stride-q-10", "stride-q-90"]
    assert found.index.equals(pd.RangeIndex(12))
    assert found["unique_id"].tolist() == ["a"] * 6 + ["b"] * 6
    for name, count in (("a", 9), ("b", 6)):
        assert own(found, name)["ds"].tolist() == hours(count + 6).tolist()[count:]
    assert (found["stride-q-10"] <= found["stride-q-90"]).all()
    assert not found.isna().any(axis=None)


def test_values_are_those_of_forecast() -> None:
    """Series would get each other's forecasts, or settings be lost on the way."""
    df = long(b=hours(9), a=hours(6))
    settings = {"num_samples": 4, "key": 3, "sigma": 2.0, "quantiles": (0.25, 0.5)}
    found = forecast_df(df, 6, pair=SHORT_REPEAT, **settings)
    series = [own(df, name)["y"].to_numpy() for name in ("a", "b")]  # in the order of their ids
    expected = forecast(SHORT_REPEAT, series, 6, ids=["a", "b"], **settings)
    np.testing.assert_array_equal(found["stride"], expected.mean.ravel())
    np.testing.assert_array_equal(found["stride-q-25"], expected.quantiles[:, 0].ravel())
    np.testing.assert_array_equal(found["stride-q-50"], expected.quantiles[:, 1].ravel())


def test_quantiles_are_named_by_percent() -> None:
    """A column would be named stride-q-28.999999999999996."""
    levels = (0.025, 0.07, 0.29, 0.5, 0.55, 0.975)
    df, settings = long(a=hours(9), b=hours(6)), {**POINT, "num_samples": 40}
    found = forecast_df(df, 6, **settings, quantiles=levels)
    names = ["2.5", "7", "29", "50", "55", "97.5"]
    assert list(found.columns[3:]) == [f"stride-q-{name}" for name in names]


def test_other_names_of_columns() -> None:
    """A frame would have to be renamed before and after."""
    df = long(a=hours(9), b=hours(8))
    names = {"unique_id": "shop", "ds": "day", "y": "sales"}
    columns = {"id_col": "shop", "time_col": "day", "target_col": "sales"}
    found = forecast_df(df.rename(columns=names), 6, **columns, **POINT)
    expected = forecast_df(df, 6, **POINT)
    pd.testing.assert_frame_equal(found, expected.rename(columns=names))
    tested = backtest(df.rename(columns=names), 6, **columns, **POINT)
    assert list(tested.columns) == ["shop", "day", "cutoff", "sales", "stride"]
    pd.testing.assert_frame_equal(tested, backtest(df, 6, **POINT).rename(columns=names))


def test_the_frame_of_the_user_is_only_read() -> None:
    """A forecast would sort, fill or retype the frame it was given."""
    df = long(a=hours(9), b=hours(6)).sample(frac=1, random_state=0)
    df["other"] = "not looked at"
    df.index = np.zeros(len(df), int)
    before = df.copy(deep=True)
    found = forecast_df(df, 6, **POINT)
    pd.testing.assert_frame_equal(df, before)
    pd.testing.assert_frame_equal(found, forecast_df(long(a=hours(9), b=hours(6)), 6, **POINT))


# --- clocks --------------------------------------------------------------------------------------

CLOCKS: dict[str, tuple[list[str], list[str]]] = {
    "hours": (
        [f"2024-02-28 {h}:00" for h in range(19, 24)],
        ["2024-02-29 00:00", "2024-02-29 01:00"],
    ),
    "quarters of an hour": (
        ["2024-01-01 00:00", "2024-01-01 00:15", "2024-01-01 00:30", "2024-01-01 00:45"],
        ["2024-01-01 01:00", "2024-01-01 01:15"],
    ),
    "36 hours": (
        ["2024-01-01 00:00", "2024-01-02 12:00", "2024-01-04 00:00"],
        ["2024-01-05 12:00", "2024-01-07 00:00"],
    ),
    "days": ([f"2024-02-{d}" for d in range(25, 30)], ["2024-03-01", "2024-03-02"]),
    "working days": (
        [f"2024-02-{d}" for d in (19, 20, 21, 22, 23, 26, 27, 28, 29)] + ["2024-03-01"],
        ["2024-03-04", "2024-03-05"],
    ),
    "weeks": (
        ["2024-02-04", "2024-02-11", "2024-02-18", "2024-02-25"],
        ["2024-03-03", "2024-03-10"],
    ),
    "months": (
        ["2023-10-01", "2023-11-01", "2023-12-01", "2024-01-01", "2024-02-01"],
        ["2024-03-01", "2024-04-01"],
    ),
    "ends of months": (
        ["2023-10-31", "2023-11-30", "2023-12-31", "2024-01-31", "2024-02-29"],
        ["2024-03-31", "2024-04-30"],
    ),
    "quarters": (
        ["2023-01-01", "2023-04-01", "2023-07-01", "2023-10-01"],
        ["2024-01-01", "2024-04-01"],
    ),
    "years": (
        ["2019-01-01", "2020-01-01", "2021-01-01", "2022-01-01"],
        ["2023-01-01", "2024-01-01"],
    ),
    "two rows": (["2024-02-28", "2024-02-29"], ["2024-03-01", "2024-03-02"]),
}
"""Times, and the two after them."""


@pytest.mark.parametrize("name", CLOCKS)
def test_every_frame_goes_on_in_its_own_frequency(name: str) -> None:
    """Forecasts would stand at times that do not exist."""
    known, ahead = CLOCKS[name]
    df = long(a=pd.to_datetime(known), b=pd.to_datetime(known))
    found = forecast_df(df, 6, **POINT)
    for series in ("a", "b"):
        rows, values = own(found, series), own(df, series)["y"]
        assert rows["ds"].tolist()[:2] == pd.to_datetime(ahead).tolist()
        start = np.concatenate([np.repeat(values[:1], max(0, P - len(known))), values])
        np.testing.assert_allclose(rows["stride"], repeated(start, 6), rtol=1e-6)


@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_times_keep_their_type(unit: str) -> None:
    """A merge of forecasts and truth would compare stamps of two types."""
    df = long(a=hours(9).as_unit(unit))
    assert forecast_df(df, 6, **POINT)["ds"].dtype == df["ds"].dtype
    tested = backtest(df, 6, **POINT)
    assert tested["ds"].dtype == tested["cutoff"].dtype == df["ds"].dtype


def test_a_clock_with_a_zone_changes_to_summer_time() -> None:
    """Forecasts would be an hour off, or stand in an hour that does not exist."""
    times = pd.date_range("2024-03-30 18:00", periods=8, freq="h", tz="Europe/Berlin")
    found = forecast_df(long(a=times), 6, **POINT)
    expected = [f"2024-03-31 0{hour}:00+02:00" for hour in range(3, 9)]
    assert found["ds"].tolist() == [pd.Timestamp(t) for t in expected]
    assert str(found["ds"].dt.tz) == "Europe/Berlin"


@pytest.mark.parametrize(("first", "step"), [(0, 1), (-7, 5), (1990, 1)])
def test_a_clock_of_whole_numbers(first: int, step: int) -> None:
    """Data without dates could not be forecast, or would get dates of 1970."""
    df = long(a=first + step * np.arange(9), b=first + step * np.arange(5))
    found = forecast_df(df, 6, **POINT)
    assert pd.api.types.is_integer_dtype(found["ds"])
    for name, count in (("a", 9), ("b", 5)):
        assert own(found, name)["ds"].tolist() == [first + step * (count + i) for i in range(6)]
    pd.testing.assert_frame_equal(forecast_df(df, 6, freq=step, **POINT), found)


def test_a_step_may_be_a_numpy_integer() -> None:
    """A step that was measured on the data itself would be refused as no whole number."""
    df = long(a=np.arange(0, 45, 5), b=np.arange(0, 40, 5))
    found = forecast_df(df, 6, freq=df["ds"].diff().median().astype(np.int64), **POINT)
    pd.testing.assert_frame_equal(found, forecast_df(df, 6, freq=5, **POINT))


def test_a_frequency_may_be_given() -> None:
    """One row tells no frequency by itself; half-months look like days with gaps."""
    one = forecast_df(long(a=pd.to_datetime(["2024-01-31"])), 6, freq="ME", **POINT)
    assert one["ds"].tolist()[:2] == pd.to_datetime(["2024-02-29", "2024-03-31"]).tolist()
    known = CLOCKS["months"][0]
    gap = long(a=pd.to_datetime(known[:2] + known[3:]))
    for freq in (None, "MS", "M", pd.DateOffset(months=1)):
        found = forecast_df(gap, 6, freq=freq, **POINT)
        assert found["ds"].tolist()[:2] == pd.to_datetime(CLOCKS["months"][1]).tolist()


def test_gaps_in_the_clock_are_missing_values() -> None:
    """The steps around a lost row would be taken for neighbours, and the rest be shifted."""
    df = long(a=hours(12), b=hours(12))
    values = own(df, "a")["y"].to_numpy().copy()
    values[10] = (values[9] + values[11]) / 2
    lost = df.drop(index=[3, 10])
    blank = df.copy()
    blank.loc[[3, 10], "y"] = np.nan
    found = [forecast_df(frame, 6, **POINT) for frame in (lost, blank)]
    pd.testing.assert_frame_equal(*found)
    np.testing.assert_allclose(own(found[0], "a")["stride"], repeated(values, 6), rtol=1e-6)
    assert own(found[0], "a")["ds"].tolist() == hours(18).tolist()[12:]
    with pytest.raises(InputError, match="series 'a' has 2 missing values, the first at step 3"):
        forecast_df(lost, 6, missing="error", **POINT)
    grid = read_panel(lost, "unique_id", "ds", "y").grids[0]
    assert np.flatnonzero(np.isnan(grid.values)).tolist() == [3, 10]
    assert grid.times.tolist() == hours(12).tolist()


def test_a_gap_in_a_clock_of_numbers() -> None:
    """The same for steps that are counted."""
    df = long(a=np.arange(0, 60, 5))
    grid = read_panel(df.drop(index=4), "unique_id", "ds", "y").grids[0]
    assert (grid.clock.step, grid.times.tolist()) == (5, list(range(0, 60, 5)))
    assert np.flatnonzero(np.isnan(grid.values)).tolist() == [4]


TEXTS = {
    "text": lambda times: times.strftime("%Y-%m-%d %H:%M"),
    "objects": lambda times: times.to_pydatetime().astype(object),
    "categories": lambda times: pd.Categorical(times.strftime("%Y-%m-%d %H:%M")),
}


@pytest.mark.parametrize("name", TEXTS)
def test_times_may_be_text(name: str) -> None:
    """A frame straight from a CSV file would be refused."""
    df = long(a=hours(9))
    expected = forecast_df(df, 6, **POINT)
    df["ds"] = TEXTS[name](hours(9))
    pd.testing.assert_frame_equal(forecast_df(df, 6, **POINT), expected, check_dtype=False)


def test_days_may_be_dates() -> None:
    """The `date` of a data base is no timestamp."""
    days = [datetime.date(2024, 2, 20 + i) for i in range(9)]
    found = forecast_df(long(a=np.array(days, object)), 6, **POINT)
    expected = ["2024-02-29", *(f"2024-03-0{day}" for day in range(1, 6))]
    assert found["ds"].tolist() == pd.to_datetime(expected).tolist()


# --- ids and values ------------------------------------------------------------------------------


def test_ids_of_every_type() -> None:
    """Numbers or categories as ids would come back as something that no longer matches."""
    df = long(a=hours(9), b=hours(6))
    expected = forecast_df(df, 6, **POINT)
    for names in ({"a": 7, "b": 12}, {"a": 1.5, "b": 2.5}, {"a": True, "b": "x"}):
        ids = pd.Series([names[name] for name in df["unique_id"]])
        found = forecast_df(df.assign(unique_id=ids), 6, **POINT)
        assert found["unique_id"].tolist() == [names[name] for name in expected["unique_id"]]
        np.testing.assert_array_equal(found["stride"], expected["stride"])
    categories = pd.Categorical(df["unique_id"], categories=["z", "b", "a"])
    found = forecast_df(df.assign(unique_id=categories), 6, **POINT)
    assert sorted(found["unique_id"]) == expected["unique_id"].tolist()  # and none of z
    for name in ("a", "b"):
        np.testing.assert_array_equal(own(found, name)["stride"], own(expected, name)["stride"])


def test_ids_that_are_pairs() -> None:
    """A pair of shop and product would be spread over the rows, a half in each."""
    df = long(a=hours(9), b=hours(6))
    ids = pd.Series([("shop", len(name), name) for name in df["unique_id"]])
    found = forecast_df(df.assign(unique_id=ids), 6, **POINT)
    assert found["unique_id"].tolist() == [("shop", 1, "a")] * 6 + [("shop", 1, "b")] * 6


@pytest.mark.parametrize("dtype", ["int64", "uint8", "float32", "Int64", "Float64"])
def test_values_of_every_type(dtype: str) -> None:
    """Counts, or columns that know missing values of their own, would be refused."""
    df = long(a=hours(12))
    df["y"] = np.arange(12) % 7
    expected = forecast_df(df, 6, **POINT)
    typed = df.astype({"y": dtype})
    np.testing.assert_array_equal(forecast_df(typed, 6, **POINT)["stride"], expected["stride"])
    if dtype[0] in "IF":
        typed.loc[9, "y"] = pd.NA
        df["y"] = df["y"].astype(float)
        df.loc[9, "y"] = np.nan
        found, expected = (forecast_df(frame, 6, **POINT) for frame in (typed, df))
        np.testing.assert_array_equal(found["stride"], expected["stride"])


# --- what is refused -----------------------------------------------------------------------------

BASE = long(a=hours(9), b=hours(6))


def changed(column: str, row: int, value: Any, kind: Any = None) -> pd.DataFrame:
    """The base frame with one other cell."""
    df = BASE if kind is None else BASE.astype({column: kind})
    values = df[column].tolist()
    values[row] = value
    return df.assign(**{column: values})


BAD: dict[str, tuple[pd.DataFrame, dict[str, Any], str]] = {
    "no values": (BASE.rename(columns={"y": "value"}), {}, "no column 'y'"),
    "no ids": (BASE.rename(columns={"unique_id": "unique-id"}), {}, "Did you mean 'unique-id'"),
    "no times": (BASE.rename(columns={"ds": "date"}), {}, "no column 'ds'.*date"),
    "another name": (BASE, {"time_col": "dss"}, "no column 'dss'.*Did you mean 'ds'"),
    "no rows": (BASE[:0], {}, "no rows"),
    "text": (BASE.assign(y="x"), {}, "column 'y' must be numbers, got (str|object)"),
    "truth": (BASE.assign(y=True), {}, "column 'y' must be numbers, got bool"),
    "truth or not": (
        BASE.assign(y=pd.array([True] * 15, dtype="boolean")),
        {},
        "column 'y' must be numbers, got boolean",
    ),
    "stamps as values": (BASE.assign(y=BASE["ds"]), {}, "column 'y' must be numbers, got datetime"),
    "an id is missing": (changed("unique_id", 3, None), {}, "missing entries"),
    "a time is missing": (changed("ds", 3, pd.NaT), {}, "missing entries"),
    "a time is empty": (changed("ds", 3, "", str), {}, "'ds'"),
    "twice": (changed("ds", 3, hours(9)[5]), {}, "'a' has the time 2024-02-29 01:00:00 twice"),
    "no dates": (BASE.assign(ds="long ago"), {}, "'ds' holds no timestamps"),
    "not a date": (
        changed("ds", 3, "2024-13-45", str),
        {},
        "'2024-13-45' in data row 4 of column 'ds'",
    ),
    "numbers with a point": (
        BASE.assign(ds=np.arange(15) / 2),
        {},
        "'ds' must be timestamps or wh",
    ),
    "truth as time": (BASE.assign(ds=[True, False] * 7 + [True]), {}, "'ds'"),
    "off the clock": (
        changed("ds", 3, pd.Timestamp("2024-02-28 23:20")),
        {},
        r"'a' has the time 2024-02-28 23:20:00 \(data row 4\).* not lie on its clock \(hourly",
    ),
    "off the given clock": (BASE, {"freq": "2h"}, "'a' has the time 2024-02-28 21:00:00"),
    "ends of months": (BASE, {"freq": "ME"}, "'a' has the time 2024-02-28 20:00:00"),
    "off the count": (long(a=np.array([0, 2, 4, 5, 6, 8])), {}, "'a' has the time 5 "),
    "one row": (BASE.iloc[[0]], {}, "'a' has one row"),
    "unknown frequency": (BASE, {"freq": "fortnight"}, "'fortnight' is no pandas offset"),
    "a number of a clock": (BASE, {"freq": 1}, "freq 1 does not fit"),
    "an offset of a count": (long(a=np.arange(6)), {"freq": "h"}, "freq 'h' does not fit"),
    "a step of nothing": (long(a=np.arange(6)), {"freq": 0}, "0"),
    "a step back": (long(a=np.arange(6)), {"freq": -1}, "-1"),
    "infinite": (
        changed("y", 10, np.inf),
        {},
        "series 'b(, cutoff [^']*)?' is infinite at step 1,",
    ),
    "nothing known": (
        BASE.assign(y=BASE["y"].where(BASE["unique_id"] == "a")),
        {},
        "series 'b(, cutoff [^']*)?', variable 0 has no value at all",
    ),
    "a gap": (
        changed("y", 11, np.nan),
        {"missing": "error"},
        "series 'b(, cutoff [^']*)?' has 1 missing value, the first at step 2",
    ),
    "no horizon": (BASE, {"h": 0}, "0"),
    "half a horizon": (BASE, {"h": 2.5}, r"2\.5"),
    "percents": (BASE, {"quantiles": (10, 90), "num_samples": 3}, "quantiles .* 10"),
    "no pair": (BASE, {"pair": None}, "pair.* None"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_frame_that_cannot_be_forecast_is_refused(name: str) -> None:
    """A user would get a traceback of pandas, or a forecast on a clock that is not theirs."""
    df, changes, said = BAD[name]
    settings = {"h": 2, **POINT, **changes}
    for call in (forecast_df, backtest):
        with pytest.raises(InputError, match=re.compile(said, re.DOTALL)):
            call(df, **settings)


def test_errors_name_the_series_and_not_its_place() -> None:
    """A user with a thousand series would have to count them."""
    df = pd.concat(
        [long(a=hours(6)).assign(unique_id=100 + i) for i in range(13)], ignore_index=True
    )
    df.loc[df["unique_id"] == 111, "y"] = -np.inf
    for call in (forecast_df, backtest):
        with pytest.raises(
            InputError, match=r"^series '111(, cutoff \d+)?.*' is infinite at step 0"
        ):
            call(df, 2, **POINT)


# --- backtest ------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [None, 3])
def test_a_backtest_is_the_forecast_of_what_was_known(step: int | None) -> None:
    """A backtest would see the future, or compare forecasts with the wrong hours."""
    h, windows = 6, 2
    df = long(a=hours(24), b=hours(17, "2024-03-07 05:00")).sample(frac=1, random_state=1)
    found = backtest(df, h, n_windows=windows, step_size=step, **POINT)
    assert list(found.columns) == ["unique_id", "ds", "cutoff", "y", "stride"]
    assert len(found) == 2 * windows * h
    stride = h if step is None else step
    for name, count in (("a", 24), ("b", 17)):
        series = own(df, name).sort_values("ds", ignore_index=True)
        last = [count - h - stride * i - 1 for i in reversed(range(windows))]
        rows = own(found, name)
        assert rows["cutoff"].drop_duplicates().tolist() == series["ds"][last].tolist()
        for cut in last:
            part = rows[rows["cutoff"] == series["ds"][cut]].reset_index(drop=True)
            expected = forecast_df(series[: cut + 1], h, **POINT)
            pd.testing.assert_frame_equal(part[["unique_id", "ds", "stride"]], expected)
            ahead = slice(cut + 1, cut + 1 + h)
            np.testing.assert_array_equal(part["ds"], series["ds"][ahead])
            np.testing.assert_array_equal(part["y"], series["y"][ahead])


def test_a_backtest_does_not_see_the_future() -> None:
    """An error that is too small would be reported."""
    df = long(a=hours(24))
    other = df.copy()
    other.loc[14:, "y"] += 1000
    settings = {**POINT, "num_samples": 10, "quantiles": (0.1, 0.9)}
    found = [backtest(x, 6, n_windows=2, **settings) for x in (df, other)]
    early = found[0]["cutoff"] < df["ds"][14]
    assert early.sum() == 6
    forecasts = ["stride", "stride-q-10", "stride-q-90"]
    np.testing.assert_array_equal(found[0][early][forecasts], found[1][early][forecasts])
    assert (found[0][~early]["stride"] < found[1][~early]["stride"] - 100).all()


def test_missing_truth_stays_missing() -> None:
    """An invented value would be scored as if it had been measured."""
    df = long(a=hours(14)).drop(index=9)
    df.loc[10, "y"] = np.nan
    found = backtest(df, 6, **POINT)
    assert found["ds"].tolist() == hours(14).tolist()[8:]
    np.testing.assert_array_equal(found["y"].isna(), [False, True, True, False, False, False])
    assert found["stride"].notna().all()


def test_a_backtest_of_whole_numbers() -> None:
    """Cutoffs of a count would become dates."""
    found = backtest(long(a=10 * np.arange(20)), 6, n_windows=2, **POINT)
    assert found["cutoff"].tolist() == [70] * 6 + [130] * 6
    assert found["ds"].tolist() == [*range(80, 200, 10)]


def test_a_backtest_needs_a_step_to_start_from() -> None:
    """A short series would be tested on fewer windows than the others, or on none."""
    df = long(a=hours(24), b=hours(9))
    found = backtest(df, 6, n_windows=2, step_size=2, **POINT)  # 6 + 2 + 1 = 9
    assert len(own(found, "b")) == len(own(found, "a")) == 12
    assert own(found, "b")["cutoff"].min() == hours(1)[0]
    with pytest.raises(InputError, match=r"'b' has 9 steps.*needs 10"):
        backtest(df, 6, n_windows=2, step_size=3, **POINT)


@pytest.mark.parametrize(
    "wrong", [{"n_windows": 0}, {"step_size": 0}, {"n_windows": 1.5}, {"h": -1}]
)
def test_counts_of_a_backtest_are_checked(wrong: dict[str, Any]) -> None:
    """Nothing would be tested, and nothing said."""
    name, value = next(iter(wrong.items()))
    with pytest.raises(InputError, match=f"{name} must be .* {re.escape(str(value))}"):
        backtest(BASE, **{"h": 2, **POINT, **wrong})


# --- scores --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tested() -> pd.DataFrame:
    """A backtest with quantiles."""
    df = long(a=hours(24), b=hours(17))
    df["y"] = np.random.default_rng(0).normal(size=len(df)).cumsum()
    settings = {**POINT, "num_samples": 10, "sigma": 1.0, "quantiles": (0.1, 0.5, 0.9)}
    return backtest(df, 4, n_windows=3, **settings)


def by_window(tested: pd.DataFrame) -> dict[tuple[str, pd.Timestamp], pd.DataFrame]:
    """The rows of each series and cutoff."""
    return dict(iter(tested.groupby(["unique_id", "cutoff"])))


def test_a_backtest_goes_into_utilsforecast(tested: pd.DataFrame) -> None:
    """The frame that is promised to be ready would not be taken, or be scored differently."""
    scores = evaluate(tested, metrics=[losses.mse, losses.mae], models=["stride"])
    found = scores.set_index(["unique_id", "cutoff", "metric"])["stride"]
    windows = by_window(tested)
    assert len(found) == 2 * len(windows) == 12
    for (name, cutoff), rows in windows.items():
        mean, truth = (rows[[c]].to_numpy() for c in ("stride", "y"))
        for metric in ("mse", "mae"):
            expected = float(getattr(metrics, metric)(mean, truth))
            np.testing.assert_allclose(found[name, cutoff, metric], expected, rtol=1e-5)


def test_intervals_go_into_utilsforecast(tested: pd.DataFrame) -> None:
    """The loss of a quantile, or the coverage of an interval, would be that of another one."""
    names = {"stride-q-10": "stride-lo-80", "stride-q-90": "stride-hi-80"}
    asked = [losses.quantile_loss, losses.coverage]
    scores = evaluate(tested.rename(columns=names), asked, models=["stride"], level=[80])
    found = scores.set_index(["unique_id", "cutoff", "metric"])["stride"]
    for (name, cutoff), rows in by_window(tested).items():
        truth = rows["y"]
        for level in (0.1, 0.9):
            gap = truth - rows[f"stride-q-{100 * level:.0f}"]
            expected = np.mean(np.where(gap > 0, level * gap, (level - 1) * gap))
            loss = found[name, cutoff, f"quantile_loss_q{level}"]
            np.testing.assert_allclose(loss, expected, rtol=1e-9)
        inside = (rows["stride-q-10"] <= truth) & (truth <= rows["stride-q-90"])
        np.testing.assert_allclose(found[name, cutoff, "coverage_level80"], inside.mean())


# --- pictures ------------------------------------------------------------------------------------

COLUMNS = ("unique_id", "ds", "y")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def spy(figure: Figure, *args: Any, **settings: Any) -> None:
        figures.append(figure)
        save(figure, *args, **settings)

    monkeypatch.setattr(Figure, "savefig", spy)
    return figures


def forecasts(levels: tuple[int, ...] = (), **ends: Any) -> pd.DataFrame:
    """A frame of forecasts, four steps from each time on."""
    parts = []
    for i, (name, end) in enumerate(ends.items()):
        columns = {f"stride-q-{q}": q / 10 + np.arange(4) + 100 * i for q in levels}
        mean = 5.5 + np.arange(4) + 100 * i
        times = pd.date_range(end, periods=4, freq="h")
        parts.append(pd.DataFrame({"unique_id": name, "ds": times, "stride": mean, **columns}))
    return pd.concat(parts, ignore_index=True)


def test_a_picture_shows_history_mean_and_bands(tmp_path: Path, drawn: list[Figure]) -> None:
    """A picture would show another series, too narrow a band, or the history out of order."""
    df = long(a=hours(60), b=hours(6)).sample(frac=1, random_state=2)
    ends = {"a": hours(61)[60], "b": hours(7)[6]}
    found = forecasts((5, 25, 50, 75, 95), **ends)
    plots.save_intervals(tmp_path / "a.png", df, found, COLUMNS)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    panels = drawn[0].axes
    assert [axes.get_title() for axes in panels] == ["a", "b"]
    for axes, name in zip(panels, ("a", "b"), strict=True):
        rows, known = own(found, name), own(df, name).sort_values("ds").tail(50)
        history, mean = axes.lines
        np.testing.assert_array_equal(history.get_ydata(), known["y"])
        np.testing.assert_array_equal(mean.get_ydata(), rows["stride"])
        assert (np.diff(history.get_xdata(orig=False)) > 0).all()
        bands = {band.get_label(): band.get_paths()[0].vertices[:, 1] for band in axes.collections}
        assert set(bands) == {"5 to 95 %", "25 to 75 %"}
        for label, edges in (("5 to 95 %", (5, 95)), ("25 to 75 %", (25, 75))):
            shown = rows[[f"stride-q-{q}" for q in edges]].to_numpy()
            np.testing.assert_allclose(np.unique(bands[label]), np.unique(shown))


@pytest.mark.parametrize("levels", [(), (50,)])
def test_a_picture_without_an_interval(
    tmp_path: Path, drawn: list[Figure], levels: tuple[int, ...]
) -> None:
    """A mean path alone could not be drawn."""
    df, found = long(a=hours(9)), forecasts(levels, a=hours(10)[9])
    plots.save_intervals(tmp_path / "a.png", df, found, COLUMNS)
    assert len(drawn[0].axes[0].collections) == 0


def test_a_picture_shows_six_series_at_most(tmp_path: Path, drawn: list[Figure]) -> None:
    """A thousand series would make a picture of a kilometre."""
    names = [f"s{i}" for i in range(9)]
    df, found = (
        make(**dict.fromkeys(names, t)) for make, t in ((long, hours(9)), (forecasts, "2025"))
    )
    plots.save_intervals(tmp_path / "a.png", df, found, COLUMNS)
    assert [axes.get_title() for axes in drawn[0].axes] == names[:6]


def test_a_picture_of_times_that_are_text(tmp_path: Path, drawn: list[Figure]) -> None:
    """What `forecast_df` takes could not be drawn, or would be drawn word by word."""
    df = long(a=hours(9))
    df["ds"] = df["ds"].astype(str)
    plots.save_intervals(tmp_path / "a.png", df, forecast_df(df, 6, **POINT), COLUMNS)
    history, mean = (line.get_xdata(orig=False) for line in drawn[0].axes[0].lines)
    np.testing.assert_allclose(history, matplotlib.dates.date2num(hours(9)))
    np.testing.assert_allclose(mean, matplotlib.dates.date2num(hours(15)[9:]))


def test_a_picture_of_whole_numbers(tmp_path: Path, drawn: list[Figure]) -> None:
    """A clock of numbers would be drawn as dates."""
    df = long(a=np.arange(9)).rename(columns={"unique_id": "shop", "ds": "t", "y": "sales"})
    columns = {"id_col": "shop", "time_col": "t", "target_col": "sales"}
    found = forecast_df(df, 6, **columns, **POINT)
    plots.save_intervals(tmp_path / "a.png", df, found, tuple(columns.values()))
    history, mean = (line.get_xdata(orig=False) for line in drawn[0].axes[0].lines)
    assert history.tolist() == list(range(9))
    assert mean.tolist() == list(range(9, 15))


def test_a_picture_needs_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without matplotlib the user would see a traceback instead of what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"stride-jax\[plot\]"):
        plots.save_intervals(tmp_path / "a.png", BASE, forecasts(a="2025"), COLUMNS)
