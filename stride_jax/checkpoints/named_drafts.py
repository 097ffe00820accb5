"""Drafts that need no training, by name."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from stride_jax.decoding.base import Draft
from stride_jax.decoding.naive_drafts import last_value_draft, nearest_draft, seasonal_draft
from stride_jax.errors import InputError

Config = TypeVar("Config", bound=Any)


def named_draft(text: str, patch_len: int) -> Draft | None:
    """The draft called `last-value`, `nearest` or `seasonal:PERIOD`; None for any other name.

    Raises:
        InputError: a period that is no whole number.
    """
    name, _, number = text.partition(":")
    if text == "last-value":
        return last_value_draft(patch_len)
    if text == "nearest":
        return nearest_draft(patch_len)
    return seasonal_draft(patch_len, number_in(text, number)) if name == "seasonal" else None


def number_in(draft: str, text: str) -> int:
    """The number behind the colon of a draft's name.

    Raises:
        InputError: there is none.
    """
    if not (text.isdecimal() and len(text) < 10):
        kind = draft.partition(":")[0]
        raise InputError(f"draft {draft[:40]!r} needs a whole number, as in '{kind}:4'.")
    return int(text)


def only_layers(
    config: Config, params: dict[str, Any], count: int, prefix: str
) -> tuple[Config, dict[str, Any]]:
    """Config and parameters of the first `count` layers of a model under its last norm and head.

    Args:
        config: a dataclass with `num_layers`, at least `count`.
        params: by name; layer i is `prefix` and i.
        count: layers that stay.
        prefix: of a layer's name.
    """
    dropped = {f"{prefix}{i}" for i in range(count, config.num_layers)}
    remaining = {name: value for name, value in params.items() if name not in dropped}
    return dataclasses.replace(config, num_layers=count), remaining
