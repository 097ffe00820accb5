"""ETTh1, context 672, horizon 720: the rules on the trained pair.

`shared_noise` has a tolerance of its own: `--rules shared_noise:tolerance=0.075`.

`python evaluate.py etth1_672_rules` (about 15 minutes on 2 CPU cores), after the pair of etth1_672.
"""

from stride_jax.data.config import DataConfig
from stride_jax.evaluation.config import EvaluateConfig, Setup


def get_config() -> EvaluateConfig:
    """One window in eight, the window process, seven variables jointly."""
    return EvaluateConfig(
        setup=Setup(
            data=DataConfig(source="ETTh1", context_len=672),
            target="runs/etth1_672_target",
            drafts=("runs/etth1_672_draft",),
            horizons=(720,),
            stride=8,
            out="results/etth1_672_rules",
        ),
        rules=("mean:tolerance=0.04", "maximal", "block", "residual", "resample", "as_released"),
    )
