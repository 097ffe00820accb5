"""The original's ablations on the shipped pair: sigma, K, bias and squared-error tolerance.

`python evaluate.py --config sweep` (about a quarter of an hour on 2 CPU cores); the heat
maps and the Pareto curves are drawn from its results.
"""

from stride_jax.data.config import DataConfig
from stride_jax.evaluation.config import EvaluateConfig, SweepConfig


def get_config() -> SweepConfig:
    """The original's ranges (sigma .3 to .8, K 1 to 10, bias 1 to 10, tolerance 0 to 2)."""
    base = EvaluateConfig(
        data=DataConfig(source="beijing_weather", context_len=504, variables="separate"),
        target="beijing_target.safetensors",
        draft="beijing_draft.safetensors",
        horizons=(168,),
        stride=287,
        batch_size=60,  # 120 windows are two batches
        num_paths=2,
    )
    return SweepConfig(
        base=base,
        rules=("maximal", "block", "resample", "mean", "shared_noise"),
        num_drafts=(1, 3, 5, 10),
        sigmas=(0.3, 0.5, 0.8),
        biases=(1.0, 2.0, 5.0, 10.0),
        mse_tolerances=(0.0, 0.5, 1.0, 2.0),
        tolerances=(0.05, 0.1, 0.2, 0.4),
        out="results/sweep",
    )
