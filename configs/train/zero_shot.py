"""The target that forecasts series it has never seen, first stage.

`python train.py zero_shot` (35 minutes on a CPU core), after
`python tools/make_pretraining.py DIRECTORY runs/pretraining.npy`; zero_shot_finetune continues.
"""

from stride_jax.data.config import DataConfig
from stride_jax.models.config import TimerXLConfig
from stride_jax.training.config import OptimConfig, RunConfig, TrainConfig


def get_config() -> TrainConfig:
    """4 layers of width 256 on patches of 24 steps, normalised causally."""
    return TrainConfig(
        data=DataConfig(
            source="runs/pretraining.npy",
            context_len=504,
            variables="separate",
            validation_stride=97,
        ),
        model=TimerXLConfig(
            patch_len=24,
            d_model=256,
            num_heads=4,
            d_ff=512,
            num_layers=4,
            instance_norm="causal",
            variable_stride=0,
            dropout=0.1,
        ),
        optim=OptimConfig(
            learning_rate=5e-4,
            schedule="cosine",
            batch_size=48,
            epochs=12,
            steps_per_epoch=600,
            patience=12,
            grad_clip=1.0,
        ),
        run=RunConfig(out="runs/zero_shot_first", log_every=100, save_every=100),
    )
