"""Scores and times the decoders on one test set: the rows of `results.json`."""

from __future__ import annotations

import functools
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.checkpoints.build import Pair, ProcessKind, make_target
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.config import to_dict
from stride_jax.data.gaps import Gaps
from stride_jax.data.splits import ForecastData
from stride_jax.data.windows import Windows, make_windows, padded_batches
from stride_jax.decoding.base import Process
from stride_jax.decoding.rules import find_rule
from stride_jax.errors import InputError
from stride_jax.evaluation.config import EvaluateConfig
from stride_jax.evaluation.methods import check_draft, make_methods, make_pairs, process_kind
from stride_jax.evaluation.scoring import Method, Scores, gather, score
from stride_jax.forecasting.sigma import calibrate_scale, calibrate_sigma


def time_methods(
    methods: list[Method], key: jax.Array, contexts: list[jax.Array]
) -> list[tuple[float, float]]:
    """`time_in_turns` of the decoders, `(median seconds, seconds of the first call)` each.

    How long a speculative decode takes depends on the series and on its draws, so every repeat has
    other windows and a key of its own, `fold_in(key, repeat)`, the same for all methods.

    Args:
        methods: who decodes.
        key: folded, not consumed.
        contexts: `[B, L, C]` for the first call and for each repeat.
    """
    index = jnp.arange(len(contexts[0]))
    keys = [jax.block_until_ready(jax.random.fold_in(key, n)) for n in range(len(contexts))]

    def once(method: Method, number: int) -> Any:
        return method.decode(keys[number], contexts[number], index, None, False)

    calls = [functools.partial(once, method) for method in methods]
    return time_in_turns(calls, len(contexts) - 1)


