"""A full-size target at context 1536 (1 layer, D 1024), for ETTh1 unless told otherwise.

`python train.py --config target_1536` (a quarter of an hour on 2 CPU cores), or for another series
`python train.py --config target_1536 --data.source ETTm1 --run.out runs/ETTm1_1536_target`; ETTh2's
schedule is in docs/results/etth_1536.md. With causal normalisation add
`--model.instance_norm causal --model.variable_stride 0 --model.max_patches 16`. To reach at horizon
336: ETTh1 .475, ETTh2 .384, ETTm1 .376, ETTm2 .287.
"""

from stride_jax.data.config import DataConfig
from stride_jax.models.config import TimerXLConfig
from stride_jax.training.config import OptimConfig, RunConfig, TrainConfig


def get_config() -> TrainConfig:
    """The recipe of etth1_672_target."""
    return TrainConfig(
        data=DataConfig(source="ETTh1", context_len=1536),
        model=TimerXLConfig(
            patch_len=96, d_model=1024, num_heads=8, d_ff=2048, num_layers=1, dropout=0.5
        ),
        optim=OptimConfig(
            learning_rate=1e-4, schedule="cosine", epochs=4, steps_per_epoch=110, patience=4
        ),
        run=RunConfig(out="runs/ETTh1_1536_target", save_every=50),
    )
