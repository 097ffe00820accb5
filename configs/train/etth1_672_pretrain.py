"""A 0.25x draft for the ETTh1 target, pretrained on ETTh2, as the original's recipe does.

`python train.py etth1_672_pretrain` (a few minutes on 2 CPU cores); then distil it with
`python distill.py etth1_672`.
"""

from stride_jax.data.config import DataConfig
from stride_jax.models.config import TimerXLConfig
from stride_jax.training.config import OptimConfig, RunConfig, TrainConfig


def get_config() -> TrainConfig:
    """15 epochs of Adam at 1e-4 with a cosine."""
    return TrainConfig(
        data=DataConfig(source="ETTh2", context_len=672),
        model=TimerXLConfig(patch_len=96, d_model=1024, num_heads=8, d_ff=2048, num_layers=1),
        factor=0.25,
        optim=OptimConfig(learning_rate=1e-4, schedule="cosine", batch_size=32, epochs=15),
        run=RunConfig(out="runs/etth1_672_pretrain"),
    )
