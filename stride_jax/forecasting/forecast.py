"""From histories to forecasts: means, quantiles and sample paths in the units of the history."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding.base import Process, Rule, check_parameters, traits_of
from stride_jax.decoding.checks import check_size
from stride_jax.decoding.rules import rule_name
from stride_jax.decoding.scale import PatchCovariance
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import DecodeConfig, num_patches
from stride_jax.errors import InputError
from stride_jax.forecasting.auto import with_fastest_draft
from stride_jax.forecasting.covariance import history_covariance, unit_factor
from stride_jax.forecasting.histories import (
    Contexts,
    Histories,
    Missing,
    make_contexts,
    read_histories,
)
from stride_jax.forecasting.lengths import View, groups, make_view, visible_steps
from stride_jax.forecasting.messages import (
    check_filled,
    check_finite,
    listed,
    warn,
    warn_of_few_paths,
)
from stride_jax.forecasting.mirror import both_ways, turned_back, upright
from stride_jax.forecasting.results import Decoded, Forecast, in_order, make_forecast
from stride_jax.forecasting.settings import (
    Settings,
    as_pair,
    check_settings,
    choose_output,
    default_rule,
)
from stride_jax.forecasting.sigma import RESIDUALS, history_sigmas


class Inputs(NamedTuple):
    """Histories ready to decode, one row per series.

    Attributes:
        contexts: the steps that are decoded from.
        sigma: `[B, 1, C]` float64, over the scale of the context, or `[B, P, C]` of a target that
            predicts a std; or the covariance of each series.
        ahead: `[B]`, steps without values at the end of each history, decoded and dropped.
        streams: `[B]` int32, folded into the key.
        masked: padding is masked, so that contexts of different lengths are decoded together.
    """

    contexts: Contexts
    sigma: np.ndarray | PatchCovariance
    ahead: np.ndarray
    streams: np.ndarray
    masked: bool


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
            normalises sees it standardised (see `decoding.base.Traits`). Sample paths have
            the covariance of the pair, scaled for each history so that the mean variance of a patch
            is sigma^2; where the target predicts a std for each step, these are the stds, and the
            covariance gives the correlation alone. A mean path does not use it. A pair that is
            `mirrored` takes half of the sample paths from the history upside down, with the same
            random numbers, and turns them back (see `forecasting.mirror`); its mean path is the
            mean of both.
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
    each = settings.each_way() if pair.mirrored else settings
    count = len(histories.series) * (2 if pair.mirrored else 1)
    config = each.decode_config(count, drafted=pair.draft is not None)
    patch_len, shape = pair.target.patch_len, histories.series[0].shape
    check_size((len(histories.series), *shape), patch_len, config)
    patch = patch_len, histories.num_vars
    factor = None if pair.covariance is None else unit_factor(pair.covariance, patch)
    _check_correlated(pair, settings, config)
    check_parameters(pair.target)
    view, contexts = _contexts(pair, histories)
    check_filled(contexts.filled, histories.names)
    warn_of_few_paths(settings.levels, settings.num_samples)
    ahead, streams = np.array(histories.ahead), _streams(ids, histories)
    if pair.mirrored:
        contexts, ahead, streams = both_ways(contexts), np.tile(ahead, 2), np.tile(streams, 2)
    sigmas = _sigmas(pair.target, contexts, view, settings, histories.names)
    check_finite("sigma", np.arange(count), sigmas, histories.names)
    contexts = _last(contexts, view.shared, view.length if view.masked else view.shared)
    scales: np.ndarray | PatchCovariance = sigmas
    if factor is not None and settings.num_samples:
        scales = history_covariance(factor, sigmas)
    inputs = Inputs(contexts, scales, ahead, streams, view.masked)
    patches = np.array([num_patches(config.horizon + steps, patch_len) for steps in ahead])
    parts = [
        _decode(pair, inputs, rows, settings, config)
        for rows in groups(view.masked, contexts.lengths, patches)
    ]
    for part in parts:
        check_finite("forecast", part.rows, part.paths, histories.names)
    decoded = in_order(parts)
    if pair.mirrored:
        decoded = turned_back(decoded, settings.num_samples)
        contexts, sigmas = upright(contexts), upright(sigmas)
    reports = () if settings.num_samples else traits_of(pair.target).reports
    return make_forecast(decoded, contexts, sigmas, histories, settings, reports)


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
        sigma=_of_rows(inputs.sigma, rows),
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


def _of_rows(sigma: np.ndarray | PatchCovariance, rows: np.ndarray) -> Any:
    """Sigma, or the covariance, of some of the series."""
    if not isinstance(sigma, PatchCovariance):
        return sigma[rows]
    factor = sigma.factor[rows] if sigma.factor.ndim == 4 else sigma.factor
    return PatchCovariance(factor, sigma.sigma[rows])


def _streams(ids: Sequence[str] | None, histories: Histories) -> np.ndarray:
    """Numbers folded into the key, `[B]` int32: of the series, or hashes of their ids."""
    count = len(histories.series)
    if ids is None:
        return np.arange(count, dtype=np.int32)
    apart = count // len(ids)  # variables that are series of their own
    return np.array([_stream(one, c) for one in ids for c in range(apart)], np.int32)


def _stream(text: str, variable: int) -> int:
    """31 bits of a hash that no platform or process changes."""
    encoded = f"{variable} {text}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=4).digest(), "big") >> 1
