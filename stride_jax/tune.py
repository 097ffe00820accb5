"""Choosing process, rule, K and tolerance on the validation split, by measured time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax import benchmark
from stride_jax.checkpoints import Checkpoint
from stride_jax.config_evaluate import EvaluateConfig
from stride_jax.coupling import RULES, find_rule
from stride_jax.data.splits import ForecastData
from stride_jax.errors import InputError
from stride_jax.pairs import Pair, ProcessKind
from stride_jax.scoring import Method, score

LENGTHS = (1, 2, 3, 5, 8)
"""K that are tried."""
TOLERANCES = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Tolerances that are tried with the rules that have one."""


def kinds(target: Checkpoint, config: EvaluateConfig) -> list[ProcessKind]:
    """The processes to choose from: as asked, or both where the model allows."""
    if config.process != "auto":
        return [config.process]
    leaks = target.model.covariate and target.model.covariate_mask == "original"
    return ["window"] if leaks else ["cached", "window"]


def candidates(
    config: EvaluateConfig, kind: ProcessKind, sampled: bool
) -> Iterator[EvaluateConfig]:
    """Every setting of one process: each has one rule, one K and one tolerance."""
    for rule in config.rules:
        if sampled == (find_rule(rule).proposes == "mean"):
            continue
        tolerances = TOLERANCES if rule in ("mean", "shared_noise") else (config.tolerance,)
        for num_draft in LENGTHS:
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
        data: see `data.splits.prepare`.
        target: the trained target.
        sampled: sample paths, not mean paths.
        budget: relative error that is allowed, such as .005.
        progress: called with a line on what is being done.

    Returns:
        rows (one a setting), chosen (its row) and `pays`, whether its K is above 0.

    Raises:
        InputError: a negative budget, or too short a validation split.
    """
    if not budget >= 0:
        raise InputError(f"budget must be at least 0, got {budget}.")
    horizon, values = max(config.horizons), jnp.asarray(data.values)
    held_out = data._replace(splits=data.splits._replace(test=data.splits.validation))
    windows = benchmark.test_windows(config, held_out, horizon)
    context = benchmark.timing_context(config, values, windows, horizon)
    key, rows, sigmas = jax.random.key(config.seed), [], {}

    def measure(method: Method, setting: EvaluateConfig, error: float | None) -> dict[str, Any]:
        progress(f"{setting.process} {method.rule or 'target alone'} K = {method.num_draft or 0}")
        seconds, _ = benchmark.time_decode(method, key, context, config.repeats)
        passes = None
        if error is None:
            scores, _ = score(method, key, values, windows, horizon, config)
            error = scores["crps" if sampled else "mse"]
            passes = scores["target_passes"]
        return {
            "process": setting.process,
            "rule": method.rule,
            "num_draft": method.num_draft or 0,
            "tolerance": setting.tolerance if method.rule in ("mean", "shared_noise") else None,
            "error": error,
            "target_passes": passes,
            "seconds": seconds,
        }

    for kind in kinds(target, config):
        chosen = dataclasses.replace(config, process=kind)
        pairs = benchmark.make_pairs(chosen, target, len(data.names))
        process = next(iter(pairs.values())).target
        sigmas[kind] = benchmark.sigma_of(config, data, process)
        own: float | None = None
        size = 1 if config.data.variables == "separate" else len(data.names)
        usable = [k for k in LENGTHS if _proposes(pairs[config.draft], config, size, k)]
        settings = [s for s in candidates(config, kind, sampled) if s.num_draft in usable]
        for setting in [dataclasses.replace(chosen, rules=()), *settings]:
            made = benchmark.methods(pairs, None, kind, setting, horizon, sigmas[kind])
            alike = [m for m in made if m.sampled == sampled and m.draft in (None, config.draft)]
            method = next((m for m in alike if m.name == "speculative"), alike[0])
            exact = method.rule is not None and RULES[method.rule].exact
            row = measure(method, setting, own if exact else None)
            own = row["error"] if own is None else own
            rows.append(row)
    least = min(row["error"] for row in rows if row["num_draft"] == 0)
    for row in rows:
        row["relative_error"] = row["error"] / least - 1
    within = [row for row in rows if row["relative_error"] <= budget]
    best = min(within, key=lambda row: float(row["seconds"]))
    return {
        "rows": rows,
        "chosen": best,
        "pays": best["num_draft"] > 0,
        "sigma": {kind: np.asarray(sigma).tolist() for kind, sigma in sigmas.items()},
    }


def _proposes(pair: Pair, config: EvaluateConfig, num_vars: int, num_draft: int) -> bool:
    """Whether the draft can propose K patches at once."""
    try:
        benchmark.check_draft(pair, config.data.context_len, num_vars, num_draft)
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
