"""Speculative decoding (STRIDE, arXiv 2511.18191, algorithm 1) in one `lax.while_loop`.

A round: the draft proposes K patches one after the other, the target gives its laws after
0, 1, ..., K of them in one verification, a coupling rule keeps the leading ones and adds a patch.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from stride_jax import gaussian
from stride_jax.config import DecodeConfig
from stride_jax.coupling import Outcome, Round, RuleParams, find_rule
from stride_jax.decoding import (
    ACCEPTED,
    AUTOREGRESSIVE,
    BONUS,
    RECOVERED,
    DecodeInfo,
    check_inputs,
    check_scalar,
    decode_batch,
    layout,
    split_keys,
)
from stride_jax.errors import InputError
from stride_jax.processes import WindowProcess


class LoopState(NamedTuple):
    """The carry of the loop, for one series. The outputs have K spare patches at their end.

    Attributes:
        key: of the next round.
        filled: int32, patches emitted so far, maybe past N.
        rounds: int32.
        target: the target's state.
        draft: the draft's state.
        patches: `[N + K, P, C]`; what stands at `filled` and after is overwritten.
        proposal: `[N + K, P, C]`, see `DecodeInfo`.
        kind: `[N + K]` int32.
        accepted: `[K]` int32.
        proposed: `[K]` int32.
    """

    key: jax.Array
    filled: jax.Array
    rounds: jax.Array
    target: Any
    draft: Any
    patches: jax.Array
    proposal: jax.Array
    kind: jax.Array
    accepted: jax.Array
    proposed: jax.Array


def decode_speculative(
    key: jax.Array,
    context: jax.Array,
    *,
    target: WindowProcess,
    draft: WindowProcess,
    sigma: float | jax.Array,
    config: DecodeConfig,
    params: RuleParams | None = None,
    series_index: jax.Array | None = None,
) -> tuple[jax.Array, DecodeInfo]:
    """Sample paths of the target process, proposed by the draft.

    With an exact rule the forecast has the law of `decode_autoregressive` with the same sigma,
    whatever the draft. K = 0 is `decode_autoregressive`, draw by draw.

    Args:
        key: PRNG key (typed, or raw key data); folded with the series index.
        context: `[L, C]` or `[B, L, C]`; taken as float32.
        target: the process whose law the forecast follows.
        draft: the process that proposes, with the same sigma; a learned variance is ignored.
        sigma: std of a patch, > 0, in the units of the context; scalar, `[C]` or `[P, C]`. Traced.
        config: horizon, K and rule; static.
        params: bias and tolerance of `resample`; traced.
        series_index: `[B]` global numbers of the series, default 0..B-1.

    Returns:
        `(forecast, info)`: `[horizon, C]` or `[B, horizon, C]`, float32. A series' result does not
        depend on the rest of its batch, up to float rounding of the batched model.

    Raises:
        InputError: unknown rule, different patch lengths, bias below 1 or negative tolerance, and
            see `decoding.check_inputs`.
    """
    find_rule(config.rule)
    if target.patch_len != draft.patch_len:
        raise InputError(
            f"target and draft must share a patch length, got {target.patch_len} and "
            f"{draft.patch_len}."
        )
    params = RuleParams() if params is None else params
    check_scalar("bias", params.bias, at_least=1)
    check_scalar("tolerance", params.tolerance, at_least=0)
    check_inputs(context, sigma, series_index, target.patch_len, sampling=True)
    args = (key, jnp.asarray(context, jnp.float32), target, draft, sigma, params, series_index)
    return _decode(*args, config=config)


@functools.partial(jax.jit, static_argnames="config")
def _decode(
    key: jax.Array,
    context: jax.Array,
    target: WindowProcess,
    draft: WindowProcess,
    sigma: jax.Array,
    params: RuleParams,
    series_index: jax.Array | None,
    *,
    config: DecodeConfig,
) -> tuple[jax.Array, DecodeInfo]:
    count, scale = layout(config.horizon, target.patch_len, context.shape[-1], sigma)
    body = functools.partial(
        decode_round,
        target=target,
        draft=draft,
        sigma=scale,
        params=params,
        config=config,
        count=count,
    )

    def one(key: jax.Array, context: jax.Array) -> tuple[jax.Array, DecodeInfo]:
        state = initial_state(key, context, target, draft, config, count)
        state = jax.lax.while_loop(lambda s: s.filled < count, body, state)
        info = DecodeInfo(
            accepted=state.accepted,
            proposed=state.proposed,
            rounds=state.rounds,
            target_passes=state.rounds,
            kind=state.kind[:count],
            proposal=state.proposal[:count],
        )
        # [N, P, C] -> [N * P, C]
        forecast = state.patches[:count].reshape(-1, scale.shape[1])
        return forecast[: config.horizon], info

    return decode_batch(one, key, context, series_index)


def initial_state(
    key: jax.Array,
    context: jax.Array,
    target: WindowProcess,
    draft: WindowProcess,
    config: DecodeConfig,
    count: int,
) -> LoopState:
    """The carry before the first round; `key` passes into it."""
    room = count + config.num_draft
    shape = (room, target.patch_len, context.shape[-1])
    return LoopState(
        key=key,
        filled=jnp.zeros((), jnp.int32),
        rounds=jnp.zeros((), jnp.int32),
        target=target.init(context),
        draft=draft.init(context),
        patches=jnp.zeros(shape, jnp.float32),
        proposal=jnp.full(shape, jnp.nan, jnp.float32),
        kind=jnp.zeros(room, jnp.int32),
        accepted=jnp.zeros(config.num_draft, jnp.int32),
        proposed=jnp.zeros(config.num_draft, jnp.int32),
    )


def propose(
    key: jax.Array, state: Any, draft: WindowProcess, sigma: jax.Array, num_draft: int
) -> tuple[jax.Array, jax.Array]:
    """K patches of the draft, each given the ones before: `(proposals, means)`, `[K, P, C]`.

    Consumes `key`.
    """

    def step(state: Any, key: jax.Array) -> tuple[Any, tuple[jax.Array, jax.Array]]:
        mean = draft.law(state).mean
        patch = gaussian.sample(key, mean, sigma)
        return draft.append(state, patch), (patch, mean)

    _, (proposals, means) = jax.lax.scan(step, state, jax.random.split(key, num_draft))
    return proposals, means


def decode_round(
    state: LoopState,
    *,
    target: WindowProcess,
    draft: WindowProcess,
    sigma: jax.Array,
    params: RuleParams,
    config: DecodeConfig,
    count: int,
) -> LoopState:
    """One round of one series: propose, verify, decide, commit."""
    num_draft = config.num_draft
    keys = split_keys(state.key)
    fresh = jax.random.normal(keys.fresh, sigma.shape, jnp.float32)
    if num_draft == 0:
        mean = target.law(state.target).mean
        proposals = jnp.zeros((0, *sigma.shape), jnp.float32)
        outcome = Outcome(jnp.zeros((), jnp.int32), mean + sigma * fresh)
    else:
        proposals, draft_mean = propose(keys.draft, state.draft, draft, sigma, num_draft)
        target_mean = target.verify(state.target, proposals).mean
        current = Round(proposals, draft_mean, target_mean, sigma, fresh)
        outcome = find_rule(config.rule)(keys.rule, current, params)
    place = jnp.arange(num_draft + 1, dtype=jnp.int32)
    padded = jnp.concatenate([proposals, jnp.full((1, *sigma.shape), jnp.nan, jnp.float32)])
    kept = (place < outcome.num_accepted)[:, None, None]
    patches = jnp.where(kept, padded, outcome.patch[None])  # [K + 1, P, C]
    own = BONUS if num_draft else AUTOREGRESSIVE
    last = jnp.where(outcome.num_accepted == num_draft, own, RECOVERED)
    kind = jnp.where(place < outcome.num_accepted, ACCEPTED, last).astype(jnp.int32)
    emitted = outcome.num_accepted + 1
    counts = (state.filled + place < count)[:-1]  # proposals that fall within the horizon
    zero = jnp.zeros((), jnp.int32)
    return LoopState(
        key=keys.next,
        filled=state.filled + emitted,
        rounds=state.rounds + 1,
        target=target.commit(state.target, patches, emitted),
        draft=draft.commit(state.draft, patches, emitted),
        patches=jax.lax.dynamic_update_slice(state.patches, patches, (state.filled, zero, zero)),
        proposal=jax.lax.dynamic_update_slice(state.proposal, padded, (state.filled, zero, zero)),
        kind=jax.lax.dynamic_update_slice(state.kind, kind, (state.filled,)),
        accepted=state.accepted + (counts & (place[:-1] < outcome.num_accepted)),
        proposed=state.proposed + (counts & (place[:-1] <= outcome.num_accepted)),
    )
