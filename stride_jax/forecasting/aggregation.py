"""Forecasts at several rates: of a series itself, and of the means of its neighbouring steps.

A forecast of many steps is made of many patches, each predicted from those before, and the model
sees only so much of the history. The means of m steps are a series of their own: a model that knows
any clock forecasts it in an m-th of the patches, from m times as long a history. So far ahead it is
often better there, and step by step it is better at the series' own rate. Combining the forecasts
of several rates is known as multiple temporal aggregation (Kourentzes, Petropoulos, Trapero 2014;
Athanasopoulos et al. 2017).

Here the paths of the series itself keep their shapes, and the means of their blocks of m steps move
towards those of the forecast of the means, rank by rank (quantile mapping): the smallest mean
towards the smallest one, and so on. Near the start of the forecast they hardly move.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stride_jax.decoding.base import Process
from stride_jax.decoding.traits import traits_of
from stride_jax.forecasting.contexts import alike
from stride_jax.forecasting.histories import Histories
from stride_jax.forecasting.messages import FILLED_WARNS
from stride_jax.forecasting.sigma import RESIDUALS

WEIGHT = 0.8
"""How far the means of blocks move in the end. Chosen, as `RAMP` and the rates of the zero-shot
pair, on windows that its target was not trained on."""
RAMP = 48
"""Blocks of a forecast until the weight of a rate is full; before, it grows in proportion."""
LEAST_BLOCKS = 12
"""A rate is used only where the horizon has at least so many of its blocks."""
LEAST_PATHS = 20
"""Sample paths that ranks need: the ranks of a few are an average, and too narrow."""


class Rate(NamedTuple):
    """The series of which the means of so many steps are forecast too.

    Attributes:
        steps: m, of a mean.
        rows: `[b]`, their indices, ascending.
        lengths: `[b]`, the last steps of each history that the means are made of.
    """

    steps: int
    rows: np.ndarray
    lengths: np.ndarray


def usable_rates(
    counts: Sequence[int], histories: Histories, horizon: int, target: Process
) -> list[Rate]:
    """The rates that are used, each with its series; none where there are none.

    A history counts as far back as it is like what the target sees of it (see `contexts.alike`),
    and must be longer than that: shorter ones have nothing to add, and the forecasts of their means
    were worse. No more of it may be interpolated than a forecast is made from without a warning. A
    target that takes no shorter contexts needs as many means as it sees steps.

    Args:
        counts: steps of a mean.
        histories: as they were read.
        horizon: H, steps ahead.
        target: its traits say how many steps it sees; of one that sees all, no means are used.
    """
    traits, counts = traits_of(target), [n for n in counts if horizon >= LEAST_BLOCKS * n]
    seen = traits.context_len
    if seen is None or not counts:
        return []
    least = 2 * target.patch_len if traits.supports_padding else seen
    most = (seen + RESIDUALS * target.patch_len) * max(counts)
    lengths = np.array([_similar(one[-most:], seen, target.patch_len) for one in histories.series])

    def usable(count: int) -> list[bool]:
        long = lengths >= max(seen + 1, least * count)
        known = zip(histories.observed, np.minimum(lengths, seen * count), strict=True)
        filled = [1 - one[-steps:].mean(axis=0).min() for one, steps in known]
        return [bool(x and y <= FILLED_WARNS) for x, y in zip(long, filled, strict=True)]

    rows = {count: np.flatnonzero(usable(count)) for count in counts}
    return [Rate(count, some, lengths[some]) for count, some in rows.items() if len(some)]


def _similar(series: np.ndarray, seen: int, patch_len: int) -> int:
    """The last steps of `[T, C]` that are like the last `seen`; all of a shorter series."""
    if len(series) <= seen:
        return len(series)
    return seen + alike(series[:-seen], series[-seen:], patch_len)


def means_of(series: np.ndarray, count: int) -> np.ndarray:
    """Means of `count` steps up to the last one, `[T, C]` -> `[T // count, C]`."""
    whole = len(series) // count * count
    # [T, C] -> [T // m, m, C], of which the axis of m is averaged
    return series[len(series) - whole :].reshape(-1, count, series.shape[1]).mean(axis=1)


def with_means(histories: Histories, rates: Sequence[Rate]) -> Histories:
    """The histories with the means of all rates behind them, those of one rate next to each other.

    Steps without values at the end of a series are forecast as part of the horizon of its means. A
    mean counts as observed; `usable_rates` leaves out series with many interpolated values.
    """
    means, names = [], []
    for rate in rates:
        for row, length in zip(rate.rows, rate.lengths, strict=True):
            means.append(means_of(histories.series[row][-length:], rate.steps))
            names.append(f"{histories.names[row]}, means of {rate.steps} steps")
    return histories._replace(
        series=histories.series + means,
        observed=histories.observed + [np.ones(one.shape, bool) for one in means],
        ahead=histories.ahead + [0] * len(means),
        names=histories.names + names,
    )


def means_ahead(histories: Histories, rates: Sequence[Rate], horizon: int) -> int:
    """Means that cover the horizon of every series, and the steps without values before it."""
    longest = [max(histories.ahead[row] for row in rate.rows) + horizon for rate in rates]
    return max(-(-total // rate.steps) for total, rate in zip(longest, rates, strict=True))


def moves(paths: np.ndarray, coarse: np.ndarray, count: int, ahead: int) -> np.ndarray:
    """The move of each step of each path that takes it to a forecast of means, unweighted.

    Args:
        paths: `[b, S, H, C]`, of the series; the first step is `ahead` after the history.
        coarse: `[b, S, h, C]`, of the means, in the same units; they begin after the history.
        count: m, steps of a mean.
        ahead: steps between the history and the first one.

    Returns:
        `[b, S, H, C]`; 0 where there is no whole block.
    """
    rows, samples, horizon, num_vars = paths.shape
    first = -(-ahead // count)  # the first block that lies within the horizon
    start = first * count - ahead
    blocks = (horizon - start) // count
    if blocks < 1:
        return np.zeros_like(paths)
    inside = paths[:, :, start : start + blocks * count]
    # [b, S, K * m, C] -> [b, S, K, m, C], of which the axis of m is averaged
    present = inside.reshape(rows, samples, blocks, count, num_vars).mean(axis=3)
    gaps = _mapped(present, coarse[:, :, first : first + blocks])

    centers = start + np.arange(blocks) * count + (count - 1) / 2
    lines = _interpolation(centers, horizon)
    # lines [H, K], gaps [b, S, K, C] -> [b, S, H, C]
    moved: np.ndarray = np.einsum("hk,bskc->bshc", lines, gaps)
    return moved


def ramp(count: int, ahead: np.ndarray, horizon: int) -> np.ndarray:
    """How much of the weight of a rate is reached at each step, `[B, H]` in (0, 1].

    Args:
        count: m, steps of a mean.
        ahead: `[B]`, steps between each history and the first step.
        horizon: H.
    """
    steps = ahead[:, None] + np.arange(horizon)[None] + 0.5
    reached: np.ndarray = np.minimum(1, steps / (RAMP * count))
    return reached


def _mapped(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The steps from each of S values to the one of its rank among S others, `[b, S, K, C]`."""
    order = np.argsort(values, axis=1, kind="stable")
    ranked = np.sort(others, axis=1) - np.take_along_axis(values, order, axis=1)
    gaps = np.empty_like(ranked)
    np.put_along_axis(gaps, order, ranked, axis=1)
    return gaps


