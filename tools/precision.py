"""The shipped pair at lower precision, with and without speculation.

`pip install qwix` and `python tools/precision.py --out docs/results/precision.json` (about six
minutes on 2 CPU cores). bfloat16: matrix products and activations, statistics stay float32. int8:
the kernels rounded to 8 bits with a scale for each output channel (qwix), both models; they are
multiplied as float32, so that this shows what the rounding costs in accuracy and acceptance and
what it saves in storage, not a speed.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import qwix

from stride_jax import save_model
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.checkpoints.store import find_model
from stride_jax.data.splits import load_data
from stride_jax.evaluation.config import EvaluateConfig, Setup
from stride_jax.evaluation.experiments import evaluate
from stride_jax.evaluation.results import write_rows
from stride_jax.evaluation.subject import Loaded

CONFIG = EvaluateConfig(
    setup=Setup(sigma=0.475, stride=143, batch_size=128),
    num_draft=5,
    rules=("mean:tolerance=0.2", "maximal", "block"),
    timing_batch=1,
    repeats=15,
    num_paths=4,
)


def rounded(leaf: jax.Array) -> np.ndarray:
    """A kernel as int8 would hold it; biases, norms and the attention's few numbers as they are."""
    if leaf.ndim < 2 or min(leaf.shape) < 16:
        return np.asarray(leaf)
    stored = qwix.quantize(jnp.asarray(leaf), jnp.int8, channelwise_axes=(leaf.ndim - 1,))
    return np.asarray(qwix.dequantize(stored))


def variant(model: Checkpoint, precision: str) -> tuple[Checkpoint, float]:
    """The model at a precision, and the megabytes its parameters take."""
    sizes = [(x.size, x.ndim >= 2 and min(x.shape) >= 16) for x in jax.tree.leaves(model.params)]
    if precision == "int8":
        params = jax.tree.map(rounded, model.params)
        return model._replace(params=params), sum(n * (1 if k else 4) for n, k in sizes) / 1e6
    config = dataclasses.replace(model.model, dtype=precision)
    width = {"float32": 4, "bfloat16": 2}[precision]
    return model._replace(model=config), sum(n * width for n, _ in sizes) / 1e6


def rows(precision: str, folder: Path) -> list[dict[str, Any]]:
    """An evaluation of the pair at one precision."""
    target, megabytes = variant(find_model("beijing"), precision)
    draft, _ = variant(find_model("beijing", "draft"), precision)
    path = folder / f"{precision}.safetensors"
    save_model(path, draft)
    setup = dataclasses.replace(CONFIG.setup, drafts=(str(path),))
    loaded = Loaded(load_data(setup.data), target)
    report = evaluate(dataclasses.replace(CONFIG, setup=setup), print, loaded)
    names = ("method", "rule", "output", "mse", "crps", "distance", "acceptance", "target_passes")
    return [
        {
            "precision": precision,
            "target MB": megabytes,
            **{name: row[name] for name in names},
            "milliseconds": 1000 * row["seconds"],
            "speedup": row["speedup"],
        }
        for row in report.content["rows"]
    ]


def main() -> None:
    """Writes the rows of all precisions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = [row for p in ("float32", "bfloat16", "int8") for row in rows(p, Path(folder))]
    plain = [r for r in found if (r["precision"], r["method"]) == ("float32", "target")]
    targets = {row["output"]: row["milliseconds"] for row in plain}
    for row in found:
        row["speedup over float32 target"] = targets[row["output"]] / row["milliseconds"]
    write_rows(args.out, found, batch=1, horizon=168)


if __name__ == "__main__":
    main()
