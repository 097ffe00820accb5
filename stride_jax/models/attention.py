"""TimeAttention: causal in time, across all variables, with a learned bias for own and other."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.config import TimerXLConfig
from stride_jax.models.rotary import rotate, token_positions

# The original's layers: weights uniform in +-1/sqrt(fan_in).
kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def attention_mask(num_vars: int, num_patches: int, covariate: bool) -> np.ndarray:
    """Which token sees which, `[C * N, C * N]` bool, query first.

    Joint: every variable sees the patches n' <= n of all variables. Covariate: the last variable
    sees itself up to n and ALL patches of the others; each other one sees itself up to n.
    """
    causal = np.tril(np.ones((num_patches, num_patches), bool))
    if not covariate:
        return np.tile(causal, (num_vars, num_vars))
    mask = np.kron(np.eye(num_vars, dtype=bool), causal)
    last = (num_vars - 1) * num_patches
    mask[last:, :last] = True
    return mask


class TimeAttention(nn.Module):
    """Multi-head attention over the tokens of all variables.

    Logits are `(q . k + bias) / sqrt(E)`: the learned bias (row 0 for another variable, row 1 for
    the same) is scaled too, as in the original's reference path.
    """

    config: TimerXLConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, num_vars: int, queries: np.ndarray, deterministic: bool
    ) -> jax.Array:
        """Attends from the tokens `queries` to all tokens.

        Args:
            x: `[B, C * N, D]`.
            num_vars: C.
            queries: `[Q]` indices of the tokens that ask.
            deterministic: no dropout; otherwise the rng `dropout` is consumed.

        Returns:
            `[B, Q, D]`.
        """
        config = self.config
        heads, width = config.num_heads, config.d_model // config.num_heads
        dtype = jnp.dtype(config.dtype)
        num_patches = x.shape[1] // num_vars
        positions = token_positions(num_vars, num_patches, config.variable_stride)
        variable = np.repeat(np.arange(num_vars), num_patches)

        def project(name: str, tokens: jax.Array) -> jax.Array:
            y = nn.Dense(config.d_model, dtype=dtype, kernel_init=kernel_init, name=name)(tokens)
            y = y.reshape(*y.shape[:2], heads, width)  # [B, S, D] -> [B, S, H, E]
            return y.transpose(0, 2, 1, 3)  # [B, H, S, E]

        q = rotate(project("query", x[:, queries]), positions[queries])  # [B, H, Q, E]
        k = rotate(project("key", x), positions)  # [B, H, S, E]
        v = project("value", x)
        bias = self.param("variable_bias", nn.initializers.normal(1.0), (2, heads))
        same = (variable[queries][:, None] == variable[None, :]).astype(int)  # [Q, S]
        logits = jnp.einsum("bhqe,bhse->bhqs", q, k).astype(jnp.float32)
        logits = logits + bias[same].transpose(2, 0, 1)[None]  # [Q, S, H] -> [1, H, Q, S]
        mask = attention_mask(num_vars, num_patches, config.covariate)[queries]  # [Q, S]
        logits = jnp.where(mask[None, None], logits / math.sqrt(width), -jnp.inf)
        weights = jax.nn.softmax(logits, axis=-1).astype(dtype)
        weights = nn.Dropout(config.dropout)(weights, deterministic=deterministic)
        y = jnp.einsum("bhqs,bhse->bhqe", weights, v).transpose(0, 2, 1, 3)  # [B, Q, H, E]
        y = y.reshape(*y.shape[:2], config.d_model)  # [B, Q, H, E] -> [B, Q, D]
        return nn.Dense(config.d_model, dtype=dtype, kernel_init=kernel_init, name="out")(y)
