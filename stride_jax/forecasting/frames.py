"""Forecasts of frames in the long format of Nixtla's libraries: id, time, value.

Frames of pandas, polars and whatever else narwhals reads; the result is a frame of the same kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from stride_jax.checkpoints.pair import Pair
from stride_jax.config import whole_number
from stride_jax.data.interchange import like
from stride_jax.data.long_frames import Freq, read_panel
from stride_jax.data.panel import Grid, Panel
from stride_jax.decoding.base import Process
from stride_jax.errors import InputError, counted
from stride_jax.forecasting.columns import CUTOFF, MODEL, NAIVE, check_columns, quantile_columns
from stride_jax.forecasting.forecast import forecast
from stride_jax.forecasting.settings import as_pair, reported_levels


def forecast_df(
    df: Any,
    h: int,
    *,
    pair: Pair | Process,
    id_col: str = "unique_id",
    time_col: str = "ds",
    target_col: str = "y",
    freq: Freq = None,
    dayfirst: bool | None = None,
    date_format: str | None = None,
    quantiles: Sequence[float] = (),
    **settings: Any,
) -> Any:
    """Forecasts every series of a long frame.

    Series may differ in length and start, and share one frequency; rows may be in any order; times
    that are missing between two others count as missing values.

    Args:
        df: see `data.long_frames.read_panel`.
        h: steps to forecast.
        pair: target and draft, see `forecast`.
        id_col: names the series.
        time_col: their times.
        target_col: their values.
        freq: see `read_panel`.
        dayfirst: see `read_panel`.
        date_format: see `read_panel`.
        quantiles: one column for each: `stride-q-10` for .1.
        **settings: of `forecast`: key, num_samples, rule (an instance such as `Block()`),
            num_draft, sigma, missing... A foundation model that reports quantiles is asked for
            them, not for sample paths, unless num_samples says so.

    Returns:
        A frame of the kind of `df`, one row per series and future time: id, time, `stride` (the
        mean) and the quantiles.

    Raises:
        InputError: quantiles without sample paths, a horizon that ends in no year, an id or time
            column with the name of one of the result; see `read_panel` and `forecast`.
    """
    h = whole_number("the horizon h", h, least=1)
    check_columns((id_col, time_col), (MODEL,))
    panel = read_panel(
        df, id_col, time_col, target_col, freq, dayfirst=dayfirst, date_format=date_format
    )
    forecasts = forecast_panel(
        panel, h, pair=pair, columns=(id_col, time_col), quantiles=quantiles, **settings
    )
    return like(forecasts, df, (id_col, time_col))


def forecast_panel(
    panel: Panel,
    h: int,
    *,
    pair: Pair | Process,
    columns: tuple[str, str] = ("unique_id", "ds"),
    quantiles: Sequence[float] | None = (),
    **settings: Any,
) -> pd.DataFrame:
    """Forecasts every series of a panel; `columns` are the names of id and time.

    Quantiles None are the usual ones of `forecast`: of sample paths, or those that the target
    reports.

    Raises:
        InputError: see `forecast_df`.
    """
    h = whole_number("the horizon h", h, least=1)
    ahead = [grid.ahead(h) for grid in panel.grids]
    ids = [str(grid.name) for grid in panel.grids]
    forecasts = _forecast(panel.grids, ids, h, pair, quantiles, settings)
    parts = [
        pd.DataFrame({columns[1]: times, **values})
        for times, values in zip(ahead, forecasts, strict=True)
    ]
    return _together(columns[0], panel.grids, parts, panel)


def history_frame(panel: Panel, columns: tuple[str, str, str]) -> pd.DataFrame:
    """The grids of a panel as a long frame of id, time and value, NaN where there is none."""
    id_col, time_col, target_col = columns
    parts = [
        pd.DataFrame({time_col: grid.timeline.at(grid.numbers), target_col: grid.values})
        for grid in panel.grids
    ]
    return _together(id_col, panel.grids, parts, panel)


def _together(
    id_col: str, grids: list[Grid], parts: list[pd.DataFrame], panel: Panel
) -> pd.DataFrame:
    """The rows of all series, with their ids, of the type of the frame's, in front."""
    rows = np.repeat([grid.row for grid in grids], [len(part) for part in parts])
    table = pd.concat(parts, ignore_index=True)
    table.insert(0, id_col, panel.ids.iloc[rows].reset_index(drop=True))
    return table


def _forecast(
    grids: list[Grid],
    ids: list[str],
    h: int,
    pair: Pair | Process,
    quantiles: Sequence[float] | None,
    settings: dict[str, Any],
) -> list[dict[str, np.ndarray]]:
    """The columns of each series' forecast."""
    reports = bool(reported_levels(as_pair(pair).target))
    asked = quantiles is not None and len(quantiles) > 0
    if asked and not reports and settings.get("num_samples") == 0:
        raise InputError(
            f"quantiles {list(quantiles or ())} need sample paths; leave them out with "
            "num_samples 0 (--num-samples 0), or ask for paths."
        )
    values = [grid.values for grid in grids]
    forecasts = forecast(pair, values, h, quantiles=quantiles, ids=ids, **settings)
    names, columns = quantile_columns(forecasts.levels), []
    for i in range(len(grids)):
        columns.append({MODEL: forecasts.mean[i]})
        if forecasts.quantiles is not None:
            columns[i].update(zip(names, forecasts.quantiles[i], strict=True))
    return columns


