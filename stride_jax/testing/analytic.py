"""A target of known distribution: a linear-Gaussian autoregression, with a poor draft."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.checkpoints.build import ProcessKind
from stride_jax.decoding.base import Process
from stride_jax.decoding.processes import cached_process, window_process
from stride_jax.decoding.scale import PatchCovariance
from stride_jax.errors import InputError
from stride_jax.types import PatchDistribution


class Problem(NamedTuple):
    """Two linear-Gaussian autoregressions over two patches, `z` the flattened last two.

    Attributes:
        weight: `[P * C, 2 * P * C]`, the target's mean is `weight @ z`.
        draft_weight: `[P * C, 2 * P * C]`.
        draft_bias: `[P * C]`; the draft's mean is `draft_weight @ z + draft_bias`.
        sigma: std of the target's distribution.
        draft_scale: std of the draft's over it; other than 1 it is the draft's learned std.
        patch_len: P.
        num_vars: C.
        num_patches: N, patches decoded.
        separate: the weights do not mix variables, and each one is decoded as its own series.
        factor: `[C, P, P]`, Cholesky factor of the correlations of a patch's errors, of both
            distributions; None for independent steps.
    """

    weight: np.ndarray
    draft_weight: np.ndarray
    draft_bias: np.ndarray
    sigma: float
    draft_scale: float
    patch_len: int
    num_vars: int
    num_patches: int
    separate: bool
    factor: np.ndarray | None = None

    @property
    def scale(self) -> Any:
        """Sigma as `decode` takes it: a number, or a covariance (of each series if separate)."""
        if self.factor is None:
            return self.sigma
        return PatchCovariance(self.factor[:, None] if self.separate else self.factor, self.sigma)

    def error_factor(self) -> np.ndarray:
        """The factor of the covariance of a flattened patch, `[P * C, P * C]`."""
        if self.factor is None:
            return self.sigma * np.eye(self.patch_len * self.num_vars)
        return self.sigma * _flat(self.factor)

    def means(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Target and draft means `[S, P * C]` after windows `[S, 2 * P * C]`."""
        target = windows @ self.weight.T
        return target, windows @ self.draft_weight.T + self.draft_bias[None]


def make_problem(
    seed: int = 0,
    *,
    patch_len: int = 2,
    num_vars: int = 2,
    num_patches: int = 6,
    delta: float = 1.0,
    sigma: float = 0.7,
    draft_scale: float = 1.0,
    separate: bool = False,
    correlation: float = 0.0,
) -> Problem:
    """A stable target, and a draft about `delta` sigmas away (of one variable if separate).

    With a correlation the errors of steps i and j of a patch correlate by `correlation^|i - j|`,
    those of every other variable by the powers of its negative.

    Raises:
        InputError: a correlation outside (-1, 1).
    """
    if not -1 < correlation < 1:
        raise InputError(f"correlation must be inside (-1, 1), got {correlation}.")
    rng = np.random.default_rng(seed)
    width = patch_len * (1 if separate else num_vars)
    weight = rng.normal(size=(width, 2 * width))
    weight *= 0.7 / np.linalg.norm(weight, 2)
    other = rng.normal(size=(width, 2 * width))
    other *= 0.25 * delta / np.linalg.norm(other, 2)
    bias = rng.normal(size=width)
    bias *= delta * sigma / np.linalg.norm(bias)
    draft = weight + other
    if separate:  # [P, 2P] -> [P * C, 2P * C], and [P] -> [P * C], the same for each variable
        eye = np.eye(num_vars)
        weight, draft = np.asarray(np.kron(weight, eye)), np.asarray(np.kron(draft, eye))
        bias = np.repeat(bias, num_vars)
    sizes = patch_len, num_vars, num_patches, separate
    problem = Problem(weight, draft, bias, sigma, draft_scale, *sizes)
    if not correlation:
        return problem
    # The draft's errors are correlated too, so that it stays delta sigmas away.
    factor = np.stack([_powers((-1) ** c * correlation, patch_len) for c in range(num_vars)])
    flat = _flat(factor)
    draft = weight + flat @ (draft - weight)
    return problem._replace(draft_weight=draft, draft_bias=flat @ bias, factor=factor)


def _powers(correlation: float, size: int) -> np.ndarray:
    """The factor of the correlations `correlation^|i - j|`, `[P, P]`."""
    apart = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    return np.linalg.cholesky(correlation**apart)


def _flat(factor: np.ndarray) -> np.ndarray:
    """`[C, P, P]` as one factor of a flattened patch, `[P * C, P * C]`."""
    count, size, _ = factor.shape
    # [C, P, Q] -> [P, C, Q, C] -> [P * C, Q * C]
    full = np.einsum("cpq,cd->pcqd", factor, np.eye(count))
    return full.reshape(size * count, size * count)


