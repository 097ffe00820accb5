"""The distribution of speculative sample paths against the target's: trained and synthetic pairs.

`python evaluate.py fidelity` (about 25 minutes on 2 CPU cores), after the pair of etth1_672.
"""

from stride_jax.data.config import DataConfig
from stride_jax.evaluation.config import FidelityConfig, Setup


def get_config() -> FidelityConfig:
    """ETTh1 with caches, seven variables jointly; horizons of 336 and 3,360 steps."""
    return FidelityConfig(
        setup=Setup(
            data=DataConfig(source="ETTh1", context_len=672),
            target="runs/etth1_672_target",
            drafts=("runs/etth1_672_draft",),
            process="cached",
            horizons=(336,),
            out="results/fidelity",
        ),
        contexts=1,
        num_paths=400,
        path_chunk=100,
    )
