"""Pictures of forecasts and sweeps. Needs matplotlib (extra `plot`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pandas import to_datetime
from pandas.api.types import is_numeric_dtype

from stride_jax.decoding.base import ACCEPTED, BONUS, ORIGIN_NAMES, RECOVERED
from stride_jax.decoding.info import rows as trace_rows
from stride_jax.decoding.info import save_csv
from stride_jax.errors import InputError
from stride_jax.evaluation.theory import chance, front

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {ACCEPTED: "#bfe3c0", RECOVERED: "#f6c5b5", BONUS: "#c5d8f0"}
"""Shade behind a patch: what became of the draft's proposal there."""


class Picture(NamedTuple):
    """One decoded window of one variable, in the file's own units.

    Attributes:
        context: `[L]`, or its end.
        truth: `[H]`.
        target: `[H]`, the target's mean path.
        draft: `[H]`, the draft's mean path.
        speculative: `[H]`, one speculative sample path.
        proposal: `[N, P]`, see `DecodeInfo`.
        origin: `[N]`, see `DecodeInfo`.
        patch_len: P.
        title: above the picture.
        unit: of the vertical axis.
        trace: of the speculative path, see `DecodeInfo`; or None.
    """

    context: np.ndarray
    truth: np.ndarray
    target: np.ndarray
    draft: np.ndarray
    speculative: np.ndarray
    proposal: np.ndarray
    origin: np.ndarray
    patch_len: int
    title: str
    unit: str
    trace: Any = None


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches that needs no screen.

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("pictures need matplotlib: pip install 'stride-jax[plot]'.") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_forecast(path: Path, picture: Picture) -> None:
    """Draws the window to a PNG: point forecasts above, the speculative path and its patches below.

    Raises:
        InputError: matplotlib is not installed.
    """
    figure = new_figure(11, 7)
    above, below = figure.subplots(2, 1, sharex=True, sharey=True)
    for axes in (above, below):
        past = np.arange(-len(picture.context), 0)
        axes.plot(past, picture.context, color="0.45", linewidth=1, label="context")
        axes.plot(_steps(picture), picture.truth, color="black", linewidth=1.3, label="truth")
        axes.axvline(-0.5, color="0.6", linewidth=0.8)
        axes.set_ylabel(picture.unit)
    above.plot(_steps(picture), picture.target, color="tab:blue", label="target only (mean)")
    steps, dashed = _steps(picture), {"color": "tab:orange", "linestyle": "--"}
    above.plot(steps, picture.draft, label="draft only (mean)", **dashed)
    above.set_title(picture.title)
    _draw_patches(below, picture)
    below.set_title(
        "one speculative path (with noise where the rule samples); shades: origin of each patch",
        fontsize=10,
    )
    below.set_xlabel("steps after the end of the context")
    for axes in (above, below):
        axes.legend(loc="upper left", fontsize=8, ncols=4)
    figure.savefig(path, dpi=110)


def _steps(picture: Picture) -> np.ndarray:
    return np.arange(len(picture.truth))


def _draw_patches(axes: Axes, picture: Picture) -> None:
    """Shades each patch by its origin and dots the proposals that were rejected."""
    axes.plot(_steps(picture), picture.speculative, color="tab:green", label="speculative path")
    labels: dict[Any, str] = {origin: ORIGIN_NAMES[origin] for origin in COLOURS}
    labels["rejected"] = "rejected proposal"
    for n, origin in enumerate(picture.origin.tolist()):
        start = n * picture.patch_len
        stop = min(start + picture.patch_len, len(picture.truth))
        # Each label is used once, so that the legend names it once.
        label = labels.pop(origin, None)
        axes.axvspan(start - 0.5, stop - 0.5, color=COLOURS[origin], label=label, zorder=0)
        if origin == RECOVERED:
            steps, rejected = np.arange(start, stop), picture.proposal[n, : stop - start]
            label = labels.pop("rejected", None)
            axes.plot(steps, rejected, color="tab:red", linestyle=":", linewidth=1, label=label)


def save_trace(path: Path, rows: list[dict[str, Any]], title: str) -> None:
    """Draws every proposal of one path: the gap of the means, and what decided.

    Args:
        path: PNG to write.
        rows: see `decoding.info.rows`.
        title: above the picture.

    Raises:
        InputError: matplotlib is not installed.
    """
    figure = new_figure(11, 6)
    above, below = figure.subplots(2, 1, sharex=True)
    fates = ((True, "tab:green", "accepted"), (False, "tab:red", "rejected"))
    for accepted, colour, label in fates:
        shown = [row for row in rows if row["accepted"] == accepted]
        where = [row["position"] for row in shown]
        above.scatter(where, [row["gap"] for row in shown], color=colour, s=22, label=label)
        margin = [row["log_ratio"] - row["threshold"] for row in shown]
        below.scatter(where, margin, color=colour, s=22, label=label)
    above.set_ylabel("gap of the means (RMS, in sigma)")
    above.set_ylim(bottom=0)
    below.set_ylabel("log ratio minus threshold")
    below.axhline(0, color="0.4", linewidth=0.8)
    below.set_xlabel("patch that the proposal stands for (a rejected one is tried again later)")
    above.set_title(f"{title}: every proposal of every round", fontsize=10)
    for axes in (above, below):
        axes.legend(loc="upper right", fontsize=8)
    figure.savefig(path, dpi=110)


