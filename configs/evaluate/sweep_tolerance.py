"""Speedups of the shipped pair one series at a time, and the predictions of three formulas.

`python evaluate.py sweep_tolerance` (about ten minutes on 2 CPU cores).
"""

from stride_jax.evaluation.config import Setup, SweepConfig


def get_config() -> SweepConfig:
    """Batch 1 (two paths), K 1 to 10, the calibrated sigma."""
    return SweepConfig(
        setup=Setup(stride=287, batch_size=1, out="results/sweep_tolerance"),
        rules=("maximal", "block", "mean"),
        tolerances=(0.1, 0.2),
    )
