"""Forecasts of pandas frames in the long format of Nixtla's libraries: id, time, value."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from stride_jax.errors import InputError, nearest
from stride_jax.forecasting import forecast

MODEL = "stride"
"""Name of the column of forecasts; quantiles are `stride-q-10` and so on."""
Freq = str | int | pd.DateOffset | None


class Grid(NamedTuple):
    """One series on a regular clock.

    Attributes:
        name: its id.
        times: `[T]`, timestamps or whole numbers, without gaps.
        values: `[T]` float64; NaN where the frame has no row or no value.
        step: between two times: an offset, or a whole number.
    """

    name: Any
    times: pd.Index
    values: np.ndarray
    step: Any

    def ahead(self, horizon: int) -> pd.Index:
        """The `horizon` times after the last one."""
        if isinstance(self.step, int):
            return pd.Index(self.times[-1] + self.step * np.arange(1, horizon + 1))
        return pd.date_range(self.times[-1], periods=horizon + 1, freq=self.step)[1:]


def read_frame(
    df: pd.DataFrame, id_col: str, time_col: str, target_col: str, freq: Freq = None
) -> list[Grid]:
    """The series of a long frame, sorted by time, gaps in the clock filled with NaN.

    Args:
        df: a row a series and time; other columns are not looked at. Rows may be in any order.
        id_col: names the series.
        time_col: timestamps (or text that pandas reads as such), or whole numbers.
        target_col: values.
        freq: pandas offset alias, or a whole number for a clock of numbers; None infers it for each
            series: its regular frequency, else its most common step.

    Raises:
        InputError: no frame, a missing column, an empty frame, a time that is missing or twice
            there, values that are not numbers, or a clock that does not fit its frequency.
    """
    if not isinstance(df, pd.DataFrame):
        raise InputError(f"df must be a pandas DataFrame, got {type(df).__name__}.")
    missing = [c for c in (id_col, time_col, target_col) if c not in df.columns]
    if missing:
        raise InputError(
            f"the frame has no column {missing[0]!r}. "
            f"{nearest(missing[0], [str(c) for c in df.columns])}"
        )
    if len(df) == 0:
        raise InputError("the frame has no rows.")
    numeric = pd.api.types.is_numeric_dtype(df[target_col])
    if not numeric or pd.api.types.is_bool_dtype(df[target_col]):
        raise InputError(f"column {target_col!r} must be numbers, got {df[target_col].dtype}.")
    if df[[id_col, time_col]].isna().any(axis=None):
        raise InputError(f"columns {id_col!r} and {time_col!r} must not have missing entries.")
    times = _times(df[time_col])
    values = df[target_col].to_numpy(np.float64, na_value=np.nan)
    table = pd.DataFrame({"id": df[id_col].to_numpy(), "time": times, "value": values})
    twice = table.duplicated(["id", "time"])
    if twice.any():
        row = table[twice].iloc[0]
        raise InputError(
            f"series {row['id']!r} has the time {row['time']} twice; drop or merge the rows."
        )
    return [_grid(name, part, freq) for name, part in table.groupby("id", sort=True)]


def _times(column: pd.Series) -> np.ndarray:
    """Timestamps or whole numbers.

    Raises:
        InputError: neither.
    """
    if pd.api.types.is_integer_dtype(column):
        return column.to_numpy(np.int64)
    try:
        with warnings.catch_warnings():  # that each entry may have a form of its own
            warnings.simplefilter("ignore")
            stamps = pd.to_datetime(column)
        if stamps.isna().any():
            raise ValueError(f"{column[stamps.isna()].iloc[0]!r} is no time")
    except (ValueError, TypeError) as error:
        raise InputError(
            f"column {column.name!r} holds no timestamps that pandas can read: {error}"
        ) from error
    if pd.api.types.is_float_dtype(column):
        raise InputError(f"column {column.name!r} must be timestamps or whole numbers.")
    return np.asarray(stamps.array)


def _grid(name: Any, part: pd.DataFrame, freq: Freq) -> Grid:
    part = part.sort_values("time")
    times = pd.Index(part["time"])
    step = _step(name, times, freq)
    if isinstance(step, int):
        whole: pd.Index = pd.Index(np.arange(times[0], times[-1] + 1, step))
    else:
        whole = pd.date_range(times[0], times[-1], freq=step)
    off = times[~times.isin(whole)]
    if len(off):
        raise InputError(
            f"series {name!r} has the time {off[0]}, which does not lie on its clock of step "
            f"{getattr(step, 'freqstr', step)} from {times[0]}; resample it or give freq."
        )
    values = pd.Series(part["value"].to_numpy(), index=times).reindex(whole)
    return Grid(name, whole, values.to_numpy(np.float64), step)


def _step(name: Any, times: pd.Index, freq: Freq) -> Any:
    numbers = pd.api.types.is_integer_dtype(times.dtype)
    if freq is not None:
        if isinstance(freq, int | np.integer) and freq < 1:
            raise InputError(f"freq must be a step of 1 or more, got {freq}.")
        if numbers != isinstance(freq, int | np.integer):
            raise InputError(
                f"freq {freq!r} does not fit times of type {times.dtype}: whole numbers need a "
                "whole number, timestamps an offset such as 'h' or 'D'."
            )
        if isinstance(freq, int | np.integer):
            return int(freq)
        try:
            return pd.tseries.frequencies.to_offset(freq)
        except ValueError as error:
            raise InputError(f"freq {freq!r} is no pandas offset: {error}") from error
    if len(times) < 2:
        raise InputError(f"series {name!r} has one row, which tells no frequency; give freq.")
    steps = pd.Series(times).diff().iloc[1:]
    if numbers:
        return int(steps.mode().iloc[0])
    found = None
    if len(times) > 2:
        with warnings.catch_warnings():  # pandas 3 announces that it will give an offset
            warnings.simplefilter("ignore")
            found = pd.infer_freq(pd.DatetimeIndex(times))
    return pd.tseries.frequencies.to_offset(found or steps.mode().iloc[0])


def forecast_df(
    df: pd.DataFrame,
    h: int,
    *,
    target: Any,
    draft: Any = None,
    id_col: str = "unique_id",
    time_col: str = "ds",
    target_col: str = "y",
    freq: Freq = None,
    quantiles: Sequence[float] = (),
    **settings: Any,
) -> pd.DataFrame:
    """Forecasts every series of a long frame.

    Series may differ in length, start and frequency; rows may be in any order; times that are
    missing between two others count as missing values.

    Args:
        df: see `read_frame`.
        h: steps to forecast, in each series' own frequency.
        target: see `forecasting.forecast`.
        draft: see `forecasting.forecast`.
        id_col: names the series.
        time_col: their times.
        target_col: their values.
        freq: see `read_frame`.
        quantiles: a column each: `stride-q-10` for .1.
        **settings: of `forecasting.forecast`: key, num_samples, rule, num_draft, sigma, missing...

    Returns:
        A row a series and future time: id, time, `stride` (the mean) and the quantiles.

    Raises:
        InputError: see `read_frame` and `forecasting.forecast`.
    """
    grids = read_frame(df, id_col, time_col, target_col, freq)
    made = _forecast(grids, h, target, draft, quantiles, settings)
    parts = [
        pd.DataFrame({id_col: [grid.name] * h, time_col: grid.ahead(h), **columns})
        for grid, columns in zip(grids, made, strict=True)
    ]
    return pd.concat(parts, ignore_index=True)


def _forecast(
    grids: list[Grid],
    h: int,
    target: Any,
    draft: Any,
    quantiles: Sequence[float],
    settings: dict[str, Any],
) -> list[dict[str, np.ndarray]]:
    """The columns of each series' forecast."""
    try:
        found = forecast(
            target, [g.values for g in grids], h, draft=draft, quantiles=quantiles, **settings
        )
    except InputError as error:
        raise _named(error, grids) from error
    made = []
    for i in range(len(grids)):
        columns = {MODEL: found.mean[i]}
        if found.quantiles is not None:
            for q, values in zip(found.levels, found.quantiles[i], strict=True):
                columns[f"{MODEL}-q-{100 * q:g}"] = values
        made.append(columns)
    return made


