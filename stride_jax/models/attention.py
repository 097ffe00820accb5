"""TimeAttention: causal in time, across all variables, with a learned bias for own and other."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.models.config import TimerXLConfig
from stride_jax.models.rotary import rotate, token_positions

# The original's layers: weights uniform in +-1/sqrt(fan_in).
kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")

Array = jax.Array | np.ndarray


class Layout(NamedTuple):
    """Which token stands where and sees what. Tokens are variable-major: (c, n) is `c * N + n`.

    Attributes:
        queries: `[Q]` indices of the tokens that ask.
        positions: `[C * N]` rotary position of every token.
        same: `[Q, S]` int, 1 where query and key belong to one variable; keys are in the order of
            the tokens, or patch by patch (see `keys_by_patch`).
        visible: `[Q, S]` bool, likewise.
    """

    queries: np.ndarray
    positions: Array
    same: np.ndarray
    visible: Array


def variable_mask(num_vars: int, covariate: bool) -> np.ndarray:
    """Which variable sees which, `[C, C]` bool: all, or itself and the last one all others."""
    if not covariate:
        return np.ones((num_vars, num_vars), bool)
    mask = np.eye(num_vars, dtype=bool)
    mask[-1] = True
    return mask


def attention_mask(num_vars: int, num_patches: int, config: TimerXLConfig) -> np.ndarray:
    """Which token sees which, `[C * N, C * N]` bool, query first.

    Patch n sees the patches n' <= n of its own and the other variables, with `max_patches` the
    last that many of them. Covariate: the last variable sees the others, each other one only
    itself; with the original's mask the last one sees ALL patches of the others.
    """
    ones = np.ones((num_patches, num_patches), bool)
    causal = np.tril(ones)
    if config.max_patches is not None:
        causal &= np.triu(ones, 1 - config.max_patches)
    mask = np.kron(variable_mask(num_vars, config.covariate), causal)
    if config.covariate and config.covariate_mask == "original":
        last = (num_vars - 1) * num_patches
        mask[last:, :last] = True
    return mask


def full_layout(
    config: TimerXLConfig, num_vars: int, num_patches: int, *, last_only: bool = False
) -> Layout:
    """All tokens of an input see each other; with `last_only` only the last patch asks."""
    every = np.arange(num_vars * num_patches)
    queries = num_patches - 1 + num_patches * np.arange(num_vars) if last_only else every
    variable = np.repeat(np.arange(num_vars), num_patches)
    mask = attention_mask(num_vars, num_patches, config)
    return Layout(
        queries=queries,
        positions=token_positions(num_vars, num_patches, config.variable_stride),
        same=(variable[queries][:, None] == variable[None, :]).astype(int),
        visible=mask[queries],
    )


def padded(layout: Layout, num_vars: int, skip: Array | None) -> Layout:
    """The layout of a whole input whose first `skip` patches nobody sees but they themselves.

    They see themselves so that their softmax is over something.
    """
    if skip is None:
        return layout
    tokens = layout.same.shape[1]
    patch = np.tile(np.arange(tokens // num_vars), num_vars)  # [C * N]
    itself = layout.queries[:, None] == np.arange(tokens)[None, :]
    return layout._replace(visible=(layout.visible & (patch >= skip)[None]) | itself)


def keys_by_patch(layout: Layout, num_vars: int) -> Layout:
    """The layout of a whole input whose keys come patch by patch: (c, n) is `n * C + c`."""

    def turned(of_keys: Any) -> Any:
        # [Q, C * N] -> [Q, C, N] -> [Q, N * C]
        return of_keys.reshape(len(of_keys), num_vars, -1).swapaxes(1, 2).reshape(of_keys.shape)

    return layout._replace(same=turned(layout.same), visible=turned(layout.visible))


def cached_layout(
    config: TimerXLConfig,
    num_vars: int,
    prefill: int,
    cache: int,
    count: int,
    start: Array,
    skip: Array | None = None,
) -> Layout:
    """The layout of `count` new patches from entry `start` on: prefill, cache, each other.

    Keys come in the order prefill, cache; each patch by patch. Of the whole sequence the first
    `skip` patches are seen by nobody but themselves.
    """
    variable = np.arange(num_vars)
    time = prefill + start + np.arange(count)  # [k] patch numbers in the whole sequence
    position = variable[:, None] * (config.variable_stride or 0) + time[None, :]  # [C, k]
    asking = np.repeat(variable, count)  # [C * k]
    asked = jnp.tile(time, num_vars)[:, None]  # [C * k, 1]
    owner = np.tile(variable, prefill + cache)  # [S]
    seen = np.repeat(np.arange(prefill + cache), num_vars)  # [S]
    visible = seen[None, :] <= asked
    if config.max_patches is not None:
        visible &= seen[None, :] > asked - config.max_patches
    same = asking[:, None] == owner[None, :]
    if skip is not None:
        visible &= (seen >= skip)[None] | (same & (seen[None, :] == asked))
    return Layout(
        queries=np.arange(num_vars * count),
        positions=position.reshape(-1),  # [C, k] -> [C * k]
        same=same.astype(int),
        visible=visible & variable_mask(num_vars, config.covariate)[asking][:, owner],
    )


class TimeAttention(nn.Module):
    """Multi-head attention over the tokens of all variables.

    Logits are `(q . k + bias) / sqrt(E)`: the learned bias (row 0 for another variable, row 1 for
    the same) is scaled too, as in the original's reference path.
    """

    config: TimerXLConfig

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        layout: Layout,
        deterministic: bool,
    ) -> jax.Array:
        """Attends from the layout's queries to all tokens.

        Args:
            x: `[B, C * N, D]`.
            layout: see `Layout`.
            deterministic: no dropout; otherwise the rng `dropout` is consumed.

        Returns:
            `[B, Q, D]`.
        """
        config = self.config
        heads, width = config.num_heads, config.d_model // config.num_heads
        dtype = jnp.dtype(config.dtype)

        def project(name: str, tokens: jax.Array) -> jax.Array:
            y = dense(config, config.d_model, name)(tokens)
            y = y.reshape(*y.shape[:2], heads, width)  # [B, S, D] -> [B, S, H, E]
            return y.transpose(0, 2, 1, 3)  # [B, H, S, E]

        q = rotate(project("query", x[:, layout.queries]), layout.positions[layout.queries])
        k = rotate(project("key", x), layout.positions)  # [B, H, C * N, E]
        v = project("value", x)
        bias = self.param("variable_bias", nn.initializers.normal(1.0, jnp.float32), (2, heads))
        logits = jnp.einsum("bhqe,bhse->bhqs", q, k, precision=config.precision)
        logits = logits.astype(jnp.float32)  # [B, H, Q, S]
        # [1, H, Q, S]; a choice of two, where a lookup in the table would be a gather
        other, same = bias[0][None, :, None, None], bias[1][None, :, None, None]
        logits = logits + jnp.where((layout.same > 0)[None, None], same, other)
        logits = jnp.where(layout.visible[None, None], logits / math.sqrt(width), -jnp.inf)
        weights = jax.nn.softmax(logits, axis=-1).astype(dtype)
        weights = nn.Dropout(config.dropout)(weights, deterministic=deterministic)
        y = jnp.einsum("bhqs,bhse->bqhe", weights, v, precision=config.precision)
        y = y.reshape(*y.shape[:2], config.d_model)  # [B, Q, H, E] -> [B, Q, D]
        return dense(config, config.d_model, "out")(y)


def dense(config: TimerXLConfig, width: int, name: str | None = None, **options: Any) -> nn.Dense:
    """An affine layer in the dtype and the precision of the config."""
    return nn.Dense(
        width,
        dtype=jnp.dtype(config.dtype),
        precision=config.precision,
        kernel_init=kernel_init,
        name=name,
        **options,
    )
