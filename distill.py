"""Distils a target into a small draft: `python distill.py --config etth1_672_draft`."""

from collections.abc import Sequence
from pathlib import Path

from stride_jax import cli
from stride_jax.config import DistillConfig
from stride_jax.convert import load_model
from stride_jax.data import load_series
from stride_jax.data.splits import prepare
from stride_jax.distillation import distill

CONFIGS = Path(__file__).parent / "configs"


def main(argv: Sequence[str]) -> None:
    """Flags to config, config to the library."""
    config = cli.parse(argv, CONFIGS, DistillConfig(), prog="distill.py")
    source = config.data
    series = load_series(source.source, columns=source.columns or None, missing=source.missing)
    init = load_model(config.init_from) if config.init_from else None
    distill(config, prepare(source, series), load_model(config.target), init)


if __name__ == "__main__":
    cli.run(main)
