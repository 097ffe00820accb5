"""Counts and other quantities that are never below 0: the distribution is cut off there."""

from typing import Any

import numpy as np
import pytest
from helpers.frames import SHORT_REPEAT, hours, long

from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding.naive_drafts import seasonal_draft
from stride_jax.decoding.processes import window_process
from stride_jax.errors import InputError
from stride_jax.forecasting.forecast import forecast
from stride_jax.forecasting.frames import forecast_df

COUNTS = [0.0, 0, 1, 0, 0, 0, 2, 0]
SHORT: dict[str, Any] = {"num_samples": 200}
NEVER_BELOW = {
    "counts": COUNTS,
    "zeros and a blank": [0.0, np.nan, 1, 0, 0, 0, 0, 1],
    "small": list(1e-9 * np.array(COUNTS)),
    "integers": np.array(COUNTS, np.uint8),
}


@pytest.mark.parametrize(
    ("name", "draft"), [*((name, None) for name in NEVER_BELOW), ("counts", seasonal_draft(4, 3))]
)
def test_counts_are_cut_off_at_zero(name: str, draft: Any) -> None:
    """The tenth percentile of sales would be -.24; or the mean be that of the uncut paths."""
    settings, pair = {**SHORT, "num_draft": 2}, Pair(SHORT_REPEAT, draft)
    found = forecast(pair, NEVER_BELOW[name], 6, **settings)
    whole = forecast(pair, NEVER_BELOW[name], 6, non_negative=False, **settings)
    assert (whole.paths < 0).any()
    np.testing.assert_array_equal(found.paths, np.maximum(whole.paths, 0))
    np.testing.assert_allclose(found.mean, found.paths.mean(axis=0))
    np.testing.assert_allclose(found.quantiles, np.quantile(found.paths, found.levels, axis=0))
    assert (found.mean > whole.mean).sum() >= 4
    assert (found.quantiles[0] == 0).any()
    np.testing.assert_array_equal(found.sigma, whole.sigma)
    assert (found.non_negative.tolist(), whole.non_negative.tolist()) == (True, False)


def test_one_value_below_zero_is_enough() -> None:
    """Temperatures would be cut off at the freezing point."""
    below = [*COUNTS, -1e-9, *COUNTS]  # and outside of the context
    settings = {**SHORT, "sigma": 1.0}
    found = forecast(SHORT_REPEAT, [COUNTS, below], 6, **settings)
    assert found.non_negative.tolist() == [True, False]
    assert (found.paths[0] >= 0).all()
    assert (found.paths[1] < 0).any()
    forced = forecast(SHORT_REPEAT, [COUNTS, below], 6, non_negative=True, **settings)
    np.testing.assert_array_equal(forced.paths, np.maximum(found.paths, 0))
    assert forced.non_negative.all()


@pytest.mark.parametrize("variables", ["separate", "joint"])
def test_each_variable_is_looked_at_by_itself(variables: str) -> None:
    """Wind and temperature in one table would share their floor."""
    table = np.stack([COUNTS, np.array(COUNTS) - 1], axis=1)
    found = forecast(SHORT_REPEAT, [table, -table], 6, variables=variables, **SHORT)
    assert found.non_negative.tolist() == [[True, False], [False, False]]
    least = found.paths.min(axis=(1, 2))
    assert least[0, 0] == 0
    assert (least.ravel()[1:] < 0).all()


def falling(window: Any) -> Any:
    """One less than the last patch."""
    return window[-4:] - 1


def test_a_mean_path_is_cut_off_too() -> None:
    """A trend that falls through 0 would end in negative sales."""
    target, history = window_process(falling, 4), np.array([2.0, 1, 1.5, 0.5])
    found = forecast(target, history, 12, num_samples=0, sigma=1.0)
    expected = np.concatenate([history - n for n in (1, 2, 3)])  # it goes on from uncut values
    np.testing.assert_allclose(found.mean, np.maximum(expected, 0), atol=1e-6)


def test_a_frame_takes_the_option() -> None:
    """Users of frames could not switch it off."""
    df = long(a=hours(8))
    df["y"] = COUNTS
    settings = {**SHORT, "pair": SHORT_REPEAT, "quantiles": (0.1,)}
    assert forecast_df(df, 6, **settings)["stride-q-10"].min() == 0
    assert forecast_df(df, 6, non_negative=False, **settings)["stride-q-10"].min() < 0


@pytest.mark.parametrize("value", [1, "yes", 0.0, np.array([True])])
def test_what_is_no_choice_is_refused(value: Any) -> None:
    """A floor of 1 would be taken for yes."""
    with pytest.raises(InputError, match="non_negative must be True, False or None"):
        forecast(SHORT_REPEAT, COUNTS, 6, non_negative=value)
