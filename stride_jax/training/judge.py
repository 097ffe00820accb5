"""Labels for a learned judge, and the fit of its weights (AutoJudge, arXiv 2504.20039).

A proposal is labelled by what accepting it does to the finished forecast. The labels are made
greedily from the first place on: a harmless proposal stays in the context of the labels after it.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.decoding.base import Draft, Outcome, Process, Round
from stride_jax.decoding.batching import overwrite
from stride_jax.decoding.draft_length import Fixed
from stride_jax.decoding.drafts import as_draft
from stride_jax.decoding.outcomes import splice
from stride_jax.decoding.rounds import (
    LoopState,
    Memory,
    Model,
    commit_round,
    draft_and_verify,
    initial_state,
)
from stride_jax.decoding.rules import Mean
from stride_jax.decoding.rules.common import num_leading
from stride_jax.decoding.rules.judge import FEATURES, Judge, features
from stride_jax.decoding.scale import Scale
from stride_jax.decoding.traits import for_paths, prepare_draft
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError

Reference = Literal["target", "truth"]
"""The path that a finished forecast is compared with: the target's own mean path, or the truth."""


class Labels(NamedTuple):
    """The proposals of N rounds of a window; rounds that were not played are not tested.

    Attributes:
        features: `[N, K, F]`, see `rules.judge.features`.
        harm: `[N, K]`, increase of the mean squared error of the whole forecast, in sigma squared,
            if this proposal is accepted too and the target goes on alone.
        tested: `[N, K]` bool, whether the greedy decode came to this proposal and its fate mattered
            to a later patch.
    """

    features: jax.Array
    harm: jax.Array
    tested: jax.Array


class _Path(NamedTuple):
    """The carry of the greedy decode of one window."""

    state: LoopState
    reference: jax.Array
    round: jax.Array
    labels: Labels


def label(
    target: Process,
    draft: Draft | Process,
    context: jax.Array,
    truth: jax.Array,
    sigma: jax.Array,
    limit: jax.Array,
    *,
    num_draft: int,
    reference: Reference = "target",
) -> Labels:
    """Labels of the proposals of B windows, each with a leading B.

    Args:
        target: verifies.
        draft: proposes its means.
        context: `[B, L, C]`.
        truth: `[B, N * P, C]`, what followed; the horizon is a whole number of patches.
        sigma: std of a patch, a scalar or `[P, C]`; the unit of gaps and harms.
        limit: most harm of a proposal that the greedy decode accepts.
        num_draft: K.
        reference: what harm is measured against.

    Raises:
        InputError: a truth that is not a whole number of patches, or another reference.
    """
    if reference not in get_args(Reference):
        raise InputError(f"reference must be 'target' or 'truth', got {reference!r}.")
    if truth.shape[1] == 0 or truth.shape[1] % target.patch_len:
        raise InputError(
            f"the truth must have whole patches of {target.patch_len} steps, got {truth.shape[1]}."
        )

    models, by_truth = (target, as_draft(draft)), jnp.asarray(reference == "truth")
    windows = jnp.asarray(context, jnp.float32), jnp.asarray(truth, jnp.float32)
    out: Labels = _label(models, windows, sigma, limit, by_truth, num_draft=num_draft)
    return out


@functools.partial(jax.jit, static_argnames="num_draft")
def _label(
    models: tuple[Any, Any],
    windows: tuple[jax.Array, jax.Array],
    sigma: jax.Array,
    limit: jax.Array,
    by_truth: jax.Array,
    *,
    num_draft: int,
) -> Labels:
    """`label`, compiled; both references share one program."""
    patch_len, num_vars = models[0].patch_len, windows[0].shape[-1]
    scale = Scale(jnp.broadcast_to(jnp.asarray(sigma, jnp.float32), (patch_len, num_vars)))
    target, draft = (for_paths(one, 1) for one in models)
    model = Model(target, draft, Mean(), Fixed())
    config = DecodeConfig(windows[1].shape[1], num_draft)

    def one(context: jax.Array, truth: jax.Array) -> Labels:
        patches = truth.reshape(-1, *scale.sigma.shape)  # [N * P, C] -> [N, P, C]
        return _label_window(model, context, patches, scale, limit, by_truth, config)

    return jax.vmap(one)(*windows)


def _label_window(
    model: Model,
    context: jax.Array,
    truth: jax.Array,
    scale: Scale,
    limit: jax.Array,
    by_truth: jax.Array,
    config: DecodeConfig,
) -> Labels:
    """Labels of one window; `truth [N, P, C]`."""
    target, count = model.target, len(truth)
    prepared = target.prepare(context)
    beside = prepare_draft(model.draft, target, prepared, context, None)
    memory = Memory(prepared, beside, scale)
    # The rounds are of means: nothing is drawn with this key.
    state = initial_state(memory, jax.random.key(0), model=model, config=config, count=count)

    # The reference: what came, or what the target forecasts alone.
    alone = _finish(target, prepared, state.target, state.log.patches, state.filled, count)
    reference = jnp.where(by_truth, truth, alone)
    path = _Path(state, reference, jnp.int32(0), _no_labels(count, config.num_draft))

    def play(path: _Path) -> _Path:
        return _greedy_round(memory, path, limit, model=model, config=config)

    return jax.lax.while_loop(lambda path: path.state.filled < count, play, path).labels


