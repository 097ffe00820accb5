"""How long a newcomer waits: the import, and the first and second forecast from the shell.

`python tools/cold_start.py --out docs/results/cold_start.json` (three minutes on 2 CPU cores): a
CSV of 1,000 steps, 96 steps ahead, each command in a process of its own; the first one finds no
compiled program on disk. Then one of 5,000 steps, more than the target sees, so that means of its
steps are forecast too. Medians of three.
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


def seconds(work: Path, cache: Path, *more: str, file: str = "data.csv") -> float:
    """`stride-jax forecast` from start to end."""
    command = [sys.executable, "-m", "stride_jax.cli.main", "forecast", file, *more]
    command += ["--horizon", "96"]
    environment = {**os.environ, "STRIDE_JAX_CACHE": str(cache)}
    start = time.perf_counter()
    subprocess.run(command, check=True, cwd=work, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def imported() -> float:
    """Seconds for `stride_jax` and all that `forecast` needs, after `import jax`."""
    command = [sys.executable, "-c", IMPORTS]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def write_series(path: Path, count: int) -> None:
    """A CSV of an hourly load with a daily season."""
    steps = np.arange(count)
    values = 100 + 20 * np.sin(2 * np.pi * steps / 24)
    values += np.random.default_rng(0).normal(size=count)
    times = pd.date_range("2026-01-01", periods=count, freq="h")
    pd.DataFrame({"date": times, "load": values}).to_csv(path, index=False)


def main() -> None:
    """Measures, prints and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work, cache = Path(name), Path(name) / "cache"
        write_series(work / "data.csv", 1000)
        write_series(work / "long.csv", 5000)

        def first(*more: str, file: str = "data.csv") -> float:
            shutil.rmtree(cache, ignore_errors=True)
            return seconds(work, cache, *more, file=file)

        ways: dict[str, Callable[[], float]] = {
            "import stride_jax, after jax": imported,
            "first forecast, 100 sample paths": first,
            "the same again": lambda: seconds(work, cache),
            "first mean path (--num-samples 0)": lambda: first("--num-samples", "0"),
            "mean path again": lambda: seconds(work, cache, "--num-samples", "0"),
            "first forecast of 5,000 steps": lambda: first(file="long.csv"),
            "the same of 5,000 again": lambda: seconds(work, cache, file="long.csv"),
        }
        rows = []
        for what, measure in ways.items():
            rows.append({"what": what, "seconds": statistics.median(measure() for _ in range(3))})
            print(rows[-1], flush=True)
    if args.out:
        write_rows(args.out, rows)


if __name__ == "__main__":
    main()
