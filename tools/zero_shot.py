"""Scores models on series that they have never seen, beside naive forecasts.

    python tools/zero_shot.py runs/foreign.npz docs/results/zero_shot/foreign.json \
        --model target=zero_shot_target.safetensors

tools/foreign_series.py writes the suite. A model forecasts sample paths with the scale that it
predicts for every step (`learned_scale`) from up to its trained context; the median is its point
forecast. `--fracast` takes the file that tools/fracast_forecasts.py writes in another environment.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from stride_jax.checkpoints.build import make_target
from stride_jax.checkpoints.store import find_model
from stride_jax.decoding.base import Process
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import DecodeConfig
from stride_jax.evaluation.results import write_rows
from stride_jax.evaluation.suites import (
    Foreign,
    Quantiles,
    cutoffs,
    load,
    naive,
    of_paths,
    scores,
    summary,
)
from stride_jax.forecasting.histories import make_contexts

BATCH = 12
"""Windows decoded at once."""
LENGTHS = (4, 6, 21)
"""Patches that a decode has at least: few lengths, few programs to compile."""


def histories(one: Foreign) -> tuple[list[np.ndarray], np.ndarray]:
    """The histories of a series' cut-offs and what follows them, `[W, H]`."""
    ends = cutoffs(len(one.values), one.season, one.horizon)
    truth = np.stack([one.values[end : end + one.horizon] for end in ends])
    return [one.values[:end] for end in ends], truth


def model_paths(
    process: Process,
    context_len: int,
    past: list[np.ndarray],
    horizon: int,
    *,
    num_paths: int,
    seed: int,
) -> np.ndarray:
    """`[W, S, H]` sample paths in the units of the histories."""
    filled = past + past[-1:] * (BATCH - len(past))  # one shape for all series
    seen = make_contexts([x[:, None] for x in filled], context_len, process.patch_len)
    count = math.ceil(horizon / process.patch_len)
    count = min([n for n in LENGTHS if n >= count], default=count)
    config = DecodeConfig(count * process.patch_len, num_paths=num_paths, learned_scale=True)
    key = jax.random.key(seed)
    paths, _ = decode(
        key, seen.values, target=process, sigma=1.0, config=config, lengths=seen.lengths
    )
    values = np.asarray(paths, np.float64) * seen.scale[:, None] + seen.mean[:, None]
    return values[: len(past), :, :horizon, 0]


def naive_quantiles(past: list[np.ndarray], season: int, horizon: int) -> Quantiles:
    """Of every window."""
    return Quantiles(np.stack([naive(x, season, horizon) for x in past]))


def rows_of(
    suite: dict[str, Foreign],
    models: dict[str, str],
    fracast: Path | None,
    num_paths: int,
    seed: int,
) -> list[dict[str, Any]]:
    """A row for each series and method."""
    targets = {}
    for name, path in models.items():
        model = find_model(path)
        context_len = model.context_len or 512
        targets[name] = make_target(model, "cached", context_len, 1), context_len
    other = np.load(fracast) if fracast else {}
    rows = []
    for number, (name, one) in enumerate(suite.items()):
        past, truth = histories(one)
        forecasts = {
            "seasonal-naive": naive_quantiles(past, one.season, one.horizon),
            "last value": naive_quantiles(past, 1, one.horizon),
        }
        for method, (process, context_len) in targets.items():
            paths = model_paths(
                process, context_len, past, one.horizon, num_paths=num_paths, seed=seed + number
            )
            forecasts[method] = of_paths(paths)
        if name in other:
            forecasts["Fracast-0"] = Quantiles(other[name])
        for method, forecast in forecasts.items():
            about = {"series": name, "kind": one.kind, "method": method, "windows": len(past)}
            rows.append(about | scores(forecast, truth))
    return rows


def main() -> None:
    """Scores and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", nargs="*", default=[], help="NAME=PATH, or a path")
    parser.add_argument("--fracast", type=Path)
    parser.add_argument("--paths", type=int, default=100, help="sample paths a window")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    models = dict(x.split("=", 1) if "=" in x else (Path(x).name, x) for x in args.model)
    rows = rows_of(load(args.suite), models, args.fracast, args.paths, args.seed)
    methods = dict.fromkeys(row["method"] for row in rows)
    means = [summary(rows, method) for method in methods]
    facts = {"summary": means, "models": models, "paths": args.paths, "seed": args.seed}
    write_rows(args.out, rows, table="zero_shot", **facts)
    for mean in means:
        print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in mean.items()}))


if __name__ == "__main__":
    main()
