"""The target that forecasts series it has never seen.

    python tools/make_pretraining.py DIRECTORY runs/real.npy
    python train.py zero_shot

trains 4 layers at a constant rate; Ctrl-C stops it and `--run.resume True` goes on. Then their rate
falls, they are made 8, and these are trained while the rate falls again:

    python train.py zero_shot --init_from runs/zero_shot --run.out runs/zero_shot_four \
        --run.seed 2022 --optim.schedule cosine --optim.epochs 8 --optim.steps_per_epoch 4334 \
        --optim.warmup_steps 100
    stride-jax convert runs/zero_shot_four runs/four.safetensors
    python tools/deepen.py runs/four.safetensors runs/real.npy runs/eight.safetensors
    python train.py zero_shot --init_from runs/eight.safetensors --run.out runs/zero_shot_deep \
        --run.seed 2022 --model.num_layers 8 --model.dtype bfloat16 --data.mirrored_share 0.25 \
        --optim.schedule cosine --optim.epochs 8 --optim.steps_per_epoch 5500
    stride-jax convert runs/zero_shot_deep runs/one.safetensors --half --dtype float32

It goes on from there on the score of its sample paths, six patches ahead, and is averaged with what
it was before:

    python train.py zero_shot --init_from runs/one.safetensors --run.out runs/zero_shot_paths \
        --run.seed 7 --model.num_layers 8 --data.mirrored_share 0.5 --loss paths \
        --covariance zero_shot --optim.schedule cosine --optim.learning_rate 2e-4 \
        --optim.warmup_steps 30 --optim.batch_size 32 --optim.epochs 11 --optim.patience 11 \
        --optim.steps_per_epoch 240
    python tools/average.py runs/one.safetensors runs/zero_shot_paths runs/second.safetensors \
        --share 0.33

and once more, by two runs of other seeds and lengths with half of the windows real:

    python train.py zero_shot --init_from runs/second.safetensors --run.out runs/zero_shot_6 \
        --run.seed 9 --ahead 6 --optim.epochs 11 --data.synthetic_share 0.5 ...
    python train.py zero_shot --init_from runs/second.safetensors --run.out runs/zero_shot_12 \
        --run.seed 8 --ahead 12 --optim.epochs 9 --data.synthetic_share 0.5 ...
    python tools/average.py runs/zero_shot_6/last runs/zero_shot_12/last runs/both.safetensors
    python tools/average.py runs/second.safetensors runs/both.safetensors runs/mean.safetensors \
        --share 0.6
    stride-jax convert runs/mean.safetensors runs/zero_shot_target.safetensors --half

where ... stands for the options of the run before. The target in the package is of 40,400 steps of
the first run, 28,800 of the second (it was stopped, and is of its best parameters), 44,000 of the
third, 2,640 of the fourth, and 2,640 and 2,160 of the last two. The matrix of real series that
these two read is that of today's tools/make_pretraining.py.
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
