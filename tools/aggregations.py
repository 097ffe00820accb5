"""Scores the zero-shot target combined with forecasts of means, on windows that it has never seen.

    python tools/aggregations.py runs/real.npy docs/results/zero_shot/aggregations.json

forecasts windows of the series of tools/make_pretraining.py, from their last rows, which neither
training nor early stopping has, and synthetic ones that no training draws: histories of 2,560 steps
and 336 steps ahead. A row is a set of rates (`Pair.aggregations`) and a stretch of the horizon.
Errors are geometric means over windows, relative to those of the target without means. About half
an hour on a CPU core.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

import stride_jax as sj
from stride_jax.data.synthetic_series import draw_windows
from stride_jax.data.unseen import SMALLEST_STD, unseen_windows
from stride_jax.evaluation.results import write_rows
from stride_jax.evaluation.suites import compared, each_window, of_paths

HISTORY, SEEN, AHEAD = 2_560, 1_024, 336
"""Steps of a history, those of them that the target sees, and those that are forecast."""
STRETCHES = ((0, 48), (48, 96), (96, 192), (192, 336))
"""Stretches of the horizon, from one step to another."""
RATES: tuple[tuple[int, ...], ...] = ((), (2,), (4,), (8,), (2, 4), (2, 8), (4, 8), (2, 4, 8))
SYNTHETIC_KEY, SEED = 5_151, 77
BATCH = 50

Windows = dict[str, np.ndarray]
Scores = list[dict[str, float]]


def in_stds(windows: np.ndarray) -> np.ndarray:
    """Windows in stds of what the target sees; none that is constant there."""
    spread = windows[:, HISTORY - SEEN : HISTORY].std(axis=1, keepdims=True)
    moving = spread[:, 0] > SMALLEST_STD
    scaled: np.ndarray = windows[moving] / spread[moving]
    return scaled


def both_kinds(values: np.ndarray, count: int) -> Windows:
    """Real and synthetic windows `[W, HISTORY + AHEAD]`."""
    steps = HISTORY + AHEAD
    real = unseen_windows(values, count, steps, np.random.default_rng(SEED))
    drawn = draw_windows(jax.random.key(SYNTHETIC_KEY), count // 2, steps)[..., 0]
    return {"real": in_stds(real), "synthetic": in_stds(np.asarray(drawn, np.float64))}


def scored(pair: sj.Pair, windows: np.ndarray, num_paths: int) -> dict[tuple[int, int], Scores]:
    """The scores of every window by stretch of the horizon."""
    paths = [
        sj.forecast(pair, list(part[:, :HISTORY]), AHEAD, key=i, num_samples=num_paths).paths
        for i, part in enumerate(np.split(windows, range(BATCH, len(windows), BATCH)))
    ]
    decoded, truth = np.concatenate(paths), windows[:, HISTORY:]
    return {
        (first, end): each_window(of_paths(decoded[..., first:end]), truth[:, first:end])
        for first, end in STRETCHES
    }


def row_of(rates: tuple[int, ...], kind: str, stretch: Any, one: Scores, base: Scores) -> Any:
    """The row of a set of rates, one kind of windows and one stretch."""
    row: dict[str, Any] = {"means of": ", ".join(map(str, rates)) or "none", "windows": kind}
    row |= {"number": len(one), "steps": f"{stretch[0] + 1} to {stretch[1]}"}
    return row | compared(one, base)


def main() -> None:
    """Scores, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("series", type=Path, help="[T, C] in a .npy file")
    parser.add_argument("out", type=Path)
    parser.add_argument("--windows", type=int, default=300, help="of the real ones, at most")
    parser.add_argument("--paths", type=int, default=50, help="sample paths of a window")
    args = parser.parse_args()
    windows = both_kinds(np.load(args.series), args.windows)
    packaged = sj.load_pair("zero_shot", None)
    base: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for rates in RATES:
        pair = dataclasses.replace(packaged, aggregations=rates)
        for kind, some in windows.items():
            found = scored(pair, some, args.paths)
            base.setdefault(kind, found)
            for stretch, one in found.items():
                rows.append(row_of(rates, kind, stretch, one, base[kind][stretch]))
                print(rows[-1], flush=True)
    write_rows(args.out, rows, table="aggregations")


if __name__ == "__main__":
    main()
