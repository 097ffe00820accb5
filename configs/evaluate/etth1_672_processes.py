"""ETTh1, context 672: one evaluation of `window`, `frozen` or `causal`, side by side in the docs.

`python evaluate.py etth1_672_processes --target runs/etth1_causal_target` (a few minutes on 2 CPU
cores); likewise with `--target runs/etth1_672_target --process window` (and `cached`).
"""

from stride_jax.data.config import DataConfig
from stride_jax.evaluation.config import EvaluateConfig, Setup


def get_config() -> EvaluateConfig:
    """One window in eight at the four horizons for the mean path; the cached process by default."""
    return EvaluateConfig(
        setup=Setup(
            data=DataConfig(source="ETTh1", context_len=672),
            target="runs/etth1_causal_target",
            drafts=("runs/etth1_672_draft",),
            process="cached",
            horizons=(96, 192, 336, 720),
            stride=8,
            out="results/etth1_causal",
        ),
        rules=("mean:tolerance=0.08",),
        num_paths=2,
    )
