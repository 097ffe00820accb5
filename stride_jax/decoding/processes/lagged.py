"""The passes of a process with caches, whose last kept patches are fed at the start of a pass."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp

from stride_jax.types import PatchDistribution


class LaggedProcess:
    """Verification and steps by one method, `_extend`; a base of frozen dataclasses.

    A state has the fields `pending [lag, P, C]`, `length`, `fed`, `moments` and `ahead`: see
    `cached.CachedState`.

    Attributes:
        lag: kept patches that are fed at the start of a pass. A target has 1, the patch it has
            just emitted. A draft has 2: after K acceptances its last proposal was never fed to
            it, and feeding a patch twice writes the same entry again.
    """

    lag: int

    def _extend(
        self, memory: Any, state: Any, patches: jax.Array, start: jax.Array
    ) -> tuple[PatchDistribution, Any]:
        """Feeds `[k, P, C]` from entry `start` on: predictions after each, in the series' units.

        `state.ahead` are the statistics of everything before them.
        """
        raise NotImplementedError

    def verify(
        self, memory: Any, state: Any, proposals: jax.Array
    ) -> tuple[PatchDistribution, Any]:
        """One causal pass over the pending patches and K proposals; see `Process`."""
        patches = jnp.concatenate([state.pending, proposals])  # [lag + K, P, C]
        state = state._replace(ahead=state.moments)
        predictions, state = self._extend(memory, state, patches, state.length)
        return jax.tree.map(lambda x: x[self.lag - 1 :], predictions), state

    def step(self, memory: Any, state: Any, patch: jax.Array) -> tuple[PatchDistribution, Any]:
        """Feeds one patch and predicts the next; see `Process`."""
        predictions, state = self._extend(memory, state, patch[None], state.fed)
        return jax.tree.map(lambda x: x[0], predictions), state

    def drafting(self) -> Self:
        """This process with a lag of 2."""
        changed: Self = dataclasses.replace(self, lag=2)  # type: ignore[type-var]
        return changed
