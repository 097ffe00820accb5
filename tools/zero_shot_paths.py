"""Scores the sample paths of the zero-shot pair as paths, and its acceptance rules.

    nice python tools/zero_shot_paths.py runs/foreign.npz docs/results/zero_shot/paths.json

forecasts the foreign suite of tools/foreign_series.py, at most 96 steps ahead, all histories
together: the target as it is, and without the forecasts of means; then without them and with
independent errors, and with one sigma for all steps of a patch; then the target with the draft of
the package by each rule. The intervals of the target's variants are also counted on random walks,
by how far ahead they are. A method's rows are written as it is done, and methods in the file are
not forecast again.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import stride_jax as sj
from stride_jax import metrics
from stride_jax.decoding.scale import PatchCovariance
from stride_jax.errors import InputError
from stride_jax.evaluation.path_scores import energy_score, variogram_score
from stride_jax.evaluation.results import read_results, write_rows
from stride_jax.evaluation.suites import (
    CUTOFFS,
    Foreign,
    Quantiles,
    every_history,
    histories,
    load,
    naive,
    of_paths,
    scores,
    shortened,
)
from stride_jax.forecasting.results import Forecast

AHEAD, NUM_DRAFT = 96, 5
"""Steps that are forecast, at most; proposals of a round."""
WALKS, WALK_STEPS = 16, 3000
"""Random walks, and the steps of each, with cut-offs in the second half."""
BINS = (1, 3, 8, 16, 32, 64, 96)
"""The last steps of the stretches of the horizon whose coverage is counted on random walks."""
TOLERANCE = 0.2
NAIVE, ONE_SIGMA = "seasonal-naive", "target, one sigma"
Run = Callable[[list[np.ndarray]], Forecast]


# --- what is forecast ----------------------------------------------------------------------------


def independent(pair: sj.Pair) -> sj.Pair:
    """The pair with independent errors, as a covariance, so that the program stays the same."""
    eye = np.eye(pair.target.patch_len, dtype=np.float32)
    return dataclasses.replace(pair, covariance=PatchCovariance(eye))


def one_sigma(pair: sj.Pair, past: list[np.ndarray], **settings: Any) -> Forecast:
    """Forecasts with independent errors of one sigma for all steps of a patch.

    It is the root mean square of the stds that the target predicts for the first patch, of the
    history as it is. The target moves with the scale of a history, so each is given in that unit.
    """
    unit = sj.forecast(independent(pair), past, **settings).sigma
    scaled = [history / one for history, one in zip(past, unit, strict=True)]
    forecast = sj.forecast(independent(pair), scaled, sigma=1.0, **settings)
    paths = forecast.paths * unit[:, None, None]
    return forecast._replace(paths=paths, mean=forecast.mean * unit[:, None])


def methods(num_paths: int, seed: int) -> dict[str, Run]:
    """Forecasts of `AHEAD` steps by name."""
    target = sj.load_pair("zero_shot", None)
    simpler = dataclasses.replace(target, aggregations=())
    both = sj.load_pair("zero_shot", "zero_shot")
    samples = {"horizon": AHEAD, "key": seed, "num_samples": num_paths, "num_draft": NUM_DRAFT}
    means = {**samples, "num_samples": 0}
    rule = sj.Mean(tolerance=TOLERANCE)
    return {
        "target": partial(sj.forecast, target, **samples),
        "target, no aggregation": partial(sj.forecast, simpler, **samples),
        "target, independent steps": partial(sj.forecast, independent(simpler), **samples),
        ONE_SIGMA: partial(one_sigma, simpler, **samples),
        "speculative, block": partial(sj.forecast, both, rule=sj.Block(), **samples),
        "speculative, maximal": partial(sj.forecast, both, rule=sj.Maximal(), **samples),
        "target, mean path": partial(sj.forecast, target, **means),
        f"speculative, mean (tolerance {TOLERANCE})": partial(
            sj.forecast, both, rule=rule, **means
        ),
    }


# --- how it is scored ----------------------------------------------------------------------------


def day(one: Foreign) -> int | None:
    """Steps of a day, where several are in one; the season of these is a day or a week."""
    if not one.kind.endswith("hourly"):
        return None
    return one.season // 7 if one.season % 7 == 0 else one.season


def span(one: Foreign) -> int:
    """Steps of a path that is scored as a whole: a day, else a season, else the horizon."""
    season = day(one) or one.season
    return min(season, one.horizon) if season > 1 else one.horizon


def day_sums(one: Foreign, paths: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Coverage of the 80 % intervals of the sums of every day; nothing for slower clocks."""
    steps = day(one)
    if steps is None:
        return {}
    days = one.horizon // steps
    # [..., days * steps] -> [..., days]
    drawn, true = (
        x[..., : days * steps].reshape(*x.shape[:-1], days, steps).sum(axis=-1)
        for x in (paths, truth)
    )
    return {"cover_80_day": covered(drawn, true)}


