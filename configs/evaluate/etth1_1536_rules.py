"""ETTh1, context 1536: every rule with caches, with the coverage of its sample paths.

`python evaluate.py etth1_1536_rules` (about five minutes on 2 CPU cores), after the causal pair of
docs/results/etth_1536.md.
"""

from stride_jax.data.config import DataConfig
from stride_jax.evaluation.config import EvaluateConfig, Setup


def get_config() -> EvaluateConfig:
    """One window in 16, ten paths each; the target only under the window process beside them."""
    return EvaluateConfig(
        setup=Setup(
            data=DataConfig(source="ETTh1", context_len=1536),
            target="runs/ETTh1_1536_causal",
            drafts=("runs/ETTh1_1536_causal_draft",),
            process="cached",
            horizons=(336,),
            stride=16,
            batch_size=16,
            out="results/etth1_1536_rules",
        ),
        rules=("mean", "shared_noise", "maximal", "block", "resample", "as_released"),
        both_processes=True,
        num_paths=10,
        timing_batch=1,
    )
