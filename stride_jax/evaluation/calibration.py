"""Calibration: what a forecast costs with a draft and without, measured once and remembered."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from stride_jax.checkpoints.pair import Pair
from stride_jax.config import whole_number
from stride_jax.decoding.base import Process
from stride_jax.errors import InputError, InputWarning
from stride_jax.evaluation.bench import time_in_turns
from stride_jax.forecasting.auto import forecast_work
from stride_jax.forecasting.choice import NUM_DRAFTS, Choice, Costs, Work, choose, useful
from stride_jax.forecasting.cost_file import default_path, write_costs
from stride_jax.forecasting.forecast import forecast
from stride_jax.forecasting.settings import as_pair

Clock = Callable[[Sequence[Callable[[int], Any]], int], list[list[float]]]
"""`(calls, repeats) -> seconds of each repeat of each call`, as `bench.time_in_turns`."""


def calibrate(
    pair: Pair | Process,
    history: Any,
    horizon: int,
    *,
    num_drafts: Sequence[int] = NUM_DRAFTS,
    repeats: int = 5,
    clock: Clock = time_in_turns,
    **options: Any,
) -> Choice:
    """Times `forecast` with the target alone and with each K, and remembers what it took.

    `forecast(..., num_draft="auto")` of a pair, rule and shapes like these then decodes in the
    fastest way. The forecasts take turns; the first of each compiles and does not count. The costs
    are kept in the file `cost_file.default_path()`.

    Args:
        pair: target and draft.
        history: as for `forecast`; the acceptance is that of these series.
        horizon: steps.
        num_drafts: K to try, cut to the patches of the horizon less one and to what the draft can
            propose in a round.
        repeats: timed forecasts of each, each with another seed; the median counts.
        clock: times the calls.
        options: further arguments of `forecast`, without key and num_draft.

    Returns:
        The choice and its reason.

    Raises:
        InputError: a pair without a draft, num_drafts that are no whole numbers from 1 on, repeats
            below 1, or see `forecast`.

    Warns:
        InputWarning: the costs cannot be written; `auto` will not know of them.
    """
    pair, num_drafts = as_pair(pair), _whole_numbers(num_drafts)
    repeats = whole_number("repeats", repeats, least=1)
    if pair.draft is None:
        raise InputError("there is nothing to calibrate without a draft; name one (--draft NAME).")
    work = forecast_work(pair, history, horizon, **options)
    tried = [0, *useful(num_drafts, work.patches, pair.draft)]

    def call(num_draft: int) -> Callable[[int], Any]:
        return lambda seed: forecast(
            pair, history, horizon, key=seed, num_draft=num_draft, **options
        )

    times = clock([call(num_draft) for num_draft in tried], repeats)
    medians = [statistics.median(one) for one in times]
    costs = Costs(medians[0], dict(zip(tried[1:], medians[1:], strict=True)), measured=True)
    _remember(work, costs)
    return choose(costs)


def _whole_numbers(num_drafts: Any) -> list[int]:
    """K to try, each from 1 on."""
    if isinstance(num_drafts, str) or not isinstance(num_drafts, Sequence) or not num_drafts:
        raise InputError(
            f"num_drafts must be a list of whole numbers such as {NUM_DRAFTS}, got {num_drafts!r}."
        )
    return [whole_number("num_drafts", k, least=1) for k in num_drafts]


def _remember(work: Work, costs: Costs) -> None:
    """Keeps costs for later, or warns that they cannot be kept."""
    path = default_path()
    try:
        write_costs(path, work.key, costs)
    except OSError as error:
        warnings.warn(
            f"the measured costs cannot be kept in {path} ({error}), so num_draft 'auto' will not "
            "know of them; set STRIDE_JAX_CACHE to a directory that can be written.",
            InputWarning,
            stacklevel=3,
        )
