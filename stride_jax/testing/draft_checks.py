"""Proof that a draft keeps what the exact rules rely on."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.config import whole_number
from stride_jax.decoding.base import Draft, Process
from stride_jax.decoding.compiled import compiled
from stride_jax.decoding.drafts import as_draft, propose
from stride_jax.decoding.keys import as_key
from stride_jax.decoding.traits import prepare_draft


def check_draft(
    draft: Draft | Process,
    context: jax.Array,
    *,
    target: Process | None = None,
    num_draft: int = 3,
    atol: float = 1e-4,
    seed: int = 0,
) -> None:
    """Checks a draft of your own against the contract in `decoding.base.Draft`.

    The claims: a mean does not depend on the noise of its own proposal or of a later one, which is
    what the exact rules need; a shorter round is the beginning of a longer one; after any number of
    patches the draft predicts as after the same patches one by one; jit and vmap change nothing.

    Args:
        draft: to check; a process is checked as a draft that proposes patch by patch.
        context: `[L, C]` that the draft accepts.
        target: only for a draft that reads its target's memory (`prepare_beside`): that target.
        num_draft: K, proposals of a round.
        atol: largest difference of two means that are the same, in the context's units.
        seed: of the noise.

    Raises:
        AssertionError: a claim is wrong; the message names it.
        InputError: a seed outside 0 to 2**32 - 1, num_draft below 1, or no target for a draft that
            reads its memory; see also `drafts.propose`.
    """
    draft, num_draft = as_draft(draft), whole_number("num_draft", num_draft, least=1)
    context = jnp.asarray(context, jnp.float32)
    beside = None if target is None else target.prepare(context)
    memory = prepare_draft(draft, target, beside, context, None)
    shape = (num_draft, draft.patch_len, context.shape[1])
    noise_key, patch_key = jax.random.split(as_key(seed))
    noise = jax.random.normal(noise_key, shape, jnp.float32)
    sigma = jnp.broadcast_to(jnp.std(context, axis=0)[None] + 1e-3, shape[1:])
    drawn = jax.random.normal(patch_key, (num_draft + 1, *shape[1:]), jnp.float32)
    patches = context[-1:][None] + sigma[None] * drawn
    state = draft.start(memory, 2 * num_draft + 1)
    means = _means(draft, memory, state, noise, sigma)

    for place in range(num_draft):
        # The noise of a place may move the places after it, and no other.
        other = _means(draft, memory, state, noise.at[place].add(1.0), sigma)
        claim = f"mean {place + 1} and those before it do not depend on the noise of proposal "
        _same(f"{claim}{place + 1}", other[: place + 1], means[: place + 1], atol)
        shorter = _means(draft, memory, state, noise[: place + 1], sigma)
        _same(f"a round of {place + 1} begins a longer one", shorter, means[: place + 1], atol)
    for count in range(num_draft + 1):
        _check_commit(draft, memory, (noise, sigma, patches), count, atol)
    claim = "jit and vmap change nothing"
    # [1, K, P, C] -> [K, P, C]
    mapped = jax.vmap(lambda one: _means(draft, memory, state, one, sigma))(noise[None])[0]
    _same(claim, mapped, means, atol)
    eager, _ = propose(draft, memory, state, noise, sigma, num_draft, learned=False)
    _same(claim, eager.mean, means, atol)


@compiled
def _means(draft: Any, memory: Any, state: Any, noise: jax.Array, sigma: jax.Array) -> jax.Array:
    """The means of K proposals with this noise, `[K, P, C]`."""
    proposals, _ = propose(draft, memory, state, noise, sigma, len(noise), learned=False)
    return proposals.mean


@compiled
def _commit(draft: Any, memory: Any, state: Any, round_: Any, count: jax.Array) -> Any:
    """The state after a round of which other patches are kept, as after a rejection."""
    noise, sigma, patches = round_
    _, state = propose(draft, memory, state, noise, sigma, len(noise), learned=False)
    return draft.commit(state, patches, count)


def _check_commit(draft: Any, memory: Any, round_: Any, count: int, atol: float) -> None:
    """Keeping `count` patches at once predicts as keeping them one by one."""
    noise, sigma, patches = round_
    start, accepted = draft.start(memory, 2 * len(noise) + 1), max(count - 1, 0)
    proposals = _means(draft, memory, start, noise, sigma) + sigma[None] * noise
    # a decoder keeps the proposals that were accepted and one patch more
    committed = jnp.concatenate([proposals[:accepted], patches[accepted:]])
    together = _commit(draft, memory, start, (noise, sigma, committed), jnp.int32(count))
    single = start
    for number in range(count):
        rest = jnp.broadcast_to(committed[number], committed.shape)
        single = _commit(draft, memory, single, (noise, sigma, rest), jnp.int32(1))
    at_once, one_by_one = (
        _means(draft, memory, state, noise, sigma) for state in (together, single)
    )
    _same(f"{count} patches kept at once are as one by one", at_once, one_by_one, atol)


def _same(claim: str, one: jax.Array, other: jax.Array, atol: float) -> None:
    """Raises AssertionError naming the claim where two arrays of means differ."""
    worst = float(np.max(np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64))))
    if not worst <= atol:
        raise AssertionError(f"{claim}: wrong, means differ by {worst:.3g}, allowed {atol:g}.")
