"""Every kind of draft for the target shipped with the package.

`python evaluate.py --config beijing_drafts` (a few minutes on 2 CPU cores), after
`python distill.py --config beijing_multi`.
"""

from stride_jax.data.config import DataConfig
from stride_jax.evaluation.config import EvaluateConfig


def get_config() -> EvaluateConfig:
    """A week ahead; the distilled model, the multi-patch one, and four without training."""
    return EvaluateConfig(
        data=DataConfig(source="beijing_weather", context_len=504, variables="separate"),
        target="beijing_target.safetensors",
        draft="beijing_draft.safetensors",
        other_drafts=("runs/beijing_multi", "layer-skip:2", "seasonal:24", "last-value", "nearest"),
        horizons=(168,),
        num_draft=5,
        tolerance=0.2,
        rules=("mean", "maximal", "block"),
        stride=143,
        batch_size=128,
        timing_batch=1,
        repeats=15,
        num_paths=2,
        out="results/beijing_drafts",
        plot_variable="TEMP",
    )
