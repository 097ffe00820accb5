"""Forecasts from each history and its mirror image, decoded together.

A model that is right about a series is right about its mirror image too, and where it is not, the
two errors differ. So half of the sample paths come from the mirrored history and are turned back:
their distribution is the mixture of both predictions, in equal parts. A history and its mirror
image take the same random numbers, which the turning back makes opposite. Two such paths lie on two
sides of the median (antithetic variates), so that quantiles of a few paths are closer to those of
many.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from stride_jax.forecasting.contexts import Contexts
from stride_jax.forecasting.results import Decoded


def both_ways(contexts: Contexts) -> Contexts:
    """The contexts of B histories, then those of the mirrored ones, `[2 B, L, C]`."""
    twice = Contexts(*(np.concatenate([x, x]) for x in contexts))
    count = len(contexts.values)
    sign = np.repeat(np.array([1, -1], np.float32), count)[:, None, None]
    return twice._replace(values=twice.values * sign, mean=twice.mean * sign)


def upright(rows: Any) -> Any:
    """The rows of the histories as they are, in arrays of `both_ways` rows."""
    return jax.tree.map(lambda x: x[: len(x) // 2], rows)


def turned_back(decoded: Decoded, num_samples: int) -> Decoded:
    """Paths `[2 B, S / 2, H, C]` as S paths of B histories, those of the mirrored ones turned back.

    Args:
        decoded: of `both_ways`, in the order of its rows.
        num_samples: S; 0 for the mean of both mean paths, with the counts of both. An odd number
            has one mirrored path less.
    """
    count = len(decoded.rows) // 2
    most = num_samples or 2

    def joined(values: Any, sign: int = 1) -> np.ndarray:
        return np.concatenate([values[:count], sign * values[count:]], axis=1)[:, :most]

    info = jax.tree.map(joined, decoded.info)
    info = info._replace(proposal=joined(decoded.info.proposal, -1))
    paths = joined(decoded.paths, -1)
    if num_samples == 0:  # one path, before it is cut off at 0
        paths = paths.mean(axis=1, keepdims=True)
    return Decoded(decoded.rows[:count], paths, info)
