"""Keys as a decode takes them: checked, or from a seed."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.config import LARGEST_SEED, whole_number
from stride_jax.errors import InputError


@functools.lru_cache
def _raw_key_shape(implementation: str) -> tuple[int, ...]:
    """The shape of the raw data of a key of `jax_default_prng_impl`."""
    data = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=implementation)))
    return tuple(data.shape)


def check_key(key: Any) -> None:
    """Raises InputError unless `key` is one PRNG key, typed or its raw key data."""
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if typed and key.shape == ():
        return
    raw = isinstance(key, jax.Array | np.ndarray) and key.dtype == np.uint32
    config: Any = jax.config
    if raw and key.shape == _raw_key_shape(config.jax_default_prng_impl):
        return
    shown = f"shape {key.shape}" if typed or raw else repr(key)
    raise InputError(f"key must be one PRNG key, such as jax.random.key(0), got {shown}.")


def as_key(key: Any) -> jax.Array:
    """A PRNG key as it is, or that of a seed.

    Raises:
        InputError: neither of the two, or a seed that is not in 0 to 2**32 - 1.
    """
    number = isinstance(key, int | np.integer) and not isinstance(key, bool)
    array = isinstance(key, jax.Array | np.ndarray) and key.ndim == 0
    if number or (array and jnp.issubdtype(key.dtype, jnp.integer)):
        return jax.random.key(whole_number("a seed as key", key, least=0, most=LARGEST_SEED))
    check_key(key)
    return jnp.asarray(key)
