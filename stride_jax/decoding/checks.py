"""Checks of arguments: shapes always, values only where they are on the host.

The values of a `jax.Array`, traced or not, are never read: that would wait for the device.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.config import LARGEST_INDEX
from stride_jax.decoding.keys import check_key
from stride_jax.decoding.scale import (
    HUGE,
    TINY,
    PatchCovariance,
    Scale,
    as_float32,
    check_factor,
    host_sigma,
    make_scale,
    valid_factor,
)
from stride_jax.decoding.types import DecodeConfig, num_patches
from stride_jax.errors import InputError


def on_host(value: Any) -> bool:
    """Whether the values can be read without waiting for a device: no `jax.Array`, none traced."""
    return not isinstance(value, jax.Array)


def _as(value: Any, dtype: Any) -> Any:
    """An array of a type: of numpy for a value of the host, else where it is."""
    if on_host(value):
        return as_float32(value) if dtype == np.float32 else np.asarray(value, dtype)
    return value if value.dtype == dtype else value.astype(dtype)


def check_scalar(name: str, value: Any, *, at_least: float) -> None:
    """Raises InputError unless `value` is a scalar and, on the host, finite and not too small.

    It must still be finite in the 32 bits that a decode takes of it.
    """
    if np.ndim(value) != 0:
        raise InputError(f"{name} must be a scalar, got shape {np.shape(value)}.")
    if not on_host(value):
        return
    number = np.asarray(value).dtype.kind in "biuf"
    if not (number and np.isfinite(value) and value >= at_least):
        raise InputError(f"{name} must be finite and at least {at_least}, got {value}.")
    if np.asarray(value).dtype.kind in "iu" and not -LARGEST_INDEX <= value <= LARGEST_INDEX:
        raise InputError(f"{name} must be at most {LARGEST_INDEX} as a whole number, got {value}.")
    if not np.isfinite(as_float32(value)):
        raise InputError(f"{name} must be a number of float32, to {HUGE:.2g}, got {value}.")


class Inputs(NamedTuple):
    """The inputs of a decode.

    Attributes:
        key: folded, not consumed; a typed key or its raw key data.
        context: `[L, C]` or `[B, L, C]`, float32.
        sigma: scalar, `[C]`, `[P, C]`, or with a B in front of the last, one for each series; or a
            `PatchCovariance`.
        series_index: scalar or `[B]` int32, default 0..B-1.
        lengths: scalar or `[B]` int, steps of each history at the end of its context; the steps
            before them are padding. None for all L.
    """

    key: jax.Array
    context: jax.Array
    sigma: float | jax.Array | PatchCovariance
    series_index: jax.Array | None
    lengths: jax.Array | None

    def as_arrays(self) -> Inputs:
        """With context and sigma as float32 and whole numbers as int32, none of them read back.

        So lists, Python numbers and arrays of any type are taken by the same compiled program.
        """
        lengths = None if self.lengths is None else _as(self.lengths, np.int32)
        index = self.series_index
        if index is not None and on_host(index):
            index = _as(index, np.int32)
        context, sigma = _as(self.context, np.float32), self.sigma
        if isinstance(sigma, PatchCovariance):
            sigma = PatchCovariance(*(_as(x, np.float32) for x in (sigma.factor, sigma.sigma)))
        else:
            sigma = _as(sigma, np.float32)
        return self._replace(context=context, sigma=sigma, series_index=index, lengths=lengths)

    def valid(self, patch_len: int, *, speculative: bool, unit: int | None = None) -> jax.Array:
        """Whether `check_inputs` accepts the values, for each series: bool, scalar or `[B]`.

        It is computed inside the compiled program, where arrays of a device are not read back.

        Args:
            patch_len: P.
            speculative: whether a draft proposes, which needs a sigma above 0: a rule draws with
                it, or counts the gap of two means in it.
            unit: as in `check_inputs`.
        """
        unit = patch_len if unit is None else unit
        steps, lengths = self.context.shape[-2], self.lengths
        finite = jnp.isfinite(self.context)
        sigma = self.scale(patch_len).sigma
        # a smaller one than TINY is 0 to some processors
        scales = jnp.isfinite(sigma) & (sigma >= (TINY if speculative else 0))
        valid = jnp.all(scales, axis=(-2, -1))
        if isinstance(self.sigma, PatchCovariance):
            valid &= valid_factor(jnp.asarray(self.sigma.factor), valid.shape)
        if lengths is not None:
            place = jnp.broadcast_to(jnp.arange(steps), self.context.shape[:-1])  # [L] or [B, L]
            finite |= (place < (steps - lengths)[..., None])[..., None]
            valid &= (lengths >= unit) & (lengths <= steps) & (lengths % unit == 0)
        return valid & jnp.all(finite, axis=(-2, -1))

    def scale(self, patch_len: int) -> Scale:
        """The scale of a patch, with a leading B as the context has one; float32."""
        return make_scale(self.sigma, (*self.context.shape[:-2], patch_len, self.context.shape[-1]))


def check_size(shape: tuple[int, ...], patch_len: int, config: DecodeConfig) -> None:
    """Raises InputError for a forecast of more values than int32 counts.

    Args:
        shape: of the context, `[L, C]` or `[B, L, C]`.
        patch_len: P.
        config: horizon, K and paths.
    """
    series, paths = math.prod(shape[:-2]), config.num_paths or 1
    steps = (num_patches(config.horizon, patch_len) + config.num_draft + 1) * patch_len
    values = series * paths * steps * shape[-1]
    if values > LARGEST_INDEX:
        raise InputError(
            f"horizon {config.horizon} with {series} series, {paths} paths, {shape[-1]} variables "
            f"and num_draft {config.num_draft} is {values} values at once, more than "
            f"{LARGEST_INDEX}; take a shorter horizon, fewer paths or fewer series."
        )


def check_inputs(
    inputs: Inputs,
    patch_len: int,
    config: DecodeConfig,
    *,
    speculative: bool,
    unit: int | None = None,
) -> None:
    """Checks shapes always, and values where they are on the host; see also `Inputs.valid`.

    Args:
        inputs: to check.
        patch_len: P.
        config: horizon, K and paths.
        speculative: whether a draft proposes, which needs a sigma above 0: a rule draws with it,
            or counts the gap of two means in it.
        unit: lengths are a whole number of so many steps; None for those of a patch.

    Raises:
        InputError: a key that is not one PRNG key; more values than can be counted; context not
            `[L, C]` or `[B, L, C]`, shorter than a patch, not real numbers or not finite; sigma of
            no real numbers, of a shape that does not broadcast to `[P, C]`, negative, not finite as
            float32, or 0 as float32 where a draft proposes; a covariance whose factor is none; a
            series index that is not one number of int32 per series; lengths that are not a whole
            number of units per series, at most L.
    """
    key, context, sigma, series_index, lengths = inputs
    check_key(key)
    shape = array_shape("context", context)
    if len(shape) not in (2, 3) or 0 in shape:
        raise InputError(f"context must be [L, C] or [B, L, C] without empty axes, got {shape}.")
    kind = _dtype(context)
    if not _is_real(kind):
        raise InputError(f"context must be real numbers, got {kind}.")
    unit = patch_len if unit is None else unit
    if shape[-2] < unit:
        raise InputError(f"context has {shape[-2]} steps, fewer than one patch of {patch_len}.")
    _check_series_index(series_index, shape)
    _check_lengths(lengths, shape, unit)
    check_size(shape, patch_len, config)
    if on_host(context) and on_host(lengths):
        bad = ~np.isfinite(as_float32(context))
        if lengths is not None:
            # what is before the history is padding
            first = shape[-2] - np.asarray(lengths, np.int64)[..., None]
            bad &= (np.arange(shape[-2]) >= first)[..., None]
        if bad.any():
            where = tuple(int(i) for i in np.argwhere(bad)[0])
            raise InputError(
                f"context has {int(bad.sum())} values that are NaN or infinite, the first at "
                f"{where}; fill or drop them before forecasting."
            )
    _check_sigma(sigma, (*shape[:-2], patch_len, shape[-1]), speculative)


def _check_series_index(series_index: Any, shape: tuple[int, ...]) -> None:
    if series_index is None:
        return
    if np.shape(series_index) != shape[:-2]:
        raise InputError(
            f"series_index must have one number per series, shape {shape[:-2]}, got "
            f"{np.shape(series_index)}."
        )
    if not np.issubdtype(_dtype(series_index), np.integer):
        raise InputError(f"series_index must be whole numbers, got {_dtype(series_index)}.")
    if not on_host(series_index):
        return
    values = np.atleast_1d(np.asarray(series_index))
    bad = (values < -LARGEST_INDEX - 1) | (values > LARGEST_INDEX)
    if bad.any():  # JAX would take the last 32 bits, which are those of another series
        raise InputError(
            f"series_index must be from {-LARGEST_INDEX - 1} to {LARGEST_INDEX}, got "
            f"{values[bad][0]}; number the series, or take 31 bits of a hash."
        )


def _check_lengths(lengths: Any, shape: tuple[int, ...], unit: int) -> None:
    if lengths is None:
        return
    whole = np.issubdtype(_dtype(lengths), np.integer)
    if np.shape(lengths) != shape[:-2] or not whole:
        raise InputError(
            f"lengths must be one whole number per series, shape {shape[:-2]}, got "
            f"{_dtype(lengths)} of shape {np.shape(lengths)}."
        )
    if not on_host(lengths):
        return
    values = np.atleast_1d(np.asarray(lengths))
    bad = (values < unit) | (values > shape[-2]) | (values % unit != 0)
    if bad.any():
        allowed = "from 1 on" if unit == 1 else f"whole patches of {unit} steps"
        raise InputError(
            f"lengths must be {allowed}, at most the {shape[-2]} of the context, got "
            f"{values[bad][0]}."
        )


def array_shape(name: str, value: Any) -> tuple[int, ...]:
    """The shape of what becomes an array, or InputError."""
    try:
        return np.shape(value)
    except ValueError as error:
        raise InputError(f"{name} is not an array: {error}") from error


def _is_real(kind: np.dtype[Any]) -> bool:
    return bool(jnp.issubdtype(kind, jnp.floating) or jnp.issubdtype(kind, jnp.integer))


def _dtype(value: Any) -> np.dtype[Any]:
    return np.dtype(value.dtype) if hasattr(value, "dtype") else np.asarray(value).dtype


def _check_sigma(sigma: Any, shape: tuple[int, ...], speculative: bool) -> None:
    """`shape` is that of a patch of every series, `[P, C]` or `[B, P, C]`."""
    covariance = sigma
    if isinstance(covariance, PatchCovariance):
        check_factor(covariance.factor, shape)
        sigma = covariance.sigma
    sizes = array_shape("sigma", sigma)[::-1]
    if not _is_real(_dtype(sigma)):
        raise InputError(f"sigma must be real numbers, got {sigma!r}.")
    wrong = any(n not in (1, p) for n, p in zip(sizes, shape[::-1], strict=False))
    if len(sizes) > len(shape) or wrong:
        raise InputError(
            f"sigma must be a scalar, [C], [P, C] or, for each series, [B, P, C]; patches are "
            f"{shape}, got shape {np.shape(sigma)}."
        )
    if not on_host(sigma):
        return
    values = np.asarray(sigma)
    if not np.isfinite(values).all() or (values < 0).any():
        raise InputError(f"sigma must be finite and not negative, got {sigma}.")
    if speculative and (values == 0).any():
        raise InputError(
            f"sigma must be > 0 where a draft proposes, got {sigma}; sigma 0, the mean path, is "
            "for the target or the draft alone."
        )
    _check_stds("sigma", as_float32(sigma), sigma, speculative)
    if isinstance(covariance, PatchCovariance) and on_host(covariance.factor):
        name = "sigma times the stds of the factor"
        _check_stds(name, host_sigma(covariance, shape), sigma, speculative)


def _check_stds(name: str, values: np.ndarray, given: Any, speculative: bool) -> None:
    """Raises InputError for stds that are infinite as float32, or 0 where a draft proposes.

    Args:
        name: of the stds.
        values: the stds, float32.
        given: the sigma that they come from.
        speculative: whether a draft proposes.
    """
    if not np.isfinite(values).all():
        raise InputError(f"{name} must be at most {HUGE:.2g}, all that float32 holds, got {given}.")
    if speculative and (values < TINY).any():
        raise InputError(
            f"{name} must be at least {TINY:.2g}, the least above 0 that float32 holds, where a "
            f"draft proposes, got {given}."
        )
