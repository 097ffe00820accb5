"""The client's half of the rounds: it drafts blocks, applies answers, and may finish by itself."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from stride_jax.decoding.base import Outcome, Round
from stride_jax.decoding.batching import (
    as_series,
    lane_keys,
    over_lanes,
    prepare_series,
    typed_key,
)
from stride_jax.decoding.checks import Inputs
from stride_jax.decoding.compiled import compiled
from stride_jax.decoding.info import decode_info
from stride_jax.decoding.rounds import (
    Drafted,
    LoopState,
    Memory,
    Model,
    commit_round,
    draft_patches,
    initial_state,
    round_length,
    round_noise,
)
from stride_jax.decoding.types import AUTOREGRESSIVE, DecodeConfig, DecodeInfo
from stride_jax.remote.absent import choose
from stride_jax.remote.protocol import Answer, Block


class Sizes(NamedTuple):
    """The static sizes of the programs.

    Attributes:
        config: sizes of the decode.
        patches: N.
        guesses: whether the client goes on before it has an answer.
    """

    config: DecodeConfig
    patches: int
    guesses: bool


class Progress(NamedTuple):
    """All paths of a decode at the client, every leaf with leading `[B, S]`.

    Attributes:
        confirmed: the carry after the last answered round; its log is that of the decode. The
            target's part of it is empty.
        head: the carry that the next block is drafted from: after all blocks that were sent, if
            their proposals are accepted. Its log means nothing.
        branch: int32, see `protocol.Block`.
    """

    confirmed: LoopState
    head: LoopState
    branch: jax.Array


@compiled
def start_drafting(model: Model, inputs: Inputs, *, sizes: Sizes) -> tuple[Memory, Progress]:
    """The draft's memory of every series, and its paths before their first round, compiled."""
    config = sizes.config
    series = as_series(inputs, model.draft.patch_len)
    memory = Memory((), prepare_series(model.draft.prepare, series), series.scales)
    paths = jnp.arange(config.num_paths or 1)
    keys = lane_keys(typed_key(inputs.key), series.numbers, paths, config)
    start = functools.partial(initial_state, model=model, config=config, count=sizes.patches)
    state = over_lanes(start, keys.shape)(memory, keys)
    return memory, Progress(state, state, jnp.zeros(keys.shape, jnp.int32))


def with_reports(progress: Progress, outputs: int) -> Progress:
    """Progress with room for `outputs` reported values of each step; as it is for none of them."""
    if outputs == 0:
        return progress

    def widened(state: LoopState) -> LoopState:
        room = jnp.zeros((*state.log.patches.shape, outputs), jnp.float32)
        return state._replace(log=state.log._replace(reported=room))

    return progress._replace(confirmed=widened(progress.confirmed), head=widened(progress.head))


@compiled
def draft_block(
    model: Model, memory: Memory, progress: Progress, *, sizes: Sizes
) -> tuple[Block, Any, Progress]:
    """Drafts the next round of every path, compiled.

    Returns:
        The block, the draft's states that have seen it, and the progress. With `sizes.guesses` its
        head is the carry after the round, on the guess that all proposals are accepted.
    """
    drafted, after = draft_round(model, memory, progress.head, sizes)
    current = drafted.current
    learned = sizes.config.learned_scale and model.rule.scales == "free"
    block = Block(
        branch=progress.branch,
        length=current.length,
        patches=current.proposals,
        mean=current.draft_mean,
        sigma=current.draft_sigma if learned else None,
        logvar=current.draft_logvar,
    )
    head = after if sizes.guesses else progress.head
    return block, drafted.draft, progress._replace(head=head)


def draft_round(
    model: Model, memory: Memory, states: LoopState, sizes: Sizes
) -> tuple[Drafted, LoopState]:
    """A round of every path as the draft alone has it, and the carry if all of it is accepted."""
    config, count = sizes.config, sizes.patches

    def play(memory: Memory, state: LoopState, longest: jax.Array) -> tuple[Drafted, LoopState]:
        next_key, draft_key, _ = state.round_keys

        # Draft, as `draft_and_verify` does.
        noise = round_noise(memory, state, draft_key, model=model, config=config)
        options: Any = {"model": model, "config": config, "count": count}
        proposals, length, seen = draft_patches(memory, state, noise, longest, **options)
        parts = (proposals.patches, proposals.mean, proposals.sigma, proposals.logvar)
        drafted = client_round(*parts, length, seen)

        # Guess: all proposals are accepted, and no patch follows them. A draft that stopped before
        # the first one goes on with it all the same, so that every round adds a patch.
        nothing = jnp.zeros_like(proposals.patches[0])
        guess = Outcome(num_accepted=jnp.maximum(length, 1), patch=nothing, added=0)
        after = commit_round(memory, state, drafted, guess, next_key, model=model, count=count)
        return drafted, after

    longest = jnp.max(round_length(states, count))
    return over_lanes(play, states.filled.shape)(memory, states, longest)


