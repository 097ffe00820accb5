"""The target shipped with the package: hourly weather in Beijing, one variable at a time.

`python train.py --config beijing_target` (about 10 minutes on 2 CPU cores), then
`python -m stride_jax.convert runs/beijing_target beijing_target.safetensors`.
"""

from stride_jax.config import DataConfig, OptimConfig, RunConfig, TimerXLConfig, TrainConfig


def get_config() -> TrainConfig:
    """4 layers of width 128 on patches of a day."""
    return TrainConfig(
        data=DataConfig(source="beijing_weather", context_len=336, variables="separate"),
        model=TimerXLConfig(patch_len=24, d_model=128, num_heads=4, d_ff=256, num_layers=4),
        optim=OptimConfig(learning_rate=5e-4, schedule="cosine", batch_size=64, epochs=4),
        run=RunConfig(out="runs/beijing_target", log_every=100, save_every=1000),
    )
