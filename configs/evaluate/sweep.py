"""The original's ablations on the shipped pair: sigma, K, bias and squared-error tolerance.

`python evaluate.py sweep` (about a quarter of an hour on 2 CPU cores); the heat maps and the Pareto
curves are drawn from its results.
"""

from stride_jax.evaluation.config import Setup, SweepConfig


def get_config() -> SweepConfig:
    """The original's ranges (sigma .3 to .8, K 1 to 10, bias 1 to 10, tolerance 0 to 2)."""
    return SweepConfig(
        setup=Setup(stride=287, batch_size=60, out="results/sweep"),  # 120 windows: two batches
        sigmas=(0.3, 0.5, 0.8),
        biases=(1.0, 2.0, 5.0, 10.0),
        mse_tolerances=(0.0, 0.5, 1.0, 2.0),
        tolerances=(0.05, 0.1, 0.2, 0.4),
    )
