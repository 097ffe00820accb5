"""The ETTh1 target of etth1_672_target, trained with causal normalisation.

`python train.py --config etth1_causal_target` (about 5 minutes on 2 CPU cores).
"""

from stride_jax.data.config import DataConfig
from stride_jax.models.config import TimerXLConfig
from stride_jax.training.config import OptimConfig, RunConfig, TrainConfig


def get_config() -> TrainConfig:
    """The recipe of etth1_672_target with another normalisation and positions by time."""
    return TrainConfig(
        data=DataConfig(source="ETTh1", context_len=672),
        model=TimerXLConfig(
            patch_len=96,
            d_model=1024,
            num_heads=8,
            d_ff=2048,
            num_layers=1,
            dropout=0.5,
            instance_norm="causal",
            variable_stride=0,
            max_patches=7,
        ),
        optim=OptimConfig(
            learning_rate=1e-4, schedule="cosine", epochs=4, steps_per_epoch=123, patience=4
        ),
        run=RunConfig(out="runs/etth1_causal_target"),
    )
