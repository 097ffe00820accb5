"""The first command: a look at the pair shipped with the package, on the embedded series.

`python evaluate.py` (about a minute on 2 CPU cores); beijing_full has all rules and every window.
"""

from stride_jax.evaluation.config import QuickConfig, Setup


def get_config() -> QuickConfig:
    """A week ahead, each variable a series of its own; few calibration windows."""
    return QuickConfig(setup=Setup(calibration_stride=101, batch_size=64), plot_variable="TEMP")
