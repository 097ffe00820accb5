"""Scores of one decoding method over every window of a test set."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax import metrics
from stride_jax.data.gaps import Gaps
from stride_jax.data.windows import Windows, padded_batches
from stride_jax.decoding import gaussian
from stride_jax.decoding.base import ACCEPTED, RECOVERED, DecodeInfo
from stride_jax.errors import InputError
from stride_jax.evaluation.config import EvaluateConfig
from stride_jax.sharding import decoding_mesh, place

Decode = Callable[[jax.Array, jax.Array, jax.Array, int | None, bool], tuple[jax.Array, DecodeInfo]]
"""`(key, context [B, L, C], series_index [B], num_paths, trace) -> (forecast, info)`.

Those of `methods` are pytrees of what they trace (parameters, sigma, settings), so that a program
that is compiled around one takes them as inputs."""


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


Scores = dict[str, Any]
"""Numbers by name; None where a method has no such number."""


class Own(NamedTuple):
    """The target alone, which the settings of a pair are compared with.

    Attributes:
        scores: its scores.
        forecasts: its forecasts, `[windows, S, H, C]`.
        draft_distance: the draft's mean squared distance from them.
    """

    scores: Scores
    forecasts: np.ndarray
    draft_distance: float | None

    def share(self, scores: Scores) -> float | None:
        """The distance of other forecasts over the draft's; None where one of them is unknown."""
        distance = scores.get("distance")
        if distance is None or not self.draft_distance:
            return None
        return float(distance / self.draft_distance)


def score(
    method: Method,
    key: jax.Array,
    values: jax.Array | Gaps,
    windows: Windows,
    horizon: int,
    config: EvaluateConfig,
    reference: np.ndarray | None = None,
) -> tuple[Scores, np.ndarray]:
    """MSE, MAE, CRPS and counts over every window; no batch is dropped.

    Missing truths are NaN and do not count; of the others each counts once.

    Each batch is split over the devices of the process, as many as divide it.

    A sampled row's MSE and MAE are those of single paths, averaged (what the original's logs
    score); `mse_of_mean` is that of the mean of its paths. With one key for all methods, a path has
    the same noise in each of them.

    Args:
        method: who decodes.
        key: of the paths, folded with the window's number; not consumed.
        values: `[T, C]`, or with gaps.
        windows: what is scored; `ahead` is the horizon.
        horizon: steps.
        config: batch_size and num_paths.
        reference: the target's own forecasts of the same kind, as returned for it; adds `distance`,
            the mean squared distance from them.

    Returns:
        `(scores, forecasts [windows, S, H, C])`.
    """
    tally = Tally(method, config.num_paths if method.sampled else 1)
    mesh = decoding_mesh(config.batch_size)
    decode = place(method.decode, mesh, split=False)
    for index, weight in zip(*padded_batches(windows.count, config.batch_size), strict=True):
        series = gather(values, index, windows)
        context, truth = series[:, :-horizon], series[:, -horizon:]
        traced = method.name == "speculative"
        inputs = place((context, jnp.asarray(index)), mesh, split=True)
        forecast, info = decode(key, *inputs, tally.paths, traced)
        tally.add(forecast, info, truth, weight)
    return tally.scores(reference), tally.forecasts()


class Tally:
    """Sums over batches of windows, and what they come to."""

    def __init__(self, method: Method, paths: int) -> None:
        self.method, self.paths = method, paths
        self._totals: dict[str, Any] = {}
        self._made: list[np.ndarray] = []

    def add(
        self, forecast: jax.Array, info: DecodeInfo, truth: jax.Array, weight: jax.Array
    ) -> None:
        """Counts a batch: forecast `[B, S, H, C]`, truth `[B, H, C]`, weight `[B]` 0 or 1.

        Where the truth is NaN nothing was observed.
        """
        gaps = bool(np.isnan(np.asarray(truth)).any())
        sums = _sums(forecast, truth, weight, gaps=gaps)
        for name, value in {**sums, **_counts(info, weight)}.items():
            self._totals[name] = self._totals.get(name, 0.0) + np.asarray(value, np.float64)
        self._made.append(np.asarray(forecast)[np.asarray(weight) > 0])

    def forecasts(self) -> np.ndarray:
        """All forecasts, `[windows, S, H, C]`."""
        return np.concatenate(self._made)

    def scores(self, reference: np.ndarray | None) -> Scores:
        """What `score` returns of it.

        Raises:
            InputError: no truth was observed.
        """
        made, totals = self.forecasts(), self._totals
        count, decoded = float(totals["scored"]), len(made) * self.paths
        if count == 0:
            raise InputError("none of the truths of these windows was observed; take other rows.")
        sampled, speculative = self.method.sampled, self.method.name == "speculative"
        passes = 0.0 if self.method.name == "draft" else float(totals["target_passes"] / decoded)
        distance = None if reference is None else float(np.mean(np.square(made - reference)))
        return {
            "mse": float(totals["mse"] / count),
            "mae": float(totals["mae"] / count),
            "mse_of_mean": float(totals["mse_of_mean"] / count) if sampled else None,
            "crps": float(totals["crps"] / count) if "crps" in totals else None,
            "coverage_80": float(totals["coverage"] / count) if "coverage" in totals else None,
            "distance": distance,
            "target_passes": passes,
            **(_acceptance(totals, decoded) if speculative else dict.fromkeys(SPECULATIVE)),
        }


