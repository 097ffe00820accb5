"""A process that masks single steps of padding."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from stride_jax.types import PatchDistribution

P = 4


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FirstValue:
    """Forecasts the first value of a history plus its number of steps: 4 for 1, 0, 2."""

    masks_steps: bool = dataclasses.field(default=False, metadata={"static": True})
    patch_len = P
    supports_padding = True

    def prepare(self, context: jax.Array, length: jax.Array | None = None) -> jax.Array:
        length = jnp.int32(len(context)) if length is None else length
        first = jax.lax.dynamic_index_in_dim(context, len(context) - length, keepdims=False)
        return first + length.astype(jnp.float32)

    def start(self, memory: jax.Array, room: int) -> tuple[()]:
        return ()

    def verify(self, memory: jax.Array, state: Any, proposals: jax.Array) -> Any:
        shape = len(proposals) + 1, P, len(memory)
        return PatchDistribution(jnp.broadcast_to(memory[None, None], shape)), state

    def commit(self, state: Any, patches: jax.Array, count: jax.Array) -> Any:
        return state
