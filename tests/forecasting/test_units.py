"""A forecast of a y + b is a times the forecast of y, plus b: whatever the units."""

from typing import Any

import jax
import numpy as np
import pytest
from helpers.frames import Repeat
from helpers.levels import Level, cached
from hypothesis import given, settings
from hypothesis import strategies as st

from stride_jax.decoding.base import Process
from stride_jax.decoding.processes import window_process
from stride_jax.forecasting.forecast import forecast

P = 4
FACTORS = st.builds(
    lambda sign, power: sign * 10.0**power, st.sampled_from([1, -1]), st.integers(-12, 12)
)
OFFSETS = st.sampled_from([0.0, 1.0, -30.0, 1e3])


def halfway(window: jax.Array) -> jax.Array:
    """Half the way from the last patch to the mean of the window."""
    return (window[-P:] + window.mean(axis=0, keepdims=True)) / 2


PROCESSES: dict[str, tuple[Process, float]] = {
    "causal": (cached(Level(), context_len=8), 1.0),
    "repeat": (cached(Repeat(), context_len=8), 1.0),
    # its values come as they are, in float32, whose digits an offset takes
    "window": (window_process(halfway, P, context_len=8), 1e-2),
}


def walk(steps: int, seed: int) -> np.ndarray:
    """A random walk."""
    return np.random.default_rng(seed).normal(size=steps).cumsum()


@pytest.mark.parametrize("name", PROCESSES)
@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    factor=FACTORS, offset=OFFSETS, steps=st.sampled_from([2, 6, 16, 40]), seed=st.integers(0, 99)
)
def test_units_do_not_change_a_forecast(
    name: str, factor: float, offset: float, steps: int, seed: int
) -> None:
    """Volts and nanovolts would be forecast differently; the small ones by numbers of the code."""
    process, share = PROCESSES[name]
    steps = max(steps, 8) if name == "window" else steps
    history, offset = walk(steps, seed), share * offset
    given_: dict[str, Any] = {"num_samples": 10, "non_negative": False}
    plain = forecast(process, history, 6, **given_)
    moved = forecast(process, factor * (history + offset), 6, **given_)
    # float32 has seven digits, of which a level and a wide band take some
    close = 2e-5 * (np.abs(plain.paths).max() + np.ptp(history))
    np.testing.assert_allclose(moved.sigma / abs(factor), plain.sigma, rtol=2e-4)
    if factor > 0:  # noise has a sign
        for field in ("paths", "mean", "quantiles"):
            np.testing.assert_allclose(
                getattr(moved, field) / factor - offset, getattr(plain, field), rtol=0, atol=close
            )


@pytest.mark.parametrize("value", [1e-12, 1e-5, -1.0, 40.0, 1e12])
@pytest.mark.parametrize("name", PROCESSES)
def test_a_constant_history_is_forecast_to_its_last_digits(name: str, value: float) -> None:
    """600 steps of 1e-5 would be forecast as -2.3e-4 to 4e-4."""
    found = forecast(PROCESSES[name][0], np.full(600, value), 6, num_samples=10)
    np.testing.assert_allclose(found.paths, value, rtol=1e-4)
    assert 0 < found.sigma < 1e-5 * abs(value)


@pytest.mark.parametrize("factor", [1e-12, 1e-6, 1.0, 1e12])
def test_a_trained_model_does_not_see_units(factor: float) -> None:
    """Small units would change a Timer-XL's forecast: its norm adds 1e-5 to a variance."""
    from helpers.forecasts import CAUSAL_PAIR

    for history in (walk(21, 0), np.full(21, 3.0), 1e5 + walk(9, 1)):
        plain = forecast(CAUSAL_PAIR, history, 6, num_samples=10, non_negative=False)
        moved = forecast(CAUSAL_PAIR, factor * history, 6, num_samples=10, non_negative=False)
        close = 1e-5 * np.ptp(plain.paths)
        np.testing.assert_allclose(moved.paths / factor, plain.paths, rtol=1e-9, atol=close)
