"""The pair for series never seen, on the last fifth of the embedded series.

`python evaluate.py zero_shot` (about a minute on 2 CPU cores). The target was trained on the first
70 % of that series, among others.
"""

from stride_jax.data.config import DataConfig
from stride_jax.evaluation.config import QuickConfig, Setup


def get_config() -> QuickConfig:
    """Three weeks ahead, each variable a series of its own."""
    return QuickConfig(
        setup=Setup(
            data=DataConfig(context_len=1024, variables="separate"),
            target="zero_shot_target.safetensors",
            drafts=("zero_shot_draft.safetensors",),
            horizons=(512,),
            calibration_stride=101,
            out="results/zero_shot",
        ),
        rules=("mean:tolerance=0.1", "mean:tolerance=0.2", "maximal", "block"),
        num_draft=7,
        plot_variable="TEMP",
    )