SPECULATIVE = (
    "acceptance",
    "expected_acceptance",
    "acceptance_by_place",
    "accept_after_accept",
    "accept_after_reject",
    "accept_first",
    "patches_per_round",
    "drafted",
    "overflow",
)
"""Numbers that only speculative rows have. Three are acceptance rates by the proposal tested
before: an accepted one, a rejected one, none (the first of a path)."""


def _acceptance(totals: dict[str, Any], decoded: int) -> Scores:
    """What became of the proposals; rates are None where nothing was tested."""

    def rate(accepted: Any, tested: Any) -> float | None:
        return float(accepted / tested) if accepted is not None and tested > 0 else None

    proposed, accepted = totals["proposed"], totals["accepted"]
    links = zip(totals["link_accepted"], totals["link_tested"], strict=True)
    after = dict(zip(SPECULATIVE[3:6], links, strict=True))
    return {
        "acceptance": rate(accepted.sum(), proposed.sum()),
        "expected_acceptance": rate(totals.get("expected"), proposed.sum()),
        "acceptance_by_place": [rate(*pair) for pair in zip(accepted, proposed, strict=True)],
        **{name: rate(*pair) for name, pair in after.items()},
        "patches_per_round": float(totals["patches"] / totals["rounds"]),
        "drafted": float(totals["drafted"] / decoded),
        "overflow": float(totals["overflow"]),
    }


@functools.partial(jax.jit, static_argnames="windows")
def gather(values: jax.Array | Gaps, index: jax.Array, windows: Windows) -> jax.Array:
    """The windows of these numbers, `[B, length, C]`; NaN after the context is a missing truth."""
    return windows.gather(values, index)


@functools.partial(jax.jit, static_argnames="gaps")
def _sums(
    paths: jax.Array, truth: jax.Array, weight: jax.Array, *, gaps: bool
) -> dict[str, jax.Array]:
    """Weighted sums over B windows; paths `[B, S, H, C]`, truth `[B, H, C]`.

    With gaps a window also weighs by the share of its truth that was observed, so that each
    observed truth counts once; `scored` is the sum of the weights.
    """
    seen = ~jnp.isnan(truth) if gaps else None
    if seen is not None:
        weight = weight * jnp.mean(seen, axis=(1, 2))
    by_path = jax.vmap(jax.vmap(metrics.mse, in_axes=(0, None, None)))
    abs_by_path = jax.vmap(jax.vmap(metrics.mae, in_axes=(0, None, None)))
    coverage = functools.partial(metrics.coverage, level=0.8)
    by_window = {
        "mse": jnp.mean(by_path(paths, truth, seen), axis=1),
        "mae": jnp.mean(abs_by_path(paths, truth, seen), axis=1),
        "mse_of_mean": jax.vmap(metrics.mse)(jnp.mean(paths, axis=1), truth, seen),
    }
    if paths.shape[1] > 1:
        by_window["crps"] = jax.vmap(metrics.crps)(paths, truth, seen)
    if paths.shape[1] >= metrics.least_paths(0.8):
        by_window["coverage"] = jax.vmap(lambda p, t, s: coverage(p, t, seen=s))(paths, truth, seen)
    sums = {name: jnp.sum(weight * value) for name, value in by_window.items()}
    return {**sums, "scored": jnp.sum(weight)}


@jax.jit
def _counts(info: DecodeInfo, weight: jax.Array) -> dict[str, jax.Array]:
    """Sums of the counts over the windows of weight > 0; fields of info lead with `[B, S]`."""
    real = (weight > 0)[:, None]

    def total(x: jax.Array) -> jax.Array:
        shape = (*real.shape, *([1] * (x.ndim - 2)))
        return jnp.sum(jnp.where(real.reshape(shape), x, 0), axis=(0, 1))

    names = ("accepted", "proposed", "rounds", "target_passes", "drafted", "overflow")
    counts = {name: total(getattr(info, name)) for name in names}
    counts["patches"] = jnp.sum(total(jnp.ones_like(info.origin)))
    if info.trace is not None:
        counts["expected"] = jnp.sum(total(_expected(info)))
    tested, accepted = _links(info)
    return {**counts, "link_tested": total(tested), "link_accepted": total(accepted)}


def _links(info: DecodeInfo) -> tuple[jax.Array, jax.Array]:
    """Tested and accepted proposals by what became of the one tested before.

    The kinds of the emitted patches tell all: an accepted patch is a proposal that was accepted, a
    recovered one stands for one that was rejected, a bonus was not tested and follows acceptances.

    Returns:
        Two arrays `[B, S, 3]`: after an accepted one, after a rejected one, the first of a path.
    """
    accepted = info.origin == ACCEPTED  # [B, S, N]
    rejected = info.origin == RECOVERED

    def links(now: jax.Array) -> jax.Array:
        later, before = now[..., 1:], rejected[..., :-1]
        sums = [jnp.sum(later & ~before, axis=-1), jnp.sum(later & before, axis=-1)]
        return jnp.stack([*sums, now[..., 0].astype(sums[0].dtype)], axis=-1)

    return links(accepted | rejected), links(accepted)


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
        (start >= 0) & (start + place < info.origin.shape[-1]) & (place < trace.length[..., None])
    )
    tested = within & (place <= before)
    return jnp.where(tested, gaussian.acceptance(trace.gap * jnp.sqrt(size)), 0.0)
