"""Ridge regression of the maps of a linear draft, and the choice of its regularisation.

Windows and labels are taken relative to the level and the scale of the window, so that no window
dominates. The maps of a mixture, or of several variables, are shrunk towards one map for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.decoding import gaussian
from stride_jax.errors import InputError


class Rows(NamedTuple):
    """Windows and labels relative to level and scale, of B windows of C variables.

    Attributes:
        inputs: `[B, C, L]`.
        labels: `[B, C, P]`, the target's means.
        scale: `[B, C]`, std of the window.
        weights: `[B, C, M]` of the maps; they sum to 1.
    """

    inputs: jax.Array
    labels: jax.Array
    scale: jax.Array
    weights: jax.Array


class Sums(NamedTuple):
    """The normal equations of M maps, float64; rows may be added at any time.

    Attributes:
        gram: `[M, L, L]`, weighted products of the inputs.
        cross: `[M, L, P]`, weighted products of inputs and labels.
        num_rows: of windows and variables.
    """

    gram: np.ndarray
    cross: np.ndarray
    num_rows: int


def sums_of(batches: Iterable[Rows], before: Sums | None = None) -> Sums:
    """The normal equations of all rows, and of those before."""
    total = before
    for rows in batches:
        gram, cross = (np.asarray(part, np.float64) for part in _products(rows))
        num_rows = int(np.prod(rows.scale.shape))
        if total is not None:
            gram, cross, num_rows = (
                total.gram + gram,
                total.cross + cross,
                total.num_rows + num_rows,
            )
        total = Sums(gram, cross, num_rows)
    if total is None:
        raise InputError("there are no windows to fit a draft to; raise ridge.windows.")
    return total


@jax.jit
def _products(rows: Rows) -> tuple[jax.Array, jax.Array]:
    """`[M, L, L]` and `[M, L, P]` of a batch."""
    weighted = rows.weights[..., None] * rows.inputs[..., None, :]  # [B, C, M, L]
    return (
        jnp.einsum("bcml,bck->mlk", weighted, rows.inputs),
        jnp.einsum("bcml,bcp->mlp", weighted, rows.labels),
    )


def solve(sums: Sums, regularisation: float) -> np.ndarray:
    """Maps `[M, L, P]`: one map for all rows, plus the ridge estimate of what each map adds to it.

    Args:
        sums: of inputs of about unit variance.
        regularisation: penalty of a squared weight, over the number of rows.
    """
    penalty = regularisation * np.eye(sums.gram.shape[-1])
    gram, cross = sums.gram / sums.num_rows, sums.cross / sums.num_rows
    common = np.linalg.solve(gram.sum(axis=0) + penalty, cross.sum(axis=0))  # [L, P]
    if len(gram) == 1:
        return np.asarray(common[None])
    rest = cross - gram @ common[None]  # [M, L, P]
    return np.asarray(common[None] + np.linalg.solve(gram + penalty[None] / len(gram), rest))


class Choice(NamedTuple):
    """The maps of one regularisation and how they do on validation windows.

    Attributes:
        maps: `[M, L, P]`.
        regularisation: that they were fitted with.
        acceptance: mean probability of one proposal.
        gap: RMS distance of the means over sigma.
    """

    maps: np.ndarray
    regularisation: float
    acceptance: float
    gap: float


def choose(
    sums: Sums, held_out: Sequence[Rows], candidates: Sequence[float], sigma: float
) -> Choice:
    """The candidate with the highest acceptance on the held-out rows."""
    choices = []
    sizes = [len(rows.scale) for rows in held_out]
    for regularisation in candidates:
        maps = solve(sums, regularisation)
        scores = [_score(jnp.asarray(maps, jnp.float32), rows, sigma) for rows in held_out]
        accepted, square = np.average(np.asarray(scores, np.float64), axis=0, weights=sizes)
        choices.append(Choice(maps, regularisation, float(accepted), float(np.sqrt(square))))
    return max(choices, key=lambda choice: choice.acceptance)


@jax.jit
def _score(maps: jax.Array, rows: Rows, sigma: float) -> tuple[jax.Array, jax.Array]:
    """Acceptance `2 Phi(-delta / 2)` and squared gap over sigma, means over the windows.

    The variables of a window are accepted together.
    """
    paths = jnp.einsum("bcl,mlp->bcmp", rows.inputs, maps)
    error = jnp.sum(rows.weights[..., None] * paths, axis=2) - rows.labels
    gap = error * rows.scale[..., None] / sigma  # [B, C, P]
    delta = jnp.sqrt(jnp.sum(jnp.square(gap), axis=(1, 2)))
    return jnp.mean(gaussian.acceptance(delta)), jnp.mean(jnp.square(gap))
