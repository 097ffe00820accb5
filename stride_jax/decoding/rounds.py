"""One round of speculative decoding: draft, verify, decide, commit; and the state it carries."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from stride_jax.decoding.base import Outcome, Proposals, Round, Rule, density_of, traits_of
from stride_jax.decoding.batching import normals, patch_keys, path_keys
from stride_jax.decoding.draft_length import LengthState, expected_acceptance
from stride_jax.decoding.drafts import prediction_sigma, propose
from stride_jax.decoding.info import Log, empty_log, named_reports, one_more, write_round
from stride_jax.decoding.rules.common import num_leading
from stride_jax.decoding.scale import Scale, correlated
from stride_jax.decoding.types import DecodeConfig


class Model(NamedTuple):
    """The parts of a speculative decode that are the same for all paths.

    Attributes:
        target: the process that verifies.
        draft: what proposes.
        rule: which proposals stay.
        draft_length: how many are proposed.
    """

    target: Any
    draft: Any
    rule: Any
    draft_length: Any


class Memory(NamedTuple):
    """The prepared context, shared by all its paths.

    Attributes:
        target: the target's memory.
        draft: the draft's memory.
        scale: of a patch.
    """

    target: Any
    draft: Any
    scale: Scale


class LoopState(NamedTuple):
    """The carry of the loop, for one path.

    Attributes:
        patch_keys: `[N + K + 1, ...]`, raw keys of the noise of every patch: a patch that is drawn
            again in a later round has the same noise.
        round_keys: `[3]`, of the round after the next one, and of the draft and the rule in the
            next one.
        filled: int32, patches emitted so far, at most N.
        target: the target's state.
        draft: the draft's state.
        length: how many to draft next.
        log: the patches and the rounds so far.
    """

    patch_keys: jax.Array
    round_keys: jax.Array
    filled: jax.Array
    target: Any
    draft: Any
    length: LengthState
    log: Log


class Drafted(NamedTuple):
    """A round before its rule has decided, for one path.

    Attributes:
        current: what the rule sees.
        target: the target's state; it has seen the proposals and kept none.
        draft: the draft's state, likewise.
        reported: `[K + 1, P, C, Q]`, what the target reports; None for nothing.
    """

    current: Round
    target: Any
    draft: Any
    reported: jax.Array | None


def initial_state(
    memory: Memory, key: jax.Array, *, model: Model, config: DecodeConfig, count: int
) -> LoopState:
    """The carry before the first round of a path; `key` passes into it."""
    room, shape = count + config.num_draft + 1, memory.scale.sigma.shape
    outputs = len(traits_of(model.target).reports)
    keys = path_keys(key)
    return LoopState(
        patch_keys=jax.random.key_data(patch_keys(keys.noise, 0, room)),
        round_keys=jax.random.split(keys.rounds, 3),
        filled=jnp.zeros((), jnp.int32),
        target=model.target.start(memory.target, count + config.num_draft),
        draft=model.draft.start(memory.draft, count + config.num_draft),
        length=model.draft_length.init(config.num_draft),
        log=empty_log(config.num_draft, room, shape, trace=config.trace, outputs=outputs),
    )


def round_length(state: LoopState, count: int) -> jax.Array:
    """Proposals of the next round: as the strategy says, and no more than are missing of N.

    It depends only on the rounds before, so exact rules stay exact; 0 when all patches are there.
    """
    return jnp.clip(count - state.filled, 0, state.length.length)


def decode_round(
    memory: Memory,
    state: LoopState,
    longest: jax.Array,
    *,
    model: Model,
    config: DecodeConfig,
    count: int,
) -> LoopState:
    """One round of one path: draft, verify, decide, commit.

    Args:
        memory: of the context.
        state: the carry.
        longest: proposals that are drafted; those past the path's own length do not count.
        model: target, draft, rule and strategy.
        config: static choices.
        count: N; a path that has N patches keeps them, and goes on with no more of them.
    """
    next_key, draft_key, rule_key = state.round_keys

    drafted = draft_and_verify(
        memory, state, draft_key, longest, model=model, config=config, count=count
    )
    outcome = model.rule.decide(rule_key, drafted.current)
    return commit_round(memory, state, drafted, outcome, next_key, model=model, count=count)


def draft_and_verify(
    memory: Memory,
    state: LoopState,
    key: jax.Array,
    longest: jax.Array,
    *,
    model: Model,
    config: DecodeConfig,
    count: int,
) -> Drafted:
    """The first half of a round: K proposals, and what the target predicts of them.

    Args:
        memory: of the context.
        state: the carry.
        key: of the noise of the proposals; consumed.
        longest: see `decode_round`, as are the others.
        model: target, draft, rule and strategy.
        config: static choices.
        count: N.
    """
    (sigma, correlation), num_draft = memory.scale, config.num_draft
    data = jax.lax.dynamic_slice_in_dim(state.patch_keys, state.filled, num_draft + 1)
    keys = jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))
    fresh = normals(keys, sigma.shape)

    # Draft: K proposals, patch by patch or all at once.
    noise = proposal_noise(model.rule, key, fresh[:-1])
    learned = config.learned_scale and model.rule.scales == "free"
    drawn, strategy = correlated(noise, correlation), model.draft_length

    def unsure(proposals: Proposals) -> jax.Array:
        return strategy.unsure(proposals.mean, proposals.logvar, sigma)

    stop = unsure if strategy.stops else None
    proposals, draft_state = propose(
        model.draft, memory.draft, state.draft, drawn, sigma, longest, learned=learned, stop=stop
    )
    length = round_length(state, count)
    if stop is not None:
        length = num_leading(~stop(proposals), length)

    # Verify: the target's predictions after 0, 1, ..., K proposals, in one pass.
    predictions, target_state = model.target.verify(memory.target, state.target, proposals.patches)

    current = Round(
        proposals=proposals.patches,
        noise=noise,
        draft_mean=proposals.mean,
        draft_sigma=proposals.sigma,
        target_mean=predictions.mean,
        target_sigma=prediction_sigma(predictions, sigma, config.learned_scale),
        draft_logvar=proposals.logvar,
        fresh=fresh,
        length=length,
        correlation=correlation,
        density=density_of(model.target, predictions),
        keys=keys,
        missing=count - state.filled,
    )
    reported = named_reports(predictions, len(traits_of(model.target).reports))
    return Drafted(current, target_state, draft_state, reported)


def commit_round(
    memory: Memory,
    state: LoopState,
    drafted: Drafted,
    outcome: Outcome,
    next_key: jax.Array,
    *,
    model: Model,
    count: int,
) -> LoopState:
    """The second half of a round: the carry after what the rule decided.

    Args:
        memory: of the context.
        state: the carry before the round.
        drafted: the first half.
        outcome: the rule's decision on it.
        next_key: split into the keys of the next rounds.
        model: target, draft, rule and strategy.
        count: N.
    """
    current = drafted.current
    num_new = jnp.minimum(outcome.num_accepted + 1, count - state.filled)  # 0 for a finished path
    patches, emitted = splice(current.proposals, outcome)

    # Commit: both models keep the first `num_new` patches of their context.
    return LoopState(
        patch_keys=state.patch_keys,
        round_keys=jax.random.split(next_key, 3),
        filled=state.filled + num_new,
        target=model.target.commit(drafted.target, patches, num_new),
        draft=model.draft.commit(drafted.draft, patches, num_new),
        length=next_length(model, state.length, current, outcome, memory.scale.sigma),
        log=write_round(state.log, state.filled, current, outcome, emitted, drafted.reported),
    )


def proposal_noise(rule: Rule, key: jax.Array, patch_noise: jax.Array) -> jax.Array:
    """The noise `[K, P, C]` of the proposals: new, none, or that of the patches they stand for.

    Consumes `key`.
    """
    if rule.proposes == "sample":
        return jax.random.normal(key, patch_noise.shape, jnp.float32)
    if rule.proposes == "mean":
        return jnp.zeros_like(patch_noise)
    return patch_noise


def splice(proposals: jax.Array, outcome: Outcome) -> tuple[jax.Array, jax.Array]:
    """The patches after a round, each `[K + 1, P, C]`: those the models see, those put out.

    The accepted ones come first, then the rule's own patch; what stands after it does not count.
    """
    accepted = (jnp.arange(len(proposals) + 1) < outcome.num_accepted)[:, None, None]

    def joined(patches: jax.Array) -> jax.Array:
        return jnp.where(accepted, one_more(patches), outcome.patch[None])

    context_patches = joined(proposals)
    return context_patches, context_patches if outcome.emitted is None else joined(outcome.emitted)


def next_length(
    model: Model,
    state: LengthState,
    current: Round,
    outcome: Outcome,
    sigma: jax.Array,
) -> LengthState:
    """The state of the draft length after a round; of no matter to a path that has its patches."""
    chances = None
    if model.draft_length.reads_chances and current.draft_logvar is not None:
        chances = expected_acceptance(current.draft_logvar, sigma)
    played = state._replace(length=current.length)
    num_draft = len(current.proposals)
    return model.draft_length.update(played, outcome.num_accepted, num_draft, chances)
