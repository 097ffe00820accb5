"""The ETTh1 target of etth1_672, trained with causal normalisation.

`python train.py etth1_672_causal` (about 5 minutes on 2 CPU cores).
"""

import dataclasses
from pathlib import Path

from stride_jax.cli.flags import load_config
from stride_jax.training.config import TrainConfig


def get_config() -> TrainConfig:
    """The recipe of etth1_672 with another normalisation and positions by time."""
    base = load_config("etth1_672", Path(__file__).parent, TrainConfig)
    model = dataclasses.replace(
        base.model, instance_norm="causal", variable_stride=0, max_patches=7
    )
    return dataclasses.replace(
        base,
        model=model,
        run=dataclasses.replace(base.run, out="runs/etth1_causal_target"),
    )
