"""Series with missing values, which are filled causally when a window is cut."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np


class Gaps(NamedTuple):
    """A series with missing values, in the form that windows are cut from.

    Attributes:
        interpolated: `[T, C]` float32, missing values on a straight line between their neighbours,
            the nearest value before the first and after the last one.
        forward: `[T, C]` float32, the last value before a missing one; 0, the mean of the training
            rows, where there is none.
        next_seen: `[T, C]` int32, the first row from here on that was observed; T where none was.
    """

    interpolated: jax.Array
    forward: jax.Array
    next_seen: jax.Array


def with_gaps(values: np.ndarray) -> np.ndarray | Gaps:
    """The series as windows are cut from it: the values, or `Gaps` where some of them are NaN.

    Args:
        values: `[T, C]` float32, standardised.
    """
    missing = np.isnan(values)
    if not missing.any():
        return values
    rows = np.arange(len(values))
    interpolated, forward = values.copy(), np.zeros_like(values)
    next_seen = np.full(values.shape, len(values), np.int32)
    for column, gap in enumerate(missing.T):
        seen, observed = rows[~gap], values[~gap, column]
        if not len(seen):
            interpolated[:, column] = 0.0
            continue
        interpolated[gap, column] = np.interp(rows[gap], seen, observed)
        after = np.searchsorted(seen, rows)  # how many were observed before
        next_seen[after < len(seen), column] = seen[after[after < len(seen)]]
        last = np.searchsorted(seen, rows, side="right") - 1
        forward[:, column] = np.where(last < 0, 0.0, observed[np.maximum(last, 0)])
    parts: tuple[Any, ...] = (interpolated, forward, next_seen)
    return Gaps(*parts)
