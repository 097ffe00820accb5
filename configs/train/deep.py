"""A target of the pretrained checkpoint's shape: 8 layers, D 1024, one variable at a time.

`python train.py deep`, then `python distill.py deep` and
`python evaluate.py deep`: made for 25 minutes of one GPU, hours on a CPU. Not run so far.
"""

from stride_jax.data.config import DataConfig
from stride_jax.models.config import TimerXLConfig
from stride_jax.training.config import OptimConfig, RunConfig, TrainConfig


def get_config() -> TrainConfig:
    """ETTm1, 230,000 windows of one variable; causal, so that the cached process serves it."""
    return TrainConfig(
        data=DataConfig(
            source="ETTm1", context_len=1536, variables="separate", validation_stride=97
        ),
        model=TimerXLConfig(
            patch_len=96,
            d_model=1024,
            num_heads=8,
            d_ff=2048,
            num_layers=8,
            dropout=0.3,
            instance_norm="causal",
            variable_stride=0,
        ),
        optim=OptimConfig(
            learning_rate=1e-4,
            schedule="cosine",
            batch_size=64,
            epochs=4,
            steps_per_epoch=1000,
            patience=4,
            grad_clip=1.0,
        ),
        run=RunConfig(out="runs/deep_target", log_every=100),
    )
