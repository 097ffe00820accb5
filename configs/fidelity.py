"""The law of speculative sample paths against the target's: trained pair and synthetic laws.

`python evaluate.py --config fidelity` (about 25 minutes on 2 CPU cores), after
etth1_672_target, etth1_672_pretrain and etth1_672_draft.
"""

from stride_jax.data.config import DataConfig
from stride_jax.evaluation.config import EvaluateConfig, FidelityConfig


def get_config() -> FidelityConfig:
    """ETTh1 with caches, seven variables jointly; horizons of 336 and 3,360 steps."""
    return FidelityConfig(
        base=EvaluateConfig(
            data=DataConfig(source="ETTh1", context_len=672),
            target="runs/etth1_672_target",
            draft="runs/etth1_672_draft",
            process="cached",
            horizons=(336,),
        ),
        contexts=1,
        num_paths=400,
        path_chunk=100,
    )
