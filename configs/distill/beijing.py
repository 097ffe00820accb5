"""The draft shipped with the package, distilled from `train.py beijing`.

`python distill.py beijing` (about 10 minutes on 2 CPU cores), then
`stride-jax convert runs/beijing_draft beijing_draft.safetensors`.
"""

from stride_jax.data.config import DataConfig
from stride_jax.training.config import DistillConfig, OptimConfig, RunConfig


def get_config() -> DistillConfig:
    """Mean matching from scratch; half of the contexts end with the draft's own proposals."""
    return DistillConfig(
        data=DataConfig(source="beijing_weather", context_len=504, variables="separate"),
        target="runs/beijing_target",
        factor=0.375,
        dropout=0.0,
        objective="mean",
        on_policy=0.5,
        num_draft=5,
        optim=OptimConfig(
            learning_rate=1e-3, schedule="cosine", batch_size=48, epochs=3, steps_per_epoch=1200
        ),
        run=RunConfig(out="runs/beijing_draft", log_every=100, save_every=500),
    )
