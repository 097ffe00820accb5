"""Speedups of the shipped pair one series at a time, and what three formulas expect of them.

`python evaluate.py --config speedups` (about five minutes on 2 CPU cores).
"""

from stride_jax.config import DataConfig
from stride_jax.config_evaluate import EvaluateConfig, SweepConfig


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
        rules=("maximal", "block", "mean", "shared_noise"),
        num_drafts=(1, 2, 3, 5, 7, 10),
        tolerances=(0.05, 0.2),
        out="results/speedups",
    )
