"""Trains a target, pretrains a draft, or fine-tunes: `python train.py --config etth1_672_target`."""

from collections.abc import Sequence
from pathlib import Path

from stride_jax import cli
from stride_jax.config import TrainConfig
from stride_jax.convert import load_model
from stride_jax.data import load_series
from stride_jax.data.splits import prepare
from stride_jax.training import train

CONFIGS = Path(__file__).parent / "configs"


def main(argv: Sequence[str]) -> None:
    """Flags to config, config to the library."""
    config = cli.parse(argv, CONFIGS, TrainConfig(), prog="train.py")
    source = config.data
    series = load_series(source.source, columns=source.columns or None, missing=source.missing)
    init = load_model(config.init_from) if config.init_from else None
    train(config, prepare(source, series), init)


if __name__ == "__main__":
    cli.run(main)
