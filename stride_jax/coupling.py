"""Accept and recover: how proposals from the draft's law become patches of the target's.

A rule is one pure function `(keys, Round, RuleParams) -> Outcome` over the K >= 1 proposals of a
round; `RULES` names them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from stride_jax import gaussian
from stride_jax.errors import InputError, nearest


class RuleParams(NamedTuple):
    """Traced settings of the rules that are not exact; sweeping them does not recompile.

    Attributes:
        bias: resample multiplies its acceptance ratio by this, at least 1.
        tolerance: resample accepts outright while the mean squared distance of the proposal from
            the target's mean is at most this (squared units of the series); 0 for never.
    """

    bias: float | jax.Array = 1.0
    tolerance: float | jax.Array = 0.0


class Round(NamedTuple):
    """One round of drafting and verifying, for one series.

    Attributes:
        proposals: `[K, P, C]`, drawn from N(draft_mean, sigma^2).
        draft_mean: `[K, P, C]`.
        target_mean: `[K + 1, P, C]`; entry i is the target's mean after i proposals.
        sigma: `[P, C]`, the std of both laws.
        fresh: `[P, C]` standard normal noise, not used by the draft.
    """

    proposals: jax.Array
    draft_mean: jax.Array
    target_mean: jax.Array
    sigma: jax.Array
    fresh: jax.Array


class Outcome(NamedTuple):
    """What a rule decides.

    Attributes:
        num_accepted: int32 scalar, 0 to K: the leading proposals that are kept.
        patch: `[P, C]`, the one after them: recovered, or the bonus if all were kept.
    """

    num_accepted: jax.Array
    patch: jax.Array


FAR = 20.0
"""The delta beyond which `maximal` recovers by a fresh draw."""

Rule = Callable[[jax.Array, Round, RuleParams], Outcome]
"""`(key, round, params) -> outcome`; consumes the key."""


def leading(accepted: jax.Array) -> jax.Array:
    """How many of the first entries of `[K]` bool are all true; int32."""
    return jnp.sum(jnp.cumprod(accepted.astype(jnp.int32))).astype(jnp.int32)


def log_uniform(key: jax.Array, count: int) -> jax.Array:
    """`log u` of `[count]` uniform draws, never minus infinity; `key` is consumed."""
    tiny = jnp.finfo(jnp.float32).tiny
    return jnp.log(jax.random.uniform(key, (count,), jnp.float32, minval=tiny))


def log_ratios(current: Round) -> jax.Array:
    """`log p(x) - log q(x)` of each proposal, `[K]`."""
    ratio = jax.vmap(gaussian.log_ratio, in_axes=(0, 0, 0, None))
    means = current.target_mean[:-1]
    return ratio(current.proposals, means, current.draft_mean, current.sigma)


def maximal(key: jax.Array, current: Round, params: RuleParams) -> Outcome:
    """Reflection coupling (De Bortoli et al., arXiv 2501.05370): exact, the most any rule accepts.

    A proposal is accepted when `log u <= log p(x) - log q(x)`, else its noise is mirrored. Each
    emitted patch follows the target's law given what was emitted before it, whatever the draft;
    P(accept) = 2 Phi(-delta / 2). `params` are not used.

    Beyond delta = 20, where a draw is accepted once in 1e23, a rejected one is replaced by a fresh
    one of the same law: the noise of a draft that is far off (or not finite) cannot be read back
    from float32.
    """
    num_draft = current.proposals.shape[0]
    count = leading(log_uniform(key, num_draft) <= log_ratios(current))
    first = jnp.minimum(count, num_draft - 1)
    means = current.target_mean[first], current.draft_mean[first]
    mirrored = gaussian.reflect(current.proposals[first], *means, current.sigma)
    near = gaussian.mean_gap(*means, current.sigma) <= FAR
    fresh = current.target_mean[count] + current.sigma * current.fresh
    return Outcome(count, jnp.where((count < num_draft) & near, mirrored, fresh))


def resample(key: jax.Array, current: Round, params: RuleParams) -> Outcome:
    """The paper's practical variant: on rejection draw afresh from the target's law. Not exact.

    With bias 1 and no tolerance one patch is within total variation `beta (1 - beta)` of the
    target's law, beta the acceptance rate; a larger bias leaves TV(p, q), a tolerance nothing.
    """
    num_draft = current.proposals.shape[0]
    ratio = jnp.log(params.bias) + log_ratios(current)
    square = jnp.square(current.proposals - current.target_mean[:-1])
    close = jnp.mean(square, axis=(1, 2)) <= params.tolerance
    count = leading((log_uniform(key, num_draft) <= ratio) | (close & (params.tolerance > 0)))
    return Outcome(count, current.target_mean[count] + current.sigma * current.fresh)


RULES: dict[str, Rule] = {"maximal": maximal, "resample": resample}
"""The rules by name."""
EXACT = frozenset({"maximal"})
"""Names of the rules whose output follows the target process."""


def find_rule(rule: str | Rule) -> Rule:
    """The rule of that name; a function is taken as it is.

    Raises:
        InputError: an unknown name (the nearest is suggested).
    """
    if callable(rule):
        return rule
    if rule not in RULES:
        raise InputError(f"no rule {rule!r}. {nearest(rule, list(RULES))}")
    return RULES[rule]
