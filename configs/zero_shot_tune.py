"""The target that forecasts series it has never seen, second stage: without dropout, other series.

`python train.py --config zero_shot_tune` (25 minutes on a CPU core), after zero_shot_target and
`python tools/make_pretraining.py DIRECTORY runs/pretraining_more.npy --seed 1 --shares .35 .4 .25`;
then zero_shot_draft.
"""

from stride_jax.data.config import DataConfig
from stride_jax.models.config import TimerXLConfig
from stride_jax.training.config import OptimConfig, RunConfig, TrainConfig


def get_config() -> TrainConfig:
    """The model of zero_shot_target; more walks and peaks, a lower rate."""
    return TrainConfig(
        data=DataConfig(
            source="runs/pretraining_more.npy",
            context_len=504,
            variables="separate",
            validation_stride=97,
        ),
        model=TimerXLConfig(
            patch_len=24,
            d_model=256,
            num_heads=4,
            d_ff=512,
            num_layers=4,
            instance_norm="causal",
            variable_stride=0,
            dropout=0.0,
        ),
        optim=OptimConfig(
            learning_rate=3e-4,
            schedule="cosine",
            batch_size=48,
            epochs=8,
            steps_per_epoch=600,
            patience=8,
            grad_clip=1.0,
        ),
        run=RunConfig(out="runs/zero_shot_target", log_every=100, save_every=100),
        init_from="runs/zero_shot_first",
    )
