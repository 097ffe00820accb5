"""Scores and times the decoders on one test set: the rows of `results.json`."""

from __future__ import annotations

import dataclasses
import functools
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax import metrics
from stride_jax.autoregressive import decode_autoregressive
from stride_jax.calibrate import calibrate_sigma
from stride_jax.checkpoints import Checkpoint, check_trained_context
from stride_jax.config import DecodeConfig, EvaluateConfig, check_context
from stride_jax.config_json import to_dict
from stride_jax.coupling import RuleParams, find_rule
from stride_jax.data.splits import ForecastData
from stride_jax.data.windows import Windows, make_windows, padded_batches
from stride_jax.decoding import DecodeInfo
from stride_jax.errors import InputError
from stride_jax.models.timer_xl import make_predict
from stride_jax.processes import WindowProcess, window_process
from stride_jax.speculative import decode_speculative

Decode = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, DecodeInfo]]
"""`(key, context [B, L, C], series_index [B]) -> (forecast [B, H, C], info)`."""


class Pair(NamedTuple):
    """A target and a draft, ready to decode."""

    target: WindowProcess
    draft: WindowProcess


class Method(NamedTuple):
    """One row to be: who decodes, and what is written down of it.

    Attributes:
        name: autoregressive, draft or speculative.
        sampled: sample paths rather than the mean path.
        rule: coupling rule, or None.
        decode: the decoder.
    """

    name: str
    sampled: bool
    rule: str | None
    decode: Decode


def make_pair(target: Checkpoint, draft: Checkpoint, context_len: int) -> Pair:
    """Processes of the two models on a context of `context_len` steps.

    Raises:
        InputError: different patch lengths, or a context the models cannot take.
    """
    patch_len = target.model.patch_len
    if draft.model.patch_len != patch_len:
        raise InputError(
            f"target and draft must share a patch length, got {patch_len} and "
            f"{draft.model.patch_len}."
        )
    check_context(context_len, patch_len)
    check_trained_context(target, context_len)
    if draft.context_len and draft.context_len > context_len:
        raise InputError(
            f"the draft was trained on a context of {draft.context_len} steps, longer than "
            f"data.context_len {context_len}."
        )
    short = draft.context_len if draft.context_len and draft.context_len < context_len else None
    return Pair(
        window_process(make_predict(target.model, target.params), patch_len),
        window_process(make_predict(draft.model, draft.params), patch_len, context_len=short),
    )


def methods(pair: Pair, config: EvaluateConfig, horizon: int, sigma: float) -> list[Method]:
    """The rows of one horizon: point rows first, then sampled ones."""
    decode = DecodeConfig(horizon, config.num_draft)

    def alone(process: WindowProcess, spread: float) -> Decode:
        return lambda key, context, index: decode_autoregressive(
            key, context, target=process, sigma=spread, config=decode, series_index=index
        )

    def speculative(rule: str) -> Decode:
        chosen = dataclasses.replace(decode, rule=rule)
        params = RuleParams(config.bias, config.tolerance)
        return lambda key, context, index: decode_speculative(
            key,
            context,
            target=pair.target,
            draft=pair.draft,
            sigma=sigma,
            config=chosen,
            params=params,
            series_index=index,
        )

    return [
        Method("autoregressive", False, None, alone(pair.target, 0.0)),
        Method("draft", False, None, alone(pair.draft, 0.0)),
        Method("autoregressive", True, None, alone(pair.target, sigma)),
        Method("draft", True, None, alone(pair.draft, sigma)),
        *(Method("speculative", True, rule, speculative(rule)) for rule in config.rules),
    ]


def score(
    method: Method,
    key: jax.Array,
    values: jax.Array,
    windows: Windows,
    horizon: int,
    config: EvaluateConfig,
) -> dict[str, float | None]:
    """MSE, MAE, CRPS and counts over every window; no batch is dropped.

    A sampled row's MSE and MAE are those of single paths, averaged (what the original's logs
    score); `mse_of_mean` is that of the mean of its paths. `key` is folded with the path's number.
    """
    totals: dict[str, float] = {}

    def add(name: str, value: Any) -> None:
        totals[name] = totals.get(name, 0.0) + float(value)

    num_paths = config.num_paths if method.sampled else 1
    for index, weight in zip(*padded_batches(windows.count, config.batch_size), strict=True):
        series = _gather(values, index, windows)
        context, truth = series[:, :-horizon], series[:, -horizon:]
        paths, infos = [], []
        for path in range(num_paths):
            forecast, info = method.decode(jax.random.fold_in(key, path), context, index)
            paths.append(forecast)
            infos.append(info)
        for name, value in _sums(jnp.stack(paths), truth, weight).items():
            add(name, value)
        real = np.asarray(weight) > 0
        for info in infos:
            for name in ("accepted", "proposed", "rounds", "target_passes"):
                add(name, np.sum(np.asarray(getattr(info, name))[real]))
            add("patches", info.kind[real].size)
    count, decoded = windows.count, windows.count * num_paths
    speculative = method.name == "speculative"
    return {
        "mse": totals["mse"] / count,
        "mae": totals["mae"] / count,
        "mse_of_mean": totals["mse_of_mean"] / count if method.sampled else None,
        "crps": totals["crps"] / count if method.sampled else None,
        "acceptance": totals["accepted"] / totals["proposed"] if speculative else None,
        "patches_per_round": totals["patches"] / totals["rounds"] if speculative else None,
        "target_passes": 0.0 if method.name == "draft" else totals["target_passes"] / decoded,
    }


