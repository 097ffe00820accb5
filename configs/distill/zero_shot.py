"""The draft of the target of `train.py zero_shot`, on windows of the same kinds.

`python distill.py zero_shot` (20 to 40 minutes on one CPU core). The draft in the package was so
trained for the target of one patch ahead, from the parameters of a first run of 1,200 steps, then
for 3,600 steps for the target after its first training on paths, and for 3,600 more for the target
in the package:

    python distill.py zero_shot --init_from runs/zero_shot_draft --run.out runs/zero_shot_again \
        --optim.epochs 3 --optim.learning_rate 1e-3

The target is the one that was converted to float32: a draft computes in the dtype of its target.
"""

from stride_jax.data.config import DataConfig
from stride_jax.training.config import DistillConfig, OptimConfig, RunConfig


def get_config() -> DistillConfig:
    """Two layers of width 128, close to the target in stds that the target predicts."""
    return DistillConfig(
        data=DataConfig(
            source="runs/real.npy",
            context_len=1024,
            variables="separate",
            validation_stride=4001,
            synthetic_share=0.75,
            mirrored_share=0.25,
        ),
        target="runs/zero_shot_target.safetensors",
        factor=0.5,
        num_layers=2,
        dropout=0.0,
        objective="gap",
        on_policy=0.0,
        optim=OptimConfig(
            learning_rate=2e-3,
            schedule="cosine",
            batch_size=24,
            epochs=6,
            steps_per_epoch=1200,
            patience=6,
            warmup_steps=200,
            weight_decay=0.01,
            grad_clip=1.0,
        ),
        run=RunConfig(out="runs/zero_shot_draft", log_every=50, save_every=600),
    )
