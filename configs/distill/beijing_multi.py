"""A multi-patch draft for `train.py beijing`: five patches in one pass.

`python distill.py beijing_multi` (about 10 minutes on a CPU core).
"""

from stride_jax.data.config import DataConfig
from stride_jax.training.config import DistillConfig, OptimConfig, RunConfig


def get_config() -> DistillConfig:
    """Mean matching against the target's next five patches, half of them after its own."""
    return DistillConfig(
        data=DataConfig(source="beijing_weather", context_len=504, variables="separate"),
        target="runs/beijing_target",
        factor=0.375,
        dropout=0.0,
        objective="mean",
        on_policy=0.5,
        output_patches=5,
        optim=OptimConfig(
            learning_rate=1e-3, schedule="cosine", batch_size=48, epochs=2, steps_per_epoch=900
        ),
        run=RunConfig(out="runs/beijing_multi", log_every=100, save_every=500),
    )
