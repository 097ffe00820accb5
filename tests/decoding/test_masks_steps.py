"""Histories that are no whole number of patches: the trait `masks_steps`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.first_value import FirstValue

from stride_jax import DecodeConfig, decode
from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding.rules import Mean
from stride_jax.errors import InputError
from stride_jax.forecasting.forecast import forecast


def mean_path(steps: bool, context: np.ndarray, lengths: Any) -> np.ndarray:
    """The first forecast step of each series."""
    forecast, info = decode(
        jax.random.key(0),
        context,
        target=FirstValue(steps),
        sigma=0.0,
        config=DecodeConfig(horizon=1),
        rule=Mean(),
        lengths=lengths,
    )
    assert info.valid_input.all()  # what the host let pass, the compiled program does too
    return np.asarray(forecast)[:, 0, 0]


CONTEXT = np.arange(24, dtype=np.float32).reshape(3, 8, 1)


def test_lengths_are_single_steps():
    """A history would be cut to whole patches, though its model takes single steps."""
    assert mean_path(True, CONTEXT, np.array([1, 3, 5])).tolist() == [8, 16, 24]
    assert mean_path(True, CONTEXT[:, :3], np.array([1, 2, 3])).tolist() == [3, 11, 19]


@pytest.mark.parametrize(("steps", "lengths"), [(False, [4, 6, 8]), (True, [0, 3, 8])])
def test_other_lengths_are_refused(steps, lengths):
    """A step of padding would be taken for a value, on the host and on a device."""
    bad = 6 if not steps else 0
    with pytest.raises(InputError, match=f"lengths must be .* got {bad}"):
        mean_path(steps, CONTEXT, np.array(lengths))
    _, info = decode(
        jax.random.key(0),
        CONTEXT,
        target=FirstValue(steps),
        sigma=0.0,
        config=DecodeConfig(horizon=1),
        rule=Mean(),
        lengths=jnp.array(lengths),
    )
    assert info.valid_input.tolist() == [n != bad for n in lengths]


def test_a_forecast_shows_the_whole_history():
    """The first steps of a history would be lost, or it would be filled up to a patch."""
    histories = [np.arange(n, dtype=np.float64) + 10 for n in (1, 3, 7)]
    for steps, expected in ((True, [11, 13, 17]), (False, [14, 14, 17])):
        target = FirstValue(steps)
        found = forecast(Pair(target), histories, 1, num_samples=0, sigma=1.0).mean
        assert np.ravel(found).tolist() == expected