def _greedy_round(
    memory: Memory, path: _Path, limit: jax.Array, *, model: Model, config: DecodeConfig
) -> _Path:
    """One round: K proposals, the harm of each, and the leading harmless ones kept."""
    state, count, num_draft = path.state, len(path.reference), config.num_draft
    next_key, draft_key, _ = state.round_keys
    drafted = draft_and_verify(
        memory, state, draft_key, jnp.int32(num_draft), model=model, config=config, count=count
    )
    current, sigma = drafted.current, memory.scale.sigma
    missing, place = count - state.filled, jnp.arange(num_draft)
    emitted = overwrite(state.log.patches, current.target_mean, state.filled)

    # Finish the forecast with 0, 1, ..., K of the proposals in the context.
    def finished(accepted: jax.Array) -> jax.Array:
        patches, _ = splice(current.proposals, _decided(current, accepted))
        after = model.target.commit(drafted.target, patches, accepted + 1)
        filled = state.filled + accepted + 1
        return _finish(model.target, memory.target, after, emitted, filled, count)

    def error(accepted: jax.Array) -> jax.Array:
        apart = finished(accepted) - path.reference
        return jnp.mean(jnp.square(apart / jnp.broadcast_to(sigma, apart.shape)))

    errors = jax.vmap(error)(jnp.arange(num_draft + 1))

    # Label: the leading proposals that do no harm stay; the fate of the last patch is of no matter.
    harm = errors[1:] - errors[:-1]
    accepted = num_leading(harm <= limit, current.length)
    tested = (place <= accepted) & (place < missing - 1)
    rows = Labels(features(current), harm, tested)
    labels = jax.tree.map(lambda all_, row: all_.at[path.round].set(row), path.labels, rows)

    # Commit what stays, and the target's mean after it.
    outcome = _decided(current, accepted)
    state = commit_round(memory, state, drafted, outcome, next_key, model=model, count=count)
    return _Path(state, path.reference, path.round + 1, labels)


def _decided(current: Round, accepted: jax.Array) -> Outcome:
    """The outcome of `Mean` for so many accepted proposals."""
    means = current.target_mean
    return Outcome(accepted, means[accepted], emitted=means[:-1])


def _finish(
    target: Any,
    memory: Any,
    state: Any,
    patches: jax.Array,
    filled: jax.Array,
    count: int,
) -> jax.Array:
    """The N patches `[N, P, C]` of a forecast that the target goes on with alone."""
    nothing = jnp.zeros((0, *patches.shape[1:]))

    def step(carry: tuple[Any, Any, Any], _: None) -> tuple[tuple[Any, Any, Any], None]:
        state, patches, filled = carry
        predictions, state = target.verify(memory, state, nothing)
        going = (filled < count).astype(jnp.int32)
        state = target.commit(state, predictions.mean, going)
        rows = jnp.where(going > 0, predictions.mean, patches[filled][None])
        return (state, overwrite(patches, rows, filled), filled + going), None

    carry, _ = jax.lax.scan(step, (state, patches, filled), length=count)
    return carry[1][:count]


def _no_labels(count: int, num_draft: int) -> Labels:
    shape = count, num_draft
    table, tested = jnp.zeros((*shape, len(FEATURES))), jnp.zeros(shape, bool)
    return Labels(table, jnp.zeros(shape), tested)


def fit(table: np.ndarray, harmless: np.ndarray, *, ridge: float = 1.0, steps: int = 50) -> Judge:
    """The judge of a logistic regression, by Newton's method in float64.

    Minimises `sum log(1 + exp(-y s)) + ridge / 2 * |w|^2` for the score s and labels y of 1 and -1;
    w weighs the features divided by their std, and the constant is not shrunk.

    Args:
        table: `[M, F]`, features of M proposals.
        harmless: `[M]` bool, the labels.
        ridge: of the weights, above 0.
        steps: of Newton's method.

    Raises:
        InputError: other shapes, features that are not finite, or labels of one kind alone.
    """
    table, harmless = np.asarray(table, np.float64), np.asarray(harmless, bool)
    if table.shape != (len(harmless), len(FEATURES)) or not np.isfinite(table).all():
        raise InputError(
            f"features must be finite and [M, {len(FEATURES)}] for M labels, got shape "
            f"{table.shape} for {len(harmless)}."
        )
    if harmless.all() or not harmless.any():
        raise InputError(
            f"{int(harmless.sum())} of {len(harmless)} labels are harmless; a judge needs both "
            "kinds. Take another limit, or more windows."
        )
    centre, size = table.mean(axis=0), table.std(axis=0)
    size = np.where(size > 0, size, 1.0)
    rows = np.column_stack([(table - centre) / size, np.ones(len(table))])
    penalty = np.diag([ridge] * len(FEATURES) + [1e-9])
    weights = np.zeros(rows.shape[1])
    for _ in range(steps):
        chance = 1 / (1 + np.exp(-np.clip(rows @ weights, -30, 30)))
        slope = rows.T @ (harmless - chance) - penalty @ weights
        curvature = (rows * (chance * (1 - chance))[:, None]).T @ rows + penalty
        weights = weights + np.linalg.solve(curvature, slope)
    per_feature = weights[:-1] / size
    bias = float(weights[-1] - centre @ per_feature)
    return Judge(per_feature.astype(np.float32), bias)
