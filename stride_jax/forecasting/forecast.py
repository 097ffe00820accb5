"""From histories to forecasts: means, quantiles and sample paths in the units of the history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jax

from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding.base import Process, Rule
from stride_jax.decoding.traits import traits_of
from stride_jax.errors import InputError
from stride_jax.forecasting.auto import with_fastest_draft
from stride_jax.forecasting.histories import Missing, read_histories
from stride_jax.forecasting.messages import warn_of_few_paths
from stride_jax.forecasting.results import Forecast, make_forecast
from stride_jax.forecasting.runs import check_sizes, run_histories
from stride_jax.forecasting.settings import (
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
            target without a draft. The distribution of a decoded path is the target's, with an
            exact rule whatever the draft. A process of your own sees the history as it is, one that
            normalises sees it standardised (see `decoding.traits.Traits`). Sample paths have the
            covariance of the pair, scaled for each history so that the mean variance of a patch is
            sigma^2; where the target predicts a std for each step, these are the stds, and the
            covariance gives the correlation alone. A mean path does not use it. A pair that is
            `mirrored` takes half of the sample paths from the history upside down, with the same
            random numbers, and turns them back (see `forecasting.mirror`); its mean path is the
            mean of both. Its `aggregations` are the numbers of neighbouring steps whose means are
            forecast too: the means of as many steps of each path move towards those forecasts, rank
            by rank (see `forecasting.aggregation`). That is so for histories that are longer than
            what the target sees and like it as far back, 12 means or more ahead, with 20 sample
            paths or more (or the mean path), where no sigma is given.
        history: `[T]`, `[T, C]`, `[B, T, C]`, or a list of `[T]` or `[T, C]` of different lengths;
            NaN is a missing value. The last steps count, as many as the target sees (and for
            `aggregations` as many times more as steps are in a mean), in whole patches unless the
            target masks single steps; sigma is measured on up to eight patches more, as far back as
            they are like those steps (see `contexts.alike`). A target that sees all it is given
            and masks no padding is shown a history in one of few lengths, so that it is not
            compiled for each: see `lengths.few_patches`.
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
            returned has the distribution that it has by the target alone.

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

    check_sizes(pair, settings, histories)
    run = run_histories(pair, histories, settings, ids)
    reports = () if settings.num_samples else traits_of(pair.target).reports
    return make_forecast(run.decoded, run.contexts, run.sigma, histories, settings, reports)
