"""How many patches to draft: a fixed K, or fewer while proposals are being rejected.

The length of a round depends only on the rounds before it, so exact rules stay exact.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

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


def expected_speed(acceptance: jax.Array, lengths: jax.Array, draft_cost: jax.Array) -> jax.Array:
    """`(1 + a + ... + a^k) / (1 + c k)` for each k: patches a round over its cost (paper)."""
    powers = acceptance ** jnp.arange(lengths.shape[0] + 1)
    patches = jnp.cumsum(powers)[lengths]
    return patches / (1 + draft_cost * lengths)


def next_pace(
    pacing: Pacing, pace: Pace, accepted: jax.Array, params: PaceParams, num_draft: int
) -> Pace:
    """The pace after a round that kept `accepted` of its `pace.length` proposals."""
    if pacing is None:
        return pace
    if pacing == "threshold":
        share = accepted / pace.length
        change = (share > params.upper).astype(jnp.int32) - (share < params.lower)
        return pace._replace(length=jnp.clip(pace.length + change, 1, num_draft))
    tested = jnp.minimum(accepted + 1, pace.length)
    hits = params.decay * pace.accepted + accepted
    total = params.decay * pace.tested + tested
    lengths = jnp.arange(1, num_draft + 1)
    speed = expected_speed((hits + 1) / (total + 2), lengths, jnp.asarray(params.draft_cost))
    return Pace(lengths[jnp.argmax(speed)].astype(jnp.int32), hits, total)
