"""Choosing process, rule, K and tolerance on the validation split, by measured time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from stride_jax.checkpoints.build import Pair, ProcessKind
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.data.splits import ForecastData
from stride_jax.decoding.base import num_patches
from stride_jax.decoding.rules import RULES, find_rule
from stride_jax.errors import InputError
from stride_jax.evaluation import benchmark
from stride_jax.evaluation.config import EvaluateConfig
from stride_jax.evaluation.methods import check_draft, make_methods, make_pairs
from stride_jax.evaluation.scoring import Method, Own, Scores, score

LENGTHS = (1, 2, 3, 5, 8)
"""K that are tried, see `lengths`."""
TOLERANCES = (0.02, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4)
"""Tolerances that are tried with the rules that have one."""


def kinds(target: Checkpoint, config: EvaluateConfig) -> list[ProcessKind]:
    """The processes to choose from: as asked, or both where the model allows."""
    if config.process != "auto":
        return [config.process]
    leaks = target.model.covariate and target.model.covariate_mask == "original"
    return ["window"] if leaks else ["cached", "window"]


def lengths(patches: int) -> list[int]:
    """The K to try for a forecast of so many patches: a round gives K + 1, and more is waste."""
    return sorted({min(k, max(1, patches - 1)) for k in LENGTHS})


def candidates(
    config: EvaluateConfig, kind: ProcessKind, sampled: bool, num_drafts: Sequence[int]
) -> Iterator[EvaluateConfig]:
    """Every setting of one process: each has one rule, one K and one tolerance."""
    for rule in config.rules:
        if sampled == (find_rule(rule).proposes == "mean"):
            continue
        tolerances = TOLERANCES if rule in ("mean", "shared_noise") else (config.tolerance,)
        for num_draft in num_drafts:
            for tolerance in tolerances:
                yield dataclasses.replace(
                    config, process=kind, rules=(rule,), num_draft=num_draft, tolerance=tolerance
                )


def calibrate(
    config: EvaluateConfig,
    data: ForecastData,
    target: Checkpoint,
    *,
    sampled: bool,
    budget: float,
    progress: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Measures every setting on validation windows and picks the fastest within the budget.

    K = 0, the target alone, is among them under each process. The error of a setting (MSE of mean
    paths, CRPS of sample paths) is taken relative to the most accurate of those; an exact rule has
    the error of its own process by construction, so none is measured for it.

    Args:
        config: data, draft, rules, sigma, batch_size and timing_batch; the longest horizon.
            With `budget_distance` a setting must also be that close to the target's own forecast.
        data: see `data.splits.prepare`.
        target: the trained target.
        sampled: sample paths, not mean paths.
        budget: relative error that is allowed, such as .005.
        progress: called with a line on what is being done.

    Returns:
        rows (one a setting), chosen (its row) and `pays`, whether its K is above 0.

    Raises:
        InputError: a negative budget, no rule or paths of the wanted kind, or too short a
            validation split.
    """
    if not budget >= 0:
        raise InputError(f"budget must be at least 0, got {budget}.")
    if sampled and config.num_paths == 0:
        raise InputError("there are no sample paths to choose by; set num_paths to 2 or more.")
    held_out = data._replace(splits=data.splits._replace(test=data.splits.validation))
    bench = _Bench(config, held_out, sampled)
    rows, sigmas = [], {}
    for kind in kinds(target, config):
        chosen = dataclasses.replace(config, process=kind, other_drafts=())
        pairs = make_pairs(chosen, target, len(data.names))
        sigma = benchmark.sigma_of(config, data, pairs[config.draft].target)
        sigmas[kind] = np.asarray(sigma).tolist()
        size = 1 if config.data.variables == "separate" else len(data.names)
        useful = lengths(num_patches(bench.horizon, target.model.patch_len))
        usable = [k for k in useful if _proposes(pairs[config.draft], config, size, k)]
        settings = list(candidates(config, kind, sampled, usable))
        if not settings:
            what = "sample paths" if sampled else "mean paths (such as mean)"
            raise InputError(f"none of the rules {list(config.rules)} makes {what}; add one.")
        alone_with = dataclasses.replace(chosen, rules=(), num_draft=max(usable))
        settings = [alone_with, *settings]
        made = [make_methods(pairs, None, kind, s, bench.horizon, sigma) for s in settings]
        wanted = [[m for m in methods if m.sampled == sampled] for methods in made]
        alone, draft = wanted[0]
        picked = [alone, *(speculative for _, _, speculative in wanted[1:])]
        progress(f"{kind}: timing {len(picked)} settings")
        times = benchmark.time_methods(picked, bench.key, bench.contexts)
        own = bench.own(alone, draft)
        for method, setting, (seconds, _) in zip(picked, settings, times, strict=True):
            progress(f"{kind} {method.rule or 'target alone'} K = {method.num_draft or 0}")
            rows.append(bench.row(method, setting.tolerance, seconds, own))
    least = min(row["error"] for row in rows if row["num_draft"] == 0)
    for row in rows:
        row["relative_error"] = row["error"] / least - 1
    within = [row for row in rows if row["relative_error"] <= budget and _close(row, config)]
    best = min(within, key=lambda row: float(row["seconds"]))
    return {"rows": rows, "chosen": best, "pays": best["num_draft"] > 0, "sigma": sigmas}


