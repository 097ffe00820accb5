"""Writing new entries into preallocated caches."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def write_slots(slots: jax.Array, new: jax.Array, start: jax.Array, axis: int) -> jax.Array:
    """`slots` with `new` written along `axis` from `start` on; all other axes are equal."""
    zero = jnp.zeros((), jnp.int32)
    where = [jnp.asarray(start, jnp.int32) if i == axis else zero for i in range(slots.ndim)]
    return jax.lax.dynamic_update_slice(slots, new.astype(slots.dtype), where)
