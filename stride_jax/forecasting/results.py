"""Decoded paths back in the order, units and shapes of the histories: `Forecast`."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from stride_jax.decoding.types import DecodeInfo
from stride_jax.forecasting.contexts import Contexts
from stride_jax.forecasting.histories import Histories
from stride_jax.forecasting.settings import Settings


class Forecast(NamedTuple):
    """Forecasts in the units of the history, float64.

    Attributes:
        mean: `[H]`, `[H, C]`, or with a leading B, as the history came: the mean of the sample
            paths, or the mean path where there are none.
        quantiles: an axis of quantiles before H, or None: of the sample paths, or where there are
            none those that the target reports.
        levels: their probabilities, ascending.
        paths: an axis of S sample paths before H, or None.
        sigma: std of a step's prediction given the patches before, root mean square of the patch;
            the shape of the mean without H. Of a mirrored pair it is that of the history as it is.
            Of a target that predicts a density it is that of the draft's proposals alone. It is
            that of the decode of the steps, before paths are moved towards their means.
        info: counts of the decode for each series and path; see `DecodeInfo`. The mean path of a
            mirrored pair is of two. The decode of the means of a series (`Pair.aggregations`) is
            not counted, and `proposal` is of the paths before they are moved towards them. Where a
            history ends without values, the patches over its end count too; other series have the
            origin -1 there.
        non_negative: bool, whether forecasts were cut off at 0; the shape of sigma.
        reported: an axis of Q outputs behind the axes of the mean, what the target reports of each
            step (see `DecodeInfo.reported` for what it is conditioned on); None where it reports
            nothing, or where there are sample paths.
        reports: what each of the Q is: the level of a quantile, or a word such as `mean`.
    """

    mean: np.ndarray
    quantiles: np.ndarray | None
    levels: tuple[float, ...]
    paths: np.ndarray | None
    sigma: np.ndarray
    info: DecodeInfo
    non_negative: np.ndarray
    reported: np.ndarray | None = None
    reports: tuple[float | str, ...] = ()


class Decoded(NamedTuple):
    """Paths of the series that were decoded together.

    Attributes:
        rows: `[b]`, their indices among all series.
        paths: `[b, S, H, C]` float64, in units of the context's scale.
        info: counts of the decode.
        reported: `[b, H, C, Q]` float64, in the same units, or None.
    """

    rows: np.ndarray
    paths: np.ndarray
    info: DecodeInfo
    reported: np.ndarray | None = None


def in_order(parts: list[Decoded]) -> Decoded:
    """All series of groups that were decoded together, in the order of their rows."""
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows)
    info = jax.tree.map(lambda x: x[order], _joined([part.info for part in parts]))
    paths = np.concatenate([part.paths for part in parts])[order]  # [B, S, H, C]
    if parts[0].reported is None:
        return Decoded(rows[order], paths, info)
    reported = np.concatenate([part.reported for part in parts])[order]  # [B, H, C, Q]
    return Decoded(rows[order], paths, info, reported)


def make_forecast(
    decoded: Decoded,
    contexts: Contexts,
    sigma: np.ndarray,
    histories: Histories,
    settings: Settings,
    reports: tuple[float | str, ...] = (),
) -> Forecast:
    """The forecast of all series.

    Args:
        decoded: their paths, in order.
        contexts: with the mean and scale of each series.
        sigma: `[B, 1, C]` or `[B, P, C]`, over that scale.
        histories: with the order and shapes that the user gave.
        settings: levels, sample paths, and the cut at 0.
        reports: names of the outputs that were reported; none where there are none.
    """
    paths = decoded.paths * contexts.scale[:, None] + contexts.mean[:, None]  # [B, S, H, C]
    cut = np.array([one.min(axis=0) >= 0 for one in histories.series])[:, None, None]
    if settings.non_negative is not None:
        cut = np.full_like(cut, settings.non_negative)
    paths = _user_shape(np.where(cut, np.maximum(paths, 0), paths), histories)
    axis = -2 if histories.flat else -3  # of the paths
    sampled, quantiles = settings.num_samples > 0, None
    if sampled and settings.levels:
        quantiles = np.moveaxis(np.quantile(paths, settings.levels, axis=axis), 0, axis)
    reported = None
    if reports:
        outputs = _outputs(decoded)  # [B, Q, H, C]
        outputs = outputs * contexts.scale[:, None] + contexts.mean[:, None]
        outputs = _user_shape(np.where(cut, np.maximum(outputs, 0), outputs), histories)
        if settings.levels and settings.levels[0] in reports:
            quantiles = np.take(outputs, [reports.index(q) for q in settings.levels], axis=axis)
        reported = np.moveaxis(outputs, axis, -1)
    once = axis, axis + 1  # S and H of 1
    total = np.sqrt(np.mean(np.square(sigma), axis=1, keepdims=True))  # [B, 1, C]
    return Forecast(
        mean=paths.mean(axis=axis),
        quantiles=quantiles,
        levels=settings.levels,
        paths=paths if sampled else None,
        sigma=np.squeeze(_user_shape((total * contexts.scale)[:, None], histories), axis=once),
        info=decoded.info,
        non_negative=np.squeeze(_user_shape(cut, histories), axis=once),
        reported=reported,
        reports=reports,
    )


def _outputs(part: Decoded) -> np.ndarray:
    """The reported outputs with their axis in the place of paths, `[b, Q, H, C]`."""
    assert part.reported is not None
    return np.moveaxis(part.reported, -1, 1)


def _joined(infos: list[DecodeInfo]) -> DecodeInfo:
    """One info of several groups of series, with room for the most patches of any."""
    room = max(info.origin.shape[2] for info in infos)

    def padded(values: Any, value: float) -> Any:
        after = [(0, 0)] * values.ndim
        after[2] = (0, room - values.shape[2])
        return np.pad(values, after, constant_values=value)

    infos = [
        info._replace(origin=padded(info.origin, -1), proposal=padded(info.proposal, np.nan))
        for info in infos
    ]
    joined: DecodeInfo = jax.tree.map(lambda *parts: np.concatenate(parts), *infos)
    return joined


def _user_shape(values: np.ndarray, histories: Histories) -> np.ndarray:
    """Decoded series `[n, S, H, C]` -> `[B, S, H, C]`, without the axes the user left out."""
    if values.shape[-1] != histories.num_vars:
        # [B * C, S, H, 1] -> [B, C, S, H] -> [B, S, H, C]
        apart = values[..., 0].reshape(-1, histories.num_vars, *values.shape[1:3])
        values = np.moveaxis(apart, 1, -1)
    values = values[..., 0] if histories.flat else values
    return values if histories.batched else values[0]
