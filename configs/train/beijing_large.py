"""A target of the sizes of the pretrained Timer-XL, on the series of `train.py beijing`.

`python train.py beijing_large` (40 minutes on 2 CPU cores), then, to take the parameters that the
training ended with, which forecast a week of the validation split better than those of the lowest
error of one patch,
`python tools/average.py runs/beijing_large_target runs/beijing_large_target/last
runs/beijing_large.safetensors --share 1`.
"""

from stride_jax.data.config import DataConfig
from stride_jax.models.config import TimerXLConfig
from stride_jax.training.config import OptimConfig, RunConfig, TrainConfig


def get_config() -> TrainConfig:
    """8 layers of width 1024, 67 million parameters; the steps and batches of the small target."""
    return TrainConfig(
        data=DataConfig(source="beijing_weather", context_len=504, variables="separate"),
        model=TimerXLConfig(
            patch_len=24,
            d_model=1024,
            num_heads=8,
            d_ff=2048,
            num_layers=8,
            instance_norm="causal",
            variable_stride=0,
            dropout=0.3,
        ),
        optim=OptimConfig(
            learning_rate=2e-4,
            schedule="cosine",
            batch_size=48,
            epochs=3,
            steps_per_epoch=500,
            grad_clip=1.0,
            warmup_steps=100,
        ),
        run=RunConfig(out="runs/beijing_large_target", log_every=25, save_every=250),
    )
