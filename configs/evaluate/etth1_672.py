"""ETTh1, context 672: the trained pair beside the published numbers.

`python evaluate.py etth1_672` (about 20 minutes on 2 CPU cores), after `train.py etth1_672`,
`train.py etth1_672_pretrain` and `distill.py etth1_672`.
"""

from stride_jax.data.config import DataConfig
from stride_jax.evaluation.config import EvaluateConfig, Setup


def get_config() -> EvaluateConfig:
    """Every test window at the four published horizons."""
    return EvaluateConfig(
        setup=Setup(
            data=DataConfig(source="ETTh1", context_len=672),
            target="runs/etth1_672_target",
            drafts=("runs/etth1_672_draft",),
            horizons=(96, 192, 336, 720),
            out="results/etth1_672",
        ),
        num_paths=2,
    )
