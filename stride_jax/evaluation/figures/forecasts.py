"""Pictures of forecasts: one decoded window, its trace, and the bands of a long frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pandas import to_datetime
from pandas.api.types import is_numeric_dtype

from stride_jax.decoding.types import ACCEPTED, BONUS, ORIGIN_NAMES, RECOVERED
from stride_jax.evaluation.backtest import central_intervals
from stride_jax.evaluation.figures.canvas import new_figure, save_figure
from stride_jax.forecasting.columns import CUTOFF, MODEL, NAIVE, column_levels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {ACCEPTED: "#bfe3c0", RECOVERED: "#f6c5b5", BONUS: "#c5d8f0"}
"""Shade behind a patch: what became of the draft's proposal there."""
BLUE, LIGHTEST, DARKEST = (0.12, 0.47, 0.71), 0.25, 0.55
"""Colour of the target's mean, and how much of it the widest and the narrowest interval have."""
LEAST = 50
"""Steps of a series that are shown with short forecasts, where there are as many."""


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


def save_forecast(path: Path, picture: Picture) -> None:
    """Draws the window to a PNG: point forecasts above, the speculative path and its patches below.

    Raises:
        InputError: matplotlib is not installed.
    """
    figure = new_figure(10, 6.4)
    above, below = figure.subplots(2, 1, sharex=True)
    point = _marker(picture.truth)
    for axes in (above, below):
        past = np.arange(-len(picture.context), 0)
        axes.plot(past, picture.context, color="0.45", linewidth=1, label="context")
        black: dict[str, Any] = {"color": "black", "linewidth": 1.3, "label": "truth"}
        axes.plot(_steps(picture), picture.truth, **black, **point)
        axes.axvline(-0.5, color="0.6", linewidth=0.8)
        axes.set_ylabel(picture.unit)
    steps, blue = _steps(picture), {"color": "tab:blue"}
    above.plot(steps, picture.target, label="target only (mean)", **blue, **point)
    dashed = {"color": "tab:orange", "linestyle": "--"}
    above.plot(steps, picture.draft, label="draft only (mean)", **dashed, **point)
    above.set_title(picture.title, fontsize=10)
    _draw_patches(below, picture)
    below.set_title("one speculative path (with noise where the rule samples)", fontsize=10)
    below.set_xlabel("steps after the end of the context")
    for axes in (above, below):
        low, high = axes.get_ylim()
        axes.set_ylim(top=high + 0.2 * (high - low))  # room for the legend
        axes.legend(loc="upper left", fontsize=9, ncols=4)
    save_figure(figure, path)


def _steps(picture: Picture) -> np.ndarray:
    return np.arange(len(picture.truth))


def _draw_patches(axes: Axes, picture: Picture) -> None:
    """Shades each patch by its origin and dots the proposals that were rejected."""
    green: dict[str, Any] = {"color": "tab:green", "label": "speculative path"}
    axes.plot(_steps(picture), picture.speculative, **green, **_marker(picture.truth))
    labels: dict[Any, str] = {origin: f"patch: {ORIGIN_NAMES[origin]}" for origin in COLOURS}
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
            dotted: dict[str, Any] = {"color": "tab:red", "linestyle": ":", "linewidth": 1}
            axes.plot(steps, rejected, label=label, **dotted, **_marker(steps))


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
    fates = (
        (True, "tab:green", "accepted"),
        (False, "tab:red", "rejected, or after a rejected one"),
    )
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
    save_figure(figure, path)


def save_intervals(path: Path, history: Any, forecasts: Any, columns: tuple[str, str, str]) -> None:
    """Draws the forecasts of a long frame: the mean and, where there are quantiles, the intervals.

    Args:
        path: PNG to write.
        history: long frame of the past.
        forecasts: long frame from `forecasting.frames.forecast_df`.
        columns: id, time and value.

    Raises:
        InputError: matplotlib is not installed.
    """
    id_col, time_col, target_col = columns

    def draw(axes: Axes, past: Any, ahead: Any) -> None:
        if not is_numeric_dtype(ahead[time_col]):  # the history's may still be text
            past = past.assign(**{time_col: to_datetime(past[time_col])})
        past = past.sort_values(time_col).tail(max(LEAST, 3 * len(ahead)))
        axes.plot(past[time_col], past[target_col], color="0.3", linewidth=1, label="history")
        _draw_ahead(axes, ahead, time_col)

    _save_each_series(path, (history, forecasts), id_col, draw)


def _save_each_series(
    path: Path,
    frames: tuple[Any, Any],
    id_col: str,
    draw: Callable[[Axes, Any, Any], None],
) -> None:
    """Draws history and forecasts of each series, one below the other; six series at most."""
    history, forecasts = frames
    names = list(dict.fromkeys(forecasts[id_col]))[:6]
    figure = new_figure(11, 1 + 2.2 * len(names))
    for axes, name in zip(np.atleast_1d(figure.subplots(len(names), 1)), names, strict=True):
        draw(axes, history[history[id_col] == name], forecasts[forecasts[id_col] == name])
        axes.set_title(str(name), fontsize=10)
        _place_legend(axes)
    save_figure(figure, path)


