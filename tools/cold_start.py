"""How long a newcomer waits: the import, and the first and second forecast from the shell.

`python tools/cold_start.py --out docs/results/cold_start.json` (two minutes on 2 CPU cores): a CSV
of 1,000 steps, 96 steps ahead, each command in a process of its own; the first one finds no
compiled program on disk. Medians of three.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from stride_jax.evaluation.results import write_rows

IMPORTS = "import time, jax; start = time.perf_counter(); "
IMPORTS += "import stride_jax; stride_jax.forecast; print(time.perf_counter() - start)"


def seconds(work: Path, cache: Path, *more: str) -> float:
    """`stride-jax forecast` from start to end."""
    command = [sys.executable, "-m", "stride_jax.cli.main", "forecast", "data.csv", *more]
    command += ["--horizon", "96"]
    environment = {**os.environ, "STRIDE_JAX_CACHE": str(cache)}
    start = time.perf_counter()
    subprocess.run(command, check=True, cwd=work, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def imported() -> float:
    """Seconds for `stride_jax` and all that `forecast` needs, after `import jax`."""
    command = [sys.executable, "-c", IMPORTS]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    """Measures, prints and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work, cache = Path(name), Path(name) / "cache"
        steps = np.arange(1000)
        values = 100 + 20 * np.sin(2 * np.pi * steps / 24)
        values += np.random.default_rng(0).normal(size=1000)
        times = pd.date_range("2026-01-01", periods=1000, freq="h")
        pd.DataFrame({"date": times, "load": values}).to_csv(work / "data.csv", index=False)

        def first(*more: str) -> float:
            shutil.rmtree(cache, ignore_errors=True)
            return seconds(work, cache, *more)

        ways: dict[str, Callable[[], float]] = {
            "import stride_jax, after jax": imported,
            "first forecast, 100 sample paths": first,
            "the same again": lambda: seconds(work, cache),
            "first mean path (--num-samples 0)": lambda: first("--num-samples", "0"),
            "mean path again": lambda: seconds(work, cache, "--num-samples", "0"),
        }
        rows = []
        for what, measure in ways.items():
            rows.append({"what": what, "seconds": statistics.median(measure() for _ in range(3))})
            print(rows[-1], flush=True)
    if args.out:
        write_rows(args.out, rows)


if __name__ == "__main__":
    main()
