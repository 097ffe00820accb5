"""Backtests scored beside seasonal-naive: errors, quantile loss and coverage of each series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import gmean

from stride_jax.data.panel import Grid
from stride_jax.evaluation.suites import naive
from stride_jax.forecasting.columns import CUTOFF, MODEL, NAIVE, column_levels, quantile_columns
from stride_jax.forecasting.histories import Missing, read_histories

WIDTH = 100
"""Characters of a line of the table."""
INTERVALS = 3
"""Intervals whose coverage is shown, at most: the widest ones."""


class Score(NamedTuple):
    """Errors of one series, or of all of them.

    Attributes:
        name: of the series.
        windows: cutoffs after which a value was observed.
        mae: mean absolute error of the median, or of the mean where there is no median.
        naive_mae: that of seasonal-naive.
        ratio: the former over the latter; NaN where seasonal-naive makes no error.
        loss_ratio: mean quantile loss over the levels, divided by that of seasonal-naive.
        covered: share of the truth in each central interval, by its probability.
    """

    name: str
    windows: int
    mae: float
    naive_mae: float
    ratio: float
    loss_ratio: float
    covered: dict[float, float]


def naive_forecasts(
    histories: Sequence[Grid], h: int, season: int, levels: Sequence[float], missing: Missing
) -> pd.DataFrame:
    """Seasonal-naive forecasts after each history, `h` rows each: their middle and quantiles.

    Args:
        histories: each with more than a season of steps up to its last value.
        h: steps to forecast.
        season: steps that are repeated.
        levels: probabilities, one column for each.
        missing: see `read_histories`; values that are missing at the end are forecast too.
    """
    read = read_histories([grid.values for grid in histories], missing)
    parts = []
    for one, ahead in zip(read.series, read.ahead, strict=True):
        quantiles = naive(one[:, 0], season, ahead + h, [0.5, *levels])
        parts.append(quantiles[:, ahead:].T)  # [1 + Q, H] -> [H, 1 + Q]
    columns = [NAIVE, *quantile_columns(levels, NAIVE)]
    return pd.DataFrame(np.concatenate(parts), columns=columns)


def point_column(columns: Sequence[str], model: str = MODEL) -> str:
    """The column whose absolute error is taken: the median, or the mean where there is none."""
    return column_levels(columns, model).get(0.5, model)


def central_intervals(levels: Sequence[float]) -> dict[float, tuple[float, float]]:
    """The central intervals among some levels by their probability, the widest first."""
    pairs = [(p, q) for p in sorted(levels) for q in levels if p < q and abs(p + q - 1) < 1e-9]
    return {round(q - p, 9): (p, q) for p, q in pairs}


def score_series(name: str, rows: pd.DataFrame, target_col: str) -> Score:
    """The scores of one series; steps without a true value do not count.

    Args:
        name: of the series.
        rows: of `backtest_panel` and `naive_forecasts` next to each other.
        target_col: name of the true value.
    """
    seen = rows[rows[target_col].notna()]
    truth, columns = seen[target_col].to_numpy(np.float64), list(rows.columns)
    levels = column_levels(columns)
    mae, naive_mae = (
        float(np.mean(np.abs(seen[point_column(columns, model)] - truth)))
        for model in (MODEL, NAIVE)
    )
    losses = [_quantile_loss(seen, truth, model) for model in (MODEL, NAIVE)]
    covered = {}
    for share, (p, q) in central_intervals(list(levels)).items():
        low, high = seen[levels[p]], seen[levels[q]]
        covered[share] = float(np.mean((truth >= low) & (truth <= high)))
    windows = seen[CUTOFF].nunique()
    ratio, loss_ratio = _ratio(mae, naive_mae), _ratio(*losses)
    return Score(name, windows, mae, naive_mae, ratio, loss_ratio, covered)


def _quantile_loss(rows: pd.DataFrame, truth: np.ndarray, model: str) -> float:
    """Mean quantile (pinball) loss over steps and levels; NaN without levels."""
    losses = [
        np.mean(np.maximum(level * (truth - rows[name]), (level - 1) * (truth - rows[name])))
        for level, name in column_levels(list(rows.columns), model).items()
    ]
    return float(np.mean(losses)) if losses else np.nan


def _ratio(error: float, of_naive: float) -> float:
    """An error over that of seasonal-naive; NaN where the latter makes none."""
    return error / of_naive if of_naive > 0 else np.nan


def score_all(scores: Sequence[Score]) -> Score:
    """Geometric means of the ratios, where there are any, and means of the coverage."""

    def ratios(values: list[float]) -> float:
        finite = [value for value in values if np.isfinite(value)]
        return float(gmean(finite)) if finite else np.nan

    covered = {
        share: float(np.mean([one.covered[share] for one in scores])) for share in scores[0].covered
    }
    return Score(
        "all",
        sum(one.windows for one in scores),
        np.nan,
        np.nan,
        ratios([one.ratio for one in scores]),
        ratios([one.loss_ratio for one in scores]),
        covered,
    )


def score_table(scores: Sequence[Score]) -> str:
    """The scores as plain text, at most `WIDTH` characters wide; long names are cut."""
    shown = list(scores[0].covered)[:INTERVALS]
    headers = ["series", "windows", "MAE", "naive MAE", "MAE ratio"]
    quantiles = bool(np.isfinite([one.loss_ratio for one in scores]).any())
    headers += ["loss ratio"] * quantiles + [f"in {100 * share:g} %" for share in shown]
    rows = [
        [str(one.windows), _units(one.mae), _units(one.naive_mae), _units(one.ratio, ".3f")]
        + [_units(one.loss_ratio, ".3f")] * quantiles
        + [_units(100 * one.covered[share], ".1f", " %") for share in shown]
        for one in scores
    ]
    names = [" ".join(one.name.split()) for one in scores]

    def table(names: list[str]) -> str:
        width = max(map(len, [*names, "series"]))
        cells = [[name.ljust(width), *row] for name, row in zip(names, rows, strict=True)]
        columns = ["series".ljust(width), *(f" {header}" for header in headers[1:])]
        return pd.DataFrame(cells, columns=columns).to_string(index=False)

    text = table(names)
    excess = max(map(len, text.splitlines())) - WIDTH
    if excess <= 0:
        return text
    room = max(map(len, names)) - excess
    return table([name if len(name) <= room else name[: room - 1] + "…" for name in names])


def _units(value: float, form: str = "", unit: str = "") -> str:
    """A number of the table with four digits or as `form` says; a dash where there is none."""
    if not np.isfinite(value):
        return "-"
    form = form or (",.0f" if 1e4 <= abs(value) < 1e9 else ".4g")
    return format(value, form) + unit
