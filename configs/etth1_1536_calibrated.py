"""ETTh1, context 1536, 720 steps ahead: the setting that calibration picks, one series at a time.

`python evaluate.py --config etth1_1536_calibrated` (about five minutes on 2 CPU cores), after
target_1536, pretrain_1536 and draft_1536; for ETTh2 see etth1_1536, for causal targets
docs/results/etth_1536_causal.md.
"""

from stride_jax.data.config import DataConfig
from stride_jax.evaluation.config import EvaluateConfig


def get_config() -> EvaluateConfig:
    """Within .5 % of the target's error and a tenth of the draft's distance from its forecast."""
    return EvaluateConfig(
        data=DataConfig(source="ETTh1", context_len=1536, variables="separate"),
        target="runs/ETTh1_1536_target",
        draft="runs/ETTh1_1536_draft",
        process="cached",
        both_baselines=True,
        horizons=(720,),
        rules=("mean",),
        budget=0.005,
        budget_distance=0.1,
        stride=48,
        num_paths=0,
        timing_batch=1,
        repeats=30,
        out="results/etth1_1536_calibrated",
    )
