"""From checkpoints to processes and drafts: `Pair`, and the names under which models are loaded."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from stride_jax.checkpoints.checkpoint import (
    Checkpoint,
    LinearCheckpoint,
    check_trained_context,
    only_forecaster,
)
from stride_jax.checkpoints.covariances import load_covariance
from stride_jax.checkpoints.families import (
    FamilyCheckpoint,
    first_family_layers,
    inner_draft,
    unknown_draft,
)
from stride_jax.checkpoints.named_drafts import named_draft, number_in, only_layers
from stride_jax.checkpoints.pair import Pair, check_patch_lens
from stride_jax.checkpoints.store import (
    AGGREGATIONS,
    DRAFTED,
    MIRRORED,
    PACKAGED,
    AnyCheckpoint,
    find_any,
)
from stride_jax.config import check_context, whole_number
from stride_jax.decoding.base import Draft, Process
from stride_jax.decoding.drafts import multi_patch_draft
from stride_jax.decoding.linear_draft import Gate, LinearDraft, linear_draft
from stride_jax.decoding.processes import Norm, cached_process, window_process
from stride_jax.errors import InputError
from stride_jax.models.cached import CachedTimerXL, cacheable, pinned
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import Params, make_predict

ProcessKind = Literal["window", "cached"]


def first_layers(config: TimerXLConfig, params: Params, count: int) -> tuple[TimerXLConfig, Params]:
    """The first `count` blocks of a target under its last norm and head: a draft for free.

    Raises:
        InputError: not fewer blocks than the model has.
    """
    if not 1 <= count < config.num_layers:
        raise InputError(
            f"layer-skip:{count} needs a target of more layers, this one has {config.num_layers}."
        )
    return only_layers(config, params, count, "block_")


def trained_kind(model: TimerXLConfig) -> ProcessKind:
    """The process that a model was trained for."""
    return "cached" if model.instance_norm == "causal" else "window"


def norm_of(model: TimerXLConfig) -> Norm:
    """Normalisation in the cached process: as it was trained, by frozen stats for a window's."""
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
        context_len: steps it sees (window), or that it starts from (cached). None for all that it
            is given, where the trained context is unknown.
        num_vars: C of the series it is to decode.

    Raises:
        InputError: a context that the model cannot take, or see `models.cached.cacheable`.
    """
    model, trained = checkpoint.model, checkpoint.context_len or context_len
    if context_len is not None:
        check_context(context_len, model.patch_len)
    if kind == "window":
        model = model if trained is None else pinned(model, trained)
        return window_process(
            make_predict(model, checkpoint.params),
            model.patch_len,
            context_len=context_len,
            normalises=model.instance_norm is not None,
        )
    if kind != "cached":
        raise InputError(f"process must be 'window' or 'cached', got {kind!r}.")
    if trained is None and num_vars > 1 and model.variable_stride is None:
        raise InputError(
            "the positions of several variables depend on the trained context, which is unknown "
            "for this model; give context_len."
        )
    # without a trained context nothing depends on it: one variable, or an integer stride
    ready = cacheable(model, trained or model.patch_len, num_vars)
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
            "a multi-patch model is no target: its prediction of a patch does not depend on the "
            "patch before; use it as the draft."
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
    """The process, or the multi-patch draft, of a trained draft."""
    model, trained = checkpoint.model, checkpoint.context_len
    check_patch_lens(patch_len, model.patch_len)  # before the context is checked against it
    longer = trained is not None and context_len is not None and trained > context_len
    if longer and model.instance_norm != "causal":
        raise InputError(
            f"the draft was trained on a context of {trained} steps, longer than "
            f"data.context_len {context_len}."
        )
    visible = min((n for n in (trained, context_len) if n is not None), default=None)
    if model.output_patches > 1:
        longest = trained or visible
        model = model if longest is None else pinned(model, longest)
        predict = make_predict(model, checkpoint.params)
        return multi_patch_draft(predict, patch_len, context_len=visible)
    return make_process(checkpoint, kind, visible, num_vars)


def make_linear_draft(checkpoint: LinearCheckpoint, num_vars: int, patch_len: int) -> LinearDraft:
    """The linear draft of a checkpoint; a shorter context than its own is filled up.

    Raises:
        InputError: another patch length, or maps of another number of variables.
    """
    model, params = checkpoint.model, checkpoint.params
    check_patch_lens(patch_len, model.patch_len)
    if model.num_vars not in (None, num_vars):
        raise InputError(
            f"the linear draft has a map for each of {model.num_vars} variables, {num_vars} are "
            "decoded together; fit one with one map, or decode the variables it was fitted to."
        )
    gate = Gate(params["gate_kernel"], params["gate_bias"]) if model.num_maps > 1 else None
    return linear_draft(params["maps"], level=model.level, gate=gate)


def make_pair(
    target: Checkpoint,
    draft: str | AnyCheckpoint | None,
    kind: ProcessKind,
    context_len: int | None,
    num_vars: int,
) -> Pair:
    """A pair of loaded models; see `load_pair`, which reads them.

    Args:
        target: the trained target.
        draft: a checkpoint, its path or packaged name, or one of: `layer-skip:N` (the target's
            first N layers), `seasonal:PERIOD`, `last-value`, `nearest`. None for no draft.
        kind: the process of both.
        context_len: L; None as in `make_process`.
        num_vars: C of the series to decode (1 where variables are separate).

    Raises:
        InputError: models that do not fit each other or the context; a malformed name.
    """
    process = make_target(target, kind, context_len, num_vars)
    if draft is None:
        return Pair(process)
    if isinstance(draft, str):
        named = named_draft(draft, target.model.patch_len)
        if named is not None:
            return Pair(process, named)
        draft = _found_draft(draft, target)
    return Pair(process, _trained_draft(draft, process.patch_len, kind, context_len, num_vars))


def _found_draft(text: str, target: Checkpoint) -> AnyCheckpoint:
    """The draft of a name: the target's first layers, or a trained model."""
    name, _, number = text.partition(":")
    if name == "layer-skip":
        parts = first_layers(target.model, target.params, number_in(text, number))
        return Checkpoint(*parts, target.context_len)
    return find_any(text, "draft")


