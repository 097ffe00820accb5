"""How many patches to draft: a fixed K, or fewer while proposals are being rejected.

The last rounds draft only what is still missing, see `speculative.round_length`. The length of a
round depends only on the rounds before it, so exact rules stay exact.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from stride_jax import gaussian

Pacing = Literal["threshold", "gain"] | None
"""threshold: the original's rule. gain: most expected patches for the cost. None: always K."""


class PaceParams(NamedTuple):
    """Traced settings of the pacing.

    Attributes:
        lower: threshold shortens by one patch when the share accepted falls below this.
        upper: and lengthens by one when it rises above this.
        draft_cost: gain: the cost of one draft step over that of a verification.
        decay: gain: weight of the earlier rounds' counts against the last one's.
    """

    lower: float | jax.Array = 0.3
    upper: float | jax.Array = 0.7
    draft_cost: float | jax.Array = 0.1
    decay: float | jax.Array = 0.9


class Pace(NamedTuple):
    """What one path remembers.

    Attributes:
        length: int32, proposals of the next round, 1 to K.
        accepted: float32, decayed count of accepted proposals.
        tested: float32, decayed count of tested ones.
    """

    length: jax.Array
    accepted: jax.Array
    tested: jax.Array


def initial_pace(num_draft: int) -> Pace:
    """K proposals, nothing tested."""
    zero = jnp.zeros((), jnp.float32)
    return Pace(jnp.asarray(num_draft, jnp.int32), zero, zero)


def expected_speed(acceptance: jax.Array, draft_cost: jax.Array) -> jax.Array:
    """`(1 + a_1 + a_1 a_2 + ... + a_1 ... a_k) / (1 + c k)`: patches a round over its cost.

    For k = 1, ..., K; with all a equal it is the paper's formula.

    Args:
        acceptance: `[K]`, chance of each place given that those before were accepted.
        draft_cost: c.
    """
    patches = 1 + jnp.cumsum(jnp.cumprod(acceptance))
    return patches / (1 + draft_cost * jnp.arange(1, len(acceptance) + 1))


def own_chances(logvar: jax.Array, sigma: jax.Array) -> jax.Array:
    """What a draft's learned variance says of its acceptance, `[K]`.

    Its excess over sigma^2 is read as the squared error of the draft's mean, so that
    `delta^2 = sum(v / sigma^2 - 1)` and the chance is `2 Phi(-delta / 2)`.

    Args:
        logvar: `[K, P, C]`.
        sigma: `[P, C]` of the target.
    """
    excess = jnp.maximum(jnp.exp(logvar) / jnp.square(sigma)[None] - 1, 0)
    return gaussian.acceptance(jnp.sqrt(jnp.sum(excess, axis=(1, 2))))


def next_pace(
    pacing: Pacing,
    pace: Pace,
    accepted: jax.Array,
    params: PaceParams,
    num_draft: int,
    chances: jax.Array | None = None,
) -> Pace:
    """The pace after a round that kept `accepted` of its `pace.length` proposals.

    Args:
        pacing: which rule.
        pace: of the round.
        accepted: int32.
        params: settings.
        num_draft: K.
        chances: `[K]`, what the draft itself expected of its proposals, see `own_chances`; the
            gain takes them where they are lower than the running acceptance.
    """
    if pacing is None:
        return pace
    if pacing == "threshold":
        share = accepted / jnp.maximum(pace.length, 1)
        change = (share > params.upper).astype(jnp.int32) - (share < params.lower)
        return pace._replace(length=jnp.clip(pace.length + change, 1, num_draft))
    tested = jnp.minimum(accepted + 1, pace.length)
    hits = params.decay * pace.accepted + accepted
    total = params.decay * pace.tested + tested
    acceptance = jnp.full(num_draft, (hits + 1) / (total + 2))
    if chances is not None:
        drafted = jnp.arange(num_draft) < pace.length
        acceptance = jnp.where(drafted, jnp.minimum(acceptance, chances), acceptance)
    speed = expected_speed(acceptance, jnp.asarray(params.draft_cost))
    return Pace((jnp.argmax(speed) + 1).astype(jnp.int32), hits, total)
