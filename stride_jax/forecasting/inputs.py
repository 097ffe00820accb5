"""From histories to what is decoded: contexts, the scale of their noise, random streams."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding.base import Process
from stride_jax.decoding.scale import PatchCovariance
from stride_jax.decoding.traits import traits_of
from stride_jax.forecasting.aggregation import Rate
from stride_jax.forecasting.contexts import Contexts, make_contexts
from stride_jax.forecasting.covariance import history_covariance, unit_factor
from stride_jax.forecasting.histories import Histories
from stride_jax.forecasting.lengths import View, make_view, visible_steps
from stride_jax.forecasting.messages import (
    check_filled,
    check_finite,
    listed,
    warn,
)
from stride_jax.forecasting.mirror import both_ways
from stride_jax.forecasting.settings import Settings
from stride_jax.forecasting.sigma import RESIDUALS, history_sigmas


class Inputs(NamedTuple):
    """Histories ready to decode, one row per series.

    Attributes:
        contexts: the steps that are decoded from.
        sigma: `[B, 1, C]` float64, over the scale of the context, or `[B, P, C]` of a target that
            predicts a std.
        scale: of the noise of a path: sigma, or the covariance of each series.
        ahead: `[B]`, steps without values at the end of each history, decoded and dropped.
        streams: `[B]` int32, folded into the key.
        masked: padding is masked, so that contexts of different lengths are decoded together.
    """

    contexts: Contexts
    sigma: np.ndarray
    scale: np.ndarray | PatchCovariance
    ahead: np.ndarray
    streams: np.ndarray
    masked: bool

    def take(self, rows: np.ndarray) -> Inputs:
        """The inputs of some of the series."""
        return Inputs(
            contexts=Contexts(*(x[rows] for x in self.contexts)),
            sigma=self.sigma[rows],
            scale=scale_of(self.scale, rows),
            ahead=self.ahead[rows],
            streams=self.streams[rows],
            masked=self.masked,
        )


def scale_of(sigma: np.ndarray | PatchCovariance, rows: np.ndarray) -> Any:
    """Sigma, or the covariance, of some of the series."""
    if not isinstance(sigma, PatchCovariance):
        return sigma[rows]
    factor = sigma.factor[rows] if sigma.factor.ndim == 4 else sigma.factor
    return PatchCovariance(factor, sigma.sigma[rows])


def prepare_inputs(
    pair: Pair, histories: Histories, settings: Settings, streams: np.ndarray
) -> Inputs:
    """Contexts and the scale of their noise; of a mirrored pair each history both ways.

    Args:
        pair: what is forecast with.
        histories: as they were read.
        settings: checked.
        streams: `[B]` int32, see `stream_numbers`.

    Raises:
        InputError: a covariance of another shape, histories that are mostly missing, or a target
            that predicts no finite numbers.
    """
    factor = None
    if pair.covariance is not None:
        factor = unit_factor(pair.covariance, (pair.target.patch_len, histories.num_vars))
    view, contexts = _contexts(pair, histories)
    check_filled(contexts.filled, histories.names)

    ahead = np.array(histories.ahead)
    if pair.mirrored:
        contexts, ahead, streams = both_ways(contexts), np.tile(ahead, 2), np.tile(streams, 2)

    sigmas = _sigmas(pair.target, contexts, view, settings, histories.names)
    check_finite("sigma", np.arange(len(sigmas)), sigmas, histories.names)
    scale: np.ndarray | PatchCovariance = sigmas
    if factor is not None and settings.num_samples:
        scale = history_covariance(factor, sigmas)
    contexts = _last(contexts, view.shared, view.length if view.masked else view.shared)
    return Inputs(contexts, sigmas, scale, ahead, streams, view.masked)


def _contexts(pair: Pair, histories: Histories) -> tuple[View, Contexts]:
    """The view of target and draft, and contexts with as many steps more as sigma needs.

    Sigma is measured on the last patches given those before them.
    """
    target = pair.target
    steps = visible_steps(target, histories.series)
    series = [one[len(one) - n :] for one, n in zip(histories.series, steps, strict=True)]
    observed = [one[len(one) - n :] for one, n in zip(histories.observed, steps, strict=True)]
    view = make_view(target, pair.draft, series)
    room = max(view.room + RESIDUALS * target.patch_len, view.shared)
    return view, make_contexts(
        series,
        view.length,
        target.patch_len,
        observed=observed,
        more=room - view.length,
        standardise=traits_of(target).normalises,
        whole_patches=not traits_of(target).masks_steps,
    )


def _last(contexts: Contexts, steps: int, most: int | np.ndarray) -> Contexts:
    """The last steps of the contexts, of which at most `most` are history."""
    return contexts._replace(
        values=contexts.values[:, -steps:],
        observed=contexts.observed[:, -steps:],
        lengths=np.minimum(contexts.lengths, most).astype(np.int32),
    )


def _sigmas(
    target: Process, contexts: Contexts, view: View, settings: Settings, names: list[str]
) -> np.ndarray:
    """Sigma of each row over its scale, `[B, 1, C]` float64: given, or measured."""
    if settings.sigma is not None:
        return settings.sigma / contexts.scale
    residuals = RESIDUALS * target.patch_len
    before = np.minimum(contexts.similar, view.length + residuals)
    contexts = _last(contexts, view.room + residuals, before)
    measured, unsure = history_sigmas(target, contexts, view.length, settings.batch_size)
    if unsure.any() and not traits_of(target).predicts_density:  # its paths need no sigma
        rows = np.flatnonzero(unsure[: len(names)])
        warn(
            f"{listed(names, rows)}: one value, or all the same, tell nothing "
            "of how they vary; sigma is the value over the number of values. Give sigma if you "
            "know better."
        )
    return measured


def stream_numbers(ids: Sequence[str] | None, histories: Histories) -> np.ndarray:
    """Numbers folded into the key, `[B]` int32: of the series, or hashes of their ids."""
    count = len(histories.series)
    if ids is None:
        return np.arange(count, dtype=np.int32)
    apart = count // len(ids)  # variables that are series of their own
    return np.array([_stream(one, c) for one in ids for c in range(apart)], np.int32)


def streams_of_means(streams: np.ndarray, rates: Sequence[Rate]) -> np.ndarray:
    """Numbers folded into the key for the means of series, `[n]` int32, others than those of these.

    So the forecast of a series and that of its means are independent given the history.

    Args:
        streams: `[B]`, of the series.
        rates: that are used; the order is that of `aggregation.with_means`.
    """
    every = [
        _stream(f"means of {one.steps}", int(streams[row])) for one in rates for row in one.rows
    ]
    return np.array(every, np.int32)


def _stream(text: str, variable: int) -> int:
    """31 bits of a hash that no platform or process changes."""
    encoded = f"{variable} {text}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=4).digest(), "big") >> 1
