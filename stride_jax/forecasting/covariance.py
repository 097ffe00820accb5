"""The covariance of a target's errors within a patch: of a split, and of each history."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.data.gaps import Gaps
from stride_jax.data.windows import Windows, padded_batches
from stride_jax.decoding.base import Process
from stride_jax.decoding.compiled import compiled
from stride_jax.decoding.scale import PatchCovariance, check_factor
from stride_jax.errors import InputError

TINY = 1e-5
"""Added to the variance of a context, so that a constant one has a scale."""


class Errors(NamedTuple):
    """One-patch errors of a target in the windows of a split.

    Attributes:
        values: `[C, n, P]` float64, one row per window; NaN where nothing was observed.
        scale: `[C, n]`, the std of the context of each.
    """

    values: np.ndarray
    scale: np.ndarray


def calibrate_covariance(
    target: Process,
    values: jax.Array | Gaps,
    windows: Windows,
    batch_size: int,
    *,
    relative: bool = False,
    each_variable: bool = False,
) -> PatchCovariance:
    """The covariance of the target's one-patch errors on a split, shrunk as in `shrunk_factor`.

    Windows that overlap count as the fewer ones that would not.

    Args:
        target: the process.
        values: `[T, C]`, or with gaps; a patch with a missing value does not count.
        windows: validation windows of the context and one patch.
        batch_size: windows at once.
        relative: take each error over the std of its context, and scale the covariance to a mean
            variance of 1: a property of the model, which the sigma of a history multiplies (see
            `covariance` of `forecast`). Without it, the units of `values`.
        each_variable: one factor for each variable, `[C, P, P]`; else one for all, `[P, P]`.

    Raises:
        InputError: fewer than two windows, and see `shrunk_factor`.
    """
    values_of, scale = one_patch_errors(target, values, windows, batch_size)
    if relative:
        values_of = values_of / scale[..., None]
    size, share = target.patch_len, min(1.0, windows.stride / target.patch_len)
    # [C, n, P] -> [C * n, P]
    groups = list(values_of) if each_variable else [values_of.reshape(-1, size)]
    factors = np.stack([shrunk_factor(errors, share) for errors in groups])
    if relative:
        factors = unit_factor(PatchCovariance(factors), (size, len(factors)))
    return PatchCovariance((factors if each_variable else factors[0]).astype(np.float32))


def one_patch_errors(
    target: Process, values: jax.Array | Gaps, windows: Windows, batch_size: int
) -> Errors:
    """The errors of the target's forecasts of the last patch of each window."""
    errors, scale = _one_patch_errors(target, values, windows=windows, batch_size=batch_size)
    errors, scale = (np.asarray(x, np.float64)[: windows.count] for x in (errors, scale))
    if not windows.separate:
        return Errors(np.moveaxis(errors, 2, 0), np.moveaxis(scale, 1, 0))
    # [C * n, P, 1] -> [C, n, P], and [C * n, 1] -> [C, n]
    count = windows.num_vars, windows.num_starts
    return Errors(errors.reshape(*count, target.patch_len), scale.reshape(count))


@compiled
def _one_patch_errors(
    target: Process, values: jax.Array | Gaps, *, windows: Windows, batch_size: int
) -> tuple[jax.Array, jax.Array]:
    """Errors `[n, P, C]` and stds of the contexts `[n, C]`, n filled up to whole batches."""
    index, _ = padded_batches(windows.count, batch_size)
    length = windows.length - target.patch_len

    def one(series: jax.Array) -> tuple[jax.Array, jax.Array]:
        memory = target.prepare(series[:length])
        nothing = jnp.zeros((0, target.patch_len, series.shape[1]), jnp.float32)
        predictions, _ = target.verify(memory, target.start(memory, 1), nothing)
        scale = jnp.sqrt(jnp.var(series[:length], axis=0) + TINY)
        return series[length:] - predictions.mean[0], scale

    parts = jax.lax.map(lambda batch: jax.vmap(one)(windows.gather(values, batch)), index)
    # [num_batches, B, ...] -> [num_batches * B, ...]
    errors, scale = (x.reshape(-1, *x.shape[2:]) for x in parts)
    return errors, scale


