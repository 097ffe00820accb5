"""Plain containers shared by all layers. Shape letters: see the README's vocabulary."""

from __future__ import annotations

from typing import NamedTuple, Protocol

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


class Density(Protocol):
    """A density for each step of a patch that is no Gaussian; the steps are independent.

    A pytree whose arrays have the axes `[..., P, C]` of the mean in front, and others behind them.
    """

    def log_prob(self, values: jax.Array) -> jax.Array:
        """Log density of each step, of the shape of `values [..., P, C]`, which broadcast."""

    def sample(self, key: jax.Array, count: int | None = None) -> jax.Array:
        """One draw of each step `[..., P, C]`, or with a `count` so many, on an axis in front.

        Consumes `key`.
        """


class PatchDistribution(NamedTuple):
    """The distribution a forecaster predicts for one patch, or for a stack of patches.

    A Gaussian, unless it has a density of its own.

    Attributes:
        mean: `[..., P, C]` in the units of the series.
        logvar: `[..., P, C]` log variance in the same units squared, or None for a mean head.
        features: `[..., C, D]`, the last hidden state behind it, where the model shows it.
        reported: `[..., P, C, Q]` in the units of the series: what the model states of the patch
            beside what it feeds back, such as its own quantiles; None where it states nothing.
        density: of each step, with the mean `mean`; None for a Gaussian. See `Traits`.
    """

    mean: jax.Array
    logvar: jax.Array | None = None
    features: jax.Array | None = None
    reported: jax.Array | None = None
    density: Density | None = None
