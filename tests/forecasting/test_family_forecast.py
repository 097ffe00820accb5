"""Forecasts of foundation models: their released decode, and the quantiles that they report."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.families import Jitted
from helpers.fracast import recorded, sizes_not_in_shapes, tensors

from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.traits import length_unit
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError
from stride_jax.forecasting.forecast import forecast
from stride_jax.models.fracast import FAMILY

TINY = recorded("tiny")


def target(**sizes: Any):
    config, params = FAMILY.read(tensors(TINY))
    config = dataclasses.replace(config, **{**sizes_not_in_shapes(TINY), **sizes})
    return FAMILY.make_process(config, params)


def test_padding_of_any_number_of_steps_changes_nothing():
    """A history would be cut to whole patches, and the forecast not be the original's."""
    process, config = target(num_scales=1, future_layers=1), DecodeConfig(horizon=6)
    history = np.random.default_rng(0).normal(size=(29, 1)).astype(np.float32)
    padded = np.concatenate([np.full((7, 1), 9.0, np.float32), history])
    settings: dict[str, Any] = {"target": process, "sigma": 0.0, "config": config}
    key = np.zeros(2, np.uint32)
    assert length_unit(process) == 1
    _, plain = decode(key, history, **settings)
    _, masked = decode(key, padded, lengths=np.int32(29), **settings)
    np.testing.assert_allclose(masked.reported, plain.reported, atol=1e-6)
    with pytest.raises(InputError, match="lengths must be from 1 on, at most the 36"):
        decode(key, padded, lengths=np.int32(0), **settings)


def test_patches_before_a_history_are_masked_too():
    """The error of a short history would be measured with its padding in the window."""
    process = target(num_scales=1, future_layers=1)
    jitted = Jitted(process)
    history = jnp.asarray(np.random.default_rng(1).normal(size=(10, 1)), jnp.float32)
    state = process.start(jitted.prepare(jnp.full((12, 1), 9.0), jnp.int32(-2)), 2)
    later = jnp.concatenate([jnp.full((2, 1), 9.0), history]).reshape(2, 6, 1)
    predictions, ahead = jitted.verify(None, state, later)
    values = jitted.prepare(history).values
    expected = jax.jit(process.predict_patch)(values)
    np.testing.assert_allclose(predictions.reported[2], expected.reported, atol=1e-6)
    kept = process.commit(ahead, jnp.concatenate([later, later[:1]]), jnp.int32(2))
    np.testing.assert_array_equal(kept.window.values, values)
    assert int(kept.window.padding) == 0
    assert Pair(process).draft is None
    assert forecast(process, history, 6, num_samples=0).sigma > 0


@pytest.mark.parametrize("case", ["long", "short", "far"])
def test_a_forecast_is_the_originals(case):
    """Standardising or cutting the history would move the forecast of a released model."""
    history, expected = TINY[f"x_{case}"], TINY[f"y_{case}"]
    found = forecast(target(), history, len(expected))
    wide = np.ptp(history)
    assert found.reports == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    assert found.paths is None
    np.testing.assert_allclose(found.reported / wide, expected / wide, atol=1e-5)
    np.testing.assert_allclose(found.mean, found.reported[:, 4])
    assert found.levels == found.reports
    np.testing.assert_array_equal(found.quantiles, found.reported.T)


def test_reports_of_a_batch_have_the_place_of_its_forecasts():
    """A series would get the quantiles of another one, or of another variable."""
    small = target(num_scales=1, future_layers=1)
    batch = np.random.default_rng(2).normal(size=(2, 40, 3)).cumsum(axis=1)
    batch[1, -2:] = np.nan  # what comes after the gap is forecast
    found = forecast(small, batch, 5, quantiles=(0.9, 0.2), non_negative=False)
    assert found.reported.shape == (2, 5, 3, 9)
    assert found.levels == (0.2, 0.9)
    assert found.quantiles.shape == (2, 2, 5, 3)
    for i, one in enumerate((batch[0], batch[1, :38])):
        alone = forecast(small, one[:, 1], 7, non_negative=False)
        middle, expected = found.reported[i, :, 1], alone.reported[2 * i :][:5]
        np.testing.assert_allclose(middle, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found.quantiles[1, 0], found.reported[1, ..., 1])
    cut = forecast(small, batch - 50, 5, quantiles=(0.9, 0.2), non_negative=True)
    assert cut.reported.max() == cut.quantiles.max() == 0


def test_sample_paths_are_drawn_where_they_are_asked_for():
    """A user who wants paths of a foundation model would get its quantiles."""
    small = target(num_scales=1, future_layers=1)
    history = np.random.default_rng(3).normal(size=60)
    found = forecast(small, history, 5, num_samples=7, quantiles=(0.25,))
    assert found.paths.shape == (7, 5)
    assert found.reported is None
    assert found.info.reported is None
    with pytest.raises(InputError, match=r"does not report the quantile 0.25; .* take of 0.1, "):
        forecast(small, history, 5, quantiles=(0.25,))
