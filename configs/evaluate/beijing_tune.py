"""K and tolerance of `mean` for the pair shipped with the package, on its validation split.

`python evaluate.py beijing_tune` (about three minutes on 2 CPU cores).
"""

from stride_jax.evaluation.config import Setup, TuneConfig


def get_config() -> TuneConfig:
    """Within .5 % of the target's error and a tenth of the draft's distance from its forecast."""
    return TuneConfig(
        setup=Setup(process="cached", stride=143, batch_size=128, out="results/beijing_tune"),
        repeats=30,
    )
