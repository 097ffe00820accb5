"""A pretrained pair on a series it has never seen: ETTh1 unless told otherwise.

`python evaluate.py --config zero_shot`, after zero_shot_draft; for others `--data.source ETTh2`,
`--data.source exchange_rate --season 7`, or `--data.source illness --season 52 --stride 1
--horizons 24 36 48 60`, each with its own `--out`.
"""

from stride_jax.data.config import DataConfig
from stride_jax.evaluation.config import EvaluateConfig


def get_config() -> EvaluateConfig:
    """Each variable a series of its own, 96 steps ahead, a window every 5 steps."""
    return EvaluateConfig(
        data=DataConfig(source="ETTh1", context_len=504, variables="separate"),
        target="runs/zero_shot_target",
        draft="runs/zero_shot_draft",
        horizons=(96,),
        num_draft=4,
        num_paths=2,
        tolerance=0.2,
        rules=("mean", "maximal", "block"),
        stride=5,  # not a divisor of 24: windows start at every hour of the day
        batch_size=128,
        timing_batch=1,
        repeats=15,
        out="docs/results/zero_shot/ETTh1",
    )
