"""One pair by batch size: how long each decoder takes, how much is accepted where, how much memory.

Errors do not depend on the batch and are measured by `benchmark.evaluate`.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.config import to_dict
from stride_jax.data.gaps import Gaps
from stride_jax.data.splits import ForecastData
from stride_jax.data.windows import Windows
from stride_jax.evaluation import benchmark
from stride_jax.evaluation.config import EvaluateConfig, SpeedConfig
from stride_jax.evaluation.methods import make_methods
from stride_jax.evaluation.scoring import Method, Tally


def measure(
    config: SpeedConfig,
    data: ForecastData,
    target: Checkpoint,
    progress: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Times every decoder of a pair at every batch size; all of them in turns on the same windows.

    Args:
        config: what to run.
        data: see `data.splits.prepare`.
        target: the trained target; the drafts are found by their names.
        progress: called with a line on what is being done.

    Returns:
        A dictionary with rows (a list), sigma, hardware, versions and config.

    Raises:
        InputError: an unknown rule, or a K that a draft cannot propose.
    """
    base, machine = config.base, benchmark.environment()
    pairs, kind, other = benchmark.contestants(base, data, target)
    horizon = max(base.horizons)
    windows = benchmark.test_windows(base, data, horizon)
    sigma = benchmark.sigma_of(base, data, next(iter(pairs.values())).target)
    methods = make_methods(pairs, other, kind, base, horizon, sigma)
    rows: list[dict[str, Any]] = []
    for batch in config.batches:
        progress(f"batch {batch}: {len(methods)} decoders")
        sized = dataclasses.replace(base, timing_batch=batch, repeats=config.repeats)
        found = _one_batch(methods, sized, data.on_device, windows, horizon)
        rows += [{**row, **benchmark.speedups(row, found)} for row in found]
        jax.clear_caches()  # another batch size is another program
    spread = float(jnp.sqrt(jnp.mean(jnp.square(jnp.asarray(sigma)))))
    return {"table": "speed", "rows": rows, "sigma": spread, **machine, "config": to_dict(config)}


def _one_batch(
    methods: list[Method],
    config: EvaluateConfig,
    values: jax.Array | Gaps,
    windows: Windows,
    horizon: int,
) -> list[dict[str, Any]]:
    """The rows of one batch size."""
    tallies = [Tally(method, 1) for method in methods]
    seconds: list[list[float]] = [[] for _ in methods]
    index, weight = jnp.arange(config.timing_batch), jnp.ones(config.timing_batch)
    series = benchmark.timing_windows(config, values, windows)
    for number, whole in enumerate(series):
        context, truth = whole[:, :-horizon], whole[:, -horizon:]
        key = jax.block_until_ready(jax.random.key(config.seed + number))
        for method, tally, taken in zip(methods, tallies, seconds, strict=True):
            start = time.perf_counter()
            made, info = jax.block_until_ready(method.decode(key, context, index, 1, False))
            taken.append(time.perf_counter() - start)
            if number > 0:  # the first one compiles
                tally.add(made, info, truth, weight)
    rows = []
    for method, tally, taken in zip(methods, tallies, seconds, strict=True):
        scores, median = tally.scores(None), statistics.median(taken[1:])
        rows.append(
            {
                "method": method.name,
                "kind": "sampled" if method.sampled else "point",
                "process": method.process,
                "draft": method.draft,
                "rule": method.rule,
                "num_draft": method.num_draft,
                "horizon": horizon,
                "batch": config.timing_batch,
                **{name: scores[name] for name in SHOWN},
                "seconds": median,
                "compile_seconds": taken[0] - median,
                "memory_bytes": memory(method, series[0][:, :-horizon]),
            }
        )
    return rows


SHOWN = ("target_passes", "patches_per_round", "acceptance", "acceptance_by_place")
"""Counts of a row."""


def memory(method: Method, context: jax.Array) -> int:
    """Bytes a compiled decode holds: inputs (parameters among them), results, scratch.

    What the compiler planned, not what the allocator took.
    """

    def decode(decoder: Any, key: jax.Array, context: jax.Array, index: jax.Array) -> Any:
        return decoder(key, context, index, 1, False)

    inputs = method.decode, jax.random.key(0), context, jnp.arange(len(context))
    planned = jax.jit(decode).lower(*inputs).compile().memory_analysis()
    parts = "argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes"
    return sum(getattr(planned, part) for part in parts)