def covered(paths: np.ndarray, truth: np.ndarray) -> float:
    """Share of `truth [W, H]` in the 80 % interval of paths `[W, S, H]`, for any number of them."""
    return float(metrics.coverage(jnp.moveaxis(jnp.asarray(paths), 1, 0), jnp.asarray(truth)))


def counts(forecast: Forecast, rows: slice) -> dict[str, float]:
    """Acceptance and target passes of the forecasts of one series."""
    accepted, proposed = (np.sum(x[rows]) for x in (forecast.info.accepted, forecast.info.proposed))
    result = {"target_passes": float(np.mean(forecast.info.target_passes[rows]))}
    return result | ({"acceptance": float(accepted / proposed)} if proposed else {})


def series_row(
    one: Foreign, forecast: Forecast, rows: slice, truth: np.ndarray
) -> dict[str, float]:
    """The scores of one series, `truth [W, H]`: errors, and those of paths where there are any."""
    if forecast.paths is None:
        means = forecast.mean[rows, : one.horizon]
        return {"mae": float(np.mean(np.abs(means - truth)))} | counts(forecast, rows)
    paths = forecast.paths[rows, :, : one.horizon]
    by_step, steps = scores(of_paths(paths), truth), span(one)
    return {
        **{name: by_step[name] for name in ("mae", "crps")},
        "energy": energy_score(paths[..., :steps], truth[:, :steps]),
        "variogram": variogram_score(paths[..., :steps], truth[:, :steps]),
        **day_sums(one, paths, truth),
        **counts(forecast, rows),
    }


def naive_row(one: Foreign, count: int) -> dict[str, float]:
    """The scores of seasonal-naive on one series."""
    past, truth = histories(one, count)
    forecast = Quantiles(np.stack([naive(x, one.season, one.horizon) for x in past]))
    by_step = scores(forecast, truth)
    return {name: by_step[name] for name in ("mae", "crps")}


def random_walks() -> dict[str, Foreign]:
    """Gaussian random walks, whose right interval is known at every horizon."""
    steps = np.random.default_rng(0x57414C4B).normal(size=(WALKS, WALK_STEPS))
    return {
        f"walk_{i}": Foreign("walk", 1, AHEAD, values)
        for i, values in enumerate(steps.cumsum(axis=1))
    }


def walk_coverage(walks: dict[str, Foreign], paths: np.ndarray, count: int) -> list[dict[str, Any]]:
    """Coverage of the 80 % interval of paths `[W, S, H]` by how far ahead, over all walks."""
    truth = np.concatenate([histories(one, count)[1] for one in walks.values()])
    return [
        {
            "steps": f"{a + 1} to {b}" if b > a + 1 else f"{b}",
            "cover_80": covered(paths[:, :, a:b], truth[:, a:b]),
        }
        for a, b in zip((0, *BINS[:-1]), BINS, strict=True)
    ]


# --- the program ---------------------------------------------------------------------------------


def main() -> None:
    """Forecasts, scores and writes what the file does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--paths", type=int, default=100, help="sample paths of a history")
    parser.add_argument("--cutoffs", type=int, default=CUTOFFS, help="of a series, at most")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    suite, walks = shortened(load(args.suite), AHEAD), random_walks()
    past, places = every_history(suite, args.cutoffs)
    walked, _ = every_history(walks, args.cutoffs)

    # what is there
    settings = {"paths": args.paths, "cutoffs": args.cutoffs, "seed": args.seed}
    covers: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = [
        {"series": name, "kind": one.kind, "method": NAIVE} | naive_row(one, args.cutoffs)
        for name, one in suite.items()
    ]
    if args.out.exists():
        before = read_results(args.out)
        if any(before[name] != value for name, value in settings.items()):
            raise InputError(f"{args.out} holds forecasts of other settings; give another file.")
        rows, covers = before["rows"], before["walks"]
    done = {row["method"] for row in rows}

    # what is not
    for method, run in methods(args.paths, args.seed).items():
        if method in done:
            continue
        begun = time.perf_counter()
        forecast = run(past + walked)  # the same rows, so that programs are shared
        for name, one in suite.items():
            about = {"series": name, "kind": one.kind, "method": method}
            truth = histories(one, args.cutoffs)[1]
            rows.append(about | series_row(one, forecast, places[name], truth))
        if forecast.paths is not None:
            steps = walk_coverage(walks, forecast.paths[len(past) :], args.cutoffs)
            covers += [{"method": method} | row for row in steps]
        write_rows(args.out, rows, table="zero_shot_paths", walks=covers, **settings)
        print(method, f"{time.perf_counter() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
