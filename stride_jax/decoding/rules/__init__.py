"""Acceptance rules: how proposals of the draft become patches of the target.

A rule is a small dataclass with its settings and one method, `decide`, over the K >= 1 proposals of
a round. `RULES` names the rules; `parse_rule` makes one from text, as on a command line.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from stride_jax.decoding.base import Outcome, Round, Rule
from stride_jax.decoding.rules.approximate import AsReleased, Mean, Resample, SharedNoise
from stride_jax.decoding.rules.common import (
    gaps,
    log_ratios,
    log_uniform,
    num_leading,
    target_draw,
)
from stride_jax.decoding.rules.exact import Block, Maximal, Residual
from stride_jax.decoding.rules.judge import Judge
from stride_jax.decoding.rules.several import Several
from stride_jax.decoding.rules.without_bonus import WithoutBonus
from stride_jax.errors import InputError, nearest

__all__ = [
    "RULES",
    "AsReleased",
    "Block",
    "Judge",
    "Maximal",
    "Mean",
    "Outcome",
    "Resample",
    "Residual",
    "Round",
    "Rule",
    "Several",
    "SharedNoise",
    "WithoutBonus",
    "find_rule",
    "gaps",
    "log_ratios",
    "log_uniform",
    "num_leading",
    "parse_rule",
    "rule_name",
    "target_draw",
]

RULES: dict[str, type[Rule]] = {
    "maximal": Maximal,
    "block": Block,
    "residual": Residual,
    "resample": Resample,
    "mean": Mean,
    "shared_noise": SharedNoise,
    "as_released": AsReleased,
}
"""The rules by the name they have in configs and on the command line."""


def rule_name(rule: Rule) -> str:
    """The name of a rule in `RULES`; the name of its class for a rule of your own."""
    names = {cls: name for name, cls in RULES.items()}
    return names.get(type(rule), type(rule).__name__)


def find_rule(name: str) -> type[Rule]:
    """The rule of that name, without settings.

    Raises:
        InputError: an unknown name (the nearest is suggested).
    """
    if name not in RULES:
        raise InputError(f"no rule {name!r}. {nearest(name, list(RULES))}")
    return RULES[name]


def parse_rule(text: str) -> Rule:
    """A rule from its name and settings: `block`, `mean:tolerance=0.2`, `resample:bias=2`.

    Several settings are separated by commas. Settings that are not given have their defaults.

    Raises:
        InputError: an unknown name or setting (the nearest is suggested), a setting given twice, a
            value that is no number (true or false for `emit_proposal`), or one that the rule
            refuses.
    """
    name, _, settings = text.partition(":")
    fields = {field.name: field for field in dataclasses.fields(find_rule(name))}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for part in settings.split(",") if settings else []:
        field, _, value = (word.strip() for word in part.partition("="))
        if field not in fields:
            known = nearest(field, list(fields)) if fields else "It has none."
            raise InputError(f"rule {name!r} has no setting {field!r}. {known}")
        if field in values:
            raise InputError(f"rule {text!r} gives {field!r} twice.")
        values[field] = _value(text, value, flag=isinstance(fields[field].default, bool))
    rule = RULES[name](**values)
    rule.check()
    return rule


def _value(text: str, value: str, *, flag: bool) -> float | bool:
    """The value of a setting in the text of a rule."""
    try:
        return {"true": True, "false": False}[value.lower()] if flag else float(value)
    except (KeyError, ValueError) as error:
        expected = "true or false" if flag else "a number"
        raise InputError(f"rule {text!r}: {value!r} is not {expected}.") from error
