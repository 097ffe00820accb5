"""Checks of what a client is asked to decode, before anything is sent."""

from __future__ import annotations

from typing import Any, Literal

from stride_jax.decoding import speculative
from stride_jax.decoding.base import Rule
from stride_jax.decoding.drafts import as_draft
from stride_jax.decoding.rules import Several, WithoutBonus
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError

OnLoss = Literal["wait", "draft"]
"""Policies of a client that gets no answer in time."""


def check_choices(draft: Any, rule: Any, draft_length: Any, config: DecodeConfig) -> None:
    """Raises InputError for a draft, a rule or a config that cannot be apart from the target."""
    if config.num_draft == 0:
        raise InputError("num_draft must be at least 1 where the target is apart, got 0.")
    if not isinstance(rule, Rule) or isinstance(rule, Several):
        raise InputError(f"rule must be a rule of one chain, such as Maximal(), got {rule!r}.")
    speculative.check_choices(None, draft, rule, draft_length, config)
    if hasattr(as_draft(draft), "prepare_beside"):
        raise InputError(
            f"{type(draft).__name__} reads the target's memory of the context, which is at the "
            "server; take a draft with a memory of its own."
        )
    names = ("batch_size", "path_chunk", "compactions", "trace", "least_lanes")
    given = [name for name in names if getattr(config, name) not in (None, False)]
    if given:
        raise InputError(
            f"DecodeConfig({given[0]}={getattr(config, given[0])!r}) does not apply where the "
            "target is apart: all series and paths are decoded together; leave it out."
        )


def check_waiting(rule: Rule, ahead: int, on_loss: str, timeout: float) -> None:
    """Raises InputError for settings of the link that are out of range."""
    if not isinstance(ahead, int) or isinstance(ahead, bool) or ahead < 0:
        raise InputError(f"ahead must be a whole number of at least 0, got {ahead!r}.")
    if ahead and not isinstance(rule, WithoutBonus):
        raise InputError(
            f"with ahead={ahead} the draft goes on from its own proposals, but the bonus patch of "
            f"{type(rule).__name__} is drawn by the target and cannot be guessed; use "
            f"WithoutBonus({type(rule).__name__}())."
        )
    if on_loss not in ("wait", "draft"):
        raise InputError(f"on_loss must be 'wait' or 'draft', got {on_loss!r}.")
    if not timeout > 0:
        raise InputError(f"timeout must be above 0 seconds, got {timeout!r}.")
