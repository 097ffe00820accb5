"""Scores of one decoding method over every window of a test set."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax import gaussian, metrics
from stride_jax.config_evaluate import EvaluateConfig
from stride_jax.data.windows import Windows, padded_batches
from stride_jax.decoding import DecodeInfo

Decode = Callable[[jax.Array, jax.Array, jax.Array, int | None, bool], tuple[jax.Array, DecodeInfo]]
"""`(key, context [B, L, C], series_index [B], num_paths, trace) -> (forecast, info)`."""


class Method(NamedTuple):
    """One row to be: who decodes, and what is written down of it.

    Attributes:
        name: autoregressive, draft or speculative.
        sampled: sample paths rather than the mean path.
        process: window or cached.
        draft: its name; None for the target alone.
        rule: coupling rule, or None.
        num_draft: K, or None.
        decode: the decoder.
    """

    name: str
    sampled: bool
    process: str
    draft: str | None
    rule: str | None
    num_draft: int | None
    decode: Decode


Scores = dict[str, float | None]


def score(
    method: Method,
    key: jax.Array,
    values: jax.Array,
    windows: Windows,
    horizon: int,
    config: EvaluateConfig,
    reference: np.ndarray | None = None,
) -> tuple[Scores, np.ndarray]:
    """MSE, MAE, CRPS and counts over every window; no batch is dropped.

    A sampled row's MSE and MAE are those of single paths, averaged (what the original's logs
    score); `mse_of_mean` is that of the mean of its paths. With one key for all methods, a path has
    the same noise in each of them.

    Args:
        method: who decodes.
        key: of the paths, folded with the window's number; not consumed.
        values: `[T, C]`.
        windows: what is scored.
        horizon: steps.
        config: batch_size and num_paths.
        reference: the target's own forecasts of the same kind, as returned for it; adds `distance`,
            the mean squared distance from them.

    Returns:
        `(scores, forecasts [windows, S, H, C])`.
    """
    totals: dict[str, float] = {}
    paths = config.num_paths if method.sampled else 1
    speculative = method.name == "speculative"
    forecasts = []
    for index, weight in zip(*padded_batches(windows.count, config.batch_size), strict=True):
        series = gather(values, index, windows)
        context, truth = series[:, :-horizon], series[:, -horizon:]
        forecast, info = method.decode(key, context, index, paths, speculative)
        sums = {**_sums(forecast, truth, weight), **_counts(info, weight)}
        real = np.asarray(weight) > 0
        forecasts.append(np.asarray(forecast)[real])
        for name, value in sums.items():
            totals[name] = totals.get(name, 0.0) + float(value)
    made = np.concatenate(forecasts)
    count, decoded = windows.count, windows.count * paths
    distance = None if reference is None else float(np.mean(np.square(made - reference)))
    scores: Scores = {
        "mse": totals["mse"] / count,
        "mae": totals["mae"] / count,
        "mse_of_mean": totals["mse_of_mean"] / count if method.sampled else None,
        "crps": totals["crps"] / count if method.sampled else None,
        "distance": distance,
        "acceptance": totals["accepted"] / totals["proposed"] if speculative else None,
        "expected_acceptance": totals["expected"] / totals["proposed"] if speculative else None,
        "patches_per_round": totals["patches"] / totals["rounds"] if speculative else None,
        "target_passes": 0.0 if method.name == "draft" else totals["target_passes"] / decoded,
        "drafted": totals["drafted"] / decoded if speculative else None,
        "overflow": totals["overflow"] if speculative else None,
    }
    return scores, made


@functools.partial(jax.jit, static_argnames="windows")
def gather(values: jax.Array, index: jax.Array, windows: Windows) -> jax.Array:
    """The windows of these numbers, `[B, length, C]`."""
    return windows.gather(values, index)


@jax.jit
def _sums(paths: jax.Array, truth: jax.Array, weight: jax.Array) -> dict[str, jax.Array]:
    """Weighted sums over B windows; paths `[B, S, H, C]`, truth `[B, H, C]`."""
    by_path = jax.vmap(jax.vmap(metrics.mse, in_axes=(0, None)))
    abs_by_path = jax.vmap(jax.vmap(metrics.mae, in_axes=(0, None)))
    by_window = {
        "mse": jnp.mean(by_path(paths, truth), axis=1),
        "mae": jnp.mean(abs_by_path(paths, truth), axis=1),
        "mse_of_mean": jax.vmap(metrics.mse)(jnp.mean(paths, axis=1), truth),
    }
    if paths.shape[1] > 1:
        by_window["crps"] = jax.vmap(metrics.crps)(paths, truth)
    return {name: jnp.sum(weight * value) for name, value in by_window.items()}


@jax.jit
def _counts(info: DecodeInfo, weight: jax.Array) -> dict[str, jax.Array]:
    """Sums of the counts over the windows of weight > 0; fields of info lead with `[B, S]`."""
    real = (weight > 0)[:, None]

    def total(x: jax.Array) -> jax.Array:
        shape = (*real.shape, *([1] * (x.ndim - 2)))
        return jnp.sum(jnp.where(real.reshape(shape), x, 0))

    names = ("accepted", "proposed", "rounds", "target_passes", "drafted", "overflow")
    counts = {name: total(getattr(info, name)) for name in names}
    counts["patches"] = total(jnp.ones_like(info.kind))
    if info.trace is not None:
        counts["expected"] = total(_expected(info))
    return counts


def _expected(info: DecodeInfo) -> jax.Array:
    """`2 Phi(-delta / 2)` of every proposal that was tested, `[B, S, R, K]`; 0 elsewhere.

    delta is the trace's RMS gap times the root of the patch's size.
    """
    trace = info.trace
    assert trace is not None
    size = info.proposal.shape[-1] * info.proposal.shape[-2]
    place = jnp.arange(trace.accepted.shape[-1])
    before = jnp.sum(trace.accepted, axis=-1, keepdims=True)  # [B, S, R, 1]
    start = trace.start[..., None]
    place = place.reshape(1, 1, 1, -1)
    within = (
        (start >= 0) & (start + place < info.kind.shape[-1]) & (place < trace.length[..., None])
    )
    tested = within & (place <= before)
    return jnp.where(tested, gaussian.acceptance(trace.gap * jnp.sqrt(size)), 0.0)
