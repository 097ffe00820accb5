"""Errors, a decode and a compiled process for the tests of the foundation models."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.decoding.compiled import compiled


def relative(found: Any, expected: Any) -> float:
    """The largest error over the largest value."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@compiled
def rolled(process: Any, context: jax.Array, length: Any, *, patches: int) -> tuple[Any, Any]:
    """The predictions of the autoregressive decode `[N, ...]`, and the memory of the context."""
    memory = process.prepare(context, length)
    nothing = jnp.zeros((0, process.patch_len, context.shape[1]))

    def step(state: Any, _: None) -> tuple[Any, Any]:
        predictions, state = process.verify(memory, state, nothing)
        state = process.commit(state, predictions.mean, jnp.int32(1))
        return state, jax.tree.map(lambda x: x[0], predictions)

    _, predictions = jax.lax.scan(step, process.start(memory, patches), length=patches)
    return predictions, memory


prepare = compiled(lambda process, context, length: process.prepare(context, length))
_verify = compiled(lambda process, *args: process.verify(*args))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Jitted:
    """A process whose methods are compiled, where a check calls them one by one."""

    process: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "process"), name)

    def prepare(self, context, length=None):
        return prepare(self.process, context, length)

    def verify(self, memory, state, proposals):
        return _verify(self.process, memory, state, proposals)

    def drafting(self):
        return Jitted(self.process.drafting())
