"""Pictures of experiments. They need matplotlib (extra `plot`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stride_jax.decoding.info import rows as trace_rows
from stride_jax.decoding.info import save_csv
from stride_jax.evaluation.figures.forecasts import Picture, save_forecast, save_trace
from stride_jax.evaluation.figures.sweeps import save_heat, save_pareto

FILES = ("forecast.png", "trace.png", "trace.csv", "pareto.png", "heat.png")
"""Pictures and traces of an experiment, beside its results."""


def remove_pictures(out: Path) -> None:
    """Removes those of an earlier experiment in a directory that is written anew."""
    for name in FILES:
        (out / name).unlink(missing_ok=True)


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
