"""ETTh1, context 672, horizon 720: the rules on the trained pair.

`shared_noise` has a tolerance of its own: `--rules shared_noise --tolerance .075`.

`python evaluate.py --config etth1_rules` (about 15 minutes on 2 CPU cores), after
etth1_672_target, etth1_672_pretrain and etth1_672_draft.
"""

from stride_jax.data.config import DataConfig
from stride_jax.evaluation.config import EvaluateConfig


def get_config() -> EvaluateConfig:
    """One window in eight, the window process, seven variables jointly."""
    return EvaluateConfig(
        data=DataConfig(source="ETTh1", context_len=672),
        target="runs/etth1_672_target",
        draft="runs/etth1_672_draft",
        horizons=(720,),
        num_draft=3,
        tolerance=0.04,
        rules=("mean", "maximal", "block", "residual", "resample", "as_released"),
        num_paths=4,
        stride=8,
        out="results/etth1_rules",
    )
