"""What `calibrate` times, and which of the times counts."""

from typing import Any

import numpy as np
import pytest
from jax.tree_util import Partial

import stride_jax as sj
from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding.naive_drafts import last_value_draft
from stride_jax.evaluation import calibration
from stride_jax.evaluation.calibration import calibrate

P = 4
PAIR = Pair(sj.window_process(Partial(lambda window: 0.9 * window[-P:]), P), last_value_draft(P))


def test_the_median_of_the_repeats_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """One lucky or unlucky repeat would decide."""
    monkeypatch.setenv("STRIDE_JAX_CACHE", str(tmp_path))
    times = {0: [0.1, 1.0, 9.0], 2: [0.2, 0.5, 99.0]}
    choice = calibrate(
        PAIR,
        np.arange(40.0),
        3 * P,
        num_drafts=(2,),
        clock=lambda calls, repeats: list(times.values()),
    )
    assert choice.num_draft == 2
    assert "2.00 times as fast" in choice.reason


def test_every_timed_forecast_has_a_seed_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """The acceptance of one draw would be that of all."""
    monkeypatch.setenv("STRIDE_JAX_CACHE", str(tmp_path))
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(
        calibration, "forecast", lambda *_, key, num_draft, **__: seen.append((key, num_draft))
    )

    def clock(calls: Any, repeats: int) -> list[list[float]]:
        for call in calls:
            for repeat in range(repeats):
                call(repeat)
        return [[1.0]] * len(calls)

    calibrate(PAIR, np.arange(40.0), 3 * P, num_drafts=(2,), repeats=2, clock=clock)
    assert seen == [(0, 0), (1, 0), (0, 2), (1, 2)]
