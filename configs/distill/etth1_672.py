"""The 0.25x draft of the ETTh1 target, distilled by mean matching on its own proposals.

`python distill.py etth1_672` (about 10 minutes on 2 CPU cores), after
`train.py etth1_672` and `train.py etth1_672_pretrain`.
"""

from stride_jax.data.config import DataConfig
from stride_jax.training.config import DistillConfig, OptimConfig, RunConfig


def get_config() -> DistillConfig:
    """Mean matching with a tied sigma; half of the contexts end with the draft's proposals."""
    return DistillConfig(
        data=DataConfig(source="ETTh1", context_len=672),
        target="runs/etth1_672_target",
        init_from="runs/etth1_672_pretrain",
        objective="mean",
        on_policy=0.5,
        num_draft=3,
        optim=OptimConfig(learning_rate=2e-4, schedule="cosine", batch_size=32, epochs=8),
        run=RunConfig(out="runs/etth1_672_draft"),
    )
