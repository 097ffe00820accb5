"""Builds the matrix of real series that the zero-shot pair is trained on, a column each.

    python tools/make_real.py DIRECTORY runs/real.npy

DIRECTORY holds the files that tools/make_pretraining.py names. Every series is taken at several
clock rates. The first 70 % of the rows are stretches of the first 85 % of a series, the others
(validation and test of the split `ratio`) of what comes after them. No benchmark series is in.
"""

import argparse
from pathlib import Path

import numpy as np
from make_pretraining import SOURCES, mean_of

ROWS = 16_000
PIECE = 1_600
"""Rows of a stretch; a column is ten of them, of which seven are for training."""
RATES = (1, 2, 3, 4, 6, 8, 12, 24)
"""A series is taken with so many neighbours averaged."""
SHARE = 0.85
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


def main() -> None:
    """Builds and writes the matrix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng, columns = np.random.default_rng(args.seed), []
    train = ROWS * 7 // 10 // PIECE
    for source in SOURCES:
        for series in source(args.root).values():
            for rate in RATES:
                slower = mean_of(series, rate)
                first = int(SHARE * len(slower))
                if first < PIECE // 2:
                    continue
                parts = ((slower[:first], train), (slower[first:], ROWS // PIECE - train))
                columns.append(np.concatenate([stretches(x, rng, count) for x, count in parts]))
    table = np.stack(columns, axis=1).astype(np.float32)
    assert np.isfinite(table).all()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    np.save(args.out, table)
    print(args.out, table.shape)


if __name__ == "__main__":
    main()
