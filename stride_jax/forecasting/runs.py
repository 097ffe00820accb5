"""The decode behind a forecast: of histories, and of the means of their neighbouring steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding.checks import check_size
from stride_jax.decoding.rules import rule_name
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.traits import check_parameters
from stride_jax.decoding.types import DecodeConfig, num_patches
from stride_jax.errors import InputError
from stride_jax.forecasting.aggregation import (
    LEAST_PATHS,
    combined,
    means_ahead,
    usable_rates,
    with_means,
)
from stride_jax.forecasting.contexts import Contexts
from stride_jax.forecasting.histories import Histories
from stride_jax.forecasting.inputs import (
    Inputs,
    prepare_inputs,
    scale_of,
    stream_numbers,
    streams_of_means,
)
from stride_jax.forecasting.lengths import groups
from stride_jax.forecasting.messages import check_finite, check_given_sigma
from stride_jax.forecasting.mirror import turned_back, upright
from stride_jax.forecasting.results import Decoded, in_order
from stride_jax.forecasting.settings import Settings


class Run(NamedTuple):
    """Decoded series, one row per series, with what their units are.

    Attributes:
        decoded: their paths, in units of the scale of the contexts.
        contexts: with the mean and scale of each.
        sigma: `[B, 1, C]` or `[B, P, C]`, over that scale.
    """

    decoded: Decoded
    contexts: Contexts
    sigma: np.ndarray


def run_histories(
    pair: Pair, histories: Histories, settings: Settings, ids: Sequence[str] | None
) -> Run:
    """Decodes all histories, and combines them with the forecasts of their means.

    Args:
        pair: what is forecast with.
        histories: as they were read.
        settings: checked.
        ids: of the series, or None; see `forecast`.

    Raises:
        InputError: see `inputs.prepare_inputs`; a target that predicts no finite numbers.
    """
    # A given sigma holds for the steps of the series, not for their means.
    few = 0 < settings.num_samples < LEAST_PATHS
    counts = () if few or settings.sigma is not None else pair.aggregations
    rates = usable_rates(counts, histories, settings.horizon, pair.target)

    # Contexts and sigmas of the series and of their means, in one go.
    every, streams = with_means(histories, rates), stream_numbers(ids, histories)
    both = np.concatenate([streams, streams_of_means(streams, rates)])
    inputs = prepare_inputs(pair, every, settings, both)
    if settings.sigma is not None:
        check_given_sigma(settings.sigma, inputs.sigma, histories.names)

    # The paths of the series, and those of their means.
    series = np.arange(len(streams))
    run = _run(pair, inputs, settings, series, every.names)
    if not rates:
        return run
    horizon = means_ahead(histories, rates, settings.horizon)
    # The means are decoded together, as far as the longest, so that there is one program for all.
    means = np.arange(len(streams), len(both))
    coarse = _run(pair, inputs, settings._replace(horizon=horizon), means, every.names)
    paths = _in_units_of(run, coarse, np.concatenate([rate.rows for rate in rates]))
    paths = combined(run.decoded.paths, paths, rates, np.array(histories.ahead))
    return run._replace(decoded=run.decoded._replace(paths=paths))


def _run(pair: Pair, inputs: Inputs, settings: Settings, rows: np.ndarray, names: list[str]) -> Run:
    """Decodes some of the series, of a mirrored pair both ways.

    Args:
        pair: what is forecast with.
        inputs: of all series.
        settings: with the horizon of these.
        rows: `[b]`, their indices.
        names: of all series.
    """
    config = _config_of(pair, settings, len(rows))
    both = np.concatenate([rows, rows + len(names)]) if pair.mirrored else rows
    part = inputs.take(both)
    decoded = _decoded(pair, part, settings, config, [names[row] for row in rows])
    if not pair.mirrored:
        return Run(decoded, part.contexts, part.sigma)
    turned = turned_back(decoded, settings.num_samples)
    return Run(turned, upright(part.contexts), upright(part.sigma))


def _in_units_of(run: Run, other: Run, rows: np.ndarray) -> np.ndarray:
    """The paths of another run in the units of these rows of the first, `[b, S, H, C]`."""
    level = other.contexts.mean[:, None] - run.contexts.mean[rows, None]
    paths: np.ndarray = other.decoded.paths * other.contexts.scale[:, None] + level
    return paths / run.contexts.scale[rows, None]


def _config_of(pair: Pair, settings: Settings, count: int) -> DecodeConfig:
    """The config of the decode of so many series."""
    each = settings.each_way() if pair.mirrored else settings
    lanes = count * (2 if pair.mirrored else 1)
    return each.decode_config(lanes, drafted=pair.draft is not None)


def check_sizes(pair: Pair, settings: Settings, histories: Histories) -> None:
    """Raises InputError for what can be refused before a model runs."""
    config = _config_of(pair, settings, len(histories.series))
    shape = (len(histories.series), *histories.series[0].shape)
    check_size(shape, pair.target.patch_len, config)
    _check_correlated(pair, settings, config)
    check_parameters(pair.target)


def _check_correlated(pair: Pair, settings: Settings, config: DecodeConfig) -> None:
    """Raises InputError for paths with a covariance whose rule takes none."""
    speculative = pair.draft is not None and config.num_draft > 0
    if pair.covariance is None or not (settings.num_samples and speculative):
        return
    if not settings.rule.correlated:
        raise InputError(
            f"rule {rule_name(settings.rule)!r} takes no covariance, and the pair has one; use "
            "Block() or Maximal(), or dataclasses.replace(pair, covariance=None) for independent "
            "errors."
        )


def _decoded(
    pair: Pair, inputs: Inputs, settings: Settings, config: DecodeConfig, names: list[str]
) -> Decoded:
    """All series, those together that fit into one batch."""
    horizons = [
        num_patches(config.horizon + steps, pair.target.patch_len) for steps in inputs.ahead
    ]
    parts = [
        _decode(pair, inputs, rows, settings, config)
        for rows in groups(inputs.masked, inputs.contexts.lengths, np.array(horizons))
    ]
    for part in parts:
        check_finite("forecast", part.rows, part.paths, names)
    return in_order(parts)


def _decode(
    pair: Pair, inputs: Inputs, rows: np.ndarray, settings: Settings, config: DecodeConfig
) -> Decoded:
    """Decodes the series of these rows together."""
    contexts, total = inputs.contexts, inputs.contexts.values.shape[1]
    length = total if inputs.masked else int(contexts.lengths[rows[0]])
    skipped = inputs.ahead[rows]
    decoded, info = decode(
        settings.key,
        contexts.values[rows][:, total - length :],
        target=pair.target,
        draft=pair.draft,
        sigma=scale_of(inputs.scale, rows),
        config=dataclasses.replace(config, horizon=config.horizon + int(skipped.max())),
        rule=settings.rule,
        series_index=inputs.streams[rows],
        lengths=contexts.lengths[rows] if inputs.masked else None,
    )
    steps = skipped[:, None] + np.arange(config.horizon)  # [b, H]
    last = np.take_along_axis(np.asarray(decoded, np.float64), steps[:, None, :, None], axis=2)
    reported = None
    if info.reported is not None and not settings.num_samples:
        # [b, 1, N, P, C, Q] -> [b, N * P, C, Q] -> the steps asked for, [b, H, C, Q]
        flat = np.asarray(info.reported, np.float64).reshape(
            len(rows), -1, *info.reported.shape[4:]
        )
        reported = np.take_along_axis(flat, steps[:, :, None, None], axis=1)
    info = info._replace(reported=None)
    return Decoded(rows, last, jax.tree.map(np.asarray, info), reported)
