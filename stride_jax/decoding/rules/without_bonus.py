"""Rounds without a bonus: a round whose proposals are all accepted ends with the last of them.

A bonus patch is drawn by the target. In the continuous world no draft can guess it: a guess is
right with probability 0. Without it the next round of a path is known as soon as all proposals of
this one are accepted, so that a draft may go on before it has the target's answer; see
`stride_jax.remote`. The next proposal stands where the bonus would, and is verified in its place.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from stride_jax.decoding.base import Outcome, Round, Rule
from stride_jax.decoding.rules.exact import Maximal
from stride_jax.decoding.rules.several import Several
from stride_jax.errors import InputError


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class WithoutBonus(Rule):
    """Another rule whose rounds have no bonus patch; exact where that rule is.

    A bonus is an independent draw of the target given what was emitted before it. The next round
    draws the patch at that place from the same distribution, by the rule. One patch fewer comes out
    of a round whose proposals are all accepted.

    Attributes:
        rest: the rule, with its settings; any but `Several`.
    """

    rest: Rule = dataclasses.field(default_factory=Maximal)

    @property
    def exact(self) -> bool:  # type: ignore[override]
        """Whether the rule is."""
        return self.rest.exact

    @property
    def guarantee(self) -> str:  # type: ignore[override]
        """The guarantee of the rule."""
        return self.rest.guarantee

    @property
    def proposes(self) -> Literal["sample", "mean", "patch_noise"]:  # type: ignore[override]
        """See `Rule`."""
        return self.rest.proposes

    @property
    def scales(self) -> Literal["tied", "free"]:  # type: ignore[override]
        """See `Rule`."""
        return self.rest.scales

    @property
    def correlated(self) -> bool:  # type: ignore[override]
        """See `Rule`."""
        return self.rest.correlated

    @property
    def densities(self) -> bool:  # type: ignore[override]
        """See `Rule`."""
        return self.rest.densities

    def check(self) -> None:
        """Raises InputError for a rest that is no rule of one chain, or settings out of range."""
        rest: Any = self.rest
        if not isinstance(rest, Rule) or isinstance(rest, Several | WithoutBonus):
            raise InputError(
                f"rest must be a rule of one chain, such as Maximal() or Mean(), got {rest!r}."
            )
        rest.check()

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        """See `Rule`."""
        outcome = self.rest.decide(key, current)
        # A round without a proposal is a step of the target, so that every round adds a patch.
        all_kept = (current.length > 0) & (outcome.num_accepted >= current.length)
        return outcome._replace(added=(~all_kept).astype(jnp.int32))
