"""Whether `num_draft="auto"` ever loses: forecasts of the shipped pair against the target alone.

`python tools/auto_choice.py --out auto_choice.json` (about ten minutes on 2 CPU cores; on a machine
that does nothing else) calibrates batches of the embedded series at several horizons with the rules
of sample paths and of the mean path, and then times `auto` and the target alone in turns, with
other seeds than the calibration had. The last line is the largest time of `auto` over that of the
target alone; more than 1.05 is an error.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from stride_jax import calibrate, forecast, load_pair
from stride_jax.data import embedded_series
from stride_jax.evaluation.bench import time_in_turns
from stride_jax.evaluation.results import write_rows

BATCHES, HORIZONS, SAMPLES, REPEATS = (1, 8, 64), (48, 168), (0, 1), 9


def row(pair: Any, history: np.ndarray, horizon: int, num_samples: int) -> dict[str, Any]:
    """One cell of the grid."""
    options: dict[str, Any] = {"num_samples": num_samples, "quantiles": (), "sigma": 1.0}
    choice = calibrate(pair, history, horizon, repeats=REPEATS, **options)

    def call(num_draft: Any) -> Any:
        return lambda seed: forecast(
            pair, history, horizon, key=1000 + seed, num_draft=num_draft, **options
        )

    plain, auto = map(statistics.median, time_in_turns([call(0), call("auto")], REPEATS))
    return {
        "batch": len(history),
        "horizon": horizon,
        "output": "sample" if num_samples else "mean",
        "num_draft": choice.num_draft,
        "milliseconds": 1000 * auto,
        "over target alone": auto / plain,
        "reason": choice.reason,
    }


def main() -> None:
    """Prints the rows and writes them; fails where `auto` lost more than 5 %."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    values, pair = embedded_series(["TEMP"]).values[:, 0], load_pair("beijing")
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        os.environ["STRIDE_JAX_CACHE"] = cache
        for batch in BATCHES:
            starts = np.linspace(0, len(values) - 1000, batch).astype(int)
            history = np.stack([values[start : start + 1000] for start in starts])[..., None]
            for horizon in HORIZONS:
                for num_samples in SAMPLES:
                    rows.append(row(pair, history, horizon, num_samples))
                    print(rows[-1], flush=True)
    write_rows(args.out, rows)
    worst = max(one["over target alone"] for one in rows)
    print(f"largest time over the target alone: {worst:.3f}")
    if worst > 1.05:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
