"""A draft with a learned variance: proposing with the target's sigma, and with its own.

`python evaluate.py --config beijing_gaussian_rules` (a few minutes on 2 CPU cores), and the same
with `--learned_scale True --rules residual`, after `python distill.py --config beijing_gaussian`.
"""

from stride_jax.config import DataConfig
from stride_jax.config_evaluate import EvaluateConfig


def get_config() -> EvaluateConfig:
    """A week ahead with the exact rules."""
    return EvaluateConfig(
        data=DataConfig(source="beijing_weather", context_len=504, variables="separate"),
        target="beijing_target.safetensors",
        draft="runs/beijing_gaussian",
        horizons=(168,),
        num_draft=5,
        rules=("maximal", "block", "residual"),
        stride=143,
        batch_size=128,
        timing_batch=1,
        repeats=15,
        num_paths=2,
        out="results/beijing_tied",
        plot_variable="TEMP",
    )