def client_round(
    patches: jax.Array,
    mean: jax.Array,
    sigma: Any,
    logvar: jax.Array | None,
    length: jax.Array,
    draft: Any,
    reported: jax.Array | None = None,
) -> Drafted:
    """A round as the client knows it: without the target's predictions."""
    unknown: Any = None
    current = Round(
        proposals=patches,
        noise=unknown,
        draft_mean=mean,
        draft_sigma=sigma,
        target_mean=unknown,
        target_sigma=unknown,
        draft_logvar=logvar,
        fresh=unknown,
        length=length,
    )
    return Drafted(current, (), draft, reported)


@compiled
def apply_answer(
    model: Model, memory: Memory, progress: Progress, sent: Any, answer: Answer, *, sizes: Sizes
) -> Progress:
    """The progress after the answer to the oldest block, compiled.

    Args:
        model: draft, rule and draft length.
        memory: of every series.
        progress: before it.
        sent: the block, and the draft's states that have seen it.
        answer: to that block.
        sizes: static.
    """

    def apply(memory: Memory, lane: Any) -> Progress:
        (confirmed, head, branch), (block, draft), answer = lane
        next_key = confirmed.round_keys[0]
        parts = (block.patches, block.mean, block.sigma, block.logvar, block.length)
        drafted = client_round(*parts, draft, answer.reported)
        outcome = Outcome(
            num_accepted=answer.num_accepted,
            patch=answer.patch,
            emitted=answer.emitted,
            overflow=answer.overflow,
            added=answer.added,
        )
        after = commit_round(
            memory, confirmed, drafted, outcome, next_key, model=model, count=sizes.patches
        )

        # A path whose block was void has answered it before, by rejecting an earlier one.
        confirmed = choose(answer.taken, after, confirmed)
        wrong = answer.taken & (answer.added > 0)
        head = choose(wrong, after, head) if sizes.guesses else confirmed
        return Progress(confirmed, head, branch + wrong)

    lanes = progress.branch.shape
    return over_lanes(apply, lanes)(memory, (progress, sent, answer))


@compiled
def finish(model: Model, memory: Memory, progress: Progress, *, sizes: Sizes) -> LoopState:
    """The carry after the draft has finished every path by itself, all proposals kept, compiled.

    It goes on from the last answered round with the keys that the next rounds would have had.
    """

    def going(states: LoopState) -> jax.Array:
        return jnp.any(states.filled < sizes.patches)

    def step(states: LoopState) -> LoopState:
        return draft_round(model, memory, states, sizes)[1]

    return jax.lax.while_loop(going, step, progress.confirmed)


@compiled
def summary(
    confirmed: LoopState, finished: LoopState, *, sizes: Sizes, single: bool
) -> tuple[jax.Array, DecodeInfo, jax.Array]:
    """Forecast `[B, S, horizon, C]`, info, and patches that were verified, `[B, S]`, compiled.

    There is no S without sample paths, and no B for a single series, as in `decode`.

    Args:
        confirmed: the carry after the last answered round.
        finished: the carry when every path has its patches.
        sizes: static.
        single: whether the context was one series without a B.
    """
    config, count = sizes.config, sizes.patches
    patches = finished.log.patches[:, :, :count]  # [B, S, N, P, C]
    # [B, S, N, P, C] -> [B, S, N * P, C]
    forecast = patches.reshape(*patches.shape[:2], -1, patches.shape[-1])

    def describe(state: LoopState) -> DecodeInfo:
        info = decode_info(state.log, config.num_draft, count)
        unverified = jnp.arange(count) >= state.filled
        blank = unverified[:, None, None]
        reported = info.reported
        if reported is not None:
            reported = jnp.where(blank[..., None], jnp.nan, reported)
        return info._replace(
            origin=jnp.where(unverified, AUTOREGRESSIVE, info.origin),
            proposal=jnp.where(blank, jnp.nan, info.proposal),
            reported=reported,
            valid_input=jnp.ones((), bool),  # the values were on the host, and checked there
        )

    parts = forecast[:, :, : config.horizon], jax.vmap(jax.vmap(describe))(confirmed)
    shaped = (*parts, confirmed.filled)
    if config.num_paths is None:
        shaped = jax.tree.map(lambda x: x[:, 0], shaped)
    return jax.tree.map(lambda x: x[0], shaped) if single else shaped
