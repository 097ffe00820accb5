"""Parameters of a small model, and how checkpoints are compared."""

import jax
import numpy as np

from helpers.unusual import UNUSUAL as MODEL
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.models import init_params
from stride_jax.models.config import TimerXLConfig


def parameters(seed: int = 0, model: TimerXLConfig = MODEL):
    """Random parameters of a model."""
    shapes = jax.eval_shape(lambda key: init_params(key, model), jax.random.key(0))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


def assert_same(found: Checkpoint, expected: Checkpoint) -> None:
    """Equal config, and parameters equal bit for bit."""
    assert found.model == expected.model
    assert found.context_len == expected.context_len
    assert jax.tree.structure(found.params) == jax.tree.structure(expected.params)
    pairs = zip(jax.tree.leaves(found.params), jax.tree.leaves(expected.params), strict=True)
    for a, b in pairs:
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