def backtest(
    df: Any,
    h: int,
    *,
    n_windows: int = 1,
    step_size: int | None = None,
    pair: Pair | Process,
    id_col: str = "unique_id",
    time_col: str = "ds",
    target_col: str = "y",
    freq: Freq = None,
    dayfirst: bool | None = None,
    date_format: str | None = None,
    quantiles: Sequence[float] = (),
    **settings: Any,
) -> Any:
    """Forecasts the ends of the series from what came before them, as Nixtla's cross-validation.

    Args:
        df: see `read_panel`.
        h: steps to forecast after each cutoff.
        n_windows: cutoffs per series.
        step_size: steps between two cutoffs; None for h.
        pair: target and draft, see `forecast`.
        id_col: names the series.
        time_col: their times.
        target_col: their values.
        freq: see `read_panel`.
        dayfirst: see `read_panel`.
        date_format: see `read_panel`.
        quantiles: one column for each.
        **settings: of `forecast`.

    Returns:
        A frame of the kind of `df`, one row per series, cutoff and time: id, time, cutoff (the last
        time known), the true value (NaN where it is missing), `stride` and the
        quantiles; what utilsforecast's `evaluate(..., models=["stride"])` reads.

    Raises:
        InputError: n_windows or step_size below 1, a series too short for its cutoffs, a column
            with the name of one of the result, and see `forecast_df`.
    """
    step_size = h if step_size is None else step_size
    h = whole_number("the horizon h", h, least=1)
    n_windows = whole_number("n_windows", n_windows, least=1)
    step_size = whole_number("step_size", step_size, least=1)
    check_columns((id_col, time_col, target_col), (MODEL, NAIVE, CUTOFF))
    panel = read_panel(
        df, id_col, time_col, target_col, freq, dayfirst=dayfirst, date_format=date_format
    )
    cuts = [
        (grid, stop)
        for grid in panel.grids
        for stop in cutoffs(grid, h, n_windows, step_size, exactly=True)
    ]
    columns = id_col, time_col, target_col
    tested = backtest_panel(
        panel, cuts, h, pair=pair, columns=columns, quantiles=quantiles, **settings
    )
    return like(tested, df, (id_col, time_col))


def cutoffs(
    grid: Grid, h: int, n_windows: int, step_size: int, *, least: int = 1, exactly: bool = False
) -> list[int]:
    """Steps of a series that are known at each of its cutoffs, ascending.

    The last cutoff is `h` steps before the end, and the others are `step_size` apart.

    Args:
        grid: the series.
        h: steps to forecast after each cutoff.
        n_windows: cutoffs, at most.
        step_size: steps between two cutoffs.
        least: steps of history before each cutoff.
        exactly: `n_windows` of them, and no fewer.

    Raises:
        InputError: exactly so many do not fit.
    """
    steps = len(grid.values)
    count = min(n_windows, max(0, (steps - h - least) // step_size + 1))
    if exactly and count < n_windows:
        raise InputError(
            f"series {grid.name!r} has {counted(steps, 'step')}, too few for "
            f"{counted(n_windows, 'window')} of {counted(h, 'step')}, {step_size} apart; "
            f"it needs {h + (n_windows - 1) * step_size + least}."
        )
    return [steps - h - window * step_size for window in range(count - 1, -1, -1)]


def backtest_panel(
    panel: Panel,
    cuts: Sequence[tuple[Grid, int]],
    h: int,
    *,
    pair: Pair | Process,
    columns: tuple[str, str, str] = ("unique_id", "ds", "y"),
    quantiles: Sequence[float] | None = (),
    **settings: Any,
) -> pd.DataFrame:
    """Forecasts series of a panel from their first steps, all cutoffs in one call of `forecast`.

    Args:
        panel: with the ids.
        cuts: a series and the steps that are known of it, for each cutoff.
        h: steps to forecast after each cutoff.
        pair: see `forecast`.
        columns: names of id, time and value.
        quantiles: one column for each; None as in `forecast_panel`.
        **settings: of `forecast`.

    Returns:
        The frame of `backtest`, of pandas.

    Raises:
        InputError: see `forecast_df`.
    """
    id_col, time_col, target_col = columns
    histories = [grid.until(stop) for grid, stop in cuts]
    ids = [f"{grid.name}, cutoff {grid.times[-1]}" for grid in histories]
    forecasts = _forecast(histories, ids, h, pair, quantiles, settings)
    parts = []
    for (grid, stop), values in zip(cuts, forecasts, strict=True):
        times = grid.until(stop + h).times
        truth = {CUTOFF: times[stop - 1], target_col: grid.values[stop : stop + h]}
        parts.append(pd.DataFrame({time_col: times[stop:], **truth, **values}))
    return _together(id_col, histories, parts, panel)
