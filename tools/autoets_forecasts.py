"""Forecasts a suite of series with AutoETS of statsforecast, in a separate environment.

    python -m venv other && other/bin/pip install statsforecast==2.1.1 lazy_loader scipy
    PYTHONPATH=. other/bin/python tools/autoets_forecasts.py runs/foreign.npz runs/autoets.npz

An exponential smoothing whose form is chosen by AICc for each history, of its last 1,000 steps. It
takes seasons of up to 24 steps; a longer one is left out, as statsforecast does.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from statsforecast.models import AutoETS

from stride_jax.evaluation.suites import LEVELS, cutoffs, load

LONGEST_SEASON, STEPS = 24, 1000
BANDS = np.unique(np.round(100 * np.abs(1 - 2 * LEVELS), 6))[1:]
"""Central intervals, in percent, whose ends are `LEVELS` but for the median."""


def forecast(history: np.ndarray, season: int, horizon: int) -> np.ndarray:
    """`[Q, H]` at `LEVELS`; of a history that no form fits, its last value."""
    season = season if season <= LONGEST_SEASON else 1
    past = history[-STEPS:]
    try:
        found = AutoETS(season_length=season).forecast(past, horizon, level=list(BANDS))
    except Exception as error:
        print("the last value, because", type(error).__name__, error, flush=True)
        return np.tile(past[-1], (len(LEVELS), horizon))

    def at(level: float) -> np.ndarray:
        band = round(100 * abs(1 - 2 * level), 6)
        if band == 0:
            return found["mean"]
        return found[f"{'lo' if level < 0.5 else 'hi'}-{_text(band)}"]

    return np.stack([at(float(level)) for level in LEVELS])


def _text(band: float) -> str:
    """A band as statsforecast writes it."""
    return str(float(band))


def main() -> None:
    """Forecasts and writes `[W, Q, H]` of each series."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    result = {}
    for name, one in load(args.suite).items():
        past = [one.values[:end] for end in cutoffs(one)]
        result[name] = np.stack([forecast(x, one.season, one.horizon) for x in past])
        print(name, result[name].shape, flush=True)
    np.savez_compressed(args.out, **result)


if __name__ == "__main__":
    main()