def _trained_draft(
    draft: AnyCheckpoint,
    patch_len: int,
    kind: ProcessKind | None,
    context_len: int | None,
    num_vars: int,
) -> Draft | Process:
    """The draft of a trained model of any kind; `kind` None for the one it was trained for.

    Raises:
        InputError: it does not fit the target.
    """
    if isinstance(draft, LinearCheckpoint):
        return make_linear_draft(draft, num_vars, patch_len)
    if isinstance(draft, FamilyCheckpoint):
        process = draft.process()
        check_patch_lens(patch_len, process.patch_len)
        return process
    kind = trained_kind(draft.model) if kind is None else kind
    return _model_draft(draft, kind, context_len, num_vars, patch_len)


def family_pair(
    target: FamilyCheckpoint,
    draft: str | AnyCheckpoint | None,
    context_len: int | None,
    num_vars: int,
) -> Pair:
    """A pair with a foundation model as its target; see `load_pair`.

    Args:
        target: the model.
        draft: as in `make_pair`, or the name of a draft inside the weights (`Family.drafts`);
            `layer-skip:N` is the first N layers of the model.
        context_len: steps that the target sees; None for all that it can.
        num_vars: C of the series to decode.

    Raises:
        InputError: a context that the model cannot take, or a draft that does not fit.
    """
    process = target.process(context_len)
    if draft is None:
        return Pair(process)
    if isinstance(draft, str):
        named = inner_draft(target, process, draft) or named_draft(draft, process.patch_len)
        if named is not None:
            return Pair(process, named)
        name, _, number = draft.partition(":")
        if name == "layer-skip":
            first = first_family_layers(target, number_in(draft, number))
            return Pair(process, first.process(context_len))
        if not (draft in PACKAGED or Path(draft).exists()):
            raise unknown_draft(target, draft)
        draft = find_any(draft, "draft")
    return Pair(process, _trained_draft(draft, process.patch_len, None, None, num_vars))


