"""Calibration: what a forecast costs with a draft and without, measured once and remembered."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stride_jax.checkpoints.pair import Pair
from stride_jax.errors import InputError
from stride_jax.evaluation.bench import time_in_turns
from stride_jax.forecasting.auto import forecast_work
from stride_jax.forecasting.choice import NUM_DRAFTS, Choice, Costs, choose, useful
from stride_jax.forecasting.cost_file import default_path, write_costs
from stride_jax.forecasting.forecast import forecast

Clock = Callable[[Sequence[Callable[[int], Any]], int], list[list[float]]]
"""`(calls, repeats) -> seconds of each repeat of each call`, as `bench.time_in_turns`."""


def calibrate(
    pair: Pair,
    history: Any,
    horizon: int,
    *,
    num_drafts: Sequence[int] = NUM_DRAFTS,
    repeats: int = 5,
    path: Path | None = None,
    clock: Clock = time_in_turns,
    **options: Any,
) -> Choice:
    """Times `forecast` with the target alone and with each K, and remembers what it took.

    `forecast(..., num_draft="auto")` of a pair, rule and shapes like these then decodes in the
    fastest way. The forecasts take turns; the first of each compiles and does not count.

    Args:
        pair: target and draft.
        history: as for `forecast`; the acceptance is that of these series.
        horizon: steps.
        num_drafts: K to try, cut to the patches of the horizon less one.
        repeats: timed forecasts of each, each with another seed; the median counts.
        path: of the file of costs; None for `cost_file.default_path()`.
        clock: times the calls.
        options: further arguments of `forecast`, without key and num_draft.

    Returns:
        The choice and its reason.

    Raises:
        InputError: a pair without a draft, or see `forecast`.
    """
    if pair.draft is None:
        raise InputError("there is nothing to calibrate without a draft; name one (--draft NAME).")
    work = forecast_work(pair, history, horizon, **options)
    tried = [0, *useful(num_drafts, work.patches)]

    def call(num_draft: int) -> Callable[[int], Any]:
        return lambda seed: forecast(
            pair, history, horizon, key=seed, num_draft=num_draft, **options
        )

    times = clock([call(num_draft) for num_draft in tried], repeats)
    medians = [statistics.median(one) for one in times]
    costs = Costs(medians[0], dict(zip(tried[1:], medians[1:], strict=True)), measured=True)
    write_costs(path or default_path(), work.key, costs)
    return choose(costs)
