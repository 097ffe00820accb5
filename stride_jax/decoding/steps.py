"""The steps of a draft that predicts patch by patch: in a loop, or written out one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from stride_jax.decoding.base import Proposals
from stride_jax.decoding.draft_length import DraftLength, Fixed
from stride_jax.decoding.types import DecodeConfig

MOST_ARRAYS = 400
"""Arrays of a draft times K up to which its steps are written out: four layers for K 8."""

Stop = Callable[[Proposals], jax.Array]
"""Says of each of the K proposals, `[K]` bool, whether the draft stops there."""

Following = Callable[[Any, jax.Array, Any], tuple[Proposals, Any]]
"""`(place, the patch before it [P, C], state) -> (the proposal there, state)`."""


def unrolls(config: DecodeConfig, draft: Any, draft_length: DraftLength) -> bool:
    """Whether the steps of this draft are written out; see `DecodeConfig.unrolled`."""
    if config.unrolled is not None:
        return config.unrolled
    small = config.num_draft * len(jax.tree.leaves(draft)) <= MOST_ARRAYS
    return small and type(draft_length) is Fixed and jax.default_backend() == "gpu"


def looped(
    following: Following,
    first: Proposals,
    state: Any,
    num_draft: int,
    count: int | jax.Array,
    stop: Stop | None = None,
) -> tuple[Proposals, Any]:
    """Proposals `[K, P, C]` in a loop that ends after `count` of them; the others are 0.

    Args:
        following: makes the next one.
        first: the first proposal, `[1, P, C]`.
        state: of the path after it.
        num_draft: K.
        count: how many are wanted.
        stop: whether each proposal so far is the last one; None for never.
    """
    proposals = jax.tree.map(
        lambda x: jnp.zeros((num_draft, *x.shape[1:]), x.dtype).at[0].set(x[0]), first
    )

    def going(carry: tuple[Any, Proposals, Any]) -> Any:
        i, proposals, _ = carry
        return (i < count) if stop is None else (i < count) & ~stop(proposals)[i - 1]

    def step(carry: tuple[Any, Proposals, Any]) -> tuple[Any, Proposals, Any]:
        i, proposals, ahead = carry
        drawn, ahead = following(i, proposals.patches[i - 1], ahead)
        return i + 1, jax.tree.map(lambda all_, x: all_.at[i].set(x), proposals, drawn), ahead

    _, proposals, state = jax.lax.while_loop(going, step, (jnp.int32(1), proposals, state))
    return proposals, state


def written_out(
    following: Following, first: Proposals, state: Any, num_draft: int
) -> tuple[Proposals, Any]:
    """All K proposals by K - 1 steps without a loop; arguments as of `looped`.

    A loop on a GPU launches kernels for its counters and its condition, which the host waits for,
    and for writing a proposal among the others. The program is as much larger.
    """
    drafted = [first]
    for place in range(1, num_draft):
        drawn, state = following(place, drafted[-1].patches[0], state)
        drafted.append(jax.tree.map(lambda x: x[None], drawn))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *drafted), state
