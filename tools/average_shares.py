"""Scores averages of two targets on windows of which neither has seen any, by share of the second.

    python tools/average_shares.py runs/one.safetensors runs/zero_shot_paths runs/real.npy \
        docs/results/zero_shot/shares.json

forecasts windows of the series of tools/make_pretraining.py, from their last rows, which neither
training nor early stopping has, and synthetic ones that no training draws. Histories have 256 to
1,024 steps; 96 and 192 steps are forecast, with the covariance and the mirror images of the
packaged pair. Errors are geometric means over windows, relative to the first target's.
tools/average.py writes the average.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import stride_jax as sj
from stride_jax.checkpoints.average import average
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.data.synthetic_series import draw_windows
from stride_jax.data.unseen import SMALLEST_STD, unseen_windows
from stride_jax.evaluation.results import write_rows
from stride_jax.evaluation.suites import Quantiles, compared, each_window, of_paths
from stride_jax.training.resume import find_trained

AHEAD, LENGTHS = (96, 192), (256, 512, 1024, 1024)
"""Steps that are forecast; steps of a history, each as likely."""
LONGEST = max(LENGTHS)
SYNTHETIC_KEY = 987_654
BATCH = 64


class Window(NamedTuple):
    """A history and what follows it, both in stds of the history."""

    past: np.ndarray
    truth: np.ndarray


def with_history(windows: np.ndarray, rng: np.random.Generator) -> list[Window]:
    """Histories of random lengths, of windows `[W, LONGEST + H]`; none that is constant."""
    found = []
    for length, whole in zip(rng.choice(LENGTHS, size=len(windows)), windows, strict=True):
        past, truth = whole[LONGEST - length : LONGEST], whole[LONGEST:]
        if past.std() > SMALLEST_STD:
            found.append(Window(past / past.std(), truth / past.std()))
    return found


def real_windows(
    values: np.ndarray, count: int, ahead: int, rng: np.random.Generator
) -> list[Window]:
    """Windows of random series `[T, C]`, from rows that no training reads."""
    return with_history(unseen_windows(values, count, LONGEST + ahead, rng), rng)


def synthetic_windows(count: int, ahead: int, rng: np.random.Generator) -> list[Window]:
    """Windows of synthetic series."""
    drawn = draw_windows(jax.random.key(SYNTHETIC_KEY), count, LONGEST + ahead)[..., 0]
    return with_history(np.asarray(drawn, np.float64), rng)


def scored(pair: sj.Pair, windows: list[Window], num_paths: int) -> list[dict[str, float]]:
    """The scores of every window."""
    parts, ahead = [], len(windows[0].truth)
    for first in range(0, len(windows), BATCH):
        past = [window.past for window in windows[first : first + BATCH]]
        found = sj.forecast(pair, past, ahead, key=first, num_samples=num_paths)
        parts.append(of_paths(found.paths.reshape(len(past), num_paths, ahead)))
    steps, total = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    return each_window(Quantiles(steps, total), np.stack([window.truth for window in windows]))


Kind = tuple[str, int]
"""Real or synthetic, and the steps that are forecast."""


def row_of(
    share: float, kind: Kind, found: list[dict[str, float]], base: list[dict[str, float]]
) -> dict[str, Any]:
    """The row of a share and one kind of windows."""
    row: dict[str, Any] = {"share": share, "windows": kind[0], "ahead": kind[1]}
    return row | {"number": len(found)} | compared(found, base)


def main() -> None:
    """Scores, prints and writes a row for each share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", help="a name, a file, a run or its last/; also the share 0")
    parser.add_argument("second")
    parser.add_argument("series", type=Path, help="[T, C] in a .npy file")
    parser.add_argument("out", type=Path)
    parser.add_argument("--shares", type=float, nargs="*", default=[0.33, 0.5, 1.0])
    parser.add_argument("--windows", type=int, default=2000, help="of each kind, at most")
    parser.add_argument("--paths", type=int, default=100, help="sample paths of a window")
    args = parser.parse_args()
    first, second = find_trained(args.first), find_trained(args.second)
    rng = np.random.default_rng(11)
    values, windows = np.load(args.series), {}
    for ahead in AHEAD:
        windows["real", ahead] = real_windows(values, args.windows, ahead, rng)
        windows["synthetic", ahead] = synthetic_windows(args.windows, ahead, rng)
    packaged = sj.load_pair("zero_shot", None)

    def of_share(share: float) -> dict[Kind, list[dict[str, float]]]:
        model: Checkpoint = average(first, second, share)
        pair = dataclasses.replace(packaged, target=sj.load_pair(model, None).target)
        return {name: scored(pair, some, args.paths) for name, some in windows.items()}

    base, rows = of_share(0.0), []
    for share in (0.0, *args.shares):
        found = of_share(share) if share else base
        for name in windows:
            rows.append(row_of(share, name, found[name], base[name]))
            print(rows[-1], flush=True)
    write_rows(args.out, rows)


if __name__ == "__main__":
    main()