def _interpolation(centers: np.ndarray, horizon: int) -> np.ndarray:
    """The matrix `[H, K]` of straight lines between values at K places, and constant outside."""
    steps = np.arange(horizon)
    return np.stack([np.interp(steps, centers, unit) for unit in np.eye(len(centers))], axis=1)


def combined(
    paths: np.ndarray, coarse: np.ndarray, rates: Sequence[Rate], ahead: np.ndarray
) -> np.ndarray:
    """The paths of all series, moved towards the forecasts of their means.

    Args:
        paths: `[B, S, H, C]`, of the series.
        coarse: `[n, S, h, C]`, of their means, in the order of `with_means` and in the units
            of `paths`.
        rates: that are used.
        ahead: `[B]`, steps between each history and the first step of its paths.

    Returns:
        `[B, S, H, C]`. Several rates share the weight of the one that is furthest up its ramp, in
        proportion to the ramps, so that a rate takes nothing from another one before it counts.
    """
    ramps = np.zeros((len(rates), len(paths), paths.shape[2]))
    for n, rate in enumerate(rates):
        ramps[n, rate.rows] = ramp(rate.steps, ahead[rate.rows], paths.shape[2])
    shares = ramps / np.maximum(ramps.sum(axis=0), np.finfo(np.float64).tiny)
    weights = WEIGHT * ramps.max(axis=0) * shares  # [R, B, H]

    result = paths.copy()
    ends = np.cumsum([len(rate.rows) for rate in rates])
    for n, (rate, means) in enumerate(zip(rates, np.split(coarse, ends[:-1]), strict=True)):
        for gap in np.unique(ahead[rate.rows]):
            place = np.flatnonzero(ahead[rate.rows] == gap)
            rows = rate.rows[place]
            moved = moves(paths[rows], means[place], rate.steps, int(gap))
            result[rows] += weights[n, rows][:, None, :, None] * moved
    return result
