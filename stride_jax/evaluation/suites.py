"""Suites of series to forecast unseen: cut-offs, naive forecasts and scores, float64 NumPy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import norm

LEVELS = np.concatenate([[0.025], np.arange(1, 20) / 20, [0.975]])
"""Levels of the quantiles that every method gives."""
BANDS = (0.5, 0.8, 0.95)
SMALLEST = 0.01
"""Added to the errors of single windows before their logarithms are averaged."""
CUTOFFS = 12
EDGE = 3
"""Steps at the start and at the end of the horizon whose coverage is counted apart."""


class Foreign(NamedTuple):
    """A series of the suite.

    Attributes:
        kind: what it is of, and its clock.
        season: steps of the season that seasonal-naive repeats.
        horizon: steps that are forecast.
        values: `[T]` float64.
        start: steps of the first history; None as `cutoffs` chooses.
    """

    kind: str
    season: int
    horizon: int
    values: np.ndarray
    start: int | None = None


class Quantiles(NamedTuple):
    """Forecasts of some windows of one series.

    Attributes:
        steps: `[W, Q, H]` at `LEVELS`.
        total: `[W, Q]`, of the sum over the horizon; None where a method has no paths.
    """

    steps: np.ndarray
    total: np.ndarray | None = None


def cutoffs(one: Foreign, count: int = CUTOFFS) -> np.ndarray:
    """Where the histories end: at most `count` places, evenly spaced.

    The first is `start`, or in the middle; a history has at least two seasons and 16 steps then.
    """
    last = len(one.values) - one.horizon
    first = one.start or min(last, max(2 * one.season, 16, len(one.values) // 2))
    return np.unique(np.linspace(first, last, count).astype(int))


def shortened(suite: dict[str, Foreign], most: int) -> dict[str, Foreign]:
    """A suite with horizons of at most `most` steps; the histories stay as they are."""

    def shorter(one: Foreign) -> Foreign:
        surplus, first = max(one.horizon - most, 0), int(cutoffs(one)[0])
        values = one.values[: len(one.values) - surplus]
        return one._replace(horizon=one.horizon - surplus, values=values, start=first)

    return {name: shorter(one) for name, one in suite.items()}


def histories(one: Foreign, count: int = CUTOFFS) -> tuple[list[np.ndarray], np.ndarray]:
    """The histories of at most `count` cut-offs of a series and what follows them, `[W, H]`."""
    ends = cutoffs(one, count)
    truth = np.stack([one.values[end : end + one.horizon] for end in ends])
    return [one.values[:end] for end in ends], truth


def every_history(
    suite: dict[str, Foreign], count: int = CUTOFFS
) -> tuple[list[np.ndarray], dict[str, slice]]:
    """The histories of a whole suite in a row, and the rows of each series."""
    rows: list[np.ndarray] = []
    places = {}
    for name, one in suite.items():
        past, _ = histories(one, count)
        places[name] = slice(len(rows), len(rows) + len(past))
        rows += past
    return rows, places


def naive(
    history: np.ndarray, season: int, horizon: int, levels: Sequence[float] | np.ndarray = LEVELS
) -> np.ndarray:
    """`[Q, H]`: the last season again, with Gaussian errors that grow with each repetition.

    Their std is that of the history's seasonal differences (Hyndman and Athanasopoulos,
    Forecasting: Principles and Practice, 3rd edition, section 5.5).

    Args:
        history: `[T]`, more than a season.
        season: steps.
        horizon: H.
        levels: Q probabilities.
    """
    steps = np.arange(horizon)
    mean = history[len(history) - season + steps % season]
    spread = np.sqrt(np.mean(np.square(history[season:] - history[:-season])))
    sd = spread * np.sqrt(steps // season + 1)
    quantiles: np.ndarray = mean[None] + np.asarray(norm.ppf(levels))[:, None] * sd[None]
    return quantiles


def of_paths(paths: np.ndarray) -> Quantiles:
    """Sample paths `[W, S, H]` to quantiles."""
    steps = np.quantile(paths, LEVELS, axis=1)  # [Q, W, H]
    total = np.quantile(paths.sum(axis=2), LEVELS, axis=1)  # [Q, W]
    return Quantiles(np.moveaxis(steps, 0, 1), total.T)


def pinball(quantiles: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """CRPS by the 19 inner levels: twice the mean pinball loss, `[W, H]`."""
    error = truth[:, None] - quantiles[:, 1:-1]
    level = LEVELS[1:-1, None]
    mean: np.ndarray = 2 * np.mean(np.maximum(level * error, (level - 1) * error), axis=1)
    return mean


def inside(quantiles: np.ndarray, truth: np.ndarray, band: float) -> np.ndarray:
    """Whether the truth lies in the central interval; axis 1 of the quantiles is the levels'."""
    low, high = (np.argmin(np.abs(LEVELS - p)) for p in ((1 - band) / 2, (1 + band) / 2))
    covered: np.ndarray = (truth >= quantiles[:, low]) & (truth <= quantiles[:, high])
    return covered


