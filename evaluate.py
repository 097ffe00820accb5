"""Target alone, draft alone and speculative, scored and timed: `python evaluate.py`.

Without arguments it uses the embedded series and the pair shipped with the package.
"""

from collections.abc import Sequence
from pathlib import Path

from stride_jax import cli, report
from stride_jax.benchmark import evaluate, make_pairs
from stride_jax.config import EvaluateConfig
from stride_jax.convert import find_model
from stride_jax.data.splits import load_data

CONFIGS = Path(__file__).parent / "configs"


def main(argv: Sequence[str]) -> None:
    """Flags to config, config to the library, results to files."""
    default = cli.load_config("beijing", CONFIGS, EvaluateConfig)
    config = cli.parse(argv, CONFIGS, default, prog="evaluate.py")
    data = load_data(config.data)
    target = find_model(config.target)
    make_pairs(config, target, len(data.names))
    report.plotted(config, data)  # mistakes show before the work, not after
    report.make_directory(Path(config.out))
    results = evaluate(config, data, target, progress=print)
    report.write_results(Path(config.out), results)
    print(report.table(results))
    print(report.save_picture(Path(config.out), config, data, target, results["sigma"]))


if __name__ == "__main__":
    cli.run(main)
