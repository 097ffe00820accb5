"""Quantiles: how many paths they need, and what their columns are called."""

import warnings
from typing import Any

import numpy as np
import pytest
from helpers.frames import SHORT_REPEAT, hours, long
from hypothesis import given, settings
from hypothesis import strategies as st

from stride_jax.errors import InputError, InputWarning
from stride_jax.forecasting.forecast import forecast
from stride_jax.forecasting.frames import forecast_df, quantile_columns

SHORT: dict[str, Any] = {"sigma": 1.0}
HISTORY = np.random.default_rng(0).normal(size=12)


@pytest.mark.parametrize(
    ("paths", "levels", "least"),
    [
        (1, (0.5,), 2),
        (9, (0.1, 0.5, 0.9), 10),
        (20, (0.001, 0.999), 1000),
        (20, (0.04, 0.5), 25),
        (99, (0.5, 0.99), 100),
    ],
)
def test_too_few_paths_for_a_level_are_said(
    paths: int, levels: tuple[float, ...], least: int
) -> None:
    """The level .001 of twenty paths is the least of them, which is the level .05."""
    with pytest.warns(InputWarning, match=f"^{paths} sample paths .* num_samples {least} is"):
        forecast(SHORT_REPEAT, HISTORY, 4, num_samples=paths, quantiles=levels, **SHORT)


@pytest.mark.parametrize(
    ("paths", "levels"),
    [(2, (0.5,)), (10, (0.1, 0.9)), (100, (0.01, 0.99)), (3, ()), (0, (0.001,)), (20, (0.05,))],
)
def test_enough_paths_need_no_word(paths: int, levels: tuple[float, ...]) -> None:
    """A warning at every forecast is one that nobody reads."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forecast(SHORT_REPEAT, HISTORY, 4, num_samples=paths, quantiles=levels, **SHORT)


@pytest.mark.parametrize("levels", [(0.1, 0.5, 0.1), [0.25, 0.25], np.array([0.9, 0.9])])
def test_a_level_twice_is_refused(levels: Any) -> None:
    """Two columns of one name: a frame would lose one of them."""
    with pytest.raises(InputError, match="quantiles must differ, got"):
        forecast(SHORT_REPEAT, HISTORY, 4, quantiles=levels, **SHORT)


@pytest.mark.parametrize(
    ("levels", "names"),
    [
        ((0.025, 0.1 + 0.2, 0.29, 0.975), ["2.5", "30", "29", "97.5"]),
        ((0.9, 0.9000000001), ["90", "90.00000001"]),
        ((0.99999999,), ["99.999999"]),
        ((1e-9, 0.001), ["1e-07", "0.1"]),
        ((0.5, np.nextafter(0.5, 1)), ["50", "50.00000000000001"]),
    ],
)
def test_levels_that_print_alike_have_names_of_their_own(
    levels: tuple[float, ...], names: list[str]
) -> None:
    """The columns of .9999999 and .99999991 would be one; .9999999 would be 100 per cent."""
    levels, names = zip(*sorted(zip(levels, names, strict=True)), strict=True)
    assert quantile_columns(levels) == [f"stride-q-{name}" for name in names]
    df, paths = long(a=hours(12)), {"num_samples": 10, "pair": SHORT_REPEAT}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        found = forecast_df(df, 4, quantiles=levels, **paths, **SHORT)
    assert list(found.columns[3:]) == [f"stride-q-{name}" for name in names]


@settings(deadline=None, max_examples=200, derandomize=True)
@given(
    st.lists(st.floats(1e-15, 1 - 2**-53), min_size=1, max_size=6, unique=True),
    st.integers(0, 60),
)
def test_columns_are_as_many_as_levels(levels: list[float], ulps: int) -> None:
    """A column would be lost without a word, whatever the levels."""
    near = min(levels[0] + ulps * 2.0**-53, 1 - 2**-53)
    every = sorted({*levels, near})
    assert len(set(quantile_columns(every))) == len(every)
