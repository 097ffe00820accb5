"""Speculative decoding (STRIDE, arXiv 2511.18191, algorithm 1) in one `lax.while_loop`.

A round: the draft proposes K patches, the target gives its laws after 0, 1, ..., K of them in one
verification, a coupling rule keeps the leading ones and adds a patch. The last rounds draft only
what the forecast still needs. One loop runs around a round of all paths; a path that has its
patches keeps playing rounds that change nothing.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from stride_jax.autoregressive import decode_autoregressive
from stride_jax.bookkeeping import count_round, empty_info, trimmed
from stride_jax.config import DecodeConfig
from stride_jax.coupling import Round, RuleParams, find_rule
from stride_jax.decoding import (
    DecodeInfo,
    Inputs,
    PathKeys,
    check_inputs,
    check_scalar,
    compiled,
    decode_batch,
    num_patches,
    over_lanes,
    patch_noise,
    path_keys,
)
from stride_jax.drafts import Draft, as_draft, law_sigma, propose
from stride_jax.errors import InputError
from stride_jax.pacing import Pace, PaceParams, initial_pace, next_pace, own_chances
from stride_jax.processes import Process
from stride_jax.processes.base import check_process
from stride_jax.slots import write_slots


class Model(NamedTuple):
    """Who decodes and how; the same for all paths.

    Attributes:
        target: the process.
        draft: what proposes.
        params: of the rule.
        pace: of the pacing.
    """

    target: Any
    draft: Any
    params: RuleParams
    pace: PaceParams


class LoopState(NamedTuple):
    """The carry of the loop, for one path. The outputs have K + 1 spare patches at their end.

    Attributes:
        keys: of the patches' noise and of the next round.
        filled: int32, patches emitted so far, at most N.
        target: the target's state.
        draft: the draft's state.
        pace: how many to draft next.
        patches: `[N + K + 1, P, C]`; what stands at `filled` and after is overwritten.
        info: counts so far; kind, proposal and trace have spare room like `patches`.
    """

    keys: PathKeys
    filled: jax.Array
    target: Any
    draft: Any
    pace: Pace
    patches: jax.Array
    info: DecodeInfo


def decode_speculative(
    key: jax.Array,
    context: jax.Array,
    *,
    target: Process,
    draft: Draft | Process,
    sigma: float | jax.Array,
    config: DecodeConfig,
    params: RuleParams | None = None,
    pace: PaceParams | None = None,
    series_index: jax.Array | None = None,
    lengths: jax.Array | None = None,
) -> tuple[jax.Array, DecodeInfo]:
    """Sample paths of the target process, proposed by the draft.

    With an exact rule the forecast has the law of `decode_autoregressive` with the same sigma,
    whatever the draft. K = 0 is `decode_autoregressive`, draw by draw (with sigma 0 for a rule of
    means); so are `mean` and `shared_noise` with tolerance 0.

    Args:
        key: PRNG key (typed, or raw key data); folded with the series index.
        context: `[L, C]` or `[B, L, C]`; taken as float32.
        target: the process whose law the forecast follows.
        draft: what proposes: another process (patch by patch), or see `drafts`. It draws with the
            same sigma, unless `config.learned_scale` and the rule has free scales.
        sigma: std of a patch, > 0, in the units of the context; scalar, `[C]` or `[P, C]`, or with
            a B in front of the last. Rules that propose means take it as the unit of the gap.
            Traced.
        config: horizon, K, rule, paths and chunks; static.
        params: settings of the rule; traced.
        pace: settings of the pacing; traced.
        series_index: `[B]` global numbers of the series, default 0..B-1.
        lengths: `[B]` steps of each history at the end of its context, whole patches; what stands
            before is padding and does not matter. Only for a target that supports padding; a draft
            that does not sees the first value of the history there.

    Returns:
        `(forecast, info)`: `[horizon, C]` or `[B, horizon, C]`, float32; with `num_paths` an axis
        of paths before the horizon. A path does not depend on what is decoded beside it, up to
        float rounding of the batched model.

    Raises:
        InputError: unknown rule, different patch lengths, bias below 1, negative settings,
            a learned scale with a rule that ties the scales, and see `decoding.check_inputs`.
    """
    rule = find_rule(config.rule)
    check_process(target)
    draft = as_draft(draft)
    if target.patch_len != draft.patch_len:
        raise InputError(
            f"target and draft must share a patch length, got {target.patch_len} and "
            f"{draft.patch_len}."
        )
    params = RuleParams() if params is None else params
    pace = PaceParams() if pace is None else pace
    _check_params(params)
    _check_pace(pace)
    if config.learned_scale and rule.scales == "tied" and config.num_draft:
        raise InputError(
            f"rule {config.rule!r} needs one sigma for target and draft; with learned_scale use "
            "'residual'."
        )
    patch_len = target.patch_len
    inputs = Inputs(key, context, sigma, series_index, lengths)
    check_inputs(inputs, patch_len, config, sampling=True)
    if config.num_draft == 0:
        spread = jnp.zeros_like(jnp.asarray(sigma)) if rule.proposes == "mean" else sigma
        return decode_autoregressive(
            key,
            context,
            target=target,
            sigma=spread,
            config=config,
            series_index=series_index,
            lengths=lengths,
        )
    return _decode(inputs.as_float32(), target, draft, params, pace, config=config)


def _check_params(params: RuleParams) -> None:
    check_scalar("bias", params.bias, at_least=1)
    for name in ("mse_tolerance", "tolerance", "emit_proposal"):
        check_scalar(name, getattr(params, name), at_least=0)
    if params.temperature is not None:
        check_scalar("temperature", params.temperature, at_least=1e-6)
    if params.adaptive_sigma is not None:
        check_scalar("adaptive_sigma", params.adaptive_sigma, at_least=0)


def _check_pace(pace: PaceParams) -> None:
    for name in ("lower", "upper", "draft_cost", "decay"):
        check_scalar(name, getattr(pace, name), at_least=0)


@compiled
def _decode(
    inputs: Inputs,
    target: Process,
    draft: Draft,
    params: RuleParams,
    pace: PaceParams,
    *,
    config: DecodeConfig,
) -> tuple[jax.Array, DecodeInfo]:
    count, num_vars = num_patches(config.horizon, target.patch_len), inputs.context.shape[-1]
    model = Model(target, draft, params, pace)

    def prepare(context: jax.Array, length: jax.Array | None) -> tuple[Any, Any]:
        return target.prepare(context, length), draft.prepare(context, length)

    def run(memory: Any, keys: jax.Array) -> tuple[jax.Array, DecodeInfo]:
        start = functools.partial(initial_state, model=model, config=config, count=count)
        play = functools.partial(decode_round, model=model, config=config, count=count)
        state = over_lanes(start, keys.shape)(memory, keys)
        body = over_lanes(play, keys.shape)

        def step(state: LoopState) -> LoopState:
            # One number for all paths, so that the draft's loop is not mapped.
            return body(memory, state, jnp.max(round_length(state, count)))

        state = jax.lax.while_loop(lambda s: jnp.any(s.filled < count), step, state)
        # [B, S, N, P, C] -> [B, S, N * P, C]
        forecast = state.patches[:, :, :count].reshape(*keys.shape, -1, num_vars)
        return forecast[:, :, : config.horizon], trimmed(state.info, count)

    return decode_batch(prepare, run, inputs, target.patch_len, config)


def initial_state(
    memory: Any, key: jax.Array, *, model: Model, config: DecodeConfig, count: int
) -> LoopState:
    """The carry before the first round of a path; `key` passes into it."""
    num_draft, zero = config.num_draft, jnp.zeros((), jnp.int32)
    memory, sigma = memory
    room = count + num_draft + 1
    shape = (room, *sigma.shape)
    info = empty_info(num_draft, room, sigma.shape, trace=config.trace)
    return LoopState(
        keys=path_keys(key),
        filled=zero,
        target=model.target.start(memory[0], count + num_draft),
        draft=model.draft.start(memory[1], count + num_draft),
        pace=initial_pace(num_draft),
        patches=jnp.zeros(shape, jnp.float32),
        info=info,
    )


def round_length(state: LoopState, count: int) -> jax.Array:
    """Proposals of the next round: what the pacing says, and no more than are missing of N.

    It depends only on the rounds before, so exact rules stay exact; 0 when all patches are there.
    """
    return jnp.clip(count - state.filled, 0, state.pace.length)


def decode_round(
    memory: Any,
    state: LoopState,
    longest: jax.Array,
    *,
    model: Model,
    config: DecodeConfig,
    count: int,
) -> LoopState:
    """One round of one path: propose, verify, decide, commit.

    Args:
        memory: `(of the target, of the draft)`, and sigma `[P, C]`.
        state: the carry.
        longest: proposals that are drafted; those past the path's own length do not count.
        model: who decodes.
        config: static choices.
        count: N; a path that has N patches comes back as it was, but for its key.
    """
    rule, (memory, sigma) = find_rule(config.rule), memory
    next_key, draft_key, rule_key = jax.random.split(state.keys.rounds, 3)
    fresh = patch_noise(state.keys.noise, state.filled, config.num_draft + 1, sigma.shape)
    noise = fresh[:-1]
    if rule.proposes == "sample":
        noise = jax.random.normal(draft_key, noise.shape, jnp.float32)
    if rule.proposes == "mean":
        noise = jnp.zeros_like(noise)
    learned = config.learned_scale and rule.scales == "free"
    made, drafted = propose(
        model.draft, memory[1], state.draft, noise, sigma, longest, learned=learned
    )
    laws, seen = model.target.verify(memory[0], state.target, made.patches)
    current = Round(
        proposals=made.patches,
        noise=noise,
        draft_mean=made.mean,
        draft_sigma=made.sigma,
        target_mean=laws.mean,
        target_sigma=law_sigma(laws, sigma, config.learned_scale),
        draft_logvar=made.logvar,
        fresh=fresh,
        length=round_length(state, count),
    )
    outcome = rule.decide(rule_key, current, model.params)
    emitted = jnp.minimum(outcome.num_accepted + 1, count - state.filled)  # 0 when all are there
    place = jnp.arange(config.num_draft + 1)
    kept = (place < outcome.num_accepted)[:, None, None]
    padded = jnp.concatenate([made.patches, outcome.patch[None]])
    grown = jnp.where(kept, padded, outcome.patch[None])  # [K + 1, P, C], the context
    shown = grown
    if outcome.emitted is not None:
        shown = jnp.where(kept, jnp.concatenate([outcome.emitted, outcome.patch[None]]), grown)
    active = emitted > 0
    chances = None
    if config.pacing == "gain" and made.logvar is not None:
        chances = own_chances(made.logvar, sigma)
    played = state.pace if config.pacing is None else state.pace._replace(length=current.length)
    pace = next_pace(
        config.pacing, played, outcome.num_accepted, model.pace, config.num_draft, chances
    )
    return LoopState(
        keys=state.keys._replace(rounds=next_key),
        filled=state.filled + emitted,
        target=model.target.commit(seen, grown, emitted),
        draft=model.draft.commit(drafted, grown, emitted),
        pace=jax.tree.map(lambda new, old: jnp.where(active, new, old), pace, state.pace),
        patches=write_slots(state.patches, shown, state.filled, 0),
        info=count_round(state.info, state.filled, current, outcome, emitted, count),
    )
