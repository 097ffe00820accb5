"""The std of a target's predictions, measured on a split."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from stride_jax.data.gaps import Gaps
from stride_jax.data.windows import Windows, padded_batches
from stride_jax.decoding.base import Process
from stride_jax.decoding.compiled import compiled
from stride_jax.errors import InputError


def calibrate_sigma(
    target: Process, values: jax.Array | Gaps, windows: Windows, batch_size: int
) -> float:
    """The residual spread of the target: the root of its one-patch validation MSE.

    One sigma for all steps and variables, in the units of `values`.

    Args:
        target: the process.
        values: `[T, C]`, or with gaps; what was not observed does not count.
        windows: validation windows of the context and one patch.
        batch_size: windows at once.

    Raises:
        InputError: a step of a patch was observed in none of the windows.
    """
    scale = calibrate_scale(target, values, windows, batch_size)
    return float(jnp.sqrt(jnp.mean(jnp.square(scale))))


def calibrate_scale(
    target: Process, values: jax.Array | Gaps, windows: Windows, batch_size: int
) -> jax.Array:
    """The same for each step and variable of a patch: a diagonal scale, `[P, C]`.

    Separate windows hold one variable, and share one scale: `[P, 1]`.
    """
    error, seen = _one_patch_mse(target, values, windows=windows, batch_size=batch_size)
    if not bool(jnp.all(seen > 0)):
        raise InputError(
            "sigma cannot be calibrated: some steps were observed in none of the "
            f"{windows.count} validation windows; give --sigma."
        )
    return jnp.sqrt(error)


@compiled
def _one_patch_mse(
    target: Process, values: jax.Array | Gaps, *, windows: Windows, batch_size: int
) -> tuple[jax.Array, jax.Array | int]:
    """The mean squared error `[P, C]`, and over how many windows."""
    index, weight = padded_batches(windows.count, batch_size)

    def error(series: jax.Array) -> jax.Array:
        context = series[: windows.length - target.patch_len]
        memory = target.prepare(context)
        nothing = jnp.zeros((0, target.patch_len, series.shape[1]), jnp.float32)
        laws, _ = target.verify(memory, target.start(memory, 1), nothing)
        mean = laws.mean[0]
        return jnp.square(mean - series[windows.length - target.patch_len :])

    def body(total: jax.Array, batch: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        errors = jax.vmap(error)(windows.gather(values, batch[0]))  # [B, P, C]
        return total + jnp.tensordot(batch[1], errors, axes=1), None

    def with_missing(sums: jax.Array, batch: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        series = windows.gather(values, batch[0])
        seen = ~jnp.isnan(series[:, windows.length - target.patch_len :])
        errors = jnp.where(seen, jax.vmap(error)(series), 0.0)
        found = jnp.stack([errors, seen.astype(jnp.float32)])  # [2, B, P, C]
        return sums + jnp.tensordot(found, batch[1], axes=((1,), (0,))), None

    shape = target.patch_len, 1 if windows.separate else windows.num_vars
    if isinstance(values, Gaps):
        sums, _ = jax.lax.scan(with_missing, jnp.zeros((2, *shape), jnp.float32), (index, weight))
        return sums[0] / sums[1], sums[1]
    total, _ = jax.lax.scan(body, jnp.zeros(shape, jnp.float32), (index, weight))
    return total / windows.count, windows.count
