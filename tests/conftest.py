"""Settings of the whole suite: rank promotion raises; warnings are errors (pyproject.toml)."""

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def key() -> jax.Array:
    """A fixed key."""
    return jax.random.key(0)
