"""The 8-layer pair: scored and timed.

`python evaluate.py deep` (minutes on a GPU), after `train.py deep` and `distill.py deep`; K and
tolerance are those that a tuning should replace. Not run so far.
"""

from stride_jax.data.config import DataConfig
from stride_jax.evaluation.config import EvaluateConfig, Setup


def get_config() -> EvaluateConfig:
    """One window in 48 of each variable of ETTm1; beside the target only under both processes."""
    return EvaluateConfig(
        setup=Setup(
            data=DataConfig(source="ETTm1", context_len=1536, variables="separate"),
            target="runs/deep_target",
            drafts=("runs/deep_draft",),
            process="cached",
            horizons=(336, 720),
            stride=48,
            out="results/deep",
        ),
        rules=("mean:tolerance=0.1",),
        both_processes=True,
    )
