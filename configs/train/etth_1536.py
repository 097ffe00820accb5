"""A full-size target at context 1536 (1 layer, D 1024), for ETTh1 unless told otherwise.

`python train.py etth_1536` (a quarter of an hour on 2 CPU cores), or for another series
`python train.py etth_1536 --data.source ETTm1 --run.out runs/ETTm1_1536_target`; ETTh2's schedule
is in docs/results/etth_1536.md. With causal normalisation add `--model.instance_norm causal
--model.variable_stride 0 --model.max_patches 16`. To reach at horizon 336: ETTh1 .475, ETTh2 .384,
ETTm1 .376, ETTm2 .287.
"""

import dataclasses
from pathlib import Path

from stride_jax.cli.flags import load_config
from stride_jax.training.config import TrainConfig


def get_config() -> TrainConfig:
    """The recipe of etth1_672."""
    base = load_config("etth1_672", Path(__file__).parent, TrainConfig)
    return dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, context_len=1536),
        optim=dataclasses.replace(base.optim, steps_per_epoch=110),
        run=dataclasses.replace(base.run, out="runs/ETTh1_1536_target", save_every=50),
    )