def _place_legend(axes: Axes) -> None:
    """Adds a legend, with room for its lines above everything that is drawn."""
    legend = axes.legend(loc="upper left", fontsize=8, ncols=6)
    lines = -(-len(legend.get_texts()) // 6)
    low, high = axes.get_ylim()
    axes.set_ylim(top=high + 0.2 * lines * (high - low))


def _draw_ahead(axes: Axes, ahead: Any, time_col: str, *, labelled: bool = True) -> None:
    """Draws the mean of one forecast and, where there are quantiles, what they say."""

    def label(text: str) -> str | None:
        return text if labelled else None

    _draw_quantiles(axes, ahead, time_col, label)
    line: dict[str, Any] = {"color": "tab:blue", "linewidth": 1.3, "label": label("mean")}
    axes.plot(ahead[time_col], ahead[MODEL], **line, **_marker(ahead))


def _draw_quantiles(
    axes: Axes, ahead: Any, time_col: str, label: Callable[[str], str | None]
) -> None:
    """Shades the central intervals; a quantile without a partner is a thin line."""
    columns = column_levels(list(ahead.columns))
    percents = {level: name.rpartition("-")[2] for level, name in columns.items()}
    pairs = list(central_intervals(list(columns)).values())
    for (low, high), shade in zip(pairs, _shades(len(pairs)), strict=True):
        steps = ahead[time_col], ahead[columns[low]], ahead[columns[high]]
        name = label(f"{percents[low]} to {percents[high]} %")
        band: dict[str, Any] = {"color": shade, "label": name}
        if len(ahead) == 1:  # a band of one step has no width
            axes.vlines(*steps, linewidth=5, zorder=1, **band)
        else:
            axes.fill_between(*steps, linewidth=0, **band)

    # The median has no partner either, and it would lie on the mean.
    for level in sorted(set(columns) - {q for pair in pairs for q in pair} - {0.5}):
        thin: dict[str, Any] = {"color": "tab:blue", "linewidth": 0.6, **_marker(ahead, "_")}
        name = label(f"{percents[level]} %")
        axes.plot(ahead[time_col], ahead[columns[level]], label=name, **thin)


def _shades(count: int) -> list[tuple[float, ...]]:
    """Colours of nested bands, the widest and lightest first.

    They are opaque, so that a band has the colour of its entry in the legend.
    """
    strengths = np.linspace(LIGHTEST, DARKEST, count)
    return [tuple(1 - strength * (1 - part) for part in BLUE) for strength in strengths]


def _marker(ahead: Any, marker: str = "o") -> dict[str, Any]:
    """Settings of a line, with a marker for a single step: a line of one point is invisible."""
    return {"marker": marker, "markersize": 4} if len(ahead) == 1 else {}


def save_backtest(path: Path, history: Any, tested: Any, columns: tuple[str, str, str]) -> None:
    """Draws the end of each series with the forecasts of its cutoffs in it; six series at most.

    Where forecasts overlap, only those are drawn that do not, the last one among them.

    Args:
        path: PNG to write.
        history: long frame of the whole series.
        tested: long frame from `forecasting.frames.backtest`, its rows in the order of time after
            each cutoff; a column `seasonal-naive` is drawn too.
        columns: id, time and value.

    Raises:
        InputError: matplotlib is not installed.
    """
    id_col, time_col, target_col = columns

    def draw(axes: Axes, whole: Any, ahead: Any) -> None:
        whole = whole.reset_index(drop=True)
        _draw_cutoffs(axes, whole, _apart(ahead, time_col), (time_col, target_col))

    _save_each_series(path, (history, tested), id_col, draw)


def _draw_cutoffs(axes: Axes, whole: Any, ahead: list[Any], columns: tuple[str, str]) -> None:
    """Draws the end of one series, a horizon before the first cutoff too, and each forecast."""
    time_col, target_col = columns
    known = int((whole[time_col] <= ahead[0][CUTOFF].iloc[0]).sum())
    shown = whole[max(0, min(known - len(ahead[0]), len(whole) - LEAST)) :]
    axes.plot(shown[time_col], shown[target_col], color="0.3", linewidth=1, label="truth")
    dotted: dict[str, Any] = {"color": "0.6", "linestyle": ":", "linewidth": 1}
    dashed: dict[str, Any] = {"color": "tab:orange", "linestyle": "--", "linewidth": 0.8}
    for rows in ahead:
        first = rows is ahead[0]  # its lines alone have labels, so that the legend names them once
        axes.axvline(rows[CUTOFF].iloc[0], label="cutoff" if first else None, **dotted)
        if NAIVE in rows:
            label = NAIVE if first else None
            axes.plot(rows[time_col], rows[NAIVE], label=label, **dashed, **_marker(rows))
        _draw_ahead(axes, rows, time_col, labelled=first)


def _apart(tested: Any, time_col: str) -> list[Any]:
    """The rows of each cutoff of one series whose forecasts do not overlap, ascending."""
    parts: list[Any] = []
    for cutoff in list(dict.fromkeys(tested[CUTOFF]))[::-1]:
        rows = tested[tested[CUTOFF] == cutoff]
        if not parts or rows[time_col].iloc[-1] <= parts[-1][CUTOFF].iloc[0]:
            parts.append(rows)
    return parts[::-1]
