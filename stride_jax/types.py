"""Plain containers shared by all layers. Shape letters: see the README's vocabulary."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np


class Series(NamedTuple):
    """A multivariate time series on the host.

    Attributes:
        values: `[T, C]` float64, one row a time step, in the file's own units.
        names: C variable names.
        times: `[T]` datetime64, or None when the source has no clock.
    """

    values: np.ndarray
    names: tuple[str, ...]
    times: np.ndarray | None = None


class PatchDistribution(NamedTuple):
    """The Gaussian distribution a forecaster predicts for one patch, or for a stack of patches.

    Attributes:
        mean: `[..., P, C]` in the units of the series.
        logvar: `[..., P, C]` log variance in the same units squared, or None for a mean head.
        features: `[..., C, D]`, the last hidden state behind it, where the model shows it.
        reported: `[..., P, C, Q]` in the units of the series: what the model states of the patch
            beside what it feeds back, such as its own quantiles; None where it states nothing.
    """

    mean: jax.Array
    logvar: jax.Array | None = None
    features: jax.Array | None = None
    reported: jax.Array | None = None
