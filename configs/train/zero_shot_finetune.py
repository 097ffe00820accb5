"""The target that forecasts series it has never seen, second stage: without dropout, other series.

`python train.py zero_shot_finetune` (25 minutes on a CPU core), after `train.py zero_shot` and
`python tools/make_pretraining.py DIRECTORY runs/pretraining_more.npy --seed 1 --shares .35 .4 .25`;
then `distill.py zero_shot`.
"""

import dataclasses
from pathlib import Path

from stride_jax.cli.flags import load_config
from stride_jax.training.config import TrainConfig


def get_config() -> TrainConfig:
    """The model of zero_shot; more walks and peaks, a lower rate."""
    base = load_config("zero_shot", Path(__file__).parent, TrainConfig)
    return dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, source="runs/pretraining_more.npy"),
        model=dataclasses.replace(base.model, dropout=0.0),
        optim=dataclasses.replace(base.optim, learning_rate=3e-4, epochs=8, patience=8),
        run=dataclasses.replace(base.run, out="runs/zero_shot_target"),
        init_from="runs/zero_shot_first",
    )
