"""Who decodes in an evaluation: the target alone, the drafts alone, every rule with every draft."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from stride_jax.checkpoints.build import Pair, ProcessKind, make_pair, trained_kind
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.decoding.base import DecodeConfig, Draft, Process, Rule
from stride_jax.decoding.draft_length import DraftLength, find_draft_length
from stride_jax.decoding.drafts import as_draft, propose
from stride_jax.decoding.rules import find_rule
from stride_jax.decoding.speculative import decode as decode_paths
from stride_jax.evaluation.config import EvaluateConfig
from stride_jax.evaluation.scoring import Decode, Method


def process_kind(config: EvaluateConfig, target: Checkpoint) -> ProcessKind:
    """The process of an evaluation: as asked, or cached for a model that was trained for it."""
    if config.process != "auto":
        return config.process
    return trained_kind(target.model)


def make_pairs(config: EvaluateConfig, target: Checkpoint, num_vars: int) -> dict[str, Pair]:
    """Target and draft for every draft of the config, by the draft's name.

    Raises:
        InputError: see `pairs.make_pair`.
    """
    kind, names = process_kind(config, target), (config.draft, *config.other_drafts)
    size = 1 if config.data.variables == "separate" else num_vars
    return {name: make_pair(target, name, kind, config.data.context_len, size) for name in names}


def check_draft(pair: Pair, context_len: int, num_vars: int, num_draft: int) -> None:
    """Raises InputError when a draft cannot propose K patches after such a context."""

    def once(context: jax.Array) -> Any:
        draft, patch = as_draft(pair.draft), (pair.target.patch_len, num_vars)
        memory = draft.prepare(context)
        noise = jnp.zeros((num_draft, *patch))
        state = draft.start(memory, num_draft)
        return propose(draft, memory, state, noise, jnp.ones(patch), num_draft, learned=False)

    jax.eval_shape(once, jax.ShapeDtypeStruct((context_len, num_vars), jnp.float32))


def alone(
    process: Process, spread: float | jax.Array, horizon: int, *, learned: bool = False
) -> Decode:
    """Autoregressive decoding of one process; `learned`: with its own std where it has one."""

    def decode(
        process: Process,
        spread: float | jax.Array,
        key: jax.Array,
        context: jax.Array,
        index: jax.Array,
        paths: int | None,
        trace: bool,
    ) -> Any:
        config = DecodeConfig(horizon, num_paths=paths, learned_scale=learned)
        return decode_paths(
            key, context, target=process, sigma=spread, config=config, series_index=index
        )

    return Partial(decode, process, spread)


def draft_alone(
    pair: Pair, spread: float | jax.Array, horizon: int, num_draft: int, *, learned: bool
) -> Decode:
    """The draft by itself: patch by patch where it is a process, else K patches at a time."""

    def decode(
        draft: Draft,
        spread: float | jax.Array,
        key: jax.Array,
        context: jax.Array,
        index: jax.Array,
        paths: int | None,
        trace: bool,
    ) -> Any:
        config = DecodeConfig(horizon, num_draft, num_paths=paths, learned_scale=learned)
        return decode_paths(
            key,
            context,
            target=None,
            draft=draft,
            sigma=spread,
            config=config,
            series_index=index,
        )

    return Partial(decode, pair.draft, spread)


def speculative(
    pair: Pair,
    sigma: float | jax.Array,
    config: DecodeConfig,
    rule: Rule,
    draft_length: DraftLength,
) -> Decode:
    """Speculative decoding of one pair."""

    def decode(
        traced: tuple[Process, Draft | Process, float | jax.Array, Rule, DraftLength],
        key: jax.Array,
        context: jax.Array,
        index: jax.Array,
        paths: int | None,
        trace: bool,
    ) -> Any:
        target, draft, sigma, rule, draft_length = traced
        return decode_paths(
            key,
            context,
            target=target,
            draft=draft,
            sigma=sigma,
            config=dataclasses.replace(config, num_paths=paths, trace=trace),
            rule=rule,
            draft_length=draft_length,
            series_index=index,
        )

    return Partial(decode, (pair.target, pair.draft, sigma, rule, draft_length))


def make_rule(name: str, settings: Any) -> Rule:
    """The rule of that name with those of its settings that `settings` has as attributes."""
    rule = find_rule(name)
    names = [field.name for field in dataclasses.fields(rule)]  # type: ignore[arg-type]
    return rule(**{name: getattr(settings, name) for name in names if hasattr(settings, name)})


def make_draft_length(config: EvaluateConfig) -> DraftLength:
    """The strategy of an evaluation with its settings."""
    settings = {"draft_cost": config.draft_cost} if config.draft_length == "gain" else {}
    return find_draft_length(config.draft_length, **settings)


def make_methods(
    pairs: dict[str, Pair],
    other: Process | None,
    kind: ProcessKind,
    config: EvaluateConfig,
    horizon: int,
    sigma: float | jax.Array,
) -> list[Method]:
    """The rows of one horizon, each kind (mean paths, sample paths) starting with the target.

    There are no sampled rows with `config.num_paths` 0.

    Args:
        pairs: by the draft's name.
        other: the target under the other process, for a second baseline; None for none.
        kind: the pairs' process.
        config: rules and their settings.
        horizon: steps.
        sigma: std of the target's law.
    """
    first = next(iter(pairs.values()))
    elsewhere = "window" if kind == "cached" else "cached"
    rows = []
    for sampled in (False, True) if config.num_paths else (False,):
        spread, learned = (sigma, config.learned_scale) if sampled else (0.0, False)
        own = alone(first.target, spread, horizon, learned=learned)
        rows.append(Method("autoregressive", sampled, kind, None, None, None, own))
        if other is not None:
            decode = alone(other, spread, horizon, learned=learned)
            rows.append(Method("autoregressive", sampled, elsewhere, None, None, None, decode))
        for name, pair in pairs.items():
            decode = draft_alone(pair, spread, horizon, config.num_draft, learned=learned)
            rows.append(Method("draft", sampled, kind, name, None, None, decode))
        for rule in config.rules:
            if sampled == (find_rule(rule).proposes == "mean"):
                continue
            chosen = DecodeConfig(horizon, config.num_draft, learned_scale=learned)
            for name, pair in pairs.items():
                decode = speculative(
                    pair, sigma, chosen, make_rule(rule, config), make_draft_length(config)
                )
                made = Method("speculative", sampled, kind, name, rule, config.num_draft, decode)
                rows.append(made)
    return rows
