"""Averages the parameters of a model and of one that was trained on from it.

    python tools/average.py runs/zero_shot_deep runs/zero_shot_paths runs/mean.safetensors \
        --share 0.5

The average of two such models is often better than both, and keeps what the second one would have
forgotten (Wortsman et al., Robust fine-tuning of zero-shot models, arXiv 2109.01903). The share is
that of the second one: choose it by windows that neither the training nor a test has.
"""

import argparse
from pathlib import Path

import jax

from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.checkpoints.store import find_model, save_model
from stride_jax.errors import InputError


def average(first: Checkpoint, second: Checkpoint, share: float) -> Checkpoint:
    """`(1 - share) first + share second`.

    Raises:
        InputError: the share is not from 0 to 1, or the models differ in more than parameters.
    """
    if not 0 <= share <= 1:
        raise InputError(f"the share of the second model must be from 0 to 1, got {share}.")
    if (first.model, first.context_len) != (second.model, second.context_len):
        raise InputError(f"the models differ: {first.model} and {second.model}.")
    params = jax.tree.map(lambda a, b: (1 - share) * a + share * b, first.params, second.params)
    return first._replace(params=params)


def main() -> None:
    """Reads both, averages and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", help="a name, a file or a run")
    parser.add_argument("second")
    parser.add_argument("out", type=Path, help="a .safetensors file")
    parser.add_argument("--share", type=float, default=0.5, help="of the second model")
    args = parser.parse_args()
    save_model(args.out, average(find_model(args.first), find_model(args.second), args.share))
    print(f"{args.out}: {args.share:g} of {args.second}, the rest of {args.first}")


if __name__ == "__main__":
    main()
