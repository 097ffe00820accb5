"""Proof that a process verifies what it would have predicted alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.config import whole_number
from stride_jax.decoding.base import Process
from stride_jax.decoding.compiled import compiled
from stride_jax.decoding.keys import as_key
from stride_jax.decoding.traits import traits_of
from stride_jax.types import PatchDistribution

ROUNDS = 3
"""Rounds of drafting and committing that are checked one after the other."""


def check_process(
    process: Process,
    context: jax.Array,
    *,
    num_draft: int = 3,
    atol: float = 1e-4,
    seed: int = 0,
) -> None:
    """Checks a process of your own against the contract in `decoding.base.Process`.

    The claims, each checked with random proposals: K proposals verified at once give the
    predictions of single steps; a prediction does not look at later proposals; verifying keeps
    nothing; committing any number of patches, the last of which is no proposal, continues as if
    they had come one by one; the process as a draft predicts the same after any such commit; jit
    and vmap change nothing; and, where the process supports padding, padding changes nothing.

    Args:
        process: to check.
        context: `[L, C]` that the process accepts.
        num_draft: K, proposals per round.
        atol: largest difference of two predictions that are the same, in the context's units.
        seed: of the random proposals.

    Raises:
        AssertionError: a claim is wrong; the message names it.
        InputError: a seed outside 0 to 2**32 - 1, or num_draft below 1.
    """
    num_draft = whole_number("num_draft", num_draft, least=1)
    context = jnp.asarray(context, jnp.float32)
    keys = jax.random.split(as_key(seed), ROUNDS)
    shape = (num_draft, process.patch_len, context.shape[1])
    scale = jnp.std(context, axis=0)[None, None] + 1e-3  # [1, 1, C]
    level = jnp.mean(context, axis=0)[None, None]  # [1, 1, C]
    rounds = [level + scale * jax.random.normal(key, shape, jnp.float32) for key in keys]
    memory = process.prepare(context)
    state = process.start(memory, ROUNDS * (num_draft + 1))

    _check_shapes(process, memory, state, rounds[0])
    _check_one_pass(process, memory, state, rounds[0], atol)
    _check_lookahead(process, memory, state, rounds[0], atol)
    for count in range(num_draft + 2):
        _check_commit(process, memory, state, rounds, count, atol)
        _check_drafting(process, context, rounds, count, atol)
    _check_transforms(process, context, rounds[0], atol)
    if traits_of(process).supports_padding:
        _check_padding(process, context, rounds[0], atol)


@compiled
def _verify(process: Process, memory: Any, state: Any, proposals: jax.Array) -> Any:
    """`Process.verify`, compiled once per shape."""
    return process.verify(memory, state, proposals)


@compiled
def _keep(process: Process, state: Any, patches: jax.Array, count: jax.Array) -> Any:
    """`Process.commit`, compiled once per shape."""
    return process.commit(state, patches, count)


@compiled
def _step(draft: Any, memory: Any, state: Any, patch: jax.Array) -> Any:
    """`step` of a draft, compiled once per shape."""
    return draft.step(memory, state, patch)


def _same(claim: str, one: Any, other: Any, atol: float) -> None:
    """Raises AssertionError naming the claim where two trees of arrays differ.

    Infinite values of one sign are the same: a mixture may give a component no weight.
    """
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        pair = np.asarray(a, np.float64), np.asarray(b, np.float64)
        equal = np.equal(*pair)
        apart = np.abs(np.subtract(*pair, out=np.zeros_like(pair[0]), where=~equal))
        worst = float(np.max(apart, initial=0.0))
        if not worst <= atol:
            raise AssertionError(f"{claim}: predictions differ by {worst:.3g}, allowed {atol:g}.")


def _check_shapes(process: Process, memory: Any, state: Any, proposals: jax.Array) -> None:
    predictions, _ = _verify(process, memory, state, proposals)
    expected = (len(proposals) + 1, *proposals.shape[1:])
    if predictions.mean.shape != expected or predictions.mean.dtype != jnp.float32:
        raise AssertionError(
            f"verify must return means of shape {expected} in float32, got "
            f"{predictions.mean.shape} in {predictions.mean.dtype}."
        )
    if not np.isfinite(np.asarray(predictions.mean)).all():
        raise AssertionError("verify returned means that are not finite for ordinary proposals.")


def _alone(process: Process, memory: Any, state: Any, patches: jax.Array) -> Any:
    """The predictions before and after each of `[n, P, C]` patches, committed one by one."""
    one, none, predictions = jnp.ones((), jnp.int32), patches[:0], []
    for patch in patches:
        prediction, ahead = _verify(process, memory, state, none)
        predictions.append(prediction)
        state = _keep(process, ahead, patch[None], one)
    prediction, ahead = _verify(process, memory, state, none)
    joined = jax.tree.map(lambda *x: jnp.concatenate(x), *predictions, prediction)
    return joined, _keep(process, ahead, jnp.zeros((1, *patches.shape[1:]), jnp.float32), one * 0)


def _check_one_pass(
    process: Process, memory: Any, state: Any, proposals: jax.Array, atol: float
) -> None:
    predictions, _ = _verify(process, memory, state, proposals)
    alone, _ = _alone(process, memory, state, proposals)
    _same("verifying K proposals at once equals K single steps", predictions, alone, atol)
    again, _ = _verify(process, memory, state, proposals)
    _same("verify keeps nothing", predictions, again, atol)


def _check_lookahead(
    process: Process, memory: Any, state: Any, proposals: jax.Array, atol: float
) -> None:
    before, _ = _verify(process, memory, state, proposals)
    for place in range(len(proposals)):
        changed = proposals.at[place:].add(10.0)
        after, _ = _verify(process, memory, state, changed)
        head = [jax.tree.map(lambda x, n=place: x[: n + 1], x) for x in (before, after)]
        _same("a prediction does not look at later proposals", head[0], head[1], atol)


def _decided(proposals: jax.Array, count: int) -> jax.Array:
    """The K + 1 patches of a round that keeps `count`: accepted proposals, then another patch."""
    patches = jnp.concatenate([proposals, proposals[-1:]])
    return patches if count == 0 else patches.at[count - 1].set(proposals[0, ::-1] - 1.0)


def _commit(process: Process, ahead: Any, proposals: jax.Array, count: int) -> Any:
    """Keeps the first `count` patches of a round, the last of which is no proposal."""
    patches = _decided(proposals, count)
    return _keep(process, ahead, patches, jnp.asarray(count, jnp.int32))


def _check_commit(
    process: Process,
    memory: Any,
    state: Any,
    rounds: list[jax.Array],
    count: int,
    atol: float,
) -> None:
    resumed = state
    for proposals in rounds:
        _, ahead = _verify(process, memory, resumed, proposals)
        resumed = _commit(process, ahead, proposals, count)
    continued, _ = _verify(process, memory, resumed, rounds[0])
    history = jnp.concatenate([_decided(proposals, count)[:count] for proposals in rounds])
    _, plain = _alone(process, memory, state, history)
    expected, _ = _verify(process, memory, plain, rounds[0])
    claim = f"committing {count} patches of a round continues as if they came one by one"
    _same(claim, continued, expected, atol)


def _proposing(prediction: PatchDistribution) -> PatchDistribution:
    """The parts of a prediction that a draft proposes with: no density, nothing reported."""
    return PatchDistribution(prediction.mean, prediction.logvar)


def _check_drafting(
    process: Process, context: jax.Array, rounds: list[jax.Array], count: int, atol: float
) -> None:
    draft = process.drafting()
    room = ROUNDS * (len(rounds[0]) + 1)
    memory, draft_memory = process.prepare(context), draft.prepare(context)
    state, draft_state = process.start(memory, room), draft.start(draft_memory, room)
    for proposals in rounds:
        expected, ahead = _verify(process, memory, state, proposals)
        first, drafted = _verify(draft, draft_memory, draft_state, proposals[:0])
        predictions = [_proposing(jax.tree.map(lambda x: x[0], first))]
        for patch in proposals[:-1]:
            prediction, drafted = _step(draft, draft_memory, drafted, patch)
            predictions.append(_proposing(prediction))
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *predictions)
        claim = f"as a draft it predicts the same after {count} acceptances per round"
        _same(claim, stacked, jax.tree.map(lambda x: x[:-1], _proposing(expected)), atol)
        state = _commit(process, ahead, proposals, count)
        draft_state = _commit(draft, drafted, proposals, count)


def _check_transforms(
    process: Process, context: jax.Array, proposals: jax.Array, atol: float
) -> None:
    def run(process: Process, context: jax.Array) -> Any:
        memory = process.prepare(context)
        return process.verify(memory, process.start(memory, len(proposals)), proposals)[0]

    plain = run(process, context)
    _same("jit changes nothing", jax.jit(run)(process, context), plain, atol)
    batch = jnp.stack([context, context[::-1]])
    mapped = jax.vmap(run, in_axes=(None, 0))(process, batch)
    _same("vmap changes nothing", jax.tree.map(lambda x: x[0], mapped), plain, atol)


def _check_padding(process: Process, context: jax.Array, proposals: jax.Array, atol: float) -> None:
    patch_len = process.patch_len
    length = (context.shape[0] // patch_len - 1) * patch_len
    if length < patch_len:
        return
    history = context[context.shape[0] - length :]

    def run(filling: float) -> Any:
        padding = jnp.full((context.shape[0] - length, context.shape[1]), filling, jnp.float32)
        memory = process.prepare(
            jnp.concatenate([padding, history]), jnp.asarray(length, jnp.int32)
        )
        return _verify(process, memory, process.start(memory, len(proposals)), proposals)[0]

    _same("the values of padding do not matter", run(0.0), run(100.0), atol)
    short = _of_shorter_contexts(process, length)
    if short is not None:
        memory = short.prepare(history)
        state = short.start(memory, len(proposals))
        unpadded, _ = _verify(short, memory, state, proposals)
        _same("padding changes nothing", run(0.0), unpadded, atol)


def _of_shorter_contexts(process: Any, length: int) -> Any:
    """The process in a form that takes so many steps without padding; None if it has none.

    One that sees `context_len` steps may refuse fewer. Where that is a field of a dataclass, a copy
    of the process sees as many as there are.
    """
    most = traits_of(process).context_len
    if most is None or most <= length:
        return process
    names = (
        [f.name for f in dataclasses.fields(process)] if dataclasses.is_dataclass(process) else ()
    )
    return dataclasses.replace(process, context_len=length) if "context_len" in names else None
