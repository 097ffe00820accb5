"""Scores of one decoder: sums over windows of errors, counts and acceptances."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax import metrics
from stride_jax.decoding import gaussian
from stride_jax.decoding.types import ACCEPTED, RECOVERED, DecodeInfo
from stride_jax.errors import InputError

Scores = dict[str, Any]
"""Numbers by name; None where a decoder has no such number."""

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
"""Scores that only speculative decoders have. Three are acceptance rates by the proposal tested
before: an accepted one, a rejected one, none (the first of a path)."""


class Tally:
    """Sums over batches of windows, and the scores they give."""

    def __init__(self) -> None:
        self._totals: dict[str, Any] = {}
        self._forecasts: list[np.ndarray] = []

    def add(
        self, forecast: jax.Array, info: DecodeInfo, truth: jax.Array, weight: jax.Array
    ) -> None:
        """Counts a batch.

        Args:
            forecast: `[B, S, H, C]`.
            info: of the decode.
            truth: `[B, H', C]` with at least H steps; NaN where nothing was observed.
            weight: `[B]`, 0 for a window that only fills the batch.
        """
        truth = truth[:, : forecast.shape[2]]
        gaps = bool(np.isnan(np.asarray(truth)).any())
        sums = _sums(forecast, truth, weight, gaps=gaps)
        for name, value in {**sums, **_counts(info, weight)}.items():
            self._totals[name] = self._totals.get(name, 0.0) + np.asarray(value, np.float64)
        self._forecasts.append(np.asarray(forecast)[np.asarray(weight) > 0])

    def forecasts(self) -> np.ndarray:
        """All forecasts, `[windows, S, H, C]`."""
        return np.concatenate(self._forecasts)

    def scores(self, reference: np.ndarray | None = None) -> Scores:
        """Errors and coverage, means over the observed truths, and counts, means over paths.

        The MSE and MAE of sample paths are those of single paths, averaged (what the original's
        logs score); `mse_of_mean` is that of the mean of the paths. With one key for all decoders,
        a path has the same noise in each of them.

        Args:
            reference: the target's forecasts of the same windows; adds `distance`, the mean
                squared distance from them.

        Raises:
            InputError: no truth was observed.
        """
        forecasts, totals = self.forecasts(), self._totals
        count, decoded = float(totals["scored"]), len(forecasts) * forecasts.shape[1]
        if count == 0:
            raise InputError("none of the truths of these windows was observed; take other rows.")
        distance = None
        if reference is not None:
            distance = float(np.mean(np.square(forecasts - reference)))
        speculative = len(totals["proposed"]) > 0
        names = ("mse", "mae", "mse_of_mean", "crps", "coverage_80")
        return {
            **{name: float(totals[name] / count) if name in totals else None for name in names},
            "distance": distance,
            "target_passes": float(totals["target_passes"] / decoded),
            **(_acceptance(totals, decoded) if speculative else dict.fromkeys(SPECULATIVE)),
        }


def _acceptance(totals: dict[str, Any], decoded: int) -> Scores:
    """Acceptance rates and counts of the proposals; rates are None where nothing was tested."""

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
    by_window = {
        "mse": jnp.mean(by_path(paths, truth, seen), axis=1),
        "mae": jnp.mean(abs_by_path(paths, truth, seen), axis=1),
    }
    if paths.shape[1] > 1:
        by_window["mse_of_mean"] = jax.vmap(metrics.mse)(jnp.mean(paths, axis=1), truth, seen)
        by_window["crps"] = jax.vmap(metrics.crps)(paths, truth, seen)
    if paths.shape[1] >= metrics.least_paths(0.8):
        covered = jax.vmap(lambda p, t, s: metrics.coverage(p, t, seen=s))
        by_window["coverage_80"] = covered(paths, truth, seen)
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
    """Tested and accepted proposals by the fate of the one tested before.

    They follow from the origins of the emitted patches: an accepted patch is a proposal that was
    accepted, a recovered one stands for one that was rejected, a bonus was not tested and follows
    acceptances.

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
