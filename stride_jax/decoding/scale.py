"""The scale of the errors of a patch: a std for each step, or a covariance for each variable.

Whatever multiplies noise by sigma, or divides an error by it, does so by `apply` and `whiten`. The
covariance of a variable is `L L'`, and its factor L is taken apart into `diag(sigma) R`: sigma the
std of each step, and R the factor of the correlations, whose rows have length 1. So sigma keeps its
meaning, and two predictions with stds of their own may share one R.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.errors import InputError

TINY = float(np.finfo(np.float32).tiny)
"""The smallest number of float32; a processor may take smaller ones as 0."""
HUGE = float(np.finfo(np.float32).max)
"""The largest number of float32."""


def as_float32(value: Any) -> np.ndarray:
    """Numbers of the host as a decode takes them; without a warning where one becomes infinite."""
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(value, np.float32)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PatchCovariance:
    """The covariance of the errors of a patch, as the `sigma` of `decode`.

    The errors of a variable are `sigma * (factor @ noise)` with standard normal noise `[P]`. Errors
    of different variables are independent.

    Attributes:
        factor: Cholesky factor, lower triangular with a positive diagonal: `[P, P]` for every
            variable, `[C, P, P]` one for each, or `[B, C, P, P]` for each series.
        sigma: multiplies the errors: scalar, `[C]`, `[P, C]`, or with a B in front of the last.
    """

    factor: Any
    sigma: Any = 1.0


class Correlation(NamedTuple):
    """The factor of the correlations of the errors of a patch, and its inverse.

    Attributes:
        factor: R, `[C, P, P]`, lower triangular, rows of length 1.
        inverse: of R, `[C, P, P]`; so whitening is a product, as applying is.
    """

    factor: jax.Array
    inverse: jax.Array


class Scale(NamedTuple):
    """The scale of a patch, or with a leading B that of each series.

    Attributes:
        sigma: `[P, C]`, std of each step.
        correlation: of the steps of a variable; None where they are independent.
    """

    sigma: jax.Array
    correlation: Correlation | None = None


def apply(noise: jax.Array, sigma: jax.Array, correlation: Correlation | None) -> jax.Array:
    """L z, errors `[..., P, C]` from standard normal noise of that shape."""
    return sigma * correlated(noise, correlation)


def whiten(errors: jax.Array, sigma: jax.Array, correlation: Correlation | None) -> jax.Array:
    """`L^-1 x` of errors `[..., P, C]`: the inverse of `apply`."""
    return _product(None if correlation is None else correlation.inverse, errors / sigma)


def correlated(noise: jax.Array, correlation: Correlation | None) -> jax.Array:
    """R z: noise `[..., P, C]` of variance 1 with the correlations of the errors of a patch."""
    return _product(None if correlation is None else correlation.factor, noise)


def _product(matrices: jax.Array | None, values: jax.Array) -> jax.Array:
    """`[C, P, P]` times the steps of each variable of `[..., P, C]`; no matrices leave them.

    In full float32: the default of an accelerator would round a covariance to three digits.
    """
    if matrices is None:
        return values
    highest = jax.lax.Precision.HIGHEST
    return jnp.einsum("cpq,...qc->...pc", matrices, values, precision=highest)


def make_scale(sigma: Any, shape: tuple[int, ...]) -> Scale:
    """The scale of the patches of a decode, float32.

    The inverse is computed here, once for a decode. See `PatchCovariance` for a covariance.

    Args:
        sigma: std that broadcasts to the patches, or a covariance.
        shape: `[P, C]`, or `[B, P, C]` with a scale for each series.
    """
    if not isinstance(sigma, PatchCovariance):
        return Scale(jnp.broadcast_to(jnp.asarray(sigma, jnp.float32), shape))
    lower = jnp.asarray(sigma.factor, jnp.float32)
    std = jnp.linalg.norm(lower, axis=-1)  # [P], [C, P] or [B, C, P]
    factor = lower / std[..., None]
    eye = jnp.broadcast_to(jnp.eye(shape[-2], dtype=jnp.float32), lower.shape)
    inverse = jax.lax.linalg.triangular_solve(factor, eye, left_side=True, lower=True)
    columns = jnp.swapaxes(std[None] if std.ndim == 1 else std, -1, -2)  # [..., P, C]
    times = jnp.broadcast_to(jnp.asarray(sigma.sigma, jnp.float32), shape)
    square = (*shape[:-2], shape[-1], shape[-2], shape[-2])
    return Scale(
        times * jnp.broadcast_to(columns, shape),
        Correlation(jnp.broadcast_to(factor, square), jnp.broadcast_to(inverse, square)),
    )


def host_sigma(covariance: PatchCovariance, shape: tuple[int, ...]) -> np.ndarray:
    """The sigma of `make_scale` of a covariance on the host, float32 of the shape of the patches.

    It may be 0 or infinite where neither the factor nor its sigma is.
    """
    std = np.linalg.norm(as_float32(covariance.factor), axis=-1)  # [P], [C, P] or [B, C, P]
    columns = np.swapaxes(np.atleast_2d(std), -1, -2)  # [..., P, C]
    with np.errstate(over="ignore", under="ignore"):
        scaled: np.ndarray = as_float32(covariance.sigma) * np.broadcast_to(columns, shape)
    return scaled


def valid_factor(factor: jax.Array, batch: tuple[int, ...]) -> jax.Array:
    """Whether a factor is one of `PatchCovariance`, for each series: bool, of the shape `batch`."""
    diagonal = jnp.square(jnp.diagonal(factor, axis1=-2, axis2=-1)) >= TINY
    diagonal &= jnp.diagonal(factor, axis1=-2, axis2=-1) > 0
    triangular = jnp.isfinite(jnp.square(factor)) & (
        (factor == 0) | jnp.tril(jnp.ones_like(factor, bool))
    )
    valid = jnp.all(triangular, axis=(-2, -1)) & jnp.all(diagonal, axis=-1)
    if factor.ndim > 2:  # of several variables
        valid = jnp.all(valid, axis=-1)
    return jnp.broadcast_to(valid, batch)


def factor_shape(factor: Any) -> tuple[int, ...]:
    """The shape of a factor, or InputError where it is no array."""
    try:
        return np.shape(factor)
    except ValueError as error:
        raise InputError(f"the factor of a PatchCovariance is not an array: {error}") from error


def check_factor(factor: Any, shape: tuple[int, ...]) -> None:
    """Raises InputError for a factor of another shape, or of values that are none of a factor.

    Args:
        factor: see `PatchCovariance`; values are read where they are on the host.
        shape: of a patch of every series, `[P, C]` or `[B, P, C]`.
    """
    given, size = factor_shape(factor), shape[-2]
    full = (*shape[:-2], shape[-1], size, size)
    if not 2 <= len(given) <= len(full) or given != full[len(full) - len(given) :]:
        raise InputError(
            f"the factor of a PatchCovariance must be [P, P], [C, P, P] or, for each series, "
            f"[B, C, P, P]; patches are {shape}, got shape {given}."
        )
    if isinstance(factor, jax.Array):
        return
    values = np.asarray(factor)
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        raise InputError("the factor of a PatchCovariance must be finite real numbers.")
    diagonal = np.diagonal(values, axis1=-2, axis2=-1)
    with np.errstate(over="ignore", under="ignore"):
        squares = np.square(as_float32(values))
    least = np.diagonal(squares, axis1=-2, axis2=-1) < TINY
    if not np.isfinite(squares).all() or ((diagonal > 0) & least).any():
        size = np.abs(values)
        raise InputError(
            "the squares of the factor of a PatchCovariance must be numbers of float32; its "
            f"smallest diagonal entry is {diagonal.min():g}, its largest entry {size.max():g}. Put "
            "the units into its sigma."
        )
    if np.triu(values, 1).any() or (diagonal <= 0).any():
        raise InputError(
            "the factor of a PatchCovariance must be lower triangular with a positive diagonal, "
            f"such as np.linalg.cholesky(covariance); its smallest diagonal entry is "
            f"{diagonal.min():g}, its largest entry above the diagonal "
            f"{np.abs(np.triu(values, 1)).max():g}."
        )
