"""Speedups of the shipped pair one series at a time, and what three formulas expect of them.

`python evaluate.py --config speedups` (about ten minutes on 2 CPU cores).
"""

from stride_jax.data.config import DataConfig
from stride_jax.evaluation.config import EvaluateConfig, SweepConfig


def get_config() -> SweepConfig:
    """Batch 1 (two paths), K 1 to 10, the calibrated sigma."""
    base = EvaluateConfig(
        data=DataConfig(source="beijing_weather", context_len=504, variables="separate"),
        target="beijing_target.safetensors",
        draft="beijing_draft.safetensors",
        horizons=(168,),
        stride=287,
        batch_size=1,
        num_paths=2,
    )
    return SweepConfig(
        base=base,
        rules=("maximal", "block", "mean"),
        num_drafts=(1, 3, 5, 10),
        tolerances=(0.1, 0.2),
        out="results/speedups",
    )
