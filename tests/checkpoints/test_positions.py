"""Positions of several variables in models that were trained on another number of patches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stride_jax.checkpoints.build import load_pair
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.errors import InputError
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import init_params, make_predict

FAST = {"xla_backend_optimization_level": 0}
MODEL = TimerXLConfig(4, 16, 2, 16, num_layers=1, instance_norm="causal")
SERIES = jnp.asarray(np.random.default_rng(0).normal(size=(8, 2)), jnp.float32)
PARAMS = init_params(jax.random.key(0), MODEL)
TRAINED = Checkpoint(MODEL, PARAMS, 16)  # on four patches; SERIES has two


def mean(model: TimerXLConfig) -> np.ndarray:
    """The model's prediction after SERIES, `[P, C]`."""
    predict = make_predict(model, PARAMS)
    return np.asarray(jax.jit(predict, compiler_options=FAST)(SERIES).mean)


def test_a_pair_loaded_for_one_variable_decodes_two_with_the_trained_positions() -> None:
    """variables="joint" of a pair from the default load_pair would see offsets it never learned."""
    loaded = load_pair(TRAINED, None, process="window", context_len=8).target
    found = jax.jit(loaded.predict_patch, compiler_options=FAST)(SERIES).mean
    trained = mean(dataclasses.replace(MODEL, variable_stride=4))
    np.testing.assert_allclose(found, trained, atol=1e-5)
    assert np.abs(mean(MODEL) - trained).max() > 1e-4  # other positions would be seen


def test_the_cached_process_refuses_what_it_was_not_loaded_for() -> None:
    """The same call with caches would decode with other positions, and say nothing."""
    loaded = load_pair(TRAINED, None, process="cached", context_len=8).target
    with pytest.raises(InputError, match="num_vars"):
        jax.eval_shape(loaded.prepare, SERIES)
