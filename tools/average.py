"""Averages the parameters of a model and of one that was trained on from it.

    python tools/average.py runs/one.safetensors runs/zero_shot_paths runs/mean.safetensors \
        --share 0.5

The share is that of the second one: choose it by windows that neither the training nor a test has,
as tools/average_shares.py scores them.
"""

import argparse
from pathlib import Path

from stride_jax.checkpoints.average import average
from stride_jax.checkpoints.store import save_model
from stride_jax.training.resume import find_trained


def main() -> None:
    """Reads both, averages and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", help="a name, a file, a run, or its last/")
    parser.add_argument("second")
    parser.add_argument("out", type=Path, help="a .safetensors file")
    parser.add_argument("--share", type=float, default=0.5, help="of the second model")
    args = parser.parse_args()
    save_model(args.out, average(find_trained(args.first), find_trained(args.second), args.share))
    print(f"{args.out}: {args.share:g} of {args.second}, the rest of {args.first}")


if __name__ == "__main__":
    main()
