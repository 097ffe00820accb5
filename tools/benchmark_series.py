"""The usual benchmarks as a suite for tools/zero_shot.py: every variable a series, test part only.

    python tools/benchmark_series.py DIRECTORY runs/benchmarks.npz

DIRECTORY holds ETTh1.csv, ETTh2.csv, ETTm1.csv, ETTm2.csv, weather.csv, exchange_rate.csv and
national_illness.csv, at any depth (`stride-jax download` fetches the ETT files). Histories end in
the test split of the published tables: 12 / 4 / 4 months of 30 days for ETT, the last fifth for the
others. Horizons are 96, and 24 for illness; the season is a day, a week of working days, or a year.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from stride_jax.evaluation.suites import Foreign, save

SEASONS = {
    "ETTh1": 24,
    "ETTh2": 24,
    "ETTm1": 96,
    "ETTm2": 96,
    "weather": 144,
    "exchange_rate": 5,
    "national_illness": 52,
}
"""Steps of a season: a day, five days of trade, a year."""
DAYS = 14_400
"""Hours of 20 months, up to which ETT is used."""


def test_rows(name: str, rows: int) -> tuple[int, int]:
    """The first row of the test split, and the one after its last."""
    if name.startswith("ETT"):
        scale = 4 if name.startswith("ETTm") else 1
        return 11_520 * scale, DAYS * scale
    return rows - int(0.2 * rows), rows


def series(directory: Path, name: str) -> dict[str, Foreign]:
    """Every variable of a benchmark that varies."""
    path = next(directory.rglob(f"{name}.csv"))
    frame = pd.read_csv(path, encoding="latin1").iloc[:, 1:]
    start, end = test_rows(name, len(frame))
    horizon = 24 if name == "national_illness" else 96
    suite = {}
    for number, column in enumerate(frame.columns):
        values = frame[column].to_numpy(np.float64)[:end]
        if np.std(values[start:]) > 0:
            suite[f"{name}_{number}"] = Foreign(name, SEASONS[name], horizon, values, start)
    return suite


def main() -> None:
    """Reads and writes the suite."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    suite = {}
    for name in SEASONS:
        suite |= series(args.directory, name)
    save(args.out, suite)
    print(args.out, len(suite), "series of", len(SEASONS), "benchmarks")


if __name__ == "__main__":
    main()
