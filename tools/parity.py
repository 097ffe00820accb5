"""Largest absolute error of the port against the original's recorded outputs, case by case.

`python tools/parity.py --out docs/results/parity.json` reads `tests/golden/*.npz`,
and with the extra `torch` also the `.pth` files there.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from stride_jax.checkpoints.pytorch import load_pytorch
from stride_jax.decoding.processes import window_process
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import DecodeConfig
from stride_jax.evaluation.results import write_rows
from stride_jax.models import TimerXL, make_predict
from stride_jax.models.config import TimerXLConfig

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"


def compare(path: Path, weights: Path | None = None) -> dict[str, Any]:
    """A row: errors of the outputs at all positions and of the rolled forecast.

    The last one is that of bfloat16 compute, as an RMS over the std of the outputs. The parameters
    are those of the case, or read from the state dict `weights`.
    """
    with np.load(path) as case:
        recorded = {name: case[name] for name in case.files}
    settings = json.loads(str(recorded["config"]))
    arrays = {n.removeprefix("param/"): v for n, v in recorded.items() if n.startswith("param/")}
    config, params = load_pytorch(
        arrays if weights is None else weights,
        activation=settings["activation"],
        instance_norm="window" if settings["use_norm"] else None,
        covariate=settings["covariate"],
    )
    config = dataclasses.replace(config, precision="highest")
    names = ("mean", "logvar") if config.head == "gaussian" else ("y",)

    def outputs(config: TimerXLConfig) -> tuple[jax.Array, ...]:
        out = TimerXL(config).apply({"params": params}, recorded["x"])
        return out if isinstance(out, tuple) else (out,)

    errors = [np.abs(a - recorded[n]).max() for n, a in zip(names, outputs(config), strict=True)]
    half = outputs(dataclasses.replace(config, dtype="bfloat16"))[0]
    spread = np.std(recorded[names[0]])
    rolled, _ = decode(
        jax.random.key(0),
        recorded["x"],
        target=window_process(make_predict(config, params), config.patch_len),
        sigma=0.0,
        config=DecodeConfig(int(recorded["rolled_horizon"])),
    )
    return {
        "case": (weights or path).name,
        "outputs": float(max(errors)),
        "rolled": float(np.abs(rolled - recorded["rolled"]).max()),
        "bfloat16 rms / std": float(np.sqrt(np.mean((half - recorded[names[0]]) ** 2)) / spread),
    }


def main() -> None:
    """Prints the rows and writes them with the hardware and versions."""
    parser = argparse.ArgumentParser(prog="python tools/parity.py")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    cases = sorted(GOLDEN.glob("target_*.npz")) + sorted(GOLDEN.glob("draft_*.npz"))
    rows = [compare(path) for path in cases]
    if importlib.util.find_spec("torch"):
        rows += [compare(path.with_suffix(".npz"), path) for path in sorted(GOLDEN.glob("*.pth"))]
    for row in rows:
        print(f"{row['case']:26} outputs {row['outputs']:.2e}  rolled {row['rolled']:.2e}")
    if args.out:
        write_rows(args.out, rows)


if __name__ == "__main__":
    main()