def load_pair(
    model: str | Path | Checkpoint | FamilyCheckpoint = "zero_shot",
    draft: str | Path | AnyCheckpoint | None = "auto",
    *,
    process: Literal["auto", "window", "cached"] = "auto",
    context_len: int | None = None,
    num_vars: int = 1,
) -> Pair:
    """Loads a target and a draft.

    Args:
        model: the target: a name in the package (`zero_shot`, for series it has never seen, or
            `beijing`, of hourly weather), the path of a checkpoint or of the file of a foundation
            model (see `models.families`), or one that was read. A directory called like one in the
            package needs a separator: `./beijing`. The models in the package bring the covariance
            of their errors, and `zero_shot` is mirrored and has aggregations (see `Pair`).
        draft: the draft: a name, path or checkpoint as for `model`, or one that needs no training:
            `layer-skip:N` (the target's first N layers), `seasonal:PERIOD`, `last-value`,
            `nearest`, or a draft inside the weights of a foundation model by its name. None or
            `none` for the target alone; `auto` takes the draft of the package for `beijing`, and
            none for any other. The draft `zero_shot` saves passes of that target, but no time with
            100 sample paths on a CPU.
        process: window or cached for both; auto takes cached for a target with causal
            normalisation. A foundation model has one process, as it was released: leave it auto.
        context_len: L, steps that the target sees; None for as many as it was trained on, or for
            all that it is given where these are unknown. Only a target with causal normalisation
            takes fewer than it was trained on.
        num_vars: C of the series that are decoded; 1 where each variable is a series of its own.

    Raises:
        InputError: no such model, a damaged one, models that do not fit each other or the context.
    """
    if process not in ("auto", "window", "cached"):
        raise InputError(f"process must be 'auto', 'window' or 'cached', got {process!r}.")
    if not isinstance(model, str | Path | Checkpoint | FamilyCheckpoint):
        raise InputError(f"model must be a name, a path or a checkpoint, got {model!r}.")
    if not (draft is None or isinstance(draft, str | Path | AnyCheckpoint)):
        raise InputError(
            f"draft must be a name, a path or a checkpoint, got {draft!r}; to decode with a draft "
            "object use Pair(load_pair(model, None).target, draft)."
        )
    if context_len is not None:
        context_len = whole_number("context_len", context_len, least=1)
    num_vars = whole_number("num_vars", num_vars, least=1)
    target = find_any(str(model)) if isinstance(model, str | Path) else model
    packaged = model if isinstance(model, str) and model in PACKAGED else None
    if isinstance(draft, str) and draft in ("auto", "none"):
        brings = draft == "auto" and packaged is not None and packaged in DRAFTED
        draft = packaged if brings else None
    draft = str(draft) if isinstance(draft, Path) else draft
    if isinstance(target, FamilyCheckpoint):
        if process != "auto":
            raise InputError(
                f"{target.family.title} has one process, as it was released; leave process 'auto', "
                f"got {process!r}."
            )
        return family_pair(target, draft, context_len, num_vars)
    target = only_forecaster(str(model), target)
    pair = make_pair(
        target,
        draft,
        trained_kind(target.model) if process == "auto" else process,
        context_len or target.context_len,
        num_vars,
    )
    if packaged is None:
        return pair
    covariance = load_covariance(packaged)
    return dataclasses.replace(
        pair,
        covariance=covariance,
        mirrored=packaged in MIRRORED,
        aggregations=AGGREGATIONS.get(packaged, ()),
    )
