"""The shipped pair at batches of 1, 8 and 64: times, acceptance by place, memory.

`python evaluate.py speed` (about six minutes on 2 CPU cores).
"""

from stride_jax.evaluation.config import Setup, SpeedConfig


def get_config() -> SpeedConfig:
    """A week ahead with K = 5, beside the target only under both processes."""
    return SpeedConfig(
        setup=Setup(out="results/speed"),
        rules=("mean:tolerance=0.2", "shared_noise:tolerance=0.2", "maximal", "block"),
    )
