"""The model that lies in the other process, and what both processes do with a round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Absent:
    """A model that lies in the other process: its memory and its states here are empty.

    With it in the place of the draft or of the target, `rounds.initial_state` and
    `rounds.commit_round` keep what belongs to the model that is here.
    """

    def start(self, memory: Any, room: int) -> tuple[()]:
        """An empty state."""
        return ()

    def commit(self, state: Any, patches: jax.Array, count: jax.Array) -> tuple[()]:
        """An empty state."""
        return ()


def choose(condition: jax.Array, yes: Any, no: Any) -> Any:
    """One of two states of a path, by a condition that is a scalar."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