def time_in_turns(calls: Sequence[Callable[[int], Any]], repeats: int) -> list[tuple[float, float]]:
    """`(median seconds of call(1) ... call(repeats), seconds of call(0))` of each call.

    Results are awaited. The first call compiles. The repeats take turns: a machine that slows down
    for a while then slows all of them, not the one that was its turn.
    """
    taken: list[list[float]] = [[] for _ in calls]
    for number in range(repeats + 1):
        for call, seconds in zip(calls, taken, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(call(number))
            seconds.append(time.perf_counter() - start)
    return [(statistics.median(seconds[1:]), seconds[0]) for seconds in taken]


def evaluate(
    config: EvaluateConfig,
    data: ForecastData,
    target: Checkpoint,
    progress: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """All rows of an evaluation, with the hardware, versions, config and key they came from.

    Args:
        config: what to run.
        data: see `data.splits.prepare`.
        target: the trained target; the drafts are found by the names in the config.
        progress: called with a line on what is being done.

    Returns:
        A dictionary with rows (a list), sigma, hardware, versions, config and key.
    """
    _check_rules(config)
    pairs, kind, other = contestants(config, data, target)
    split = {horizon: test_windows(config, data, horizon) for horizon in config.horizons}
    machine, values = environment(), data.on_device
    missing = missing_truths(config, values, split, progress)
    sigma = sigma_of(config, data, next(iter(pairs.values())).target)
    spread = float(jnp.sqrt(jnp.mean(jnp.square(jnp.asarray(sigma)))))
    key, rows = jax.random.key(config.seed), []
    for horizon, windows in split.items():
        contexts = timing_contexts(config, values, windows, horizon)
        reference: dict[tuple[bool, str], np.ndarray] = {}
        chosen = make_methods(pairs, other, kind, config, horizon, sigma)
        progress(f"horizon {horizon}: timing {len(chosen)} decoders")
        times = time_methods(chosen, key, contexts)
        for method, took in zip(chosen, times, strict=True):
            label = " ".join(x for x in (method.name, method.rule, method.draft) if x)
            progress(f"horizon {horizon}: {label}, {windows.count} windows")
            own = reference.get((method.sampled, method.process))
            scores, made = score(method, key, values, windows, horizon, config, own)
            reference.setdefault((method.sampled, method.process), made)
            rows.append(_row(config, method, horizon, windows.count, spread, scores, took))
    for row in rows:
        row.update(speedups(row, rows))
    return {
        "table": "evaluation",
        "rows": rows,
        "timed": f"median of {config.repeats} repeats, each on other windows",
        "sigma": spread,
        **missing,
        "seasonal_naive": {
            str(horizon): naive_scores(config, values, windows, horizon)
            for horizon, windows in split.items()
        },
        **machine,
        "config": to_dict(config),
        "key": config.seed,
    }


def check_paths(config: EvaluateConfig, rule: str) -> None:
    """Raises InputError for an unknown rule, or one that samples where there are to be no paths."""
    sampled = find_rule(rule).proposes != "mean"
    if sampled and config.num_paths == 0:
        raise InputError(f"rule {rule!r} draws sample paths; set num_paths to 2 or more.")


def contestants(
    config: EvaluateConfig, data: ForecastData, target: Checkpoint
) -> tuple[dict[str, Pair], ProcessKind, Process | None]:
    """The pairs by the draft's name, their process, the target's other one if it is a baseline.

    Raises:
        InputError: see `make_pairs` and `check_draft`.
    """
    pairs, kind = make_pairs(config, target, len(data.names)), process_kind(config, target)
    size = 1 if config.data.variables == "separate" else len(data.names)
    for pair in pairs.values():
        check_draft(pair, config.data.context_len, size, config.num_draft)
    if not config.both_baselines:
        return pairs, kind, None
    elsewhere: ProcessKind = "window" if kind == "cached" else "cached"
    return pairs, kind, make_target(target, elsewhere, config.data.context_len, size)


def _check_rules(config: EvaluateConfig) -> None:
    """Raises InputError for what the config alone shows to be impossible."""
    for rule in config.rules:
        found = find_rule(rule)
        check_paths(config, rule)
        if config.learned_scale and found.proposes == "sample" and found.scales == "tied":
            raise InputError(
                f"learned_scale lets variances differ, which rule {rule!r} does not allow; use "
                "--rules residual."
            )
    if config.season > config.data.context_len:
        raise InputError(
            f"season {config.season} is longer than data.context_len {config.data.context_len}; "
            "set --season to what repeats."
        )


def _row(
    config: EvaluateConfig,
    method: Method,
    horizon: int,
    windows: int,
    sigma: float,
    scores: Scores,
    took: tuple[float, float],
) -> dict[str, Any]:
    """One row; `took` is `(median seconds, seconds of the first call)`."""
    return {
        "method": method.name,
        "kind": "sampled" if method.sampled else "point",
        "data": config.data.source,
        "context": config.data.context_len,
        "horizon": horizon,
        "windows": windows,
        "batch": config.timing_batch,
        "process": method.process,
        "draft": method.draft,
        "rule": method.rule,
        "sigma": sigma if method.sampled else 0.0,
        "num_draft": method.num_draft,
        "num_paths": config.num_paths if method.sampled else None,
        **scores,
        "seconds": took[0],
        "compile_seconds": took[1] - took[0],
    }


def missing_truths(
    config: EvaluateConfig,
    values: jax.Array | Gaps,
    split: dict[int, Windows],
    progress: Callable[[str], object],
) -> dict[str, Any]:
    """How many truths of each horizon's windows were not observed, said and for the results.

    Returns:
        `{"missing_truths": {horizon: {"missing": ..., "truths": ...}}}`; `{}` without gaps.
    """
    if not isinstance(values, Gaps):
        return {}
    found = {}
    for horizon, windows in split.items():
        missing = truths = 0
        for index, weight in zip(*padded_batches(windows.count, config.batch_size), strict=True):
            truth = np.asarray(gather(values, index, windows))[np.asarray(weight) > 0, -horizon:]
            missing, truths = missing + int(np.isnan(truth).sum()), truths + truth.size
        found[str(horizon)] = {"missing": missing, "truths": truths}
        progress(f"horizon {horizon}: {missing} of {truths} truths are missing, not scored")
    return {"missing_truths": found}


def timing_windows(
    config: EvaluateConfig, values: jax.Array | Gaps, windows: Windows
) -> list[jax.Array]:
    """Windows spread over the test split, `[timing_batch, L + H, C]` a timed call."""
    size = config.timing_batch, config.repeats + 1
    spaced = np.linspace(0, windows.count - 1, size[0] * size[1]).astype(int)
    # [B * calls] -> [B, calls] -> [calls, B]: the windows of a call lie far apart
    numbers = jnp.asarray(spaced.reshape(size).T)
    return [gather(values, row, windows) for row in numbers]


def timing_contexts(
    config: EvaluateConfig, values: jax.Array | Gaps, windows: Windows, horizon: int
) -> list[jax.Array]:
    """Their contexts, `[timing_batch, L, C]` a timed call."""
    return [series[:, :-horizon] for series in timing_windows(config, values, windows)]


def naive_scores(
    config: EvaluateConfig, values: jax.Array | Gaps, windows: Windows, horizon: int
) -> dict[str, float]:
    """MSE and MAE of repeating the last `config.season` steps, over every window.

    Missing truths do not count.
    """
    totals, scored = {"mse": 0.0, "mae": 0.0}, 0.0
    for start in range(0, windows.count, config.batch_size):
        index = jnp.arange(start, min(start + config.batch_size, windows.count))
        series = np.asarray(gather(values, index, windows))
        past = series[:, :-horizon][:, -config.season :]
        error = past[:, np.arange(horizon) % config.season] - series[:, -horizon:]
        seen = ~np.isnan(error)
        error, scored = np.where(seen, error, 0), scored + float(seen.mean(axis=(1, 2)).sum())
        totals["mse"] += float(np.mean(np.square(error), axis=(1, 2)).sum())
        totals["mae"] += float(np.mean(np.abs(error), axis=(1, 2)).sum())
    return {name: total / scored for name, total in totals.items()}


def speedups(row: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Over the target's autoregressive decode: that of the same process, and the fastest one.

    Both of the same kind, horizon and batch.
    """
    bases = [
        r
        for r in rows
        if r["method"] == "autoregressive"
        and (r["kind"], r["horizon"]) == (row["kind"], row["horizon"])
    ]
    same = next(r for r in bases if r["process"] == row["process"])
    fastest = min(bases, key=lambda r: float(r["seconds"]))
    return {
        "speedup": same["seconds"] / row["seconds"],
        "speedup_over": f"autoregressive {row['kind']}, {row['process']} process, same batch",
        "speedup_over_fastest": fastest["seconds"] / row["seconds"],
        "fastest": f"autoregressive {row['kind']}, {fastest['process']} process, same batch",
    }


def test_windows(config: EvaluateConfig, data: ForecastData, horizon: int) -> Windows:
    """The scored windows of one horizon."""
    return make_windows(
        data.splits.test,
        config.data.context_len + horizon,
        data.values.shape[1],
        separate=config.data.variables == "separate",
        stride=config.stride,
        ahead=horizon,
    )


def sigma_of(config: EvaluateConfig, data: ForecastData, target: Process) -> float | jax.Array:
    """The sigma given, or the calibrated one: a number, or `[P, C]` if it is diagonal."""
    if config.sigma is not None:
        return config.sigma
    windows = make_windows(
        data.splits.validation,
        config.data.context_len + target.patch_len,
        data.values.shape[1],
        separate=config.data.variables == "separate",
        stride=config.calibration_stride,
        ahead=target.patch_len,
    )
    calibrated = calibrate_scale if config.diagonal_sigma else calibrate_sigma
    return calibrated(target, data.on_device, windows, config.batch_size)


def environment() -> dict[str, Any]:
    """Hardware and versions, for the results file."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    packages = ("stride-jax", "jax", "jaxlib", "flax", "numpy")
    return {
        "hardware": {
            "device": jax.devices()[0].device_kind,
            "platform": jax.default_backend(),
            "devices": jax.device_count(),
            "cpu": model,
            "cores": os.cpu_count(),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in packages},
        },
    }
