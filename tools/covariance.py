"""Measures sample paths with a covariance of a patch's errors beside paths without one.

    python tools/covariance.py --out docs/results/covariance.json \
        --picture docs/results/covariance.png --store stride_jax/assets/beijing_covariance.npy

Everything is fitted on the validation split of the embedded weather and scored on its test split,
with the pair of the package, a week ahead. `--store` writes the pooled relative factor.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax import metrics
from stride_jax.checkpoints.build import load_pair
from stride_jax.checkpoints.pair import Pair
from stride_jax.data.config import DataConfig
from stride_jax.data.gaps import Gaps
from stride_jax.data.splits import ForecastData, load_data
from stride_jax.data.windows import Windows, make_windows
from stride_jax.decoding.rules import Block, Maximal
from stride_jax.decoding.scale import PatchCovariance, make_scale, whiten
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import DecodeConfig
from stride_jax.evaluation.figures.canvas import new_figure
from stride_jax.evaluation.path_scores import energy_score, variogram_score
from stride_jax.evaluation.results import write_rows
from stride_jax.forecasting.covariance import (
    Errors,
    calibrate_covariance,
    one_patch_errors,
    shrunk_factor,
)

DAY, WEEK = 24, 168
CONTEXT, FITTING_STRIDE = 504, 7
"""Steps of a context; steps between two validation windows."""
LEVELS = (0.5, 0.8, 0.95)
PLOTTED, EXAMPLES, SHOWN_STEPS = "TEMP", 10, 72


class Scales(NamedTuple):
    """The factors `[n, P, P]` of the errors after each of n contexts, under one model of them."""

    name: str
    factors: np.ndarray


class Fitted(NamedTuple):
    """What was fitted on validation: its one-patch errors, and the pooled relative factor."""

    validation: Errors
    pooled: PatchCovariance


Scores = dict[str, dict[str, float]]
"""Scores by name, of each model of the errors."""


def windows_of(
    data: ForecastData, split: str, context_len: int, ahead: int, stride: int
) -> Windows:
    """The windows of a split, one variable each."""
    rows, count = getattr(data.splits, split), len(data.names)
    return make_windows(rows, context_len + ahead, count, separate=True, stride=stride, ahead=ahead)


# --- the models of the errors --------------------------------------------------------------------


def absolute(name: str, errors: Errors, kind: str, share: float) -> tuple[str, np.ndarray]:
    """The factors `[C, P, P]` of the variables, in the units of the standardised series."""
    mean_square = np.mean(np.square(errors.values), axis=1)  # [C, P]
    size = mean_square.shape[1]
    if kind == "isotropic":
        return name, np.sqrt(mean_square.mean(axis=1))[:, None, None] * np.eye(size)[None]
    if kind == "diagonal":
        return name, np.sqrt(mean_square)[..., None] * np.eye(size)[None]
    return name, np.stack([shrunk_factor(one, share) for one in errors.values])


def models(
    validation: Errors, pooled: PatchCovariance, stride: int, scale: np.ndarray
) -> list[Scales]:
    """The models of the errors after contexts of stds `scale [C, n]`, variable-major."""
    share = min(1.0, stride / validation.values.shape[2])
    count = scale.shape[1]
    kinds = ("isotropic", "diagonal", "full")
    of_variables = [absolute(kind, validation, kind, share) for kind in kinds]
    scales = [Scales(name, np.repeat(each, count, axis=0)) for name, each in of_variables]
    # One sigma, over the std of each context, for all variables.
    sigma = np.sqrt(np.mean(np.square(validation.values / validation.scale[..., None])))
    times = sigma * scale.reshape(-1)[:, None, None]  # [C * n, 1, 1]
    size = validation.values.shape[2]
    scales.append(Scales("isotropic, by history", times * np.eye(size)[None]))
    return [*scales, Scales("full, by history", times * np.asarray(pooled.factor)[None])]


# --- scores --------------------------------------------------------------------------------------


def log_likelihood(errors: Errors, scales: Scales) -> float:
    """The mean negative log-likelihood per step of one-patch errors."""
    rows = errors.values.reshape(-1, errors.values.shape[2])  # [C, n, P] -> [C * n, P]
    white = np.linalg.solve(scales.factors, rows[..., None])[..., 0]
    log_std = np.log(np.diagonal(scales.factors, axis1=1, axis2=2))
    return float(np.mean(0.5 * np.square(white) + log_std + 0.5 * np.log(2 * np.pi)))


def path_scores(paths: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Coverages and scores of sample paths `[n, S, H]` of `truth [n, H]`."""
    scores = {}
    places = {
        "first step": slice(0, 1),
        "first day": slice(0, DAY),
        "last step of a patch": slice(DAY - 1, None, DAY),
        "week": slice(0, WEEK),
    }
    # Sums of every day, and of the week.
    days = paths.reshape(*paths.shape[:2], -1, DAY).sum(-1)
    days_truth = truth.reshape(len(truth), -1, DAY).sum(-1)
    sums = {
        "sum of the first day": (days[..., :1], days_truth[:, :1]),
        "sum of any day": (days, days_truth),
        "sum of the week": (paths.sum(-1, keepdims=True), truth.sum(-1, keepdims=True)),
    }
    steps = {name: (paths[..., place], truth[:, place]) for name, place in places.items()}
    for level in LEVELS:
        for name, (drawn, true) in {**steps, **sums}.items():
            # [n, S, h] -> [S, n, h]: every entry counts alike
            covered = metrics.coverage(jnp.moveaxis(jnp.asarray(drawn), 1, 0), true, level)
            scores[f"in {level:.0%}, {name}"] = float(covered)
    scores["CRPS"] = float(metrics.crps(jnp.moveaxis(jnp.asarray(paths), 1, 0), truth))
    scores["energy score, day"] = energy_score(paths[..., :DAY], truth[:, :DAY])
    scores["energy score, week"] = energy_score(paths, truth)
    scores["variogram score, day"] = variogram_score(paths[..., :DAY], truth[:, :DAY])
    return scores


