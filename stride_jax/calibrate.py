"""Settings read off the validation split."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from stride_jax.data.windows import Windows, padded_batches
from stride_jax.decoding import compiled
from stride_jax.processes import Process


def calibrate_sigma(target: Process, values: jax.Array, windows: Windows, batch_size: int) -> float:
    """The residual spread of the target: the root of its one-patch validation MSE.

    One sigma for all steps and variables, in the units of `values`.

    Args:
        target: the process.
        values: `[T, C]`.
        windows: validation windows of the context and one patch.
        batch_size: windows at once.
    """
    scale = calibrate_scale(target, values, windows, batch_size)
    return float(jnp.sqrt(jnp.mean(jnp.square(scale))))


def calibrate_scale(
    target: Process, values: jax.Array, windows: Windows, batch_size: int
) -> jax.Array:
    """The same for each step and variable of a patch: a diagonal scale, `[P, C]`.

    Separate windows hold one variable, and share one scale: `[P, 1]`.
    """
    return jnp.sqrt(_one_patch_mse(target, values, windows=windows, batch_size=batch_size))


@compiled
def _one_patch_mse(
    target: Process, values: jax.Array, *, windows: Windows, batch_size: int
) -> jax.Array:
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

    num_vars = 1 if windows.separate else values.shape[1]
    start = jnp.zeros((target.patch_len, num_vars), jnp.float32)
    total, _ = jax.lax.scan(body, start, (index, weight))
    return total / windows.count
