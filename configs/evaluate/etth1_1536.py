"""ETTh1, context 1536: the trained pair beside the original's logged numbers, every test window.

`python evaluate.py etth1_1536` (about five minutes on 2 CPU cores), after `train.py etth_1536`,
`train.py etth_1536_pretrain` and `distill.py etth_1536`. For ETTh2 add `--data.source ETTh2
--target runs/ETTh2_1536_target --drafts runs/ETTh2_1536_draft --out results/etth2_1536`.
"""

from stride_jax.data.config import DataConfig
from stride_jax.evaluation.config import EvaluateConfig, Setup


def get_config() -> EvaluateConfig:
    """The mean paths of target and draft under the window process, as the original scores them."""
    return EvaluateConfig(
        setup=Setup(
            data=DataConfig(source="ETTh1", context_len=1536),
            target="runs/ETTh1_1536_target",
            drafts=("runs/ETTh1_1536_draft",),
            process="window",
            horizons=(336,),
            out="results/etth1_1536",
        ),
        rules=(),
        num_paths=0,
    )
