"""The 8-layer pair: calibrated, scored and timed.

`python evaluate.py --config deep` (minutes on a GPU), after deep_target and deep_draft. Not run so
far.
"""

from stride_jax.data.config import DataConfig
from stride_jax.evaluation.config import EvaluateConfig


def get_config() -> EvaluateConfig:
    """One window in 48 of each variable of ETTm1; beside the target alone under both processes."""
    return EvaluateConfig(
        data=DataConfig(source="ETTm1", context_len=1536, variables="separate"),
        target="runs/deep_target",
        draft="runs/deep_draft",
        process="cached",
        both_baselines=True,
        horizons=(336, 720),
        rules=("mean",),
        budget=0.005,
        budget_distance=0.1,
        stride=48,
        num_paths=4,
        out="results/deep",
    )