def shrunk_factor(errors: np.ndarray, share: float = 1.0) -> np.ndarray:
    """The Cholesky factor `[P, P]` of the covariance of errors `[n, P]` around 0, shrunk.

    The correlations r_ij off the diagonal are multiplied by `1 - intensity`, with the intensity in
    closed form `sum_ij Var(r_ij) / sum_ij r_ij^2`, and the variances are those of the sample.
    Errors over their std are z, and Var(r_ij) is the variance of `z_i z_j` over the sample, divided
    by the number of rows less one.

    Args:
        errors: one row per window; rows with NaN are left out.
        share: independent rows over rows, at most 1.

    Raises:
        InputError: fewer than two independent rows, a step whose errors are all 0, or errors of
            which one step follows from the others, so that their covariance has no inverse.

    References:
        Schafer and Strimmer, A shrinkage approach to large-scale covariance matrix estimation and
        implications for functional genomics, Stat. Appl. Genet. Mol. Biol. 4, 2005 (target D),
        after Ledoit and Wolf, J. Multivariate Anal. 88, 2004.
    """
    errors = errors[np.isfinite(errors).all(axis=1)]
    rows = share * len(errors)
    if rows < 2:
        raise InputError(
            f"a covariance needs errors of at least two patches that do not overlap, got {rows:g}; "
            "take a longer validation split."
        )
    std = np.sqrt(np.mean(np.square(errors), axis=0))
    if (std == 0).any():
        step = int(np.argmax(std == 0))
        raise InputError(f"all errors of step {step} are 0; such a target has no covariance.")

    # Correlations, and the variance of each of them.
    z = errors / std
    correlation = z.T @ z / len(z)
    variance = (np.square(z).T @ np.square(z) / len(z) - np.square(correlation)) / (rows - 1)

    # Shrink what is off the diagonal.
    off = ~np.eye(len(std), dtype=bool)
    square = np.sum(np.square(correlation[off]))
    intensity = min(1.0, float(np.sum(variance[off])) / square) if square > 0 else 1.0
    correlation[off] *= 1 - intensity
    least = float(np.linalg.eigvalsh(correlation)[0])
    if least < np.finfo(np.float32).eps:
        raise InputError(
            "the correlations of the errors have no inverse, as when all patches have errors of "
            f"one shape (smallest eigenvalue {least:.1g}, after shrinking by {intensity:.1g}); "
            "take more windows, or a target whose errors vary."
        )
    factor: np.ndarray = std[:, None] * np.linalg.cholesky(correlation)
    return factor


def unit_factor(covariance: PatchCovariance, shape: tuple[int, int]) -> np.ndarray:
    """The factors of a covariance scaled to a mean variance of 1, `[C, P, P]` float64.

    Args:
        covariance: for all variables or for each, not for each series.
        shape: `(P, C)`.

    Raises:
        InputError: no factor, see `scale.check_factor`, or a sigma that does not broadcast to
            `[P, C]`.
    """
    check_factor(covariance.factor, shape)
    try:
        times = np.broadcast_to(np.asarray(covariance.sigma, np.float64), shape)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the sigma of a PatchCovariance must broadcast to patches {shape}, got "
            f"{covariance.sigma!r}."
        ) from error
    if not (np.isfinite(times).all() and (times > 0).all()):
        raise InputError(f"the sigma of a PatchCovariance must be > 0, got {covariance.sigma!r}.")
    factor = times.T[..., None] * np.asarray(covariance.factor, np.float64)  # [C, P, P]
    mean = np.mean(np.sum(np.square(factor), axis=-1), axis=-1)
    unit: np.ndarray = factor / np.sqrt(mean)[:, None, None]
    return unit


def history_covariance(factor: np.ndarray, sigma: np.ndarray) -> PatchCovariance:
    """The covariance of each history: that of the model, with the sigma of the history.

    Args:
        factor: `[C, P, P]`, see `unit_factor`.
        sigma: `[B, 1, c]`, root mean square over a patch, which the stds of the factor multiply; or
            `[B, P, c]`, the std of each step, in place of those of the factor: then the factor
            gives the correlation alone. c is C where variables are decoded together, and 1 where
            they are series of their own, those of a history in a row.
    """
    if sigma.shape[1] > 1:
        factor = factor / np.linalg.norm(factor, axis=-1, keepdims=True)
    if sigma.shape[-1] == len(factor):
        return PatchCovariance(factor, sigma)
    # [C, P, P] -> [B, 1, P, P], B whole histories of C variables each
    return PatchCovariance(np.tile(factor, (len(sigma) // len(factor), 1, 1))[:, None], sigma)
