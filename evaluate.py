"""Target alone, draft alone and speculative, scored and timed: `python evaluate.py`.

Without arguments it uses the embedded series and the pair shipped with the package;
`--config latency` measures times by size, batch and K instead, `--config sweep` one pair under
every setting of its rules, `--config speed` one pair by batch size, `--config fidelity` the laws of
sample paths against the target's.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stride_jax.checkpoints.store import find_model
from stride_jax.cli import flags as cli
from stride_jax.data.splits import load_data
from stride_jax.evaluation import latency, report, speed, sweep, tables
from stride_jax.evaluation.benchmark import evaluate
from stride_jax.evaluation.config import (
    EvaluateConfig,
    FidelityConfig,
    LatencyConfig,
    SpeedConfig,
    SweepConfig,
)
from stride_jax.evaluation.methods import make_pairs
from stride_jax.testing import fidelity

CONFIGS = Path(__file__).parent / "configs"


def main(argv: Sequence[str]) -> None:
    """Flags to config, config to the library, results to files."""
    default = cli.load_config("beijing", CONFIGS, EvaluateConfig)
    kinds = LatencyConfig, SweepConfig, SpeedConfig, FidelityConfig
    config = cli.parse(argv, CONFIGS, default, prog="evaluate.py", also=kinds)
    report.make_directory(Path(config.out))
    if not isinstance(config, EvaluateConfig):
        found = measured(config)
        report.write_results(Path(config.out), found)
        print(tables.make_table(found))
        return
    data, target = load_data(config.data), find_model(config.target)
    make_pairs(config, target, len(data.names))
    if config.budget is not None:
        config = report.calibrated(config, data, target, progress=print)
    report.plotted(config, data)  # mistakes show before the work, not after
    results = evaluate(config, data, target, progress=print)
    report.write_results(Path(config.out), results)
    print(tables.make_table(results))
    print(report.save_picture(Path(config.out), config, data, target, results["sigma"]))


def measured(
    config: LatencyConfig | SweepConfig | SpeedConfig | FidelityConfig,
) -> dict[str, Any]:
    """The results of anything but a plain evaluation."""
    if isinstance(config, LatencyConfig):
        return latency.measure(config, progress=print)
    data, target = load_data(config.base.data), find_model(config.base.target)
    if isinstance(config, SweepConfig):
        return sweep.sweep(config, data, target, progress=print)
    if isinstance(config, SpeedConfig):
        return speed.measure(config, data, target, progress=print)
    return fidelity.measure(config, data, target, progress=print)


if __name__ == "__main__":
    cli.run(main)
