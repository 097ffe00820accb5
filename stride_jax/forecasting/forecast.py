"""From histories to forecasts: means, quantiles and sample paths in the units of the history."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding.base import Process, Rule
from stride_jax.decoding.checks import check_size
from stride_jax.decoding.rules import rule_name
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.traits import check_parameters, traits_of
from stride_jax.decoding.types import DecodeConfig, num_patches
from stride_jax.errors import InputError
from stride_jax.forecasting.aggregation import (
    combined,
    means_ahead,
    usable_rates,
    with_means,
)
from stride_jax.forecasting.auto import with_fastest_draft
from stride_jax.forecasting.contexts import Contexts
from stride_jax.forecasting.histories import Histories, Missing, read_histories
from stride_jax.forecasting.inputs import Inputs, prepare_inputs, scale_of, stream_numbers
from stride_jax.forecasting.lengths import groups
from stride_jax.forecasting.messages import check_finite, check_given_sigma, warn_of_few_paths
from stride_jax.forecasting.mirror import turned_back, upright
from stride_jax.forecasting.results import Decoded, Forecast, in_order, make_forecast
from stride_jax.forecasting.settings import (
    Settings,
    as_pair,
    check_settings,
    choose_output,
    default_rule,
)


def forecast(
    pair: Pair | Process,
    history: Any,
    horizon: int,
    *,
    key: jax.Array | int = 0,
    num_samples: int | None = None,
    quantiles: Sequence[float] | None = None,
    sigma: float | None = None,
    variables: str = "separate",
    num_draft: int | Literal["auto"] = 5,
    rule: Rule | None = None,
    missing: Missing = "interpolate",
    batch_size: int | None = None,
    path_chunk: int | None = None,
    ids: Sequence[str] | None = None,
    non_negative: bool | None = None,
) -> Forecast:
    """Forecasts one series or many.

    Args:
        pair: target and draft, from `load_pair` or `Pair(target, draft)`; a process alone is a
            target without a draft. The distribution of the forecast is the target's, with an exact
            rule whatever the draft. A process of your own sees the history as it is, one that
            normalises sees it standardised (see `decoding.traits.Traits`). Sample paths have
            the covariance of the pair, scaled for each history so that the mean variance of a patch
            is sigma^2; where the target predicts a std for each step, these are the stds, and the
            covariance gives the correlation alone. A mean path does not use it. A pair that is
            `mirrored` takes half of the sample paths from the history upside down, with the same
            random numbers, and turns them back (see `forecasting.mirror`); its mean path is the
            mean of both. Its `aggregations` are the numbers of neighbouring steps whose means are
            forecast too: the means of as many steps of each path move towards those forecasts,
            rank by rank (see `forecasting.aggregation`). That is so for histories longer than what
            the target sees, 12 means or more ahead, where no sigma is given.
        history: `[T]`, `[T, C]`, `[B, T, C]`, or a list of `[T]` or `[T, C]` of different lengths;
            NaN is a missing value. The last steps count, as many as the target sees, in whole
            patches unless the target masks single steps; sigma is measured on up to eight patches
            more, as far back as they are like those steps (see `histories.alike`). A target that
            sees all it is given and masks no padding is shown a history in one of few lengths, so
            that it is not compiled for each: see `lengths.few_patches`.
        horizon: H, steps to forecast; any number.
        key: PRNG key, or a seed from 0 to 2**32 - 1; series i takes `fold_in(key, i)`, see also
            `ids`.
        num_samples: S, sample paths per series; 0 for the path that is fed back alone (the mean, or
            what a foundation model feeds back, such as its median). None for 100, or for 0 where
            the target reports quantiles of its own.
        quantiles: different probabilities in (0, 1). Those of the sample paths never cross; without
            sample paths they are those that the target reports, and only its levels can be had.
            None for (.1, .5, .9), or without sample paths for all that the target reports.
        sigma: std of a step's prediction in the units of the history. None takes what the target
            predicts for each step of the patch after the history, where it predicts a std and there
            are values in two patches of history. Else it is measured on each history: the root
            of the mean squared error of the target's one-patch forecasts of the last eight patches,
            where values were observed, with a patch's weight on half the std of the context. As
            long as fewer patches could be forecast, more of the std counts. With none it is the std
            of the observed values, made larger so that the mean of as many values of white noise +-
            1.28 sigma holds 80 % of the next ones (Student's t), and the distance of the target's
            forecast from their mean (root mean square of a patch, at most twice the former),
            squares added. Of one value, or of several that are all the same, sigma is their
            absolute value (1 for zeros) over their number until a patch could be forecast. Of a
            target that predicts a density it is the std of the draft's proposals, and nothing else.
        variables: separate forecasts each variable as a series of its own, joint all together (with
            a pair loaded for as many, see `load_pair`).
        num_draft: K, patches proposed per round; ignored without a draft. `auto` decodes with the
            draft only where that is faster on this device, as `calibrate` measured for work like
            this, else by an estimate, and logs its choice to the logger `stride_jax`. With an exact
            rule the distribution is the same either way, but the draws are not: give a number
            where a forecast has to be the same everywhere.
        rule: acceptance rule; None takes `Block()` for sample paths (exact; `Residual()` where the
            target predicts a density of its own) and `Mean()` for the mean path (within its
            tolerance).
        missing: interpolate gaps, or error; see `histories.read_histories`. Missing values before
            the first observed one are no history. Those after the last one are forecast too, as
            many steps more, and only what comes after them is returned.
        batch_size: series decoded at once; None for as many as make 2,000 sample paths.
        path_chunk: paths of a series decoded at once; None for 2,000.
        ids: text, a different one for each series. Series `id` then takes a hash of that text in
            place of its number (and variables that are apart their number beside it), so that its
            paths do not depend on which series are forecast with it, or in which order.
        non_negative: cut the sample paths, or the mean path, off at 0; None does so for each
            variable whose history is never below 0. Mean and quantiles are those of the cut
            paths. The decoded paths themselves go on from uncut values: with an exact rule what is
            returned has the distribution of max(x, 0), x a path of the target.

    Raises:
        InputError: anything that cannot be forecast, before anything is compiled; also a quantile
            that the target does not report, where there are no sample paths; a history
            of which most of what is decoded from would be interpolated; and a target that predicts
            no finite numbers.

    Warns:
        InputWarning: more than a quarter of that is interpolated; sigma is to be measured on a
            history without any variation; the sample paths are too few for a quantile q,
            `num_samples * min(q, 1 - q) < 1`.
    """
    pair = as_pair(pair)
    num_samples, quantiles = choose_output(pair.target, num_samples, quantiles)
    settings = check_settings(
        horizon=horizon,
        num_samples=num_samples,
        quantiles=quantiles,
        sigma=sigma,
        num_draft=0 if num_draft == "auto" else num_draft,
        rule=default_rule(pair.target, num_samples) if rule is None else rule,
        key=key,
        batch_size=batch_size,
        path_chunk=path_chunk,
        non_negative=non_negative,
    )
    if variables not in ("separate", "joint"):
        raise InputError(f"variables must be 'separate' or 'joint', got {variables!r}.")
    histories = read_histories(history, missing, apart=variables == "separate", ids=ids)
    if num_draft == "auto":
        settings = with_fastest_draft(pair, settings, histories)
    warn_of_few_paths(settings.levels, settings.num_samples)

    _check_sizes(pair, settings, histories)
    run = _run_histories(pair, histories, settings, ids)
    reports = () if settings.num_samples else traits_of(pair.target).reports
    return make_forecast(run.decoded, run.contexts, run.sigma, histories, settings, reports)


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


def _run_histories(
    pair: Pair, histories: Histories, settings: Settings, ids: Sequence[str] | None
) -> Run:
    """Decodes all histories, and combines them with the forecasts of their means."""
    # a given sigma holds for the steps of the series, not for their means
    counts = pair.aggregations if settings.sigma is None else ()
    rates = usable_rates(counts, histories, settings.horizon, pair.target)

    # Contexts and sigmas of the series and of their means, in one go.
    every, streams = with_means(histories, rates), stream_numbers(ids, histories)
    sources = np.concatenate([np.arange(len(streams)), *(rate.rows for rate in rates)])
    inputs = prepare_inputs(pair, every, settings, streams[sources])
    if settings.sigma is not None:
        check_given_sigma(settings.sigma, inputs.sigma, histories.names)

    # The paths of the series, and those of their means.
    series = np.arange(len(streams))
    run = _run(pair, inputs, settings, series, every.names)
    if not rates:
        return run
    horizon = means_ahead(histories, rates, settings.horizon)
    means = np.arange(len(streams), len(sources))
    coarse = _run(pair, inputs, settings._replace(horizon=horizon), means, every.names)
    paths = _in_units_of(run, coarse, sources[means])
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


def _check_sizes(pair: Pair, settings: Settings, histories: Histories) -> None:
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
