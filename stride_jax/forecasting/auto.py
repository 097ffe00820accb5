"""The work of a forecast, and its settings with the fastest number of proposals."""

from __future__ import annotations

import logging
from typing import Any

from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding.base import Process, Rule
from stride_jax.decoding.types import num_patches
from stride_jax.forecasting.choice import Work, decide, work_of
from stride_jax.forecasting.cost_file import default_path, read_costs
from stride_jax.forecasting.histories import Histories, Missing, read_histories
from stride_jax.forecasting.lengths import few_patches, make_view, visible_steps
from stride_jax.forecasting.settings import (
    Settings,
    as_pair,
    check_settings,
    choose_output,
    default_rule,
)

LOGGER = logging.getLogger("stride_jax")


def forecast_work(
    pair: Pair | Process,
    history: Any,
    horizon: int,
    *,
    num_samples: int | None = None,
    rule: Rule | None = None,
    variables: str = "separate",
    missing: Missing = "interpolate",
    batch_size: int | None = None,
    path_chunk: int | None = None,
    **_: Any,
) -> Work:
    """The work of a `forecast` with these arguments, on which its cost depends.

    Raises:
        InputError: see `forecast`.
    """
    pair = as_pair(pair)
    num_samples = choose_output(pair.target, num_samples, ())[0]
    settings = check_settings(
        horizon=horizon,
        num_samples=num_samples,
        quantiles=(),
        sigma=None,
        num_draft=0,
        rule=default_rule(pair.target, num_samples) if rule is None else rule,
        key=0,
        batch_size=batch_size,
        path_chunk=path_chunk,
        non_negative=None,
    )
    histories = read_histories(history, missing, apart=variables == "separate")
    return _work(pair, settings, histories)


def _work(pair: Pair, settings: Settings, histories: Histories) -> Work:
    """The work of checked settings."""
    count, num_vars = len(histories.series), histories.series[0].shape[1]
    if pair.mirrored:
        count, settings = 2 * count, settings.each_way()
    config = settings.decode_config(count, drafted=True)
    patches = num_patches(settings.horizon, pair.target.patch_len)
    lanes = (config.batch_size or count) * config.paths_at_once
    return work_of(pair, settings.rule, patches, lanes, num_vars, _context(pair, histories))


def _context(pair: Pair, histories: Histories) -> int:
    """Patches of the longest context that target and draft are given, in few sizes."""
    steps = visible_steps(pair.target, histories.series)
    shown = [one[len(one) - n :] for one, n in zip(histories.series, steps, strict=True)]
    view = make_view(pair.target, pair.draft, shown)
    return few_patches(-(-view.shared // pair.target.patch_len))


def with_fastest_draft(pair: Pair, settings: Settings, histories: Histories) -> Settings:
    """The settings with the K that is fastest, which is logged where there is a draft."""
    if pair.draft is None:
        return settings
    work = _work(pair, settings, histories)
    choice = decide(pair, work, read_costs(default_path()))
    LOGGER.info("%s", choice.reason)
    return settings._replace(num_draft=choice.num_draft)
