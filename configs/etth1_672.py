"""ETTh1, context 672: the trained pair beside the published numbers.

`python evaluate.py --config etth1_672` (about 20 minutes on 2 CPU cores), after
etth1_672_target, etth1_672_pretrain and etth1_672_draft.
"""

from stride_jax.data.config import DataConfig
from stride_jax.evaluation.config import EvaluateConfig


def get_config() -> EvaluateConfig:
    """Every test window at the four published horizons."""
    return EvaluateConfig(
        data=DataConfig(source="ETTh1", context_len=672),
        target="runs/etth1_672_target",
        draft="runs/etth1_672_draft",
        horizons=(96, 192, 336, 720),
        num_paths=2,
        out="results/etth1_672",
    )
