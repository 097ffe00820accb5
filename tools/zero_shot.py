"""Scores models on series that they have never seen, beside naive forecasts.

    python tools/zero_shot.py runs/foreign.npz docs/results/zero_shot/foreign.json \
        --model target=zero_shot_target.safetensors

tools/foreign_series.py or tools/benchmark_series.py writes the suite. A model forecasts sample
paths by `stride_jax.forecast`; their median is its point forecast. `--variants` adds the same
models without the forecasts of means, and with independent errors in a patch besides.
`--quantiles` takes the quantiles of other methods, in files that tools/fracast_forecasts.py and
tools/autoets_forecasts.py write in environments of their own.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm

import stride_jax as sj
from stride_jax.evaluation.results import write_rows
from stride_jax.evaluation.suites import (
    LEVELS,
    Foreign,
    Quantiles,
    histories,
    load,
    naive,
    of_paths,
    scores,
    summary,
)

LINEAR_CONTEXT, LINEAR_WINDOWS, RIDGE = 512, 4000, (1e-3, 1e-2, 1e-1, 1.0)
"""Steps that a fitted linear map sees, windows it is fitted to, and penalties to choose from."""


def naive_quantiles(past: list[np.ndarray], season: int, horizon: int) -> Quantiles:
    """Of every window."""
    return Quantiles(np.stack([naive(x, season, horizon) for x in past]))


def linear_quantiles(one: Foreign, past: list[np.ndarray]) -> Quantiles:
    """Of a linear map from the last steps to the horizon, fitted to the values before the test."""
    values, horizon = one.values[: one.start], one.horizon
    scale = max(float(values.std()), 1e-12)
    length = min(LINEAR_CONTEXT, (len(values) - horizon) // 3)
    starts = np.unique(np.linspace(0, len(values) - length - horizon, LINEAR_WINDOWS).astype(int))
    windows = np.stack([values[s : s + length + horizon] for s in starts]) / scale
    windows = windows - windows[:, length - 1 : length]
    cut = len(starts) * 4 // 5
    x, y = windows[:, :length], windows[:, length:]
    gram, moments = x[:cut].T @ x[:cut] / cut, x[:cut].T @ y[:cut] / cut
    maps = [np.linalg.solve(gram + r * np.eye(length), moments) for r in RIDGE]
    errors = [y[cut:] - x[cut:] @ one_map for one_map in maps]
    best = int(np.argmin([np.mean(np.square(error)) for error in errors]))
    sd = scale * np.sqrt(np.mean(np.square(errors[best]), axis=0))
    last = np.stack([history[-length:] for history in past])
    level = last[:, -1:]
    means = (last - level) @ maps[best] + level
    return Quantiles(means[:, None] + norm.ppf(LEVELS)[None, :, None] * sd)


def rows_of(
    suite: dict[str, Foreign],
    pairs: dict[str, sj.Pair],
    others: dict[str, Path],
    num_paths: int,
    seed: int,
) -> list[dict[str, Any]]:
    """A row for each series and method."""
    quantiles = {method: np.load(path) for method, path in others.items()}
    rows = []
    for number, (name, one) in enumerate(suite.items()):
        past, truth = histories(one)
        forecasts = {
            "seasonal-naive": naive_quantiles(past, one.season, one.horizon),
            "last value": naive_quantiles(past, 1, one.horizon),
        }
        if one.start is not None:
            forecasts["linear map, fitted to it"] = linear_quantiles(one, past)
        for method, pair in pairs.items():
            paths = sj.forecast(pair, past, one.horizon, key=seed + number, num_samples=num_paths)
            forecasts[method] = of_paths(paths.paths)
        for method, found in quantiles.items():
            if name in found:
                forecasts[method] = Quantiles(found[name])
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
    parser.add_argument("--variants", action="store_true", help="also of simpler pairs")
    parser.add_argument("--quantiles", nargs="*", default=[], help="METHOD=FILE")
    parser.add_argument("--paths", type=int, default=100, help="sample paths a window")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    models = dict(x.split("=", 1) if "=" in x else (Path(x).name, x) for x in args.model)
    pairs = {}
    for name, path in models.items():
        pairs[name] = pair = sj.load_pair(path, None)
        simpler = dataclasses.replace(pair, aggregations=())
        if args.variants and pair.aggregations:
            pairs[f"{name}, no aggregation"] = simpler
        if args.variants and pair.covariance is not None:
            pairs[f"{name}, independent steps"] = dataclasses.replace(simpler, covariance=None)
    others = {name: Path(path) for name, path in (x.split("=", 1) for x in args.quantiles)}
    rows = rows_of(load(args.suite), pairs, others, args.paths, args.seed)
    methods = dict.fromkeys(row["method"] for row in rows)
    means = [summary(rows, method) for method in methods]
    facts = {"summary": means, "models": models, "paths": args.paths, "seed": args.seed}
    write_rows(args.out, rows, table="zero_shot", **facts)
    for mean in means:
        print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in mean.items()}))


if __name__ == "__main__":
    main()
