"""One round of speculative decoding: draft, verify, decide, commit; and the state it carries."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from stride_jax.decoding.base import Outcome, Proposals, Round, Rule
from stride_jax.decoding.batching import normals, patch_keys, path_keys
from stride_jax.decoding.draft_length import LengthState, expected_acceptance
from stride_jax.decoding.drafts import prediction_sigma, propose
from stride_jax.decoding.info import Log, empty_log, named_reports, write_round
from stride_jax.decoding.outcomes import check_outcome, splice
from stride_jax.decoding.rules.common import num_leading
from stride_jax.decoding.scale import Scale, correlated
from stride_jax.decoding.steps import unrolls
from stride_jax.decoding.traits import density_of, traits_of
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


class RoundNoise(NamedTuple):
    """The noise of one round of a path.

    Attributes:
        keys: `[K + 1]`, of the patches of this round.
        fresh: `[K + 1, P, C]`, standard normal, drawn with those keys.
        proposals: `[K, P, C]`, of the proposals, see `proposal_noise`.
    """

    keys: jax.Array
    fresh: jax.Array
    proposals: jax.Array


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
    noise = round_noise(memory, state, key, model=model, config=config)
    options: Any = {"model": model, "config": config, "count": count}

    # Draft: K proposals, patch by patch or all at once.
    proposals, length, draft_state = draft_patches(memory, state, noise, longest, **options)

    # Verify: the target's predictions after 0, 1, ..., K proposals, in one pass.
    drafted = verify_patches(memory, state, noise, proposals, length, **options)
    return drafted._replace(draft=draft_state)


def round_noise(
    memory: Memory, state: LoopState, key: jax.Array, *, model: Model, config: DecodeConfig
) -> RoundNoise:
    """The noise of the next round; consumes `key`. It does not depend on target or draft."""
    data = jax.lax.dynamic_slice_in_dim(state.patch_keys, state.filled, config.num_draft + 1)
    keys = jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))
    fresh = normals(keys, memory.scale.sigma.shape)
    return RoundNoise(keys, fresh, proposal_noise(model.rule, key, fresh[:-1]))


def draft_patches(
    memory: Memory,
    state: LoopState,
    noise: RoundNoise,
    longest: jax.Array,
    *,
    model: Model,
    config: DecodeConfig,
    count: int,
) -> tuple[Proposals, jax.Array, Any]:
    """The draft's part of a round: `(K proposals, how many count, a state that has seen them)`."""
    (sigma, correlation), strategy = memory.scale, model.draft_length
    learned = config.learned_scale and model.rule.scales == "free"
    drawn = correlated(noise.proposals, correlation)
    wanted = None if unrolls(config, model.draft, strategy) else longest

    def unsure(proposals: Proposals) -> jax.Array:
        return strategy.unsure(proposals.mean, proposals.logvar, sigma)

    stop, length = unsure if strategy.stops else None, round_length(state, count)
    proposals, seen = propose(
        model.draft, memory.draft, state.draft, drawn, sigma, wanted, learned=learned, stop=stop
    )
    if stop is not None:
        length = num_leading(~stop(proposals), length)
    return proposals, length, seen


def verify_patches(
    memory: Memory,
    state: LoopState,
    noise: RoundNoise,
    proposals: Proposals,
    length: jax.Array,
    *,
    model: Model,
    config: DecodeConfig,
    count: int,
) -> Drafted:
    """The target's part of a round: what it predicts of the proposals, of which `length` count.

    The state of the draft in what comes back is that of before the round.
    """
    sigma, correlation = memory.scale
    predictions, target_state = model.target.verify(memory.target, state.target, proposals.patches)
    current = Round(
        proposals=proposals.patches,
        noise=noise.proposals,
        draft_mean=proposals.mean,
        draft_sigma=proposals.sigma,
        target_mean=predictions.mean,
        target_sigma=prediction_sigma(predictions, sigma, config.learned_scale),
        draft_logvar=proposals.logvar,
        fresh=noise.fresh,
        length=length,
        correlation=correlation,
        density=density_of(model.target, predictions),
        keys=noise.keys,
        missing=count - state.filled,
    )
    reported = named_reports(predictions, len(traits_of(model.target).reports))
    return Drafted(current, target_state, state.draft, reported)


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

    Raises:
        InputError: the decision breaks its contract, see `outcomes.check_outcome`.
    """
    current = drafted.current
    check_outcome(model.rule, outcome, current)
    added = outcome.num_accepted + outcome.added
    num_new = jnp.minimum(added, count - state.filled)  # 0 for a finished path
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
