"""The 0.25x draft of `train.py deep`, distilled by mean matching on its own proposals.

`python distill.py deep` (minutes on a GPU), after `train.py deep`. Not run so far.
"""

from stride_jax.data.config import DataConfig
from stride_jax.training.config import DistillConfig, OptimConfig, RunConfig


def get_config() -> DistillConfig:
    """Two layers of width 256, from new parameters."""
    return DistillConfig(
        data=DataConfig(
            source="ETTm1", context_len=1536, variables="separate", validation_stride=97
        ),
        target="runs/deep_target",
        objective="mean",
        on_policy=0.5,
        num_draft=3,
        optim=OptimConfig(
            learning_rate=5e-4, schedule="cosine", batch_size=64, epochs=4, steps_per_epoch=1000
        ),
        run=RunConfig(out="runs/deep_draft", log_every=100),
    )
