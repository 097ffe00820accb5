"""Trains a target, pretrains a draft, or fine-tunes.

`python train.py etth1_672`; `--help` lists every field.
"""

from collections.abc import Sequence
from pathlib import Path

from stride_jax.checkpoints.covariances import load_covariance
from stride_jax.checkpoints.store import find_model
from stride_jax.cli import flags as cli
from stride_jax.cli.huge_pages import restart_with_huge_pages
from stride_jax.data.splits import load_data
from stride_jax.sharding import connect
from stride_jax.training.config import TrainConfig
from stride_jax.training.loop import train

CONFIGS = Path(__file__).parent / "configs" / "train"


def main(argv: Sequence[str]) -> None:
    """Flags to config, config to the library."""
    config = cli.parse(argv, CONFIGS, TrainConfig(), prog="train.py")
    if config.run.distributed:
        connect()
    fresh = config.init_from and not config.run.resume  # a resumed run has its parameters
    init = find_model(config.init_from) if fresh else None
    covariance = load_covariance(config.covariance) if config.covariance else None
    train(config, load_data(config.data), init, covariance)


if __name__ == "__main__":
    restart_with_huge_pages()
    cli.run(main)