# --- decodes -------------------------------------------------------------------------------------


def covariance_of(scales: Scales) -> Any:
    """The scales as `sigma` of a decode of as many series of one variable."""
    return PatchCovariance(scales.factors.astype(np.float32)[:, None])


def sampled(pair: Pair, context: jax.Array, scales: Scales, config: DecodeConfig) -> np.ndarray:
    """Sample paths of the target alone, `[n, S, H]`."""
    sigma = covariance_of(scales)
    paths, _ = decode(jax.random.key(0), context, target=pair.target, sigma=sigma, config=config)
    return np.asarray(paths)[..., 0]


def acceptances(
    pair: Pair, context: jax.Array, scales: Scales, config: DecodeConfig
) -> dict[str, float]:
    """Share of accepted proposals, and target passes for a week, of the exact rules."""
    scores = {}
    for name, rule in (("maximal", Maximal()), ("block", Block())):
        _, info = decode(
            jax.random.key(1),
            context,
            target=pair.target,
            draft=pair.draft,
            sigma=covariance_of(scales),
            rule=rule,
            config=config,
        )
        share = np.sum(info.accepted) / np.sum(info.proposed)
        scores[f"acceptance, {name}"] = float(share)
        scores[f"target passes, {name}"] = float(np.mean(info.target_passes))
    return scores


# --- between patches -----------------------------------------------------------------------------


