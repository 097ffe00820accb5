"""ETTh1, context 1536: every rule with caches, with the coverage of its sample paths.

`python evaluate.py --config etth1_1536_rules` (about five minutes on 2 CPU cores), after the causal
pair of docs/results/etth_1536_causal.md.
"""

from stride_jax.data.config import DataConfig
from stride_jax.evaluation.config import EvaluateConfig


def get_config() -> EvaluateConfig:
    """One window in 16, ten paths each; the window process's autoregressive rows beside them."""
    return EvaluateConfig(
        data=DataConfig(source="ETTh1", context_len=1536),
        target="runs/ETTh1_1536_causal",
        draft="runs/ETTh1_1536_causal_draft",
        process="cached",
        both_baselines=True,
        horizons=(336,),
        rules=("mean", "shared_noise", "maximal", "block", "resample", "as_released"),
        stride=16,
        num_paths=10,
        batch_size=16,
        timing_batch=1,
        out="results/etth1_1536_rules",
    )
