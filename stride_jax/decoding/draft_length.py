"""The number of patches per round that are drafted: always K, or fewer.

The last rounds draft only what is still missing, see `rounds.round_length`. The length of a
round depends only on the rounds before it, or with `Fallback` on what the draft predicts after the
proposals that count. Neither looks at a proposal before it decides whether that one counts, so
exact rules stay exact. A shorter round saves draft steps; the verification keeps its K + 1 rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from stride_jax.decoding import gaussian
from stride_jax.decoding.checks import check_scalar
from stride_jax.decoding.uncertainty import draft_uncertainty
from stride_jax.errors import InputError, nearest

Scalar = float | jax.Array


class LengthState(NamedTuple):
    """The record of one path's rounds that the next length depends on.

    Attributes:
        length: int32, proposals of the next round, 1 to K.
        accepted: float32, decayed count of accepted proposals.
        tested: float32, decayed count of tested proposals.
    """

    length: jax.Array
    accepted: jax.Array
    tested: jax.Array


class DraftLength:
    """A strategy for the number of proposals per round; a frozen dataclass registered as a pytree.

    Its fields are its settings and are traced.

    Attributes:
        reads_chances: `update` wants what the draft itself expects of its proposals.
        stops: a round may end before its length, at the first patch for which `unsure` is true.
    """

    reads_chances: ClassVar[bool] = False
    stops: ClassVar[bool] = False

    def check(self) -> None:
        """Raises InputError for settings that are concrete and out of range."""

    def init(self, num_draft: int) -> LengthState:
        """The state before the first round: K proposals, nothing tested."""
        zero = jnp.zeros((), jnp.float32)
        return LengthState(jnp.asarray(num_draft, jnp.int32), zero, zero)

    def update(
        self,
        state: LengthState,
        num_accepted: jax.Array,
        num_draft: int,
        chances: jax.Array | None = None,
    ) -> LengthState:
        """The state after a round that kept `num_accepted` of its `state.length` proposals.

        Args:
            state: of the round.
            num_accepted: int32.
            num_draft: K.
            chances: `[K]`, acceptance that the draft itself expects, see `expected_acceptance`;
                None where the draft does not know.
        """
        raise NotImplementedError

    def unsure(self, mean: jax.Array, logvar: jax.Array | None, sigma: jax.Array) -> jax.Array:
        """Whether the draft stops before each patch, `[K]` bool; called where `stops` is true.

        The answer for a patch may depend on the predictions up to that patch alone.

        Args:
            mean: `[K, P, C]` of the draft.
            logvar: `[K, P, C]`, its learned log variance, or None.
            sigma: `[P, C]` of the target.
        """
        raise NotImplementedError


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Fixed(DraftLength):
    """Always K proposals."""

    def update(
        self,
        state: LengthState,
        num_accepted: jax.Array,
        num_draft: int,
        chances: jax.Array | None = None,
    ) -> LengthState:
        """See `DraftLength`."""
        return state._replace(length=jnp.asarray(num_draft, jnp.int32))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Fallback(Fixed):
    """Up to K proposals: the draft stops before a patch of which it is not sure enough.

    The fallback of the big little decoder (BiLD, arXiv 2302.07863); the rule `Mean` is its
    rollback. The patch before which the draft stops has cost a draft step, is not proposed, and
    does not count in `DecodeInfo.drafted`. With a learned variance the draft may stop before the
    first patch, and the round is a step of the target alone. In a batch the draft goes on for the
    series that have not stopped.

    Attributes:
        threshold: most uncertainty of a proposal, in sigmas; see `uncertainty.draft_uncertainty`.
    """

    threshold: Scalar = 0.5
    stops: ClassVar = True

    def check(self) -> None:
        """Raises InputError for a negative threshold."""
        check_scalar("threshold", self.threshold, at_least=0)

    def unsure(self, mean: jax.Array, logvar: jax.Array | None, sigma: jax.Array) -> jax.Array:
        """See `DraftLength`; what is not a number counts as unsure."""
        return ~(draft_uncertainty(mean, logvar, sigma) <= self.threshold)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Threshold(DraftLength):
    """One proposal fewer after a bad round, one more after a good one (the original's strategy).

    Attributes:
        lower: a round is bad when the accepted share falls below this.
        upper: a round is good when the accepted share rises above this.
    """

    lower: Scalar = 0.3
    upper: Scalar = 0.7

    def check(self) -> None:
        """Raises InputError for a negative share."""
        check_scalar("lower", self.lower, at_least=0)
        check_scalar("upper", self.upper, at_least=0)

    def update(
        self,
        state: LengthState,
        num_accepted: jax.Array,
        num_draft: int,
        chances: jax.Array | None = None,
    ) -> LengthState:
        """See `DraftLength`."""
        share = num_accepted / jnp.maximum(state.length, 1)
        more, fewer = share > self.upper, share < self.lower
        change = more.astype(jnp.int32) - fewer.astype(jnp.int32)
        return state._replace(length=jnp.clip(state.length + change, 1, num_draft))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Gain(DraftLength):
    """The number of proposals with the most expected patches for the cost.

    The acceptance is estimated from decayed counts of the path's own rounds. Where the draft has a
    learned variance, its own expectation counts if it is lower.

    Attributes:
        draft_cost: c, the cost of one draft step over that of a verification.
        decay: weight of the earlier rounds' counts against the last one's.
    """

    draft_cost: Scalar = 0.1
    decay: Scalar = 0.9
    reads_chances: ClassVar = True

    def check(self) -> None:
        """Raises InputError for a negative setting."""
        check_scalar("draft_cost", self.draft_cost, at_least=0)
        check_scalar("decay", self.decay, at_least=0)

    def update(
        self,
        state: LengthState,
        num_accepted: jax.Array,
        num_draft: int,
        chances: jax.Array | None = None,
    ) -> LengthState:
        """See `DraftLength`."""
        tested = jnp.minimum(num_accepted + 1, state.length)
        hits = self.decay * state.accepted + num_accepted.astype(jnp.float32)
        total = self.decay * state.tested + tested.astype(jnp.float32)
        acceptance = jnp.full(num_draft, (hits + 1) / (total + 2))
        if chances is not None:
            drafted = jnp.arange(num_draft) < state.length
            acceptance = jnp.where(drafted, jnp.minimum(acceptance, chances), acceptance)
        speed = expected_speed(acceptance, jnp.asarray(self.draft_cost))
        return LengthState((jnp.argmax(speed) + 1).astype(jnp.int32), hits, total)


def expected_speed(acceptance: jax.Array, draft_cost: jax.Array) -> jax.Array:
    """Expected patches over the cost of a round of 1, ..., K proposals, `[K]`.

    `(1 + a_1 + a_1 a_2 + ... + a_1 ... a_k) / (1 + c k)`; the paper's formula for equal a.

    Args:
        acceptance: `[K]`, chance of each place given that those before were accepted.
        draft_cost: c.
    """
    patches = 1 + jnp.cumsum(jnp.cumprod(acceptance))
    return patches / (1 + draft_cost * jnp.arange(1, len(acceptance) + 1, dtype=jnp.float32))


def expected_acceptance(logvar: jax.Array, sigma: jax.Array) -> jax.Array:
    """Acceptance of each proposal as a draft's learned variance predicts it, `[K]`.

    The excess of the variance over sigma^2 is read as the squared error of the draft's mean, so
    that `delta^2 = sum(v / sigma^2 - 1)` and the chance is `2 Phi(-delta / 2)`.
    With a covariance that error is taken to be correlated as the errors of the patch are.

    Args:
        logvar: `[K, P, C]`.
        sigma: `[P, C]` of the target.
    """
    excess = jnp.maximum(jnp.exp(logvar) / jnp.square(sigma)[None] - 1, 0)
    return gaussian.acceptance(jnp.sqrt(jnp.sum(excess, axis=(1, 2))))


DRAFT_LENGTHS: dict[str, type[DraftLength]] = {
    "fixed": Fixed,
    "fallback": Fallback,
    "threshold": Threshold,
    "gain": Gain,
}
"""The strategies by the name they have in configs and on the command line."""


def find_draft_length(name: str, **settings: Any) -> DraftLength:
    """The strategy of that name with these settings.

    Raises:
        InputError: an unknown name (the nearest is suggested), or a setting out of range.
    """
    if name not in DRAFT_LENGTHS:
        raise InputError(f"no draft length {name!r}. {nearest(name, list(DRAFT_LENGTHS))}")
    strategy = DRAFT_LENGTHS[name](**settings)
    strategy.check()
    return strategy
