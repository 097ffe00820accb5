"""Rotary position embedding on the first half of each head (Timer-XL)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def token_positions(num_vars: int, num_patches: int, variable_stride: int | None) -> np.ndarray:
    """Rotary position of each token, `[C * N]` int; token (c, n) stands at index `c * N + n`.

    `variable_stride=None` takes N: the position is the token's index, as in the original code.
    """
    stride = num_patches if variable_stride is None else variable_stride
    variable = np.arange(num_vars)[:, None] * stride
    return (variable + np.arange(num_patches)[None, :]).reshape(-1)  # [C, N] -> [C * N]


def frequencies(width: int) -> np.ndarray:
    """Angles per position of the W / 2 pairs of W rotated numbers: `10000 ** (-2 i / W)`."""
    return 10000.0 ** (-np.arange(0, width, 2) / width)


def rotate(x: jax.Array, positions: np.ndarray | jax.Array) -> jax.Array:
    """Rotates the pairs (0, 1), (2, 3), ... of the first half of the last axis.

    With `W = E / 2` rotated numbers, pair i turns by `position * 10000 ** (-2 i / W)`.

    Args:
        x: `[B, H, S, E]` queries or keys.
        positions: `[S]`.

    Returns:
        `[B, H, S, E]` in the dtype of x; the second half is untouched.
    """
    width = x.shape[-1] // 2
    frequency = 10000.0 ** (-np.arange(0, width, 2) / width)  # [W / 2]
    if isinstance(positions, np.ndarray):
        angle = positions[:, None] * frequency[None, :]  # [S, W / 2], float64 on the host
        cosine, sine = jnp.asarray(np.cos(angle)), jnp.asarray(np.sin(angle))
    else:
        places = jnp.asarray(positions, jnp.float32)
        traced = places[:, None] * jnp.asarray(frequency, jnp.float32)[None, :]
        cosine, sine = jnp.cos(traced), jnp.sin(traced)
    cos = cosine.astype(x.dtype)[None, None]  # [1, 1, S, W / 2]
    sin = sine.astype(x.dtype)[None, None]
    even, odd = x[..., 0:width:2], x[..., 1:width:2]  # [B, H, S, W / 2] each
    turned = jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1)
    turned = turned.reshape(*x.shape[:-1], width)  # [B, H, S, W / 2, 2] -> [B, H, S, W]
    return jnp.concatenate([turned, x[..., width:]], axis=-1)
