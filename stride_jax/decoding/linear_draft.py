"""The linear autoregressive draft: K proposals for the price of two small products.

One patch is a linear map of a window, `x = o + (window - o) A` with a level o of the window, so it
moves with level and scale. K such steps are one linear map of the window and of the errors of the
proposals before; both matrices are computed once, when the draft is built.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.config import whole_number
from stride_jax.decoding.drafts import filled, moved_window
from stride_jax.decoding.scale import as_float32
from stride_jax.errors import InputError
from stride_jax.types import PatchDistribution

Level = Literal["mean", "last"]
"""The level that a window is counted from: its mean, or its last value."""
LARGEST_ROUND = 16
"""K of the matrices that a draft is built with unless it is told otherwise."""
TINY = 1e-6
"""Added to variances, so that a constant window has a normalisation."""


class Gate(NamedTuple):
    """A softmax over M maps, computed once from the context: it never sees a proposal.

    Attributes:
        kernel: `[F, M]`, weights of `window_features`.
        bias: `[M]`.
    """

    kernel: jax.Array
    bias: jax.Array


class LinearMemory(NamedTuple):
    """The window of a context, and the weights of the maps.

    Attributes:
        window: `[L, C]`, its last steps.
        weights: `[C, M]`, of the maps for each variable.
    """

    window: jax.Array
    weights: jax.Array


def level_of(window: Any, level: Level) -> Any:
    """o, the level of a window `[..., L, C]`, as `[..., 1, C]`; numpy and JAX."""
    if level == "mean":
        return window.mean(axis=-2, keepdims=True)
    return window[..., -1:, :]


def feature_lags(context_len: int) -> list[int]:
    """Lags of `window_features`: 1, 2, 3, 4, 6, 8, 12, ... up to half of the window."""
    lags = {base << power for base in (1, 3) for power in range(context_len.bit_length())}
    return sorted(lag for lag in lags if 2 * lag <= context_len)


def num_features(context_len: int) -> int:
    """F of `window_features`, for windows of L steps."""
    return 2 * len(feature_lags(context_len)) + 5


def window_features(window: jax.Array) -> jax.Array:
    """Features of a window `[L, C]` for the gate: the shape of its variation, `[C, F]`.

    The autocorrelations of values and of differences at `feature_lags`, the roughness (log
    variance of the differences), and skewness and kurtosis of both; all of them of the window
    standardised, so neither level nor scale matters.
    """
    values = _standardised(window)
    steps = values[1:] - values[:-1]
    roughness = jnp.log(jnp.mean(jnp.square(steps), axis=0) + TINY)
    features = [roughness]
    for series in (values, _standardised(steps)):
        features += [
            jnp.sum(series[lag:] * series[:-lag], axis=0) / len(series)
            for lag in feature_lags(len(window))
        ]
        features.append(jnp.tanh(jnp.mean(series**3, axis=0) / 4))
        features.append(jnp.log(jnp.mean(series**4, axis=0) + TINY))
    return jnp.stack(features, axis=-1)


def _standardised(series: jax.Array) -> jax.Array:
    """`[L, C]` with mean 0 and variance 1 per variable, or all 0 where it is constant."""
    centred = series - jnp.mean(series, axis=0, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=0, keepdims=True)
    return centred / jnp.sqrt(jnp.where(variance > 0, variance, 1.0))


def gate_weights(gate: Gate | None, window: jax.Array) -> jax.Array:
    """Weights of the maps for each variable of a window `[L, C]`, `[C, M]`; 1 without a gate."""
    if gate is None:
        return jnp.ones((window.shape[1], 1), window.dtype)
    logits = window_features(window) @ gate.kernel + gate.bias[None]  # [C, M]
    return jax.nn.softmax(logits, axis=-1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LinearDraft:
    """Proposes K patches by a linear map of the last L steps; build it with `linear_draft`.

    A mixture of M maps runs each map on its own path; all paths have the same errors, and a
    proposal is their average by the weights of the gate. So K patches of a mixture are linear too.

    Attributes:
        means: `[K, P, M, L]`, or `[K, P, M, C, L]` for a map per variable: window to K means.
        responses: `[K, P, M, K, P]` or `[K, P, M, C, K, P]`: errors to later means, strictly lower
            triangular in the two K.
        gate: of a mixture; None for one map.
        level: what a window is counted from.
    """

    means: jax.Array
    responses: jax.Array
    gate: Gate | None
    level: Level = dataclasses.field(default="last", metadata={"static": True})

    @property
    def patch_len(self) -> int:
        """P."""
        return int(self.means.shape[1])

    @property
    def context_len(self) -> int:
        """L."""
        return int(self.means.shape[-1])

    @property
    def longest_round(self) -> int:
        """The most proposals of a round."""
        return len(self.means)

    def prepare(self, context: jax.Array, length: jax.Array | None = None) -> LinearMemory:
        """Takes the last L steps, and weights the maps.

        Padding becomes the first value of the history, and so does what a shorter context lacks.

        Raises:
            InputError: a map per variable, and another number of variables.
        """
        num_vars, per_variable = context.shape[1], self.means.ndim == 5
        if per_variable and self.means.shape[3] != num_vars:
            raise InputError(
                f"this linear draft has a map for each of {self.means.shape[3]} variables, the "
                f"context has {num_vars}; decode the variables it was fitted to, together."
            )
        context = context if length is None else filled(context, length)
        missing = self.context_len - context.shape[0]
        if missing > 0:
            context = jnp.pad(context, ((missing, 0), (0, 0)), mode="edge")
        window = context[context.shape[0] - self.context_len :]
        return LinearMemory(window, gate_weights(self.gate, window))

    def start(self, memory: LinearMemory, room: int) -> jax.Array:
        """See `Draft`; the window."""
        return memory.window

    def predict_next(
        self, memory: LinearMemory, state: jax.Array, shape: tuple[int, int, int]
    ) -> tuple[PatchDistribution, jax.Array]:
        """See `Draft`; all K in one product, as if no proposal had an error.

        Raises:
            InputError: a round of more proposals than the draft was built for.
        """
        if shape[0] > self.longest_round:
            raise InputError(
                f"this linear draft proposes up to {self.longest_round} patches a round, got "
                f"num_draft {shape[0]}; lower num_draft, or build it with a larger one."
            )
        level = level_of(state, self.level)  # [1, C]
        maps = "kpml,lc->kpmc" if self.means.ndim == 4 else "kpmcl,lc->kpmc"
        paths = jnp.einsum(maps, self.means[: shape[0]], state - level)
        return PatchDistribution(level[None] + self._mixed(memory, paths)), state

    def respond(self, memory: LinearMemory, state: jax.Array, errors: jax.Array) -> jax.Array:
        """See `RespondingDraft`; one product."""
        del state
        count = len(errors)
        maps = "kpmjq,jqc->kpmc" if self.means.ndim == 4 else "kpmcjq,jqc->kpmc"
        paths = jnp.einsum(maps, self.responses[:count, ..., :count, :], errors)
        return self._mixed(memory, paths)

    def _mixed(self, memory: LinearMemory, paths: jax.Array) -> jax.Array:
        """The average of M paths `[K, P, M, C]` by the weights of the gate, `[K, P, C]`."""
        if self.gate is None:
            return paths[:, :, 0]
        return jnp.sum(paths * memory.weights.T[None, None], axis=2)  # [1, 1, M, C]

    def commit(self, state: jax.Array, patches: jax.Array, count: jax.Array) -> jax.Array:
        """See `Draft`; moves the window."""
        return moved_window(state, patches, count)


def linear_draft(
    maps: Any,
    *,
    level: Level = "last",
    gate: Gate | None = None,
    num_draft: int = LARGEST_ROUND,
) -> LinearDraft:
    """A draft whose next patch is `o + (window - o) A`, o the level of the window.

    Args:
        maps: A: `[L, P]` for all variables, `[C, L, P]` one for each, or `[M, L, P]` a mixture
            with a gate. Concrete numbers; the matrices of K steps are computed here, in float64.
        level: what a window is counted from.
        gate: weights the maps of a mixture by the context.
        num_draft: K, the most proposals of a round.

    Raises:
        InputError: maps of another shape, fewer steps than a patch, numbers that are not finite, a
            gate that does not fit, an unknown level.
    """
    if level not in ("mean", "last"):
        raise InputError(f"level must be 'mean' or 'last', got {level!r}.")
    num_draft = whole_number("num_draft", num_draft, least=1)
    array = np.asarray(maps, np.float64)
    if array.ndim not in (2, 3) or min(array.shape) < 1 or array.shape[-2] < array.shape[-1]:
        raise InputError(
            "maps must be [L, P], [C, L, P] or [M, L, P] with L of at least P, got shape "
            f"{array.shape}."
        )
    if not np.isfinite(array).all():
        raise InputError("maps hold values that are not finite; fit the draft again.")
    _check_gate(array, gate)
    steps = [k_step_matrices(one, level, num_draft) for one in array.reshape(-1, *array.shape[-2:])]
    # [maps, K, P, ...] -> [K, P, maps, ...]
    matrices = [np.stack(each, axis=2) for each in zip(*steps, strict=True)]
    if array.ndim == 3 and gate is None:  # the maps are those of C variables: M is 1
        matrices = [each[:, :, None] for each in matrices]
    means, responses = (as_float32(each) for each in matrices)
    if not (np.isfinite(means).all() and np.isfinite(responses).all()):
        raise InputError(
            f"maps must give finite float32 numbers for all {num_draft} proposals, got maps with a "
            f"largest value of {np.abs(array).max():.3g}; fit the draft again, or take fewer."
        )
    return LinearDraft(jnp.asarray(means), jnp.asarray(responses), gate, level)


def _check_gate(maps: np.ndarray, gate: Gate | None) -> None:
    """Raises InputError for a gate that does not fit the maps."""
    if gate is None:
        return
    shapes = np.shape(gate.kernel), np.shape(gate.bias)
    expected = (num_features(maps.shape[-2]), len(maps)), (len(maps),)
    if maps.ndim != 3 or shapes != expected:
        raise InputError(
            f"a gate of {len(maps)} maps over {maps.shape[-2]} steps has kernel and bias of shapes "
            f"{expected}, got {shapes} for maps of shape {maps.shape}."
        )


def k_step_matrices(map_: np.ndarray, level: Level, num_draft: int) -> tuple[Any, Any]:
    """K steps of one map: window to means `[K, P, L]`, and errors to means `[K, P, K, P]`.

    The level of a window is linear in it, so a step is `window @ B` with `B = A + u (1 - 1' A)`, u
    the weights of the level. Each step is written as a combination of the window and of the errors.
    Windows are meant with their level taken off, which is added to the means: the columns of B sum
    to 1.

    Args:
        map_: A, `[L, P]` float64.
        level: what a window is counted from.
        num_draft: K.
    """
    length, size = map_.shape
    weights = np.full(length, 1 / length) if level == "mean" else np.eye(length)[-1]
    step = map_ + np.outer(weights, 1 - map_.sum(axis=0))  # [L, P]
    total = length + num_draft * size
    # the K patches and their means, in terms of the window and of the errors
    patches, means = np.zeros((2, num_draft * size, total))
    for k in range(num_draft):
        first = k * size
        rows, real = slice(first, first + size), max(length - first, 0)
        # what is left of the context in the window of this step, and the patches before it
        means[rows, first : first + real] = step[:real].T
        means[rows] += step[real:].T @ patches[max(first - length, 0) : first]
        patches[rows] = means[rows]
        patches[rows, length + first : length + first + size] = np.eye(size)  # the error itself
    means = means.reshape(num_draft, size, total)  # [K * P, L + K * P] -> [K, P, L + K * P]
    # [K, P, K * P] -> [K, P, K, P]
    errors = means[:, :, length:].reshape(num_draft, size, num_draft, size)
    return means[:, :, :length], errors
