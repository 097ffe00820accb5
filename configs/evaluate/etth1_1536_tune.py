"""ETTh1, context 1536, 720 steps ahead: K and tolerance of `mean`, one series at a time.

`python evaluate.py etth1_1536_tune` (about five minutes on 2 CPU cores), after the pair of
etth1_1536; for ETTh2 see there, for causal targets docs/results/etth_1536.md.
"""

from stride_jax.data.config import DataConfig
from stride_jax.evaluation.config import Setup, TuneConfig


def get_config() -> TuneConfig:
    """Within .5 % of the target's error and a tenth of the draft's distance from its forecast."""
    return TuneConfig(
        setup=Setup(
            data=DataConfig(source="ETTh1", context_len=1536, variables="separate"),
            target="runs/ETTh1_1536_target",
            drafts=("runs/ETTh1_1536_draft",),
            process="cached",
            horizons=(720,),
            stride=48,
            out="results/etth1_1536_tune",
        ),
        repeats=30,
    )
