"""A draft for `train.py beijing_large`, a 75th of its size.

`python distill.py beijing_large` (half an hour on 2 CPU cores).
"""

from stride_jax.data.config import DataConfig
from stride_jax.training.config import DistillConfig, OptimConfig, RunConfig


def get_config() -> DistillConfig:
    """Three layers of width 192; half of the contexts end with the draft's own proposals."""
    return DistillConfig(
        data=DataConfig(source="beijing_weather", context_len=504, variables="separate"),
        target="runs/beijing_large.safetensors",
        factor=0.1875,
        num_layers=3,
        dropout=0.0,
        objective="mean",
        on_policy=0.5,
        num_draft=6,
        optim=OptimConfig(
            learning_rate=1e-3, schedule="cosine", batch_size=48, epochs=6, steps_per_epoch=500
        ),
        run=RunConfig(out="runs/beijing_large_draft", log_every=50, save_every=250),
    )
