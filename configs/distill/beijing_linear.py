"""A linear draft for `train.py beijing`: four maps, fitted in closed form.

`python distill.py beijing_linear` (under two minutes on 2 CPU cores).
"""

from stride_jax.data.config import DataConfig
from stride_jax.training.config import DistillConfig, RidgeConfig, RunConfig


def get_config() -> DistillConfig:
    """A mixture that tells the variables apart; half of the windows end with proposals."""
    return DistillConfig(
        data=DataConfig(source="beijing_weather", context_len=504, variables="separate"),
        target="runs/beijing_target",
        objective="ridge",
        ridge=RidgeConfig(maps="mixture", num_maps=4),
        on_policy=0.5,
        num_draft=5,
        run=RunConfig(out="runs/beijing_linear"),
    )