class _Bench:
    """One set of windows, to time and score methods on."""

    def __init__(self, config: EvaluateConfig, data: ForecastData, sampled: bool) -> None:
        self.config, self.error = config, "crps" if sampled else "mse"
        self.horizon, self.values = max(config.horizons), data.on_device
        self.windows = benchmark.test_windows(config, data, self.horizon)
        sizes = self.values, self.windows, self.horizon
        self.contexts = benchmark.timing_contexts(config, *sizes)
        self.key = jax.random.key(config.seed)

    def score(self, method: Method, reference: np.ndarray | None) -> tuple[Scores, np.ndarray]:
        return score(
            method, self.key, self.values, self.windows, self.horizon, self.config, reference
        )

    def own(self, alone: Method, draft: Method) -> Own:
        scores, forecasts = self.score(alone, None)
        return Own(scores, forecasts, self.score(draft, forecasts)[0]["distance"])

    def row(self, method: Method, tolerance: float, seconds: float, own: Own) -> dict[str, Any]:
        """The row of a setting; an exact rule is not scored, its error is the target's own."""
        scores: Scores = {}
        if method.rule is None:
            scores = own.scores
        elif not RULES[method.rule].exact:
            scores, _ = self.score(method, own.forecasts)
        return {
            "process": method.process,
            "rule": method.rule,
            "num_draft": method.num_draft or 0,
            "tolerance": tolerance if method.rule in ("mean", "shared_noise") else None,
            "error": (scores or own.scores)[self.error],
            "distance_over_drafts": own.share(scores),
            "target_passes": scores.get("target_passes"),
            "seconds": seconds,
        }


def _close(row: dict[str, Any], config: EvaluateConfig) -> bool:
    """Within `budget_distance`; exact rules and the target alone always are."""
    share = row["distance_over_drafts"]
    return share is None or config.budget_distance is None or share <= config.budget_distance


def _proposes(pair: Pair, config: EvaluateConfig, num_vars: int, num_draft: int) -> bool:
    """Whether the draft can propose K patches at once."""
    try:
        check_draft(pair, config.data.context_len, num_vars, num_draft)
    except InputError:
        return False
    return True


def apply(config: EvaluateConfig, chosen: dict[str, Any]) -> EvaluateConfig:
    """The evaluation with the setting that was picked; no speculative rows where K is 0."""
    return dataclasses.replace(
        config,
        process=chosen["process"],
        rules=(chosen["rule"],) if chosen["num_draft"] else (),
        num_draft=max(1, chosen["num_draft"]),
        tolerance=config.tolerance if chosen["tolerance"] is None else chosen["tolerance"],
    )
