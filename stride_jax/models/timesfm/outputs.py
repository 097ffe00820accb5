"""Options of the original's wrapper that change the ten outputs after the decode.

A decode yields the outputs as the model has them. The original's `ForecastConfig` changes them
afterwards, and by default decodes the negative of a history too:

- `flip_invariance`: the mean of the forecast of x and the negative of that of -x. Each is a decode
  of its own, which feeds back its own median, so the two are two series of one batch.
- `continuous_quantiles`: the deciles lie around the decoded median as those of the long head lie
  around its own; at most `long_len` steps.
- `sort_quantiles`: deciles never cross the median, nor one another.
- `infer_positive`: no output below 0 for a history that is never below 0.

Left out: `normalize_inputs`, which the model's own running statistics make a matter of rounding
(`forecast` standardises every history in float64), `return_backcast`, and the two sizes, which are
those of the arrays. Missing values are no option: the original drops leading ones and draws
straight lines over the others, as `forecast(missing="interpolate")` does.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from stride_jax.errors import InputError
from stride_jax.models.timesfm.config import MEDIAN


@dataclass(frozen=True)
class OutputOptions:
    """The original's options, with its defaults; see the module.

    Attributes:
        flip_invariance: its `force_flip_invariance`.
        continuous_quantiles: its `use_continuous_quantile_head`.
        sort_quantiles: its `fix_quantile_crossing`.
        infer_positive: its `infer_is_positive`.
    """

    flip_invariance: bool = True
    continuous_quantiles: bool = False
    sort_quantiles: bool = False
    infer_positive: bool = True


def read_outputs(
    options: OutputOptions,
    context: jax.Array,
    outputs: jax.Array,
    *,
    flipped: jax.Array | None = None,
    long: jax.Array | None = None,
    long_flipped: jax.Array | None = None,
) -> jax.Array:
    """The outputs of a forecast as the original's wrapper returns them, `[H, C, Q]`.

    Args:
        options: which changes are made.
        context: the history `[L, C]`, without padding.
        outputs: `[H, C, Q]`, the outputs of the decoded patches, the mean first.
        flipped: the same of the history's negative, for `flip_invariance`.
        long: of the long head after the history, `[long_len, C, Q]` (`long_outputs` of the
            process), for `continuous_quantiles`.
        long_flipped: the same of the history's negative, where both are on.

    Raises:
        InputError: an option without the array it needs, or a horizon beyond the long head.
    """
    if options.flip_invariance:
        outputs = _both_signs(outputs, _needed("flip_invariance", "flipped", flipped))
    if options.continuous_quantiles:
        long = _needed("continuous_quantiles", "long", long)
        if options.flip_invariance:
            long = _both_signs(long, _needed("continuous_quantiles", "long_flipped", long_flipped))
        outputs = _around_median(outputs, long)
    if options.sort_quantiles:
        outputs = _sorted(outputs)
    if options.infer_positive:
        positive = jnp.all(context >= 0, axis=0)[None, :, None]  # [1, C, 1]
        outputs = jnp.where(positive, jnp.maximum(outputs, 0), outputs)
    return outputs


def _needed(option: str, name: str, value: jax.Array | None) -> jax.Array:
    if value is None:
        raise InputError(f"{option} needs the argument {name} of read_outputs.")
    return value


def _both_signs(outputs: jax.Array, flipped: jax.Array) -> jax.Array:
    """The mean of a forecast and of that of the negative history, turned back."""
    mirrored = jnp.concatenate([flipped[..., :1], flipped[..., :0:-1]], axis=-1)
    return (outputs - mirrored) / 2


def _around_median(outputs: jax.Array, long: jax.Array) -> jax.Array:
    """The deciles of the long head, moved to the decoded median; the mean stays."""
    if len(outputs) > len(long):
        raise InputError(
            f"continuous_quantiles reaches {len(long)} steps, the forecast has {len(outputs)}."
        )
    long = long[: len(outputs)]
    median = outputs[..., MEDIAN : MEDIAN + 1]
    moved = long[..., 1:] - long[..., MEDIAN : MEDIAN + 1] + median
    moved = moved.at[..., MEDIAN - 1].set(outputs[..., MEDIAN])
    return jnp.concatenate([outputs[..., :1], moved], axis=-1)


def _sorted(outputs: jax.Array) -> jax.Array:
    """Deciles below the median pushed down from it, and above it up; the median stays."""
    below = jax.lax.cummin(outputs[..., 1 : MEDIAN + 1], axis=outputs.ndim - 1, reverse=True)
    above = jax.lax.cummax(outputs[..., MEDIAN:], axis=outputs.ndim - 1)
    return jnp.concatenate([outputs[..., :1], below, above[..., 1:]], axis=-1)
