"""Pictures of a sweep: speedup against error, and heat maps of two settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stride_jax.evaluation.figures.canvas import new_figure, save_figure
from stride_jax.evaluation.theory import chance, front

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
    figure.suptitle("one point per setting; a line is the Pareto front of a rule")
    save_figure(figure, path)


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
    save_figure(figure, path)


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
