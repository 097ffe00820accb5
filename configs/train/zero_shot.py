"""The target that forecasts series it has never seen: first a constant rate, then one that falls.

`python train.py zero_shot`, after
`python tools/make_pretraining.py DIRECTORY runs/real.npy`; Ctrl-C stops it and `--resume`
goes on. Then the rate falls to 0 in a second run:

    python train.py zero_shot --init_from runs/zero_shot --run.out runs/zero_decayed \
        --run.seed 2022 --optim.schedule cosine --optim.epochs 8 --optim.steps_per_epoch 4334 \
        --optim.warmup_steps 100

The target in the package is of 40,400 steps of the first and 28,800 of the second on one H100.
"""

from stride_jax.data.config import DataConfig
from stride_jax.models.config import TimerXLConfig
from stride_jax.training.config import OptimConfig, RunConfig, TrainConfig


def get_config() -> TrainConfig:
    """4 layers of width 256 on patches of 16 steps; three quarters of the windows synthetic."""
    return TrainConfig(
        data=DataConfig(
            source="runs/real.npy",
            context_len=1024,
            variables="separate",
            validation_stride=1583,
            synthetic_share=0.75,
        ),
        model=TimerXLConfig(
            patch_len=16,
            d_model=256,
            num_heads=8,
            d_ff=768,
            num_layers=4,
            activation="gelu",
            head="gaussian",
            anchor="last",
            instance_norm="causal",
            variable_stride=0,
            dropout=0.0,
        ),
        loss="crps",
        optim=OptimConfig(
            learning_rate=1e-3,
            schedule="constant",
            batch_size=128,
            epochs=200,
            steps_per_epoch=2000,
            patience=200,
            warmup_steps=500,
            weight_decay=0.01,
            grad_clip=1.0,
        ),
        run=RunConfig(out="runs/zero_shot", log_every=200, save_every=2000),
    )
