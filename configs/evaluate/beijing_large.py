"""A pair whose target has the sizes of the pretrained Timer-XL, a week and four weeks ahead.

`python evaluate.py beijing_large` (about four minutes on 2 CPU cores), after `train.py
beijing_large` and `distill.py beijing_large`.
"""

from stride_jax.evaluation.config import EvaluateConfig, Setup


def get_config() -> EvaluateConfig:
    """One window in 143 of the test split, each variable a series of its own."""
    return EvaluateConfig(
        setup=Setup(
            target="runs/beijing_large.safetensors",
            drafts=("runs/beijing_large_draft",),
            horizons=(168, 672),
            stride=143,  # not a multiple of 24: windows start at every hour of the day
            calibration_stride=101,
            out="results/beijing_large",
        ),
        rules=("mean:tolerance=0.2", "maximal", "block"),
        num_draft=6,
        num_paths=2,
        timing_batch=1,
        repeats=15,
        plot_variable="TEMP",
    )
