"""The shipped pair at batches of 1, 8 and 64: times, acceptance by place, memory.

`python evaluate.py --config speed` (about six minutes on 2 CPU cores).
"""

from stride_jax.data.config import DataConfig
from stride_jax.evaluation.config import EvaluateConfig, SpeedConfig


def get_config() -> SpeedConfig:
    """A week ahead with K = 5, beside the target alone under both processes."""
    base = EvaluateConfig(
        data=DataConfig(source="beijing_weather", context_len=504, variables="separate"),
        target="beijing_target.safetensors",
        draft="beijing_draft.safetensors",
        both_baselines=True,
        horizons=(168,),
        num_draft=5,
        rules=("mean", "shared_noise", "maximal", "block"),
        tolerance=0.2,
    )
    return SpeedConfig(base=base)
