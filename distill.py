"""Distils a target into a small draft.

`python distill.py etth1_672`; `--help` lists every field.
"""

from collections.abc import Sequence
from pathlib import Path

from stride_jax.checkpoints.store import find_model
from stride_jax.cli import flags as cli
from stride_jax.cli.huge_pages import restart_with_huge_pages
from stride_jax.data.splits import load_data
from stride_jax.sharding import connect
from stride_jax.training.config import DistillConfig
from stride_jax.training.distillation import distill
from stride_jax.training.linear_distillation import distill_linear
from stride_jax.training.resume import find_start

CONFIGS = Path(__file__).parent / "configs" / "distill"


def main(argv: Sequence[str]) -> None:
    """Flags to config, config to the library."""
    config = cli.parse(argv, CONFIGS, DistillConfig(), prog="distill.py")
    if config.run.distributed:
        connect()
    data, target = load_data(config.data), find_model(config.target)
    if config.objective == "ridge":
        distill_linear(config, data, target)
        return
    distill(config, data, target, find_start(config.init_from, config.run))


if __name__ == "__main__":
    restart_with_huge_pages()
    cli.run(main)
