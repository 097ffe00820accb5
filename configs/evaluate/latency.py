"""Latency of both processes by size, batch and K, with new models.

`python evaluate.py latency` (about half an hour on 2 CPU cores, most of it compilation; decodes
that would take longer than a second are left out and listed).
"""

from stride_jax.evaluation.config import LatencyConfig


def get_config() -> LatencyConfig:
    """1 and 8 layers of width 1024, 1 and 7 variables, batch 1, 8 and 64, K 1 to 8."""
    return LatencyConfig()
