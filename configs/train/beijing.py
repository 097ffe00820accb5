"""The target shipped with the package: hourly weather in Beijing, one variable at a time.

`python train.py beijing` (about 10 minutes on 2 CPU cores), then
`stride-jax convert runs/beijing_target beijing_target.safetensors`.
"""

from stride_jax.data.config import DataConfig
from stride_jax.models.config import TimerXLConfig
from stride_jax.training.config import OptimConfig, RunConfig, TrainConfig


def get_config() -> TrainConfig:
    """8 layers of width 256 on patches of a day, normalised causally for the cached process."""
    return TrainConfig(
        data=DataConfig(source="beijing_weather", context_len=504, variables="separate"),
        model=TimerXLConfig(
            patch_len=24,
            d_model=256,
            num_heads=4,
            d_ff=512,
            num_layers=8,
            instance_norm="causal",
            variable_stride=0,
            dropout=0.2,
        ),
        optim=OptimConfig(
            learning_rate=3e-4, schedule="cosine", batch_size=48, epochs=3, steps_per_epoch=500
        ),
        run=RunConfig(out="runs/beijing_target", log_every=100, save_every=500),
    )
