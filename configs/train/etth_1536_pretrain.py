"""The 0.25x draft of a target at context 1536 before distillation, pretrained on another series.

`python train.py etth_1536_pretrain` pretrains ETTh1's draft on ETTh2 (a few minutes on 2 CPU
cores); for ETTh2's add `--data.source ETTh1 --run.out runs/ETTh2_1536_pretrain`.
"""

import dataclasses
from pathlib import Path

from stride_jax.cli.flags import load_config
from stride_jax.training.config import TrainConfig


def get_config() -> TrainConfig:
    """The recipe of etth1_672_pretrain, at most 8 epochs."""
    base = load_config("etth1_672_pretrain", Path(__file__).parent, TrainConfig)
    return dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, context_len=1536),
        optim=dataclasses.replace(base.optim, epochs=8),
        run=dataclasses.replace(base.run, out="runs/ETTh1_1536_pretrain"),
    )
