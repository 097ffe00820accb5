"""A process whose prediction is a level."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from helpers.frames import Repeat
from stride_jax.decoding.base import Process
from stride_jax.decoding.processes import cached_process
from stride_jax.types import PatchDistribution

DAY, P, L = 24, 4, 32


@dataclass(frozen=True)
class Level(Repeat):
    """A `CachedModel` of zeros: with causal normalisation the mean of everything before."""

    def extend(
        self, params: Any, prefill: Any, cache: jax.Array, patches: jax.Array, start: Any
    ) -> tuple[PatchDistribution, jax.Array]:
        """See `CachedModel`."""
        return PatchDistribution(jnp.zeros_like(patches)), cache


def cached(model: Any, patch_len: int = P, context_len: int | None = None) -> Process:
    """A process of one of the models above."""
    return cached_process(model, {}, patch_len, norm="causal", context_len=context_len)
