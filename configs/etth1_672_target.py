"""ETTh1, context 672: the original's full-size target (1 layer, D 1024).

`python train.py --config etth1_672_target` (about 15 minutes on 2 CPU cores), to reach a rolling
test MSE of .363 / .403 / .427 / .436 at horizon 96 / 192 / 336 / 720.
"""

from stride_jax.config import DataConfig, OptimConfig, RunConfig, TimerXLConfig, TrainConfig


def get_config() -> TrainConfig:
    """The recipe of the original, with a cosine schedule."""
    return TrainConfig(
        data=DataConfig(source="ETTh1", context_len=672),
        model=TimerXLConfig(patch_len=96, d_model=1024, num_heads=8, d_ff=2048, num_layers=1),
        optim=OptimConfig(
            learning_rate=1e-4, schedule="type1", batch_size=32, epochs=10, patience=3
        ),
        run=RunConfig(out="runs/etth1_672_target"),
    )
