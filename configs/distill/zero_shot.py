"""The draft of the target that forecasts series it has never seen.

`python distill.py zero_shot` (10 minutes on a CPU core), after `train.py zero_shot_finetune`.
"""

from stride_jax.data.config import DataConfig
from stride_jax.training.config import DistillConfig, OptimConfig, RunConfig


def get_config() -> DistillConfig:
    """Mean matching from scratch; half of the contexts end with the draft's own proposals."""
    return DistillConfig(
        data=DataConfig(
            source="runs/pretraining_more.npy",
            context_len=504,
            variables="separate",
            validation_stride=97,
        ),
        target="runs/zero_shot_target",
        factor=0.375,
        dropout=0.0,
        objective="mean",
        on_policy=0.5,
        num_draft=4,
        optim=OptimConfig(
            learning_rate=1e-3, schedule="cosine", batch_size=48, epochs=3, steps_per_epoch=1000
        ),
        run=RunConfig(out="runs/zero_shot_draft", log_every=100, save_every=500),
    )
