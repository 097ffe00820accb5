"""Time and memory of forecasting many variables at once.

`python tools/many_series.py --out docs/results/many_series.json` (two minutes on 2 CPU cores): as
many variables as the Traffic benchmark has (862), each a random walk, by the pair in the package.
Each count runs in a process of its own, because memory once taken is not always given back.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from stride_jax.evaluation.results import write_rows

COUNTS = (1, 100, 862)


def measure(count: int) -> dict[str, float]:
    """A forecast of `count` variables, its time without compilation, and the process's memory."""
    from stride_jax import forecast, load_pair

    pair = load_pair("beijing")
    history = np.cumsum(np.random.default_rng(0).normal(size=(696, count)), axis=0)
    took = []
    for _ in range(2):  # the first one compiles
        start = time.perf_counter()
        forecast(pair, history, 96, num_samples=20)
        took.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB -> GiB
    return {
        "variables": count,
        "horizon": 96,
        "sample_paths": 20,
        "seconds": took[1],
        "with_compilation": took[0],
        "peak_GiB": peak,
    }


def main() -> None:
    """Measures every count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, help="one count, printed as JSON")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.count:
        print(json.dumps(measure(args.count)))
        return
    rows = []
    for count in COUNTS:
        command = [sys.executable, __file__, "--count", str(count)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    if args.out:
        write_rows(args.out, rows)


if __name__ == "__main__":
    main()
