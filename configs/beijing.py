"""The first command: the embedded series and the pair shipped with the package.

`python evaluate.py` (three and a half minutes on 2 CPU cores, most of them compilation).
"""

from stride_jax.data.config import DataConfig
from stride_jax.evaluation.config import EvaluateConfig


def get_config() -> EvaluateConfig:
    """A week ahead, each variable a series of its own, a window every 29 hours."""
    return EvaluateConfig(
        data=DataConfig(source="beijing_weather", context_len=504, variables="separate"),
        target="beijing_target.safetensors",
        draft="beijing_draft.safetensors",
        horizons=(168,),
        num_draft=6,
        num_paths=2,
        tolerance=0.2,
        rules=("mean", "maximal", "block", "shared_noise"),
        both_baselines=True,
        stride=29,  # not a multiple of 24: windows start at every hour of the day
        batch_size=128,
        timing_batch=1,
        repeats=30,
        plot_variable="TEMP",
    )