@dataclass(frozen=True)
class Linear:
    """The autoregression as a forecaster of windows and, with caches, of patches.

    Its parameters are `(weight, bias, logvar)`; a cache entry holds a patch.

    Attributes:
        patch_len: P.
    """

    patch_len: int

    def __call__(self, params: Any, window: jax.Array) -> PatchDistribution:
        """`predict` of the window process: `[2 * P, C]` -> `[P, C]`."""
        weight, bias, logvar = params
        # [2 * P, C] -> [2 * P * C] -> [P * C] -> [P, C]
        mean = (weight @ window.reshape(-1) + bias).reshape(self.patch_len, window.shape[1])
        return PatchDistribution(mean, jnp.full_like(mean, logvar))

    def prefill(self, params: Any, patches: jax.Array, skip: jax.Array | None) -> jax.Array:
        """The context's patches as they are; padding is 0 already, and seen as such."""
        return patches

    def empty_cache(self, params: Any, prefill: jax.Array, count: int) -> jax.Array:
        """Empty patches."""
        return jnp.zeros((count, *prefill.shape[1:]), jnp.float32)

    def extend(
        self,
        params: Any,
        prefill: jax.Array,
        cache: jax.Array,
        patches: jax.Array,
        start: jax.Array,
    ) -> tuple[PatchDistribution, jax.Array]:
        """Each prediction from the patch and the one before it."""
        cache = jax.lax.dynamic_update_slice_in_dim(cache, patches, start, 0)
        known = jnp.concatenate([prefill, cache])
        last = len(prefill) + start + jnp.arange(len(patches))
        windows = jnp.concatenate([known[last - 1], known[last]], axis=1)  # [k, 2 * P, C]
        return jax.vmap(lambda window: self(params, window))(windows), cache


def processes(problem: Problem, kind: ProcessKind) -> tuple[Process, Process]:
    """Target and draft; of one variable if the problem is separate."""
    step = problem.num_vars if problem.separate else 1
    model = Linear(problem.patch_len)

    def build(weight: np.ndarray, bias: np.ndarray, scale: float) -> Process:
        arrays = (weight[::step, ::step], bias[::step], 2 * np.log(problem.sigma * scale))
        params = tuple(jnp.asarray(x, jnp.float32) for x in arrays)
        if kind == "cached":
            return cached_process(model, params, problem.patch_len, norm=None)
        predict = jax.tree_util.Partial(model, params)
        return window_process(predict, problem.patch_len, context_len=2 * problem.patch_len)

    zero = np.zeros_like(problem.draft_bias)
    target = build(problem.weight, zero, 1.0)
    return target, build(problem.draft_weight, problem.draft_bias, problem.draft_scale)


def innovations(
    problem: Problem, context: np.ndarray, forecast: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Standardised innovations and draft-target gaps of emitted patches.

    Args:
        problem: the two models.
        context: `[L, C]`, the same for all series.
        forecast: `[S, N * P, C]`.

    Returns:
        `(eps, gap)`, each `[S, N, P * C]`: `(x - mean_p) / sigma` and `(mean_p - mean_q) / sigma`
        given the emitted prefix, in float64; with a factor L instead `L^-1` of both differences.
    """
    size, length = len(forecast), len(context)
    grown = np.concatenate([np.broadcast_to(context, (size, *context.shape)), forecast], axis=1)
    eps, gap = [], []
    step, whitener = problem.patch_len, np.linalg.inv(problem.error_factor()).T
    for start in range(length, length + problem.num_patches * step, step):
        window = grown[:, start - 2 * step : start].reshape(size, -1).astype(np.float64)
        patch = grown[:, start : start + step].reshape(size, -1)
        target, draft = problem.means(window)
        eps.append((patch - target) @ whitener)
        gap.append((target - draft) @ whitener)
    return np.stack(eps, axis=1), np.stack(gap, axis=1)


def closed_form_covariance(problem: Problem) -> np.ndarray:
    """Covariance of the whole forecast, `[N * P * C, N * P * C]`.

    With `x = T x + c + D eps`, T strictly block lower triangular and D the factor of the errors of
    each patch, it is `(I - T)^-1 D D' (I - T)^-T`.
    """
    width = problem.patch_len * problem.num_vars
    total, lags = problem.num_patches * width, 2
    transition = np.zeros((total, total))
    for n in range(problem.num_patches):
        for lag in range(1, min(lags, n) + 1):
            block = problem.weight[:, (lags - lag) * width : (lags - lag + 1) * width]
            rows, columns = slice(n * width, (n + 1) * width), slice((n - lag) * width, None)
            transition[rows, columns][:, :width] = block
    inverse = np.linalg.inv(np.eye(total) - transition)
    root = inverse @ np.kron(np.eye(problem.num_patches), problem.error_factor())
    return root @ root.T


def gap_moments(problem: Problem, context: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mean `[P * C]` and covariance `[P * C, P * C]` of the draft-target gap at each patch.

    The gap `L^-1 (mean_p - mean_q)`, in the units of `innovations`, is linear in the last two
    patches, which are Gaussian along paths of the target. That of the first patch is known.

    Args:
        problem: the two models.
        context: `[L, C]`.
    """
    width, lags = problem.patch_len * problem.num_vars, 2
    whitener = np.linalg.inv(problem.error_factor())
    response = whitener @ (problem.weight - problem.draft_weight)  # [P * C, 2 * P * C]
    offset = whitener @ problem.draft_bias

    # Means and covariance of the last two patches of the context, then of the forecast.
    known = lags * width
    means = np.asarray(context[-lags * problem.patch_len :], np.float64).reshape(-1)
    for _ in range(problem.num_patches):
        means = np.concatenate([means, problem.weight @ means[-known:]])
    covariance = np.zeros((len(means), len(means)))
    covariance[known:, known:] = closed_form_covariance(problem)

    moments = []
    for start in range(0, problem.num_patches * width, width):
        window = slice(start, start + known)
        spread = response @ covariance[window, window] @ response.T
        moments.append((response @ means[window] - offset, spread))
    return moments
