"""Target alone, draft alone and speculative, scored and timed: `python evaluate.py`.

Without arguments it uses the embedded series and the pair shipped with the package;
`--config latency` measures times by size, batch and K instead.
"""

from collections.abc import Sequence
from pathlib import Path

from stride_jax import cli, latency, report, tables
from stride_jax.benchmark import evaluate
from stride_jax.config_evaluate import EvaluateConfig, LatencyConfig
from stride_jax.convert import find_model
from stride_jax.data.splits import load_data
from stride_jax.methods import make_pairs

CONFIGS = Path(__file__).parent / "configs"


def main(argv: Sequence[str]) -> None:
    """Flags to config, config to the library, results to files."""
    default = cli.load_config("beijing", CONFIGS, EvaluateConfig)
    config = cli.parse(argv, CONFIGS, default, prog="evaluate.py", also=(LatencyConfig,))
    report.make_directory(Path(config.out))
    if isinstance(config, LatencyConfig):
        times = latency.measure(config, progress=print)
        report.write_results(Path(config.out), times)
        print(tables.make_table(times))
        return
    data = load_data(config.data)
    target = find_model(config.target)
    make_pairs(config, target, len(data.names))
    if config.budget is not None:
        config = report.calibrated(config, data, target, progress=print)
    report.plotted(config, data)  # mistakes show before the work, not after
    results = evaluate(config, data, target, progress=print)
    report.write_results(Path(config.out), results)
    print(tables.make_table(results))
    print(report.save_picture(Path(config.out), config, data, target, results["sigma"]))


if __name__ == "__main__":
    cli.run(main)
