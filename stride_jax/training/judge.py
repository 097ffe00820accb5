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

from stride_jax.decoding.base import Draft, Process, Round, for_paths, prepare_draft
from stride_jax.decoding.batching import overwrite
from stride_jax.decoding.drafts import as_draft, propose
from stride_jax.decoding.info import one_more
from stride_jax.decoding.rules.common import num_leading
from stride_jax.decoding.rules.judge import FEATURES, Judge, features
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

    target: Any
    draft: Any
    filled: jax.Array
    patches: jax.Array
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
    scale = jnp.broadcast_to(jnp.asarray(sigma, jnp.float32), (patch_len, num_vars))
    target, draft = (for_paths(model, 1) for model in models)

    def one(context: jax.Array, truth: jax.Array) -> Labels:
        patches = truth.reshape(-1, *scale.shape)  # [N * P, C] -> [N, P, C]
        return _label_window((target, draft), context, patches, scale, limit, by_truth, num_draft)

    return jax.vmap(one)(*windows)


def _label_window(
    models: tuple[Any, Any],
    context: jax.Array,
    truth: jax.Array,
    sigma: jax.Array,
    limit: jax.Array,
    by_truth: jax.Array,
    num_draft: int,
) -> Labels:
    """Labels of one window; `truth [N, P, C]`."""
    target, draft = models
    memory = target.prepare(context)
    memories = memory, prepare_draft(draft, target, memory, context, None)
    count, room = len(truth), len(truth) + num_draft + 1
    states = target.start(memory, room), draft.start(memories[1], room)
    empty = jnp.zeros((room, *sigma.shape))

    # The reference: what came, or what the target forecasts alone.
    alone = _finish(target, memory, states[0], empty, jnp.int32(0), count)
    reference = jnp.where(by_truth, truth, alone)
    labels = _no_labels(count, num_draft)
    path = _Path(*states, jnp.int32(0), empty, reference, jnp.int32(0), labels)

    def play(path: _Path) -> _Path:
        return _greedy_round(models, memories, path, sigma, limit, num_draft)

    return jax.lax.while_loop(lambda path: path.filled < count, play, path).labels


def _greedy_round(
    models: tuple[Any, Any],
    memories: tuple[Any, Any],
    path: _Path,
    sigma: jax.Array,
    limit: jax.Array,
    num_draft: int,
) -> _Path:
    """One round: K proposals, the harm of each, and the leading harmless ones kept."""
    (target, draft), count = models, len(path.reference)
    current, seen, drafted = _proposed(models, memories, path, sigma, num_draft)
    missing, place = count - path.filled, jnp.arange(num_draft)

    # Finish the forecast with 0, 1, ..., K of the proposals in the context.
    def finished(accepted: jax.Array) -> jax.Array:
        state = target.commit(seen, _spliced(current, accepted), accepted + 1)
        emitted = overwrite(path.patches, current.target_mean, path.filled)
        return _finish(target, memories[0], state, emitted, path.filled + accepted + 1, count)

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
    patches, new = _spliced(current, accepted), jnp.minimum(accepted + 1, missing)
    return _Path(
        target=target.commit(seen, patches, new),
        draft=draft.commit(drafted, patches, new),
        filled=path.filled + new,
        patches=overwrite(path.patches, current.target_mean, path.filled),
        reference=path.reference,
        round=path.round + 1,
        labels=labels,
    )


def _proposed(
    models: tuple[Any, Any],
    memories: tuple[Any, Any],
    path: _Path,
    sigma: jax.Array,
    num_draft: int,
) -> tuple[Round, Any, Any]:
    """A round of mean proposals, with the states of target and draft that have seen them."""
    noise = jnp.zeros((num_draft, *sigma.shape))
    proposals, drafted = propose(
        models[1], memories[1], path.draft, noise, sigma, num_draft, learned=False
    )
    predictions, seen = models[0].verify(memories[0], path.target, proposals.patches)
    missing = len(path.reference) - path.filled
    current = Round(
        proposals=proposals.patches,
        noise=noise,
        draft_mean=proposals.mean,
        draft_sigma=proposals.sigma,
        target_mean=predictions.mean,
        target_sigma=jnp.broadcast_to(sigma, predictions.mean.shape),
        draft_logvar=proposals.logvar,
        fresh=jnp.zeros_like(predictions.mean),
        length=jnp.minimum(missing, num_draft),
        missing=missing,
    )
    return current, seen, drafted


def _spliced(current: Round, accepted: jax.Array) -> jax.Array:
    """The context after a round, `[K + 1, P, C]`: the first proposals, then the target's mean."""
    place = jnp.arange(len(current.target_mean))[:, None, None]
    return jnp.where(place < accepted, one_more(current.proposals), current.target_mean[accepted])


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
