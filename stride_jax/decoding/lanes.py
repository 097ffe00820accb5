"""Lanes: unfinished paths go on in smaller and smaller batches, so none waits for the slowest.

A loop over a batch of paths plays until its slowest path has its patches. Here it stops as soon as
the unfinished paths fit into a smaller batch, and they go on in a loop of that size. Sizes are
static, so each of them compiles the body of the loop once more. What a path decodes does not
depend on the paths beside it, so it does not depend on the sizes either.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.decoding.batching import with_single, without_single

COMPACTIONS, LEAST_LANES, LEAST_PATCHES = 2, 64, 4
"""Smaller sizes that are compiled, and the lanes and patches from which on they are worth it."""


def on_several_devices(context: Any) -> bool:
    """Whether the series lie on several devices, where taking lanes out would move them."""
    placed = isinstance(context, jax.Array) and not isinstance(context, jax.core.Tracer)
    return placed and len(context.sharding.device_set) > 1


def lane_sizes(
    shape: tuple[int, ...], patches: int, compactions: int | None = None
) -> tuple[int, ...]:
    """The sizes of the axis of a batch that becomes smaller, from the whole of it down.

    Of n compactions, size i is `ceil(lanes ((n + 1 - i) / (n + 1))^2)`: the last few paths go on
    among few.

    Args:
        shape: `(B, S)`, series and paths of each; the axis is S, or B where S is 1.
        patches: N of each path.
        compactions: n, 0 for a single size; None for `COMPACTIONS` from `LEAST_LANES` lanes and
            `LEAST_PATCHES` patches on.
    """
    batch, paths = shape
    lanes = paths if paths > 1 else batch
    if compactions is None:
        worth = lanes >= LEAST_LANES and patches >= LEAST_PATCHES
        compactions = COMPACTIONS if worth else 0
    parts = compactions + 1
    sizes = [-(-lanes * (parts - i) ** 2 // parts**2) for i in range(parts)]
    return tuple(sorted(set(sizes), reverse=True))


def lanes_played(rounds: np.ndarray, sizes: Sequence[int]) -> int:
    """Lanes x rounds that a loop over these sizes plays for the rounds that paths need.

    The sum of `rounds` is what they need.

    Args:
        rounds: `[B, S]`, of every path, as `DecodeInfo.rounds` has them.
        sizes: see `lane_sizes`.
    """
    several = rounds.shape[1] > 1
    width = rounds.shape[0] if several else 1
    played = stage = 0
    for number in range(int(rounds.max())):
        unfinished = int((rounds > number).sum(axis=1 if several else 0).max())
        while stage + 1 < len(sizes) and unfinished <= sizes[stage + 1]:
            stage += 1
        played += width * sizes[stage]
    return played


def unfinished_first(finished: jax.Array, size: int) -> jax.Array:
    """Numbers of `size` of the lanes `[lanes]`, the unfinished ones first and in order; int32.

    They are all different, so that what they leave behind can be put back.
    """
    return jnp.argsort(finished, stable=True)[:size].astype(jnp.int32)


def take(lanes: Any, order: jax.Array) -> Any:
    """The lanes of these numbers: every leaf `[lanes, ...]` becomes `[size, ...]`."""
    return jax.tree.map(lambda x: x[order], lanes)


def put(lanes: Any, order: jax.Array, taken: Any) -> Any:
    """`lanes` with those of these (different) numbers replaced; undoes `take`."""

    def replaced(x: jax.Array, new: jax.Array) -> jax.Array:
        return x.at[order].set(new, unique_indices=True)

    return jax.tree.map(replaced, lanes, taken)


Step = Callable[[Any, Any], Any]
"""`(memory [B, ...], state [B, S, ...]) -> state`, one round of every path."""


def play_until_finished(
    step: Step,
    finished: Callable[[Any], jax.Array],
    result: Callable[[Any], Any],
    memory: Any,
    state: Any,
    sizes: Sequence[int],
) -> Any:
    """Plays rounds until every path is finished, in ever smaller batches.

    Where the series have several paths each, the paths of every series become fewer: they share
    its memory, which stays where it is. Where they have one, the series become fewer, and their
    memory is taken with them.

    Args:
        step: plays a round; it changes nothing of the result of a finished path.
        finished: `state -> [B, S]` bool; a finished path stays so.
        result: `state -> ` what is wanted of the state, each leaf `[B, S, ...]`.
        memory: of each series, `[B, ...]`.
        state: of each path, `[B, S, ...]`.
        sizes: of the axis that becomes smaller (S, or B where S is 1); see `lane_sizes`.

    Returns:
        The results of all paths, `[B, S, ...]`.
    """
    shape = finished(state).shape
    several = shape[1] > 1
    room = sizes[1] if len(sizes) > 1 else 0

    # Rounds of this size, until the unfinished paths fit into the next one.
    def going(state: Any) -> jax.Array:
        unfinished = jnp.sum(~finished(with_single(state, shape)), axis=1 if several else 0)
        return jnp.max(unfinished) > room

    def play(state: Any) -> Any:
        return without_single(step(memory, with_single(state, shape)), shape)

    state = with_single(jax.lax.while_loop(going, play, without_single(state, shape)), shape)
    if room == 0:
        return result(state)

    # The unfinished paths go on, and what they leave behind is put back.
    def go_on(memory: Any, state: Any) -> Any:
        first = functools.partial(unfinished_first, size=room)
        if several:
            order = jax.vmap(first)(finished(state))  # [B, S] -> [B, room]
            some, replace = jax.vmap(take)(state, order), jax.vmap(put)
        else:
            order = first(finished(state)[:, 0])  # [B] -> [room]
            some, memory, replace = take(state, order), take(memory, order), put
        rest = play_until_finished(step, finished, result, memory, some, sizes[1:])
        return replace(result(state), order, rest)

    def stop(memory: Any, state: Any) -> Any:
        return result(state)

    return jax.lax.cond(jnp.all(finished(state)), stop, go_on, memory, state)
