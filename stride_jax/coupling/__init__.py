"""Accept and recover: how proposals from the draft's law become patches of the target's.

A rule is one pure function `(key, Round, RuleParams) -> Outcome` over the K >= 1 proposals of a
round; `RULES` names them and says what each guarantees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stride_jax.coupling.base import Decide, Outcome, Round, RuleParams
from stride_jax.coupling.bounded import as_released, mean, resample, shared_noise
from stride_jax.coupling.exact import block, maximal, residual
from stride_jax.errors import InputError, nearest

__all__ = ["RULES", "Decide", "Outcome", "Round", "Rule", "RuleParams", "find_rule"]


@dataclass(frozen=True)
class Rule:
    """A rule and what may be said about it.

    Attributes:
        decide: the function.
        guarantee: what its output follows, in words for the tables.
        exact: the output has the law of the target process, whatever the draft.
        proposes: sample draws from the draft's law, mean takes its mean (noise 0), patch_noise
            draws with the noise that the target would use for that patch.
        scales: tied rules propose with the target's sigma; a free one takes a draft's own.
    """

    decide: Decide
    guarantee: str = "none stated"
    exact: bool = False
    proposes: Literal["sample", "mean", "patch_noise"] = "sample"
    scales: Literal["tied", "free"] = "tied"


RULES: dict[str, Rule] = {
    "maximal": Rule(maximal, "target's law, exactly", exact=True),
    "block": Rule(block, "target's law, exactly", exact=True),
    "residual": Rule(residual, "target's law, exactly", exact=True, scales="free"),
    "resample": Rule(resample, "a patch within TV beta (1 - beta) at bias 1"),
    "mean": Rule(mean, "target's mean, context within tolerance", proposes="mean"),
    "shared_noise": Rule(
        shared_noise, "target's law, context within tolerance", proposes="patch_noise"
    ),
    "as_released": Rule(as_released, "none"),
}
"""The rules by name."""
NOT_COUPLED = tuple(name for name, rule in RULES.items() if rule.proposes == "sample")
"""Rules whose path has other noise than the target's path of the same key."""


def find_rule(rule: str | Rule | Decide) -> Rule:
    """The rule of that name; a function becomes a rule that samples with a tied sigma.

    Raises:
        InputError: an unknown name (the nearest is suggested).
    """
    if isinstance(rule, Rule):
        return rule
    if callable(rule):
        return Rule(rule)
    if rule not in RULES:
        raise InputError(f"no rule {rule!r}. {nearest(rule, list(RULES))}")
    return RULES[rule]
