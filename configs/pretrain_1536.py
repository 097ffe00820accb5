"""A 0.25x draft for a target at context 1536, pretrained on another series.

`python train.py --config pretrain_1536` pretrains ETTh1's draft on ETTh2 (a few minutes on 2 CPU
cores); for ETTh2's add `--data.source ETTh1 --run.out runs/ETTh2_1536_pretrain`.
"""

from stride_jax.data.config import DataConfig
from stride_jax.models.config import TimerXLConfig
from stride_jax.training.config import OptimConfig, RunConfig, TrainConfig


def get_config() -> TrainConfig:
    """Adam at 1e-4 with a cosine, at most 8 epochs."""
    return TrainConfig(
        data=DataConfig(source="ETTh2", context_len=1536),
        model=TimerXLConfig(patch_len=96, d_model=1024, num_heads=8, d_ff=2048, num_layers=1),
        factor=0.25,
        optim=OptimConfig(learning_rate=1e-4, schedule="cosine", batch_size=32, epochs=8),
        run=RunConfig(out="runs/ETTh1_1536_pretrain"),
    )
