"""Distances between the distributions of two samples, with permutation tests; float64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.spatial.distance import cdist

from stride_jax.errors import InputError


class TwoSamples(NamedTuple):
    """How far two samples are apart, and whether chance explains it.

    Attributes:
        energy: energy distance `2 E|x - y| - E|x - x'| - E|y - y'|` (Szekely and Rizzo 2013).
        p_energy: of its permutation test.
        mmd: squared maximum mean discrepancy (Gretton et al. 2012), Gaussian kernel of the median
            distance.
        p_mmd: of its permutation test.
        ks: largest Kolmogorov-Smirnov distance of a coordinate.
        p_ks: the smallest p-value of those, Bonferroni-corrected.
        wasserstein: mean over the coordinates of the 1-Wasserstein distance.
    """

    energy: float
    p_energy: float
    mmd: float
    p_mmd: float
    ks: float
    p_ks: float
    wasserstein: float


def compare(
    x: np.ndarray, y: np.ndarray, *, permutations: int = 999, seed: int = 0, marginals: int = 64
) -> TwoSamples:
    """Compares the distributions of two independent samples.

    Args:
        x: `[n, d]`.
        y: `[m, d]`.
        permutations: relabellings of the pooled sample; the smallest p-value is 1 over one more.
        seed: of the permutations.
        marginals: coordinates that KS and Wasserstein look at, evenly spaced.

    Raises:
        InputError: fewer than two points, different widths, or values that are not finite.
    """
    x, y = (np.asarray(z, np.float64) for z in (x, y))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise InputError(
            f"compare needs two samples [n, d] of one width, got {x.shape} and {y.shape}."
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError("compare needs finite samples; drop the series that diverged.")
    pooled = np.concatenate([x, y])
    apart = cdist(pooled, pooled)
    between = apart[np.triu_indices(len(pooled), 1)]
    middle = np.median(between[between > 0]) if between.any() else 0.0
    kernel = np.exp(-0.5 * np.square(apart / middle)) if middle > 0 else np.ones_like(apart)
    labels = _labels(len(x), len(y), permutations, np.random.default_rng(seed))
    energy, mmd = (sign * _forms(labels, table) for sign, table in ((-1, apart), (1, kernel)))
    subset = np.unique(np.linspace(0, x.shape[1] - 1, marginals).astype(int))
    tests = [stats.ks_2samp(x[:, i], y[:, i]) for i in subset]
    lengths = [stats.wasserstein_distance(x[:, i], y[:, i]) for i in subset]
    return TwoSamples(
        energy=float(energy[0]),
        p_energy=_rank(energy),
        mmd=float(mmd[0]),
        p_mmd=_rank(mmd),
        ks=float(max(test.statistic for test in tests)),
        p_ks=float(min(1.0, len(tests) * min(test.pvalue for test in tests))),
        wasserstein=float(np.mean(lengths)),
    )


def _labels(n: int, m: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Weights 1/n on the first sample and -1/m on the second, `[count + 1, n + m]`.

    Row 0 is the real labelling, the others are permuted.
    """
    real = np.concatenate([np.full(n, 1 / n), np.full(m, -1 / m)])
    return np.stack([real, *(rng.permutation(real) for _ in range(count))])


def _forms(labels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """`u' T u` of every labelling u.

    With u = (1/n, ..., -1/m) it is `mean T(x, x') + mean T(y, y') - 2 mean T(x, y)`: MMD squared
    for a kernel, minus the energy distance for distances.
    """
    form: np.ndarray = np.einsum("pi,pi->p", labels @ table, labels)
    return form


def _rank(values: np.ndarray) -> float:
    """Share of the labellings, the real one included, whose statistic is as large."""
    return float(np.mean(values >= values[0] - 1e-12 * np.abs(values).max()))