def _named(error: InputError, grids: list[Grid]) -> InputError:
    """The error with the number of a series replaced by its id."""
    text = str(error)
    for i, grid in enumerate(grids):
        if text.startswith((f"series {i} ", f"series {i},")):
            return InputError(f"series {grid.name!r}{text[len(f'series {i}') :]}")
    return error


def backtest(
    df: pd.DataFrame,
    h: int,
    *,
    n_windows: int = 1,
    step_size: int | None = None,
    target: Any,
    draft: Any = None,
    id_col: str = "unique_id",
    time_col: str = "ds",
    target_col: str = "y",
    freq: Freq = None,
    quantiles: Sequence[float] = (),
    **settings: Any,
) -> pd.DataFrame:
    """Forecasts the ends of the series from what came before them, as Nixtla's cross-validation.

    Args:
        df: see `read_frame`.
        h: steps to forecast after each cutoff.
        n_windows: cutoffs a series.
        step_size: steps between two cutoffs; None for h.
        target: see `forecasting.forecast`.
        draft: see `forecasting.forecast`.
        id_col: names the series.
        time_col: their times.
        target_col: their values.
        freq: see `read_frame`.
        quantiles: a column each.
        **settings: of `forecasting.forecast`.

    Returns:
        A row a series, cutoff and time: id, time, cutoff (the last time known), the true value (NaN
        where it is missing), `stride` and the quantiles; what utilsforecast's
        `evaluate(..., models=["stride"])` reads.

    Raises:
        InputError: n_windows or step_size below 1, a series too short for its cutoffs, and see
            `forecast_df`.
    """
    step_size = h if step_size is None else step_size
    for name, value in (("h", h), ("n_windows", n_windows), ("step_size", step_size)):
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{name} must be a whole number from 1 on, got {value!r}.")
    whole = read_frame(df, id_col, time_col, target_col, freq)
    cuts: list[tuple[Grid, int]] = []
    for grid in whole:
        for window in range(n_windows - 1, -1, -1):
            cut = len(grid.times) - h - window * step_size
            if cut < 1:
                raise InputError(
                    f"series {grid.name!r} has {len(grid.times)} steps, too few for {n_windows} "
                    f"windows of {h} steps, {step_size} apart; it needs "
                    f"{h + (n_windows - 1) * step_size + 1}."
                )
            cuts.append((grid, cut))
    known = [g._replace(times=g.times[:cut], values=g.values[:cut]) for g, cut in cuts]
    made = _forecast(known, h, target, draft, quantiles, settings)
    parts = [
        pd.DataFrame(
            {
                id_col: [grid.name] * h,
                time_col: grid.times[cut : cut + h],
                "cutoff": grid.times[cut - 1],
                target_col: grid.values[cut : cut + h],
                **columns,
            }
        )
        for (grid, cut), columns in zip(cuts, made, strict=True)
    ]
    return pd.concat(parts, ignore_index=True)