def save_pictures(out: Path, content: dict[str, Any], picture: Picture | None) -> list[Path]:
    """Draws what an experiment gave into a directory; the paths of the pictures.

    `forecast.png` of a decoded window, `trace.png` and `trace.csv` of its trace; `pareto.png` and
    `heat.png` of a sweep.
    """
    paths = []
    if picture is not None:
        save_forecast(out / "forecast.png", picture)
        paths.append(out / "forecast.png")
        if picture.trace is not None:
            save_csv(out / "trace.csv", picture.trace)
            save_trace(out / "trace.png", trace_rows(picture.trace), "one window")
            paths.append(out / "trace.png")
    if content.get("table") == "sweep":
        save_pareto(out / "pareto.png", content)
        save_heat(out / "heat.png", content)
        paths.append(out / "pareto.png")
    return paths


def save_intervals(path: Path, history: Any, forecasts: Any, columns: tuple[str, str, str]) -> None:
    """Draws the forecasts of a long frame: the mean and, where there are quantiles, their bands.

    Args:
        path: PNG to write.
        history: long frame of the past.
        forecasts: long frame from `forecasting.frames.forecast_df`.
        columns: id, time and value.

    Raises:
        InputError: matplotlib is not installed.
    """
    id_col, time_col, target_col = columns
    names = list(dict.fromkeys(forecasts[id_col]))[:6]
    figure = new_figure(11, 1 + 2.2 * len(names))
    for axes, name in zip(np.atleast_1d(figure.subplots(len(names), 1)), names, strict=True):
        ahead, past = forecasts[forecasts[id_col] == name], history[history[id_col] == name]
        if not is_numeric_dtype(ahead[time_col]):  # the history's may still be text
            past = past.assign(**{time_col: to_datetime(past[time_col])})
        past = past.sort_values(time_col).tail(3 * len(ahead))
        bands = [c for c in ahead.columns if c.startswith("stride-q-")]
        axes.plot(past[time_col], past[target_col], color="0.3", linewidth=1, label="history")
        for low, high in zip(bands[: len(bands) // 2], bands[::-1], strict=False):
            label = f"{low.rpartition('-')[2]} to {high.rpartition('-')[2]} %"
            steps = ahead[time_col], ahead[low], ahead[high]
            axes.fill_between(*steps, color="tab:blue", alpha=0.2, linewidth=0, label=label)
        axes.plot(ahead[time_col], ahead["stride"], color="tab:blue", linewidth=1.3, label="mean")
        axes.set_title(str(name), fontsize=10)
        axes.legend(loc="upper left", fontsize=8, ncols=4)
    figure.savefig(path, dpi=110)


RULE_COLOURS = {
    "maximal": "tab:blue",
    "block": "tab:cyan",
    "residual": "tab:purple",
    "resample": "tab:red",
    "mean": "tab:green",
    "shared_noise": "tab:orange",
    "as_released": "tab:brown",
}


def save_pareto(path: Path, results: dict[str, Any]) -> None:
    """Every setting as a point, speedup against relative error, and each rule's Pareto front.

    Raises:
        InputError: matplotlib is not installed.
    """
    rows = [row for row in results["rows"] if row["method"] == "speculative"]
    outputs = list(dict.fromkeys(row["output"] for row in rows))
    figure = new_figure(5.5 * len(outputs), 4.6)
    for axes, output in zip(np.atleast_1d(figure.subplots(1, len(outputs))), outputs, strict=True):
        here = [row for row in rows if row["output"] == output]
        for rule in dict.fromkeys(row["rule"] for row in here):
            same = [row for row in here if row["rule"] == rule]
            best = front(same)
            colour = RULE_COLOURS.get(rule, "0.4")
            axes.scatter(*_places(same), color=colour, s=9, alpha=0.35, linewidths=0)
            axes.plot(*_places(best), color=colour, marker="o", markersize=4, label=rule)
        axes.axvline(1, color="0.5", linewidth=0.8, linestyle=":")
        axes.axhline(0, color="0.5", linewidth=0.8, linestyle=":")
        spread = chance(results["rows"]) if output == "sample" else None
        if spread is not None:
            band = [-200 * spread, 200 * spread]
            axes.axhspan(*band, color="0.9", zorder=0, label="chance (2 x RMS of exact rules)")
        error = "MSE of the mean path" if output == "mean" else "CRPS of sample paths"
        axes.set_ylabel(f"{error}, % above the target's")
        axes.set_xlabel("speedup over the target only")
        axes.legend(fontsize=8)
    figure.suptitle("one point per setting; lines join those that no other of the rule beats")
    figure.savefig(path, dpi=110)


def _places(rows: Sequence[dict[str, Any]]) -> tuple[list[float], list[float]]:
    return [row["speedup"] for row in rows], [100 * row["relative_error"] for row in rows]


def save_heat(path: Path, results: dict[str, Any]) -> None:
    """Acceptance, speedup and error: by sigma and K, and for resample by bias and tolerance.

    Rules without a bias are drawn by sigma and K (the smallest tolerance above 0 where they have
    one), resample at its middle K and sigma.

    Raises:
        InputError: matplotlib is not installed.
    """
    rows = [row for row in results["rows"] if row["method"] == "speculative"]
    panels = []
    for rule in dict.fromkeys(row["rule"] for row in rows):
        same = [row for row in rows if row["rule"] == rule]
        if same[0]["bias"] is not None:
            middle = {name: _middle(same, name) for name in ("num_draft", "sigma")}
            shown = [row for row in same if all(row[n] == v for n, v in middle.items())]
            title = f"{rule}, K = {middle['num_draft']}, sigma {middle['sigma']:g}"
            panels.append((title, shown, "bias", "mse_tolerance"))
        elif same[0]["output"] == "sample":
            tolerance = _middle(same, "tolerance")
            shown = [row for row in same if row["tolerance"] == tolerance]
            title = rule if tolerance is None else f"{rule}, tolerance {tolerance:g}"
            panels.append((title, shown, "num_draft", "sigma"))
        else:
            panels.append((rule, same, "num_draft", "tolerance"))
    panels = [p for p in panels if all(len({row[n] for row in p[1]}) > 1 for n in p[2:])]
    if not panels:
        return
    figure = new_figure(11, 2.7 * len(panels))
    for line, (title, shown, across, down) in zip(
        np.atleast_2d(figure.subplots(len(panels), 3, squeeze=False)), panels, strict=True
    ):
        for axes, (field, form) in zip(line, FIELDS, strict=True):
            _draw(axes, shown, across, down, field, form)
            axes.set_title(f"{title}: {NAMES[field]}", fontsize=9)
    figure.savefig(path, dpi=110)


FIELDS = (("acceptance", "{:.0%}"), ("speedup", "{:.2f}"), ("relative_error", "{:+.1%}"))
NAMES = {
    "acceptance": "acceptance",
    "speedup": "speedup",
    "relative_error": "error over target's",
    "num_draft": "K",
    "sigma": "sigma",
    "bias": "bias",
    "mse_tolerance": "squared-error tolerance",
    "tolerance": "tolerance (sigmas)",
}


def _middle(rows: list[dict[str, Any]], name: str) -> Any:
    values = sorted({row[name] for row in rows if row[name] is not None})
    return values[len(values) // 2] if values else None


def _draw(
    axes: Any, rows: list[dict[str, Any]], across: str, down: str, field: str, form: str
) -> None:
    """One heat map with its numbers written into the cells."""
    columns, lines = (sorted({row[name] for row in rows}) for name in (across, down))
    grid = np.full((len(lines), len(columns)), np.nan)
    for row in rows:
        grid[lines.index(row[down]), columns.index(row[across])] = row[field]
    if field == "relative_error":  # red is worse than the target, blue better, white alike
        high = max(0.05, np.nanmax(np.abs(grid)))
        low, colours, darkness = -high, "RdBu_r", np.abs(grid) / high
    else:
        low, high, colours = np.nanmin(grid), np.nanmax(grid), "Blues"
        darkness = (grid - low) / max(high - low, 1e-9)
    axes.imshow(grid, aspect="auto", cmap=colours, vmin=low, vmax=high)
    for (i, j), value in np.ndenumerate(grid):
        if np.isfinite(value):
            colour = "white" if darkness[i, j] > 0.6 else "black"
            axes.text(j, i, form.format(value), ha="center", va="center", color=colour, fontsize=7)
    axes.set_xticks(range(len(columns)), [f"{c:g}" for c in columns], fontsize=8)
    axes.set_yticks(range(len(lines)), [f"{c:g}" for c in lines], fontsize=8)
    axes.set_xlabel(NAMES[across], fontsize=8)
    axes.set_ylabel(NAMES[down], fontsize=8)
