"""Histories that begin late or end early: their blanks are no history, and are forecast over."""

from typing import Any

import jax
import numpy as np
import pytest
from helpers.frames import SHORT_REPEAT, hours, long

from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding.naive_drafts import seasonal_draft
from stride_jax.decoding.processes import window_process
from stride_jax.errors import InputError
from stride_jax.forecasting.forecast import forecast
from stride_jax.forecasting.frames import forecast_df

DAY, NAN = 24, np.nan
HOURS = np.arange(240 + 96)
WAVE = 5 + np.sin(2 * np.pi * HOURS / DAY)


def last_day(window: jax.Array) -> jax.Array:
    """The last day again."""
    return window[-DAY:]


DAILY = window_process(last_day, DAY)


def blank(first: int, last: int) -> np.ndarray:
    """240 hours of the sine, blank at both ends."""
    history = WAVE[:240].copy()
    history[:first] = NAN
    history[240 - last :] = NAN
    return history


@pytest.mark.parametrize("last", [0, 1, 24, 50, 192])
@pytest.mark.parametrize("first", [0, 7, 24])
def test_a_sine_with_blank_ends_goes_on(first: int, last: int) -> None:
    """A line drawn to the end would be forecast: an error of .54 where .11 is possible."""
    found = forecast(DAILY, blank(first, last), 60, num_samples=0, sigma=1.0)
    np.testing.assert_allclose(found.mean, WAVE[240:300], atol=1e-5)


def test_leading_blanks_are_no_history() -> None:
    """A wide file whose columns begin at different times would be forecast from its filling."""
    found = forecast(DAILY, blank(192, 0), 4, num_samples=10)
    expected = forecast(DAILY, WAVE[192:240], 4, num_samples=10)
    np.testing.assert_array_equal(found.paths, expected.paths)
    np.testing.assert_array_equal(found.sigma, expected.sigma)


@pytest.mark.parametrize(
    ("blanks", "draft"), [(1, None), (4, None), (11, None), (6, seasonal_draft(4, 3))]
)
def test_blanks_at_the_end_are_cut_off_and_forecast_over(blanks: int, draft: Any) -> None:
    """Each path is the longer one of the known values, without what came too early."""
    history = np.random.default_rng(0).normal(size=20)
    short, pair = {"num_samples": 10, "num_draft": 2}, Pair(SHORT_REPEAT, draft)
    found = forecast(pair, np.append(history, [NAN] * blanks), 5, **short)
    expected = forecast(pair, history, 5 + blanks, **short)
    np.testing.assert_array_equal(found.paths, expected.paths[:, blanks:])
    np.testing.assert_array_equal(found.sigma, expected.sigma)
    assert (found.info.origin == expected.info.origin).all()


@pytest.mark.parametrize("draft", [None, seasonal_draft(4, 3)], ids=["alone", "drafted"])
def test_each_series_of_a_batch_has_its_own_end(draft: Any) -> None:
    """One series with blanks at its end would shift the others, or change their paths."""
    rng = np.random.default_rng(0)
    short, pair = {"num_samples": 10, "batch_size": 2}, Pair(SHORT_REPEAT, draft)
    known, gappy = rng.normal(size=20), np.append(rng.normal(size=20), [NAN] * 9)
    found = forecast(pair, [known, gappy], 5, **short)
    assert (found.paths.shape, found.info.origin.shape) == ((2, 10, 5), (2, 10, 4))
    assert (found.info.origin[0, :, 2:] == -1).all()  # two patches are enough for five steps
    assert (found.info.origin[0, :, :2] != -1).all()
    assert (found.info.origin[1] != -1).all()
    assert np.isnan(found.info.proposal[0, :, 2:]).all()
    for i, one in enumerate((known, gappy)):
        other = forecast(pair, [known, one][-1 - i :], 5, **short)
        np.testing.assert_array_equal(found.paths[i], other.paths[i])


def test_variables_apart_have_ends_of_their_own_and_together_one() -> None:
    """A sensor that stopped early would cut the others off, or be drawn on as a line."""
    table = np.stack([blank(0, 0), blank(0, 50)], axis=1)
    found = forecast(DAILY, table, 30, num_samples=0, sigma=1.0)
    np.testing.assert_allclose(found.mean, np.stack([WAVE[240:270]] * 2, axis=1), atol=1e-5)
    found = forecast(DAILY, table, 30, num_samples=0, sigma=1.0, variables="joint")
    np.testing.assert_allclose(found.mean, np.stack([WAVE[240:270]] * 2, axis=1), atol=1e-5)
    never = np.array([[1.0, NAN]] * 30 + [[NAN, 1.0]] * 30)
    with pytest.raises(InputError, match="series 0 has a variable that ends before another"):
        forecast(DAILY, never, 4, variables="joint")
    assert forecast(DAILY, never, 4, num_samples=0, sigma=1.0).mean.shape == (4, 2)


def test_a_frame_with_blanks_at_its_end_goes_on_after_them() -> None:
    """Times and values would part: the forecast of the blanks under the times after them."""
    df = long(a=hours(16), b=hours(16))
    df["y"] = np.random.default_rng(0).normal(size=32)
    df.loc[[13, 14, 15], "y"] = NAN
    point = {"pair": SHORT_REPEAT, "num_samples": 0, "sigma": 1.0}
    found = forecast_df(df, 6, **point)
    assert found["ds"][0] == hours(17)[-1]
    early = forecast_df(df.drop(index=[13, 14, 15]), 9, **point)
    early = early[early["unique_id"] == "a"]
    np.testing.assert_array_equal(found["stride"][:6], early["stride"][3:])
    assert found["ds"][:6].tolist() == early["ds"][3:].tolist()