@functools.partial(jax.jit, static_argnames="windows")
def _gather(values: jax.Array, index: jax.Array, windows: Windows) -> jax.Array:
    return windows.gather(values, index)


@jax.jit
def _sums(paths: jax.Array, truth: jax.Array, weight: jax.Array) -> dict[str, jax.Array]:
    """Weighted sums over `[B]` windows; paths `[S, B, H, C]`, truth `[B, H, C]`."""
    by_path = jax.vmap(jax.vmap(metrics.mse), in_axes=(0, None))
    abs_by_path = jax.vmap(jax.vmap(metrics.mae), in_axes=(0, None))
    by_window = {
        "mse": jnp.mean(by_path(paths, truth), axis=0),
        "mae": jnp.mean(abs_by_path(paths, truth), axis=0),
        "mse_of_mean": jax.vmap(metrics.mse)(jnp.mean(paths, axis=0), truth),
    }
    if paths.shape[0] > 1:
        by_window["crps"] = jax.vmap(metrics.crps, in_axes=(1, 0))(paths, truth)
    return {name: jnp.sum(weight * value) for name, value in by_window.items()}


def time_decode(
    method: Method, key: jax.Array, context: jax.Array, repeats: int
) -> tuple[float, float]:
    """`(median seconds of a call, seconds of the first call)`; the first one compiles.

    How long a speculative decode takes depends on its draws, so every repeat has a key of its own,
    `fold_in(key, repeat)`.
    """
    index = jnp.arange(context.shape[0])

    def once(repeat: int) -> float:
        folded = jax.block_until_ready(jax.random.fold_in(key, repeat))
        start = time.perf_counter()
        jax.block_until_ready(method.decode(folded, context, index))
        return time.perf_counter() - start

    first = once(0)
    return statistics.median(once(repeat) for repeat in range(1, repeats + 1)), first


def evaluate(
    config: EvaluateConfig,
    data: ForecastData,
    pair: Pair,
    progress: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """All rows of an evaluation, with the hardware, versions, config and key they came from.

    Args:
        config: what to run.
        data: see `data.splits.prepare`.
        pair: see `make_pair`.
        progress: called with a line on what is being done.

    Returns:
        A dictionary with rows (a list), sigma, hardware, versions, config and key.
    """
    for rule in config.rules:
        find_rule(rule)
    split = {horizon: test_windows(config, data, horizon) for horizon in config.horizons}
    machine, values = environment(), jnp.asarray(data.values)
    sigma = config.sigma or sigma_of(config, data, pair)
    rows = []
    for horizon, windows in split.items():
        spaced = np.linspace(0, windows.count - 1, config.timing_batch).astype(int)
        context = _gather(values, jnp.asarray(spaced), windows)[:, :-horizon]
        for number, method in enumerate(methods(pair, config, horizon, sigma)):
            label = method.rule or method.name
            progress(f"horizon {horizon}: {label}, {windows.count} windows")
            key = jax.random.key(config.seed)
            seconds, first = time_decode(method, key, context, config.repeats)
            key = jax.random.fold_in(key, number)
            scores = score(method, key, values, windows, horizon, config)
            rows.append(
                {
                    "method": method.name,
                    "kind": "sampled" if method.sampled else "point",
                    "data": config.data.source,
                    "context": config.data.context_len,
                    "horizon": horizon,
                    "windows": windows.count,
                    "batch": config.timing_batch,
                    "process": "window",
                    "rule": method.rule,
                    "sigma": sigma if method.sampled else 0.0,
                    "num_draft": config.num_draft if method.rule else None,
                    "num_paths": config.num_paths if method.sampled else None,
                    **scores,
                    "seconds": seconds,
                    "compile_seconds": first - seconds,
                }
            )
    for row in rows:
        row.update(_speedup(row, rows))
    return {
        "rows": rows,
        "sigma": sigma,
        **machine,
        "config": to_dict(config),
        "key": config.seed,
    }


def _speedup(row: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Over the target's autoregressive decode of the same kind, horizon and batch."""
    base = next(
        r
        for r in rows
        if r["method"] == "autoregressive"
        and (r["kind"], r["horizon"]) == (row["kind"], row["horizon"])
    )
    return {
        "speedup": base["seconds"] / row["seconds"],
        "speedup_over": f"autoregressive {row['kind']}, window process, same batch",
    }


def test_windows(config: EvaluateConfig, data: ForecastData, horizon: int) -> Windows:
    """The scored windows of one horizon."""
    return make_windows(
        data.splits.test,
        config.data.context_len + horizon,
        data.values.shape[1],
        separate=config.data.variables == "separate",
        stride=config.stride,
    )


def sigma_of(config: EvaluateConfig, data: ForecastData, pair: Pair) -> float:
    """The calibrated sigma."""
    windows = make_windows(
        data.splits.validation,
        config.data.context_len + pair.target.patch_len,
        data.values.shape[1],
        separate=config.data.variables == "separate",
        stride=config.stride,
    )
    return calibrate_sigma(pair.target, jnp.asarray(data.values), windows, config.batch_size)


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
