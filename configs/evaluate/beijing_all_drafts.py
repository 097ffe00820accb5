"""Every kind of draft for the target shipped with the package.

`python evaluate.py beijing_all_drafts` (a few minutes on 2 CPU cores), after
`python distill.py beijing_multi`.
"""

from stride_jax.evaluation.config import EvaluateConfig, Setup


def get_config() -> EvaluateConfig:
    """A week ahead; the distilled model, the multi-patch one, and four without training."""
    return EvaluateConfig(
        setup=Setup(
            drafts=(
                "beijing_draft.safetensors",
                "runs/beijing_multi",
                "layer-skip:2",
                "seasonal:24",
                "last-value",
                "nearest",
            ),
            stride=143,
            batch_size=128,
            out="results/beijing_all_drafts",
        ),
        rules=("mean:tolerance=0.2", "maximal", "block"),
        num_draft=5,
        num_paths=2,
        timing_batch=1,
        repeats=15,
        plot_variable="TEMP",
    )
