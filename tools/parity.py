"""Largest absolute error of the port against the original's recorded outputs, case by case.

`python tools/parity.py --out docs/results/parity.json` reads `tests/golden/*.npz`,
and with the extra `torch` also the `.pth` files there.
"""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from stride_jax.evaluation.parity import cases, compare
from stride_jax.evaluation.results import write_rows

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"


def main() -> None:
    """Prints the rows and writes them with the hardware and versions."""
    parser = argparse.ArgumentParser(prog="python tools/parity.py")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    paths = cases(GOLDEN)
    rows = [compare(path) for path in paths]
    if importlib.util.find_spec("torch"):
        rows += [compare(path.with_suffix(".npz"), path) for path in sorted(GOLDEN.glob("*.pth"))]
    for row in rows:
        print(f"{row['case']:26} outputs {row['outputs']:.2e}  rolled {row['rolled']:.2e}")
    if args.out:
        write_rows(args.out, rows)


if __name__ == "__main__":
    main()