def between_patches(validation: Errors, test: Errors, factors: np.ndarray) -> dict[str, float]:
    """The part of a patch's whitened errors that those of the patch before explain.

    Windows lie a patch apart. A ridge regression of white errors on those of the patch before is
    fitted on validation, and scored on test.

    Args:
        validation: errors of patches in a row.
        test: the same.
        factors: `[C, P, P]`, of each variable.
    """
    before, after = [], []
    for errors in (validation, test):
        white = np.linalg.solve(factors[:, None], errors.values[..., None])[..., 0]
        before.append(white[:, :-1].reshape(-1, white.shape[2]))
        after.append(white[:, 1:].reshape(-1, white.shape[2]))
    gram = before[0].T @ before[0] + 0.1 * len(before[0]) * np.eye(before[0].shape[1])
    weight = np.linalg.solve(gram, before[0].T @ after[0])
    left = after[1] - before[1] @ weight
    raw = test.values
    last, first = raw[:, :-1, -1].ravel(), raw[:, 1:, 0].ravel()
    return {
        "explained on test": float(1 - np.sum(np.square(left)) / np.sum(np.square(after[1]))),
        "correlation of the last error with the next one": float(np.corrcoef(last, first)[0, 1]),
        "correlation of the means of two patches": float(
            np.corrcoef(raw[:, :-1].mean(-1).ravel(), raw[:, 1:].mean(-1).ravel())[0, 1]
        ),
    }


def precision(factors: np.ndarray) -> dict[str, float]:
    """The float32 product with the inverse factor against a solution in float64.

    Args:
        factors: `[n, P, P]` float64.
    """
    count, size, _ = factors.shape
    gaps = np.random.default_rng(0).normal(size=(1000, size, count)).astype(np.float32)
    scale = make_scale(PatchCovariance(factors.astype(np.float32)), (size, count))
    fast = np.asarray(whiten(jnp.asarray(gaps), scale.sigma[None], scale.correlation), np.float64)
    # [S, P, n] -> [S, n, P, 1], solved for each factor
    right = np.moveaxis(gaps.astype(np.float64), 1, 2)[..., None]
    exact = np.linalg.solve(factors.astype(np.float32).astype(np.float64)[None], right)[..., 0]
    exact = np.moveaxis(exact, 2, 1)
    size_of_gap = np.linalg.norm(exact, axis=1)
    return {
        "largest condition number": float(np.linalg.cond(factors).max()),
        "relative error of a gap": float(
            (np.linalg.norm(fast - exact, axis=1) / size_of_gap).max()
        ),
    }


# --- the picture ---------------------------------------------------------------------------------


def picture(path: Path, truth: np.ndarray, drawn: dict[str, np.ndarray]) -> None:
    """Ten real continuations beside a path of each model for the same ten contexts.

    Args:
        path: to write.
        truth: `[10, H]`, from the last value of the context on.
        drawn: `[10, H]` by the name of a model.
    """
    panels = {"what came": truth, **drawn}
    figure = new_figure(4 * len(panels), 3.4)
    axes = figure.subplots(1, len(panels), sharey=True)
    for axis, (name, series) in zip(axes, panels.items(), strict=True):
        axis.plot(np.arange(1, series.shape[1] + 1), series.T, linewidth=0.9)
        axis.set_title(name)
        axis.set_xlabel("hours ahead")
        for patch in range(DAY, series.shape[1], DAY):
            axis.axvline(patch, color="0.8", linewidth=0.8, zorder=0)
    axes[0].set_ylabel(f"{PLOTTED} (standardised)")
    figure.savefig(path, dpi=90)


# --- the program ---------------------------------------------------------------------------------


def likelihoods(fitted: Fitted, test: Errors) -> Scores:
    """The likelihood of each model on test."""
    return {
        scales.name: {"negative log-likelihood per step": log_likelihood(test, scales)}
        for scales in models(fitted.validation, fitted.pooled, FITTING_STRIDE, test.scale)
    }


