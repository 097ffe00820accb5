"""Decoding: the target alone, the draft alone, or speculative decoding of both.

Speculative decoding (STRIDE, arXiv 2511.18191, algorithm 1) is one `lax.while_loop` over rounds. In
a round the draft proposes K patches, the target predicts after 0, 1, ..., K of them in one
verification, and an acceptance rule keeps the leading ones and adds a patch. The last rounds draft
only what the forecast still needs. One loop runs around a round of all paths; a path that has its
patches keeps playing rounds that change nothing.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from stride_jax.decoding.autoregressive import roll_draft, roll_process
from stride_jax.decoding.base import (
    Draft,
    Outcome,
    Process,
    Round,
    Rule,
    check_process,
    for_paths,
    length_unit,
    prepare_draft,
    traits_of,
)
from stride_jax.decoding.batching import (
    decode_batch,
    normals,
    over_lanes,
    patch_keys,
    path_keys,
)
from stride_jax.decoding.checks import Inputs, check_inputs
from stride_jax.decoding.compiled import compiled
from stride_jax.decoding.draft_length import DraftLength, Fixed, LengthState, expected_acceptance
from stride_jax.decoding.drafts import as_draft, prediction_sigma, propose
from stride_jax.decoding.info import (
    Log,
    decode_info,
    empty_log,
    named_reports,
    one_more,
    write_round,
)
from stride_jax.decoding.lanes import lane_sizes, play_until_finished
from stride_jax.decoding.rules import Maximal, rule_name
from stride_jax.decoding.scale import PatchCovariance, Scale, correlated
from stride_jax.decoding.types import DecodeConfig, DecodeInfo, num_patches
from stride_jax.errors import InputError


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


def decode(
    key: jax.Array,
    context: jax.Array,
    *,
    target: Process | None,
    draft: Draft | Process | None = None,
    sigma: float | jax.Array | PatchCovariance,
    config: DecodeConfig,
    rule: Rule | None = None,
    draft_length: DraftLength | None = None,
    series_index: jax.Array | None = None,
    lengths: jax.Array | None = None,
) -> tuple[jax.Array, DecodeInfo]:
    """Decodes sample paths, or the mean path, of one series or a batch.

    With target and draft it decodes speculatively: with an exact rule the forecast has the
    distribution of the target alone with the same sigma, whatever the draft. Without a draft, or
    with K = 0, it rolls the target patch by patch, x_{n+1} ~ N(mean after x_1..x_n, sigma^2).
    Without a target it rolls the draft alone.

    Args:
        key: PRNG key (typed, or raw key data); folded with the series index.
        context: `[L, C]` or `[B, L, C]`; taken as float32.
        target: the process whose distribution the forecast follows; None for the draft alone.
        draft: what proposes: another process (patch by patch), or see `drafts`; None for the target
            alone. It draws with the same sigma, unless `config.learned_scale` and the rule has free
            scales.
        sigma: std of a patch in the units of the context; scalar, `[C]` or `[P, C]`, or with a B in
            front of the last. Traced. Rules that propose means take it as the unit of the gap. It
            must be positive where a rule samples; 0 gives the mean path of target or draft alone.
            A `PatchCovariance` for errors that are correlated within a patch; target and draft
            share it, and the unit of a gap is then its factor.
        config: horizon, K, paths and chunks; static.
        rule: acceptance rule with its settings, traced; None for `Maximal()`. A rule of means
            decodes the mean path, also of the target or the draft alone.
        draft_length: proposals per round with its settings, traced; None for always K.
        series_index: `[B]` global numbers of the series, default 0..B-1; with them a part of a
            batch is the same as in the whole.
        lengths: `[B]` steps of each history at the end of its context, whole patches unless the
            target masks single steps (see `Traits`); what stands before is padding and does not
            matter. Only for a target that supports padding; a draft that does not sees the first
            value of the history there.

    Returns:
        `(forecast, info)`: `[horizon, C]` or `[B, horizon, C]`, float32; with `num_paths` an axis
        of paths before the horizon. A path does not depend on what is decoded beside it, up to
        float rounding of the batched model.

    Raises:
        InputError: neither target nor draft, a target that is no process, a draft or rule that is
            none, different patch lengths, settings out of range, a learned scale with a rule that
            ties the scales, a covariance with a rule that takes none, a draft alone with K = 0, and
            see `decoding.check_inputs`.
    """
    rule = Maximal() if rule is None else rule
    draft_length = Fixed() if draft_length is None else draft_length
    source = draft if target is None else target
    if source is None:
        raise InputError("decode needs a target, a draft, or both; got neither.")
    check_choices(target, draft, rule, draft_length, config)
    inputs = Inputs(key, context, sigma, series_index, lengths)
    model = Model(target, draft, rule, draft_length)
    sampling = speculates(model, config) and rule.proposes != "mean"
    unit = length_unit(source)
    check_inputs(inputs, source.patch_len, config, sampling=sampling, unit=unit)
    if isinstance(sigma, PatchCovariance) and speculates(model, config) and not rule.correlated:
        raise InputError(
            f"rule {rule_name(rule)!r} takes no PatchCovariance; use Maximal() or Block(), or give "
            "a std for each step."
        )
    out: tuple[jax.Array, DecodeInfo] = _decode(inputs.as_arrays(), model, config=config)
    return out


def speculates(model: Model, config: DecodeConfig) -> bool:
    """Whether target and draft decode together."""
    return model.target is not None and model.draft is not None and config.num_draft > 0


@compiled
def _decode(inputs: Inputs, model: Model, *, config: DecodeConfig) -> tuple[jax.Array, DecodeInfo]:
    """The whole decode as one program, with the checks of values that lie on a device."""
    target, draft, rule, _ = model
    source = draft if target is None else target
    speculative, means = speculates(model, config), rule.proposes == "mean"
    sampling, unit = speculative and not means, length_unit(source)
    valid = inputs.valid(source.patch_len, sampling=sampling, unit=unit)
    if means and not speculative:
        inputs = inputs._replace(sigma=jnp.zeros((), jnp.float32))
    if target is None:
        forecast, info = roll_draft(inputs, source, config=config)
    elif not speculative:
        forecast, info = roll_process(inputs, target, config=config)
    else:
        forecast, info = _speculate(inputs, model._replace(draft=as_draft(draft)), config=config)
    if config.num_paths is not None:
        valid = jnp.broadcast_to(valid[..., None], info.rounds.shape)  # [B] -> [B, S]
    return forecast, info._replace(valid_input=valid)


def check_choices(
    target: Process | None,
    draft: Draft | Process | None,
    rule: Rule,
    draft_length: DraftLength,
    config: DecodeConfig,
) -> None:
    """Raises InputError for models, rule and config that do not fit each other."""
    if target is not None:
        check_process(target)
    proposing = None if draft is None else as_draft(draft)
    if not isinstance(rule, Rule):
        raise InputError(f"rule must be an acceptance rule such as Maximal(), got {rule!r}.")
    if not isinstance(draft_length, DraftLength):
        raise InputError(
            f"draft_length must be Fixed(), Threshold() or Gain(), got {draft_length!r}."
        )
    rule.check()
    draft_length.check()
    if target is None and config.num_draft == 0:
        raise InputError("num_draft must be at least 1 where the draft decodes alone, got 0.")
    if target is None or proposing is None:
        return
    if target.patch_len != proposing.patch_len:
        raise InputError(
            f"target and draft must share a patch length, got {target.patch_len} and "
            f"{proposing.patch_len}."
        )
    if config.learned_scale and rule.scales == "tied" and config.num_draft:
        raise InputError(
            f"rule {rule_name(rule)!r} needs one sigma for target and draft; with learned_scale "
            "use Residual()."
        )


@compiled
def _speculate(
    inputs: Inputs, model: Model, *, config: DecodeConfig
) -> tuple[jax.Array, DecodeInfo]:
    """Speculative decoding of every path of every series, compiled."""
    target, draft = (for_paths(x, config.paths_at_once) for x in (model.target, model.draft))
    model = model._replace(target=target, draft=draft)
    count, num_vars = num_patches(config.horizon, target.patch_len), inputs.context.shape[-1]

    def prepare(context: jax.Array, length: jax.Array | None) -> tuple[Any, Any]:
        memory = target.prepare(context, length)
        return memory, prepare_draft(draft, target, memory, context, length)

    def run(prepared: Any, keys: jax.Array) -> tuple[jax.Array, DecodeInfo]:
        (target_memory, draft_memory), scale = prepared
        memory = Memory(target_memory, draft_memory, scale)
        start = functools.partial(initial_state, model=model, config=config, count=count)
        play = functools.partial(decode_round, model=model, config=config, count=count)
        state = over_lanes(start, keys.shape)(memory, keys)

        def step(memory: Memory, state: LoopState) -> LoopState:
            # One number for all paths, so that the draft's loop is not mapped.
            longest = jnp.max(round_length(state, count))
            return over_lanes(play, state.filled.shape)(memory, state, longest)

        # Until every path has its N patches.
        log = play_until_finished(
            step,
            lambda state: state.filled >= count,
            lambda state: state.log,
            memory,
            state,
            lane_sizes(keys.shape, count, config.compactions),
        )
        summary = functools.partial(decode_info, num_draft=config.num_draft, count=count)
        # [B, S, N, P, C] -> [B, S, N * P, C]
        forecast = log.patches[:, :, :count].reshape(*keys.shape, -1, num_vars)
        return forecast[:, :, : config.horizon], jax.vmap(jax.vmap(summary))(log)

    stepwise = hasattr(draft, "step")
    return decode_batch(prepare, run, inputs, target.patch_len, config, stepwise=stepwise)


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
    (sigma, correlation), num_draft = memory.scale, config.num_draft
    next_key, draft_key, rule_key = state.round_keys
    data = jax.lax.dynamic_slice_in_dim(state.patch_keys, state.filled, num_draft + 1)
    keys = jax.random.wrap_key_data(data, impl=jax.random.key_impl(next_key))
    fresh = normals(keys, sigma.shape)

    # Draft: K proposals, patch by patch or all at once.
    noise = proposal_noise(model.rule, draft_key, fresh[:-1])
    learned = config.learned_scale and model.rule.scales == "free"
    drawn = correlated(noise, correlation)
    proposals, draft_state = propose(
        model.draft, memory.draft, state.draft, drawn, sigma, longest, learned=learned
    )

    # Verify: the target's predictions after 0, 1, ..., K proposals, in one pass.
    predictions, target_state = model.target.verify(memory.target, state.target, proposals.patches)

    # Decide: which leading proposals stay, and which patch follows them.
    current = Round(
        proposals=proposals.patches,
        noise=noise,
        draft_mean=proposals.mean,
        draft_sigma=proposals.sigma,
        target_mean=predictions.mean,
        target_sigma=prediction_sigma(predictions, sigma, config.learned_scale),
        draft_logvar=proposals.logvar,
        fresh=fresh,
        length=round_length(state, count),
        correlation=correlation,
    )
    outcome = model.rule.decide(rule_key, current)
    num_new = jnp.minimum(outcome.num_accepted + 1, count - state.filled)  # 0 for a finished path
    context_patches, emitted_patches = splice(proposals.patches, outcome)
    reported = named_reports(predictions, len(traits_of(model.target).reports))

    # Commit: both models keep the first `num_new` patches of their context.
    return LoopState(
        patch_keys=state.patch_keys,
        round_keys=jax.random.split(next_key, 3),
        filled=state.filled + num_new,
        target=model.target.commit(target_state, context_patches, num_new),
        draft=model.draft.commit(draft_state, context_patches, num_new),
        length=next_length(model, state.length, current, outcome, sigma),
        log=write_round(state.log, state.filled, current, outcome, emitted_patches, reported),
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
