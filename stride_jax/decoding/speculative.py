"""Decoding: the target alone, the draft alone, or speculative decoding of both.

Speculative decoding (STRIDE, arXiv 2511.18191, algorithm 1) is one `lax.while_loop` over rounds. In
a round the draft proposes K patches, the target predicts after 0, 1, ..., K of them in one
verification, and an acceptance rule keeps the leading ones and adds a patch. The last rounds draft
only what the forecast still needs. One loop runs around a round of all paths; a path that has its
patches keeps playing rounds that change nothing.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from stride_jax.decoding.autoregressive import roll_draft, roll_process
from stride_jax.decoding.base import Draft, Process, Rule
from stride_jax.decoding.batching import decode_batch, over_lanes
from stride_jax.decoding.checks import Inputs, check_inputs
from stride_jax.decoding.compiled import compiled
from stride_jax.decoding.draft_length import DraftLength, Fixed
from stride_jax.decoding.drafts import as_draft
from stride_jax.decoding.info import decode_info
from stride_jax.decoding.lanes import lane_sizes, on_several_devices, play_until_finished
from stride_jax.decoding.rounds import (
    LoopState,
    Memory,
    Model,
    initial_state,
    round_length,
)
from stride_jax.decoding.rules import Maximal, rule_name
from stride_jax.decoding.scale import PatchCovariance
from stride_jax.decoding.several import chains_of, round_of
from stride_jax.decoding.traits import (
    check_process,
    check_pytree,
    for_paths,
    length_unit,
    prepare_draft,
    traits_of,
)
from stride_jax.decoding.types import DecodeConfig, DecodeInfo, num_patches
from stride_jax.errors import InputError


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
            front of the last. Traced. Rules that propose means take it as the unit of the gap. Of a
            target that predicts a density (see `traits.Traits`) it is the std of the proposals
            alone, and 0 its mean path. It must be positive where a draft proposes; 0 gives the
            mean path of target or draft alone.
            A `PatchCovariance` for errors that are correlated within a patch; target and draft
            share it, and the unit of a gap is then its factor.
        config: horizon, K, paths and chunks; static.
        rule: acceptance rule with its settings, traced; None for `Maximal()`. A rule of means
            decodes the mean path, also of the target or the draft alone.
        draft_length: proposals per round with its settings, traced; None for always K.
        series_index: `[B]` global numbers of the series, within int32, default 0..B-1; with them a
            part of a batch is the same as in the whole.
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
            none, one of them that is no pytree, a decision of a rule that breaks its contract,
            different patch lengths, settings out of range, a learned scale with a rule that
            ties the scales, a target that predicts a density with a rule for Gaussians alone, a
            covariance with a rule or a target that takes none, a draft alone with K = 0, and see
            `decoding.checks.check_inputs`.
    """
    rule = Maximal() if rule is None else rule
    draft_length = Fixed() if draft_length is None else draft_length
    source = draft if target is None else target
    if source is None:
        raise InputError("decode needs a target, a draft, or both; got neither.")
    check_choices(target, draft, rule, draft_length, config)
    inputs = Inputs(key, context, sigma, series_index, lengths)
    model = Model(target, draft, rule, draft_length)
    speculative, unit = speculates(model, config), length_unit(source)
    check_inputs(inputs, source.patch_len, config, speculative=speculative, unit=unit)
    if isinstance(sigma, PatchCovariance):
        check_covariance(model, config)
    if config.compactions is None and on_several_devices(context):
        config = dataclasses.replace(config, compactions=0)
    out: tuple[jax.Array, DecodeInfo] = _decode(inputs.as_arrays(), model, config=config)
    return out


def speculates(model: Model, config: DecodeConfig) -> bool:
    """Whether target and draft decode together."""
    return model.target is not None and model.draft is not None and config.num_draft > 0


def check_covariance(model: Model, config: DecodeConfig) -> None:
    """Raises InputError for a rule or a target that takes no `PatchCovariance`."""
    rule = model.rule
    if speculates(model, config) and not rule.correlated:
        raise InputError(
            f"rule {rule_name(rule)!r} takes no PatchCovariance; use Maximal() or Block(), or give "
            "a std for each step."
        )
    if model.target is not None and traits_of(model.target).predicts_density:
        raise InputError(
            f"{type(model.target).__name__} draws its patches from a density of its own, whose "
            "steps are independent; give a std for each step in place of a PatchCovariance."
        )


@compiled
def _decode(inputs: Inputs, model: Model, *, config: DecodeConfig) -> tuple[jax.Array, DecodeInfo]:
    """The whole decode as one program, with the checks of values that lie on a device."""
    target, draft, rule, _ = model
    source = draft if target is None else target
    speculative, means = speculates(model, config), rule.proposes == "mean"
    unit = length_unit(source)
    valid = inputs.valid(source.patch_len, speculative=speculative, unit=unit)
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
            "draft_length must be Fixed(), Fallback(), Threshold() or Gain(), got "
            f"{draft_length!r}."
        )
    if draft_length.stops and chains_of(rule) > 1:
        raise InputError(
            f"draft_length {type(draft_length).__name__} would end the chains of {rule!r} at "
            "different places; use it with a rule of one chain."
        )
    rule.check()
    draft_length.check()
    check_pytree("rule", rule)
    check_pytree("draft_length", draft_length)
    if target is None and config.num_draft == 0:
        raise InputError("num_draft must be at least 1 where the draft decodes alone, got 0.")
    if target is None or proposing is None:
        return
    if target.patch_len != proposing.patch_len:
        raise InputError(
            f"target and draft must share a patch length, got {target.patch_len} and "
            f"{proposing.patch_len}."
        )
    check_rule(target, rule, config)


def check_rule(target: Process, rule: Rule, config: DecodeConfig) -> None:
    """Raises InputError for a rule that cannot decide what this target predicts."""
    if config.learned_scale and rule.scales == "tied" and config.num_draft:
        raise InputError(
            f"rule {rule_name(rule)!r} needs one sigma for target and draft; with learned_scale "
            "use Residual()."
        )
    if traits_of(target).predicts_density and not rule.densities and config.num_draft:
        raise InputError(
            f"rule {rule_name(rule)!r} needs Gaussian predictions, and {type(target).__name__} "
            "predicts a density of its own; use Residual() for sample paths, or Mean() for the "
            "mean path."
        )


@compiled
def _speculate(
    inputs: Inputs, model: Model, *, config: DecodeConfig
) -> tuple[jax.Array, DecodeInfo]:
    """Speculative decoding of every path of every series, compiled."""
    lanes = config.paths_at_once * chains_of(model.rule)
    target, draft = (for_paths(x, lanes) for x in (model.target, model.draft))
    model = model._replace(target=target, draft=draft)
    count, num_vars = num_patches(config.horizon, target.patch_len), inputs.context.shape[-1]

    def prepare(context: jax.Array, length: jax.Array | None) -> tuple[Any, Any]:
        memory = target.prepare(context, length)
        return memory, prepare_draft(draft, target, memory, context, length)

    def run(prepared: Any, keys: jax.Array) -> tuple[jax.Array, DecodeInfo]:
        (target_memory, draft_memory), scale = prepared
        memory = Memory(target_memory, draft_memory, scale)
        start = functools.partial(initial_state, model=model, config=config, count=count)
        play = functools.partial(round_of(model.rule), model=model, config=config, count=count)
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
