"""The pair shipped with the package: both processes, all rules, a window every 29 hours.

`python evaluate.py beijing_full` (three and a half minutes on 2 CPU cores).
"""

from stride_jax.evaluation.config import EvaluateConfig, Setup


def get_config() -> EvaluateConfig:
    """A week ahead, each variable a series of its own."""
    return EvaluateConfig(
        setup=Setup(
            stride=29,  # not a multiple of 24: windows start at every hour of the day
            batch_size=128,
            out="results/beijing_full",
        ),
        rules=("mean:tolerance=0.2", "maximal", "block", "shared_noise:tolerance=0.2"),
        num_draft=6,
        num_paths=2,
        both_processes=True,
        timing_batch=1,
        repeats=30,
        plot_variable="TEMP",
    )
