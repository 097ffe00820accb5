"""Scores of sample paths as paths, not step by step; float64 NumPy.

The energy score sees how large the errors of a path are, the variogram score how its steps hang
together. Paths whose steps are right one by one and independent lose by both.
"""

from __future__ import annotations

import numpy as np


def energy_score(paths: np.ndarray, truth: np.ndarray) -> float:
    """`E|x - y| - E|x - x'| / 2` over the root of the steps, the fair estimator; lower is better.

    Args:
        paths: `[n, S, H]`, S at least 2; the mean over n forecasts is taken.
        truth: `[n, H]`.

    References:
        Gneiting and Raftery, J. Am. Stat. Assoc. 102, 2007.
    """
    count, steps = paths.shape[1:]
    to_truth = np.linalg.norm(paths - truth[:, None], axis=-1).mean()
    apart = np.mean([np.linalg.norm(one[:, None] - one[None], axis=-1).sum() for one in paths]) / (
        count * (count - 1)
    )
    return float((to_truth - apart / 2) / np.sqrt(steps))


def variogram_score(paths: np.ndarray, truth: np.ndarray) -> float:
    """Mean over pairs of steps of `(|y_i - y_j|^.5 - E|x_i - x_j|^.5)^2`; lower is better.

    Args:
        paths: `[n, S, H]`; the mean over n forecasts is taken.
        truth: `[n, H]`.

    References:
        Scheuerer and Hamill, Monthly Weather Review 143, 2015.
    """

    def roots(series: np.ndarray) -> np.ndarray:
        return np.sqrt(np.abs(series[..., :, None] - series[..., None, :]))

    scores = [
        np.square(roots(true) - roots(drawn).mean(axis=0)).mean()
        for drawn, true in zip(paths, truth, strict=True)
    ]
    return float(np.mean(scores))
