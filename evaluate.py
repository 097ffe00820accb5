"""Target only, draft only and speculative decoding, timed and scored: `python evaluate.py NAME`.

Without a name it is a first look of a minute at the pair in the package, on the embedded series.
The configs in configs/evaluate/ are the names: full evaluations, sweeps of the rules' settings,
tuning on the validation split, speed by batch size, latency by model size, fidelity of paths, and
everything that is measured on an accelerator.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

from stride_jax.cli import flags
from stride_jax.evaluation import grids, latency
from stride_jax.evaluation.config import QuickConfig
from stride_jax.evaluation.experiments import run
from stride_jax.evaluation.figures import remove_pictures, save_pictures
from stride_jax.evaluation.results import make_directory, write_results
from stride_jax.evaluation.tables import make_table
from stride_jax.testing import accelerator, fidelity

CONFIGS = Path(__file__).parent / "configs" / "evaluate"
EXPERIMENTS = (accelerator, grids, latency, fidelity)
"""Modules whose experiments join `run` when they are imported."""


def main(argv: Sequence[str]) -> None:
    """Flags to config, config to its experiment, results to files, a table and pictures."""
    default = flags.load_config("beijing", CONFIGS, QuickConfig)
    kinds = tuple(kind for kind in run.registry if kind is not object)
    config = flags.parse(argv, CONFIGS, default, "evaluate.py", also=kinds)
    out = make_directory(Path(getattr(config, "setup", config).out))
    say = functools.partial(print, flush=True)
    purpose = (type(config).__doc__ or "").partition("\n")[0]
    place = ", in place of those of an earlier run" if (out / "results.json").exists() else ""
    say(f"{purpose} Results go to {out}{place}.")
    report = run(config, progress=say)
    write_results(out, report.content)
    remove_pictures(out)
    print(f"\n{make_table(report.content)}")
    for path in save_pictures(out, report.content, report.picture):
        print(f"picture: {path}")


if __name__ == "__main__":
    flags.run(main)
