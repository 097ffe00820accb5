"""Windows of the series of a training that the training has not read."""

from __future__ import annotations

import numpy as np

from stride_jax.errors import InputError

FIRST = 0.8
"""Share of the rows before them: those of training and validation in the split `ratio`."""
SMALLEST_STD = 1e-6


def unseen_windows(
    values: np.ndarray, count: int, steps: int, rng: np.random.Generator
) -> np.ndarray:
    """Windows of random columns, from the rows that neither training nor early stopping reads.

    Args:
        values: `[T, C]`, one series per column.
        count: W, windows that are drawn; constant ones are left out.
        steps: L, of a window.
        rng: where they are drawn from; consumed.

    Returns:
        `[W or fewer, L]` float64.

    Raises:
        InputError: the rows are fewer than a window.
    """
    first, rows = int(FIRST * len(values)), len(values)
    if rows - first < steps:
        raise InputError(
            f"the last {rows - first} of {rows} rows hold no window of {steps} steps; "
            f"give at least {int(np.ceil(steps / (1 - FIRST)))} rows."
        )
    columns = rng.integers(values.shape[1], size=count)
    starts = rng.integers(first, rows - steps + 1, size=count)
    windows = np.stack(
        [values[s : s + steps, c] for s, c in zip(starts, columns, strict=True)]
    ).astype(np.float64)
    moving: np.ndarray = windows[windows.std(axis=1) > SMALLEST_STD]
    return moving
