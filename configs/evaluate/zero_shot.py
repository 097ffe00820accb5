"""A pretrained pair on a series it has never seen: ETTh1 unless told otherwise.

`python evaluate.py zero_shot`, after `distill.py zero_shot`; for others `--data.source ETTh2`,
`--data.source exchange_rate --season 7`, or `--data.source illness --season 52 --stride 1
--horizons 24 36 48 60`, each with its own `--out`.
"""

from stride_jax.data.config import DataConfig
from stride_jax.evaluation.config import EvaluateConfig, Setup


def get_config() -> EvaluateConfig:
    """Each variable a series of its own, 96 steps ahead, a window every 5 steps."""
    return EvaluateConfig(
        setup=Setup(
            data=DataConfig(source="ETTh1", context_len=504, variables="separate"),
            target="runs/zero_shot_target",
            drafts=("runs/zero_shot_draft",),
            horizons=(96,),
            stride=5,  # not a divisor of 24: windows start at every hour of the day
            batch_size=128,
            out="docs/results/zero_shot/ETTh1",
        ),
        rules=("mean:tolerance=0.2", "maximal", "block"),
        num_draft=4,
        num_paths=2,
        timing_batch=1,
        repeats=15,
    )
