"""A draft for the target of `train.py beijing` with a learned variance, for the rule `residual`.

`python distill.py beijing_gaussian` (about 5 minutes on 2 CPU cores).
"""

from stride_jax.data.config import DataConfig
from stride_jax.training.config import DistillConfig, OptimConfig, RunConfig


def get_config() -> DistillConfig:
    """Likelihood of draws from the target: its mean plus noise of the calibrated sigma."""
    return DistillConfig(
        data=DataConfig(source="beijing_weather", context_len=504, variables="separate"),
        target="runs/beijing_target",
        factor=0.375,
        head="gaussian",
        dropout=0.0,
        objective="nll",
        teacher_noise=0.5,
        on_policy=0.0,
        optim=OptimConfig(
            learning_rate=1e-3, schedule="cosine", batch_size=48, epochs=2, steps_per_epoch=900
        ),
        run=RunConfig(out="runs/beijing_gaussian", log_every=100, save_every=500),
    )
