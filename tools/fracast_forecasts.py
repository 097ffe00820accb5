"""Forecasts the foreign suite with Fracast-0, in a separate environment (torch).

    python -m venv other && other/bin/pip install fracast==0.1.0 lazy_loader scipy
    PYTHONPATH=. other/bin/python tools/fracast_forecasts.py runs/foreign.npz runs/fracast.npz

It gives the quantiles .1 to .9; those between are interpolated and those beyond extrapolated
linearly in the normal score of their level. Model and -model(-x) are averaged, as its authors do.
"""

import argparse
from pathlib import Path

import numpy as np
from fracast import FracastModel
from scipy.stats import norm

from stride_jax.evaluation.suites import LEVELS, cutoffs, load


def at_levels(quantiles: np.ndarray, given: np.ndarray) -> np.ndarray:
    """`[H, K]` at `given` levels to `[Q, H]` at `LEVELS`, by lines in the normal score."""
    score, wanted = norm.ppf(given), norm.ppf(LEVELS)
    place = np.clip(np.searchsorted(score, wanted) - 1, 0, len(score) - 2)
    share = (wanted - score[place]) / (score[place + 1] - score[place])
    result: np.ndarray = quantiles[:, place] + share * (
        quantiles[:, place + 1] - quantiles[:, place]
    )
    return result.T


def main() -> None:
    """Forecasts and writes `[W, Q, H]` of each series."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    model = FracastModel.from_pretrained(weights="fp32")
    given, result = np.asarray(model.quantiles), {}
    for name, one in load(args.suite).items():
        windows = []
        for end in cutoffs(one):
            past = one.values[:end]
            level, scale = past.mean(), max(float(past.std()), 1e-12)
            past = ((past - level) / scale).astype(np.float32)
            up = np.asarray(model.forecast(past, horizon=one.horizon), np.float64)
            down = -np.asarray(model.forecast(-past, horizon=one.horizon), np.float64)[:, ::-1]
            middle = np.sort((up + down) / 2, axis=1)
            windows.append(at_levels(middle, given) * scale + level)
        result[name] = np.stack(windows)
        print(name, result[name].shape, flush=True)
    np.savez_compressed(args.out, **result)


if __name__ == "__main__":
    main()