def decoded_scores(
    pair: Pair, fitted: Fitted, ahead: Windows, values: jax.Array | Gaps, count: int
) -> tuple[Scores, dict[str, np.ndarray]]:
    """Scores of sample paths and acceptance of each model, and the paths `[n, S, H]`.

    Args:
        pair: target and draft.
        fitted: on validation.
        ahead: test windows of a context and a week.
        values: of the series.
        count: S.
    """
    context, truth = continuations(ahead, values)
    spread = np.sqrt(np.var(np.asarray(context, np.float64), axis=1) + 1e-5)[:, 0]
    spread = spread.reshape(ahead.num_vars, -1)
    config = DecodeConfig(WEEK, 6, num_paths=count, batch_size=16)
    fewer = dataclasses.replace(config, num_paths=2, batch_size=128)
    scores: Scores = {}
    drawn: dict[str, np.ndarray] = {}
    for scales in models(fitted.validation, fitted.pooled, FITTING_STRIDE, spread):
        drawn[scales.name] = sampled(pair, context, scales, config)
        scores[scales.name] = path_scores(drawn[scales.name], truth)
        scores[scales.name] |= acceptances(pair, context, scales, fewer)
        print(scales.name, scores[scales.name], flush=True)
    return scores, drawn


def continuations(ahead: Windows, values: jax.Array | Gaps) -> tuple[jax.Array, np.ndarray]:
    """Contexts `[n, L, 1]`, and what follows them, `[n, H]`."""
    series = ahead.gather(values, jnp.arange(ahead.count))
    return series[:, :CONTEXT], np.asarray(series[:, CONTEXT:, 0])


def draw(
    path: Path,
    first: int,
    ahead: Windows,
    values: jax.Array | Gaps,
    drawn: dict[str, np.ndarray],
) -> None:
    """The picture of windows of one variable, of which `first` is the number of the first."""
    context, truth = continuations(ahead, values)
    chosen = first + np.linspace(0, ahead.num_starts - 1, EXAMPLES).astype(int)
    level = np.asarray(context)[chosen, -1]
    panels = {"isotropic": "independent steps", "full": "covariance"}
    shown = {title: drawn[name][chosen, 0, :SHOWN_STEPS] - level for name, title in panels.items()}
    picture(path, truth[chosen, :SHOWN_STEPS] - level, shown)


def main() -> None:
    """Fits, scores, draws, and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--store", type=Path, help="write the pooled factor")
    parser.add_argument("--stride", type=int, default=149, help="between two test windows")
    parser.add_argument("--paths", type=int, default=50)
    args = parser.parse_args()

    data = load_data(DataConfig(context_len=CONTEXT, variables="separate"))
    values, pair = data.on_device, load_pair("beijing")
    size = pair.target.patch_len

    def errors(split: str, stride: int) -> Errors:
        windows = windows_of(data, split, CONTEXT, size, stride)
        return one_patch_errors(pair.target, values, windows, 128)

    # Fit on validation.
    fitting = windows_of(data, "validation", CONTEXT, size, FITTING_STRIDE)
    pooled = calibrate_covariance(pair.target, values, fitting, 128, relative=True)
    fitted = Fitted(errors("validation", FITTING_STRIDE), pooled)
    if args.store:
        np.save(args.store, pooled.factor)

    # One-patch errors on test, and those between patches.
    test = errors("test", 29)
    scores = likelihoods(fitted, test)
    full = absolute("full", fitted.validation, "full", FITTING_STRIDE / size)[1]
    neighbours = between_patches(errors("validation", size), errors("test", size), full)
    print(scores, neighbours, flush=True)

    # Paths.
    ahead = windows_of(data, "test", CONTEXT, WEEK, args.stride)
    decoded, drawn = decoded_scores(pair, fitted, ahead, values, args.paths)
    scores = {name: scores[name] | decoded[name] for name in scores}

    # Write.
    table = [
        {"score": name, **{model: of[name] for model, of in scores.items()}}
        for name in next(iter(scores.values()))
    ]
    write_rows(
        args.out,
        table,
        neighbours=neighbours,
        precision=precision(full),
        windows=ahead.count,
        one_patch_windows=test.values[..., 0].size,
        paths=args.paths,
    )
    if args.picture:
        first = list(data.names).index(PLOTTED) * ahead.num_starts
        draw(args.picture, first, ahead, values, drawn)


if __name__ == "__main__":
    main()
