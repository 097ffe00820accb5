"""Drafts that need no training, by name."""

from __future__ import annotations

from stride_jax.decoding.base import Draft
from stride_jax.decoding.naive_drafts import last_value_draft, nearest_draft, seasonal_draft
from stride_jax.errors import InputError


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
