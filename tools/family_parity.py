"""Largest errors of a foundation model against recorded forecasts of its original, case by case.

`python tools/family_parity.py fracast tests/golden/fracast.npz --weights WHEEL --out
docs/results/families/fracast_parity.json` reads what `tools/golden_fracast.py` recorded; without
weights it compares the small random model alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from stride_jax.checkpoints.families import read_family
from stride_jax.evaluation.results import write_rows
from stride_jax.models.families import FAMILIES
from stride_jax.testing.parity import parity_errors

Recorded = dict[str, np.ndarray]


def part(recorded: Recorded, prefix: str) -> Recorded:
    """The entries under a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in recorded.items() if k.startswith(prefix)}


def fracast_rows(recorded: Recorded, weights: Path | None) -> list[dict[str, Any]]:
    """A row per case of the small model, and of the released one."""
    tiny = part(recorded, "tiny/")
    config, params = FAMILIES["fracast"].read(part(tiny, "param/"))
    given = json.loads(str(tiny["config"]))
    config = dataclasses.replace(
        config,
        context_len=given["W"],
        num_scales=given["n_stages"],
        future_layers=given["head_future_conv_layers"],
        future_seed=given["head_future_conv_seed"],
        phase_bins=given["head_phase_bins"],
    )
    models = [("small, random", config, params, tiny)]
    if weights is not None:
        model = read_family(weights)
        models.append(("released", model.config, model.params, part(recorded, "real/")))
    rows = []
    for name, config, params, content in models:
        process = FAMILIES["fracast"].make_process(config, params)
        for case in [key.removeprefix("x_") for key in content if key.startswith("x_")]:
            history = content[f"x_{case}"][:, None]
            # [3 P, Q] -> [3, P, 1, Q]
            blocks = content[f"y_{case}"].reshape(-1, config.patch_len, 1, len(config.levels))
            errors = parity_errors(process, history, blocks, config.median)
            rows.append({"weights": name, "case": case, "steps": len(history), **errors._asdict()})
    return rows


ROWS = {"fracast": fracast_rows}


def main() -> None:
    """Prints the rows and writes them with the version of the original."""
    parser = argparse.ArgumentParser(prog="python tools/family_parity.py")
    parser.add_argument("family", choices=ROWS)
    parser.add_argument("recorded", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with np.load(args.recorded) as file:
        recorded = {name: file[name] for name in file.files}
    rows = ROWS[args.family](recorded, args.weights)
    for row in rows:
        print(row)
    if args.out:
        write_rows(args.out, rows, original=f"{args.family} {recorded['version']} (PyPI)")


if __name__ == "__main__":
    main()