def scores(forecast: Quantiles, truth: np.ndarray) -> dict[str, float]:
    """Errors of the median, CRPS, and coverage by step of one series, `truth` `[W, H]`."""
    middle = forecast.steps[:, len(LEVELS) // 2]
    row = {
        "mae": float(np.mean(np.abs(middle - truth))),
        "mse": float(np.mean(np.square(middle - truth))),
        "crps": float(np.mean(pinball(forecast.steps, truth))),
    }
    for band in BANDS:
        name = f"cover_{band * 100:.0f}"
        hit = inside(forecast.steps, truth, band)
        row[name] = float(hit.mean())
        row[f"{name}_first"] = float(hit[:, :EDGE].mean())
        row[f"{name}_last"] = float(hit[:, -EDGE:].mean())
        if forecast.total is not None:
            row[f"{name}_sum"] = float(inside(forecast.total, truth.sum(axis=1), band).mean())
    return row


def each_window(forecast: Quantiles, truth: np.ndarray) -> list[dict[str, float]]:
    """The scores of every window by itself, `truth` `[W, H]`."""

    def of_row(row: slice) -> Quantiles:
        total = None if forecast.total is None else forecast.total[row]
        return Quantiles(forecast.steps[row], total)

    rows = [slice(i, i + 1) for i in range(len(truth))]
    return [scores(of_row(row), truth[row]) for row in rows]


def compared(windows: list[dict[str, float]], base: list[dict[str, float]]) -> dict[str, float]:
    """Errors over those of another method on the same windows, geometric means, and coverage.

    Args:
        windows: the scores of each window, as of `each_window`, errors in stds of its history.
        base: those of the other method.
    """
    row = {}
    for score in ("mae", "crps"):
        values, others = (np.asarray([x[score] for x in one]) + SMALLEST for one in (windows, base))
        row[score.upper()] = float(np.exp(np.mean(np.log(values / others))))
    for score, text in (("cover_80", "in 80 %"), ("cover_80_sum", "sum in 80 %")):
        row[text] = float(np.mean([x[score] for x in windows]))
    return row


def bootstrap(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean of some values, one of each series, by 2,000 resamples."""
    picks = np.random.default_rng(seed).integers(0, len(values), (2000, len(values)))
    low, high = np.quantile(values[picks].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def geometric(
    rows: list[dict[str, Any]], method: str, base: str, score: str
) -> tuple[float, float, float] | None:
    """The geometric mean over series of a score over that of another method, and its interval.

    None where no series has both.
    """
    scored, others = (
        {row["series"]: row[score] for row in rows if row["method"] == name and score in row}
        for name in (method, base)
    )
    ratios = [scored[name] / max(others[name], 1e-12) for name in scored if name in others]
    if not ratios:
        return None
    logs = np.log(np.maximum(ratios, 1e-3))
    low, high = np.exp(bootstrap(logs))
    return float(np.exp(logs.mean())), float(low), float(high)


def summary(rows: list[dict[str, Any]], method: str, seed: int = 0) -> dict[str, Any]:
    """One method over all series: geometric means over seasonal-naive's, mean coverage.

    The interval of the first is the bootstrap's over series, 95 %.
    """
    scored = {row["series"]: row for row in rows if row["method"] == method}
    base = {row["series"]: row for row in rows if row["method"] == "seasonal-naive"}
    names = [name for name in scored if name in base]
    ratio = np.asarray([scored[n]["mae"] / max(base[n]["mae"], 1e-12) for n in names])
    logs = np.log(np.maximum(ratio, 1e-3))
    low, high = np.exp(bootstrap(logs, seed))
    result = {
        "method": method,
        "series": len(names),
        "mae": float(np.exp(logs.mean())),
        "mae_low": float(low),
        "mae_high": float(high),
        "worse": float(np.mean(ratio > 1 + 1e-9)),
    }
    for name in ("mse", "crps"):
        against = [scored[n][name] / max(base[n][name], 1e-12) for n in names]
        result[name] = float(np.exp(np.mean(np.log(np.maximum(against, 1e-3)))))
    covers = [key for key in next(iter(scored.values())) if key.startswith("cover")]
    return result | {key: float(np.mean([scored[n][key] for n in names])) for key in covers}


def save(path: Path, suite: dict[str, Foreign]) -> None:
    """Values by name, and the other fields as JSON."""
    about = {name: [one.kind, one.season, one.horizon, one.start] for name, one in suite.items()}
    values: dict[str, Any] = {name: one.values for name, one in suite.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, about=json.dumps(about), **values)


def load(path: Path) -> dict[str, Foreign]:
    """Reads a file that `save` wrote."""
    with np.load(path) as file:
        about = json.loads(str(file["about"]))
        return {
            name: Foreign(kind, season, horizon, file[name], *start)
            for name, (kind, season, horizon, *start) in about.items()
        }
