"""Targets and drafts by name: trained models become processes, everything else drafts."""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

from stride_jax.checkpoints.checkpoint import Checkpoint, check_trained_context
from stride_jax.checkpoints.store import find_model
from stride_jax.config import check_context
from stride_jax.decoding.base import Draft, Process
from stride_jax.decoding.drafts import multi_patch_draft
from stride_jax.decoding.naive_drafts import last_value_draft, nearest_draft, seasonal_draft
from stride_jax.decoding.processes import Norm, cached_process, window_process
from stride_jax.errors import InputError
from stride_jax.models.cached import CachedTimerXL, cacheable, pinned
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import Params, make_predict

ProcessKind = Literal["window", "cached"]


class Pair(NamedTuple):
    """A target and a draft, ready to decode.

    Attributes:
        target: the process.
        draft: what proposes.
    """

    target: Process
    draft: Draft | Process


def first_layers(config: TimerXLConfig, params: Params, count: int) -> tuple[TimerXLConfig, Params]:
    """The target's own first `count` blocks under its last norm and head: a draft for free.

    Raises:
        InputError: not fewer blocks than the model has.
    """
    if not 1 <= count < config.num_layers:
        raise InputError(
            f"layer-skip:{count} needs a target of more layers, this one has {config.num_layers}."
        )
    dropped = {f"block_{i}" for i in range(count, config.num_layers)}
    kept = {name: value for name, value in params.items() if name not in dropped}
    return dataclasses.replace(config, num_layers=count), kept


def trained_kind(model: TimerXLConfig) -> ProcessKind:
    """The process that a model was trained for."""
    return "cached" if model.instance_norm == "causal" else "window"


def norm_of(model: TimerXLConfig) -> Norm:
    """How the cached process normalises a model: as it was trained, a window's by frozen stats."""
    return "frozen" if model.instance_norm == "window" else model.instance_norm


def make_process(
    checkpoint: Checkpoint,
    kind: ProcessKind,
    context_len: int | None,
    num_vars: int,
) -> Process:
    """The process of a trained model.

    Args:
        checkpoint: the model.
        kind: window, or cached.
        context_len: steps it sees (window), or that it starts from (cached). None, in a window
            process of a model whose trained context is unknown, for all it is given.
        num_vars: C of the series it is to decode.

    Raises:
        InputError: a context that the model cannot take, or see `models.cached.cacheable`.
    """
    model, trained = checkpoint.model, checkpoint.context_len or context_len
    if context_len is not None:
        check_context(context_len, model.patch_len)
    if kind == "window":
        model = model if trained is None else pinned(model, trained, num_vars)
        return window_process(
            make_predict(model, checkpoint.params),
            model.patch_len,
            context_len=context_len,
            normalises=model.instance_norm is not None,
        )
    if kind != "cached":
        raise InputError(f"process must be 'window' or 'cached', got {kind!r}.")
    if trained is None:
        raise InputError("the context of a cached process must be known; give context_len.")
    ready = cacheable(model, trained, num_vars)
    return cached_process(
        CachedTimerXL(ready),
        checkpoint.params,
        model.patch_len,
        norm=norm_of(model),
        context_len=context_len,
    )


def make_target(
    checkpoint: Checkpoint, kind: ProcessKind, context_len: int | None, num_vars: int
) -> Process:
    """`make_process` with the context checked against the one the target was trained on.

    A model with causal normalisation takes shorter contexts too.
    """
    trained = checkpoint.context_len
    if checkpoint.model.output_patches > 1:
        raise InputError(
            "a multi-patch model is no target: its law of a patch does not depend on the patch "
            "before; use it as the draft."
        )
    causal = checkpoint.model.instance_norm == "causal"
    if context_len is None:
        return make_process(checkpoint, kind, None, num_vars)
    if not (causal and trained is not None and context_len <= trained):
        check_trained_context(checkpoint, context_len)
    return make_process(checkpoint, kind, context_len, num_vars)


def _model_draft(
    checkpoint: Checkpoint,
    kind: ProcessKind,
    context_len: int | None,
    num_vars: int,
    patch_len: int,
) -> Draft | Process:
    model, trained = checkpoint.model, checkpoint.context_len
    if model.patch_len != patch_len:
        raise InputError(
            f"target and draft must share a patch length, got {patch_len} and {model.patch_len}."
        )
    longer = trained is not None and context_len is not None and trained > context_len
    if longer and model.instance_norm != "causal":
        raise InputError(
            f"the draft was trained on a context of {trained} steps, longer than "
            f"data.context_len {context_len}."
        )
    seen = min((n for n in (trained, context_len) if n is not None), default=None)
    if model.output_patches > 1:
        known = trained or seen
        model = model if known is None else pinned(model, known, num_vars)
        predict = make_predict(model, checkpoint.params)
        return multi_patch_draft(predict, patch_len, context_len=seen)
    return make_process(checkpoint, kind, seen, num_vars)


def make_pair(
    target: Checkpoint,
    draft: str | Checkpoint,
    kind: ProcessKind,
    context_len: int | None,
    num_vars: int,
) -> Pair:
    """A target and a draft.

    Args:
        target: the trained target.
        draft: a checkpoint, its path or asset name, or one of: `layer-skip:N` (the target's first
            N layers), `seasonal:PERIOD`, `last-value`, `nearest`.
        kind: the process of both.
        context_len: L; None as in `make_process`.
        num_vars: C of the series to decode (1 where variables are separate).

    Raises:
        InputError: models that do not fit each other or the context; a malformed name.
    """
    process = make_target(target, kind, context_len, num_vars)
    patch_len = target.model.patch_len
    if isinstance(draft, str):
        name, _, number = draft.partition(":")
        if draft == "last-value":
            return Pair(process, last_value_draft(patch_len))
        if draft == "nearest":
            return Pair(process, nearest_draft(patch_len))
        if name == "seasonal":
            return Pair(process, seasonal_draft(patch_len, _number(draft, number)))
        if name == "layer-skip":
            parts = first_layers(target.model, target.params, _number(draft, number))
            draft = Checkpoint(*parts, target.context_len)
        else:
            draft = find_model(draft)
    return Pair(process, _model_draft(draft, kind, context_len, num_vars, patch_len))


def _number(draft: str, text: str) -> int:
    if not text.isdecimal():
        raise InputError(f"draft {draft!r} needs a whole number, as in 'seasonal:24'.")
    return int(text)
