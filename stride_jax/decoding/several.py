"""One round of several chains: n independent chains are drafted and verified together."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax

from stride_jax.decoding.base import Rule
from stride_jax.decoding.rounds import (
    LoopState,
    Memory,
    Model,
    commit_round,
    decode_round,
    draft_and_verify,
)
from stride_jax.decoding.rules.several import Several
from stride_jax.decoding.types import DecodeConfig


def chains_of(rule: Rule) -> int:
    """Chains that a rule drafts in a round."""
    return int(rule.chains) if isinstance(rule, Several) else 1


def round_of(rule: Rule) -> Callable[..., LoopState]:
    """The round that a rule decides: of one chain, or of several."""
    return several_round if isinstance(rule, Several) else decode_round


def several_round(
    memory: Memory,
    state: LoopState,
    longest: jax.Array,
    *,
    model: Model,
    config: DecodeConfig,
    count: int,
) -> LoopState:
    """One round of one path with n chains; arguments as of `decode_round`.

    The chains are lanes of one batch that share the memory and the path's state. Each leaves a
    state behind, of which the chosen chain's is kept: a cache is n times as large during a round.
    """
    next_key, draft_key, rule_key = state.round_keys

    # Draft and verify: the chains differ in the noise of their proposals alone.
    draft = functools.partial(draft_and_verify, model=model, config=config, count=count)
    keys = jax.random.split(draft_key, model.rule.chains)
    drafted = jax.vmap(lambda key: draft(memory, state, key, longest))(keys)

    # Decide: which chain goes on, which of its proposals stay, and which patch follows them.
    chain, outcome = model.rule.choose(rule_key, drafted.current)
    drafted = jax.tree.map(lambda x: x[chain], drafted)

    return commit_round(memory, state, drafted, outcome, next_key, model=model, count=count)
