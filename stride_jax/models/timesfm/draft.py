"""The draft inside TimesFM 2.5: its long quantile head proposes the next patches from the prefill.

Beside the patch of 128 steps, the model has a head that forecasts 1024 steps at once. Its median
after the last token of the context proposes the patches 2 to 8; the first proposal is the target's
next patch itself. So 1024 steps take the prefill and one verification where all are accepted. It
costs one product of the head, no pass and no training.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from stride_jax.decoding.base import Draft, Process
from stride_jax.errors import InputError
from stride_jax.models.timesfm.config import MEDIAN
from stride_jax.models.timesfm.process import Memory, TimesFMProcess
from stride_jax.types import PatchDistribution


class Place(NamedTuple):
    """The place of a path in the forecast.

    Attributes:
        filled: int32, patches kept so far.
        last: `[C]`, the last value of the path, or of the forecast before any patch is kept.
    """

    filled: jax.Array
    last: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class QuantileHeadDraft:
    """Proposals from the long head of the target that verifies them; see `decoding.base.Draft`.

    It reads the target's memory of the context instead of the context (`prepare_beside`), so the
    prefill runs once, and it has no parameters. Later rounds propose what the head said of the
    places that remain. Beyond its 1024 steps the last value of the path is repeated.

    Attributes:
        patch_len: P.
    """

    patch_len: int = dataclasses.field(metadata={"static": True})

    def prepare(self, context: jax.Array, length: jax.Array | None = None) -> Any:
        """Always raises: there is nothing to read without the target.

        Raises:
            InputError: always.
        """
        raise InputError(
            "the quantile-head draft lies in the weights of its target and does not decode alone; "
            "give the target too."
        )

    def prepare_beside(self, target: TimesFMProcess, memory: Memory) -> jax.Array:
        """The forecast of the heads after the context, `[N, P, C]`; N is 8 for the released model.

        Raises:
            InputError: the target is no TimesFM.
        """
        if not isinstance(target, TimesFMProcess):
            raise InputError(
                "the quantile-head draft reads the long head of a TimesFM target, got "
                f"{type(target).__name__}; take another draft."
            )
        first = target.next_outputs(memory)[..., MEDIAN]  # [P, C]
        long = target.long_outputs(memory)[..., MEDIAN]  # [long_len, C]
        count = max(1, len(long) // self.patch_len)
        # [N * P, C] -> [N, P, C], of which the first is the target's
        later = long[self.patch_len : count * self.patch_len].reshape(count - 1, *first.shape)
        return jnp.concatenate([first[None], later])

    def start(self, memory: jax.Array, room: int) -> Place:
        """The state before the first proposal, see `Draft`."""
        return Place(jnp.zeros((), jnp.int32), memory[-1, -1])

    def predict_next(
        self, memory: jax.Array, state: Place, shape: tuple[int, int, int]
    ) -> tuple[PatchDistribution, Place]:
        """The next K patches, all at once, see `Draft`."""
        places = state.filled + jnp.arange(shape[0])
        known = (places < len(memory))[:, None, None]
        patches = jnp.take(memory, places, axis=0, mode="clip")
        return PatchDistribution(jnp.where(known, patches, state.last[None, None])), state

    def commit(self, state: Place, patches: jax.Array, count: jax.Array) -> Place:
        """Keeps the first `count` patches, see `Draft`."""
        count = jnp.asarray(count, jnp.int32)
        newest = jax.lax.dynamic_index_in_dim(patches, jnp.maximum(count - 1, 0), keepdims=False)
        return Place(state.filled + count, jnp.where(count > 0, newest[-1], state.last))


def quantile_head_draft(process: Process) -> Draft:
    """The draft inside the weights of the TimesFM that verifies it."""
    return QuantileHeadDraft(process.patch_len)
