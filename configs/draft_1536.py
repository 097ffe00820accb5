"""The 0.25x draft of a target at context 1536, distilled by mean matching.

`python distill.py --config draft_1536` (12 minutes on 2 CPU cores), after target_1536 and
pretrain_1536; for ETTh2 add `--data.source ETTh2 --target runs/ETTh2_1536_target
--init_from runs/ETTh2_1536_pretrain --run.out runs/ETTh2_1536_draft`.
"""

from stride_jax.data.config import DataConfig
from stride_jax.training.config import DistillConfig, OptimConfig, RunConfig


def get_config() -> DistillConfig:
    """No dropout, a high rate, half of the windows made up: see docs/results/better_drafts.md."""
    return DistillConfig(
        data=DataConfig(source="ETTh1", context_len=1536),
        target="runs/ETTh1_1536_target",
        init_from="runs/ETTh1_1536_pretrain",
        objective="mean",
        dropout=0.0,
        augment=0.5,
        on_policy=0.5,
        num_draft=3,
        optim=OptimConfig(learning_rate=2e-3, schedule="cosine", batch_size=32, epochs=3),
        run=RunConfig(out="runs/ETTh1_1536_draft"),
    )
