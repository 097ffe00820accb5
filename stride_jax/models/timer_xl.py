"""Timer-XL (arXiv 2410.04803) as STRIDE uses it: one Flax module for target and draft."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.config import TimerXLConfig
from stride_jax.errors import InputError
from stride_jax.models.attention import TimeAttention, kernel_init
from stride_jax.normalization import window_stats
from stride_jax.types import PatchLaw

Params = dict[str, Any]
LOGVAR_LIMIT = 10.0
"""Log variances are clamped to +-10 in normalised units, as in the original."""


class Block(nn.Module):
    """A post-norm transformer block."""

    config: TimerXLConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, num_vars: int, queries: np.ndarray, deterministic: bool
    ) -> jax.Array:
        """`[B, C * N, D]` -> `[B, Q, D]`: the tokens `queries` after this block."""
        config = self.config
        dtype = jnp.dtype(config.dtype)

        def dense(width: int, name: str) -> nn.Dense:
            return nn.Dense(width, dtype=dtype, kernel_init=kernel_init, name=name)

        def drop(y: jax.Array) -> jax.Array:
            return nn.Dropout(config.dropout)(y, deterministic=deterministic)

        attended = TimeAttention(config, name="attention")(x, num_vars, queries, deterministic)
        x = x[:, queries] + drop(attended)
        x = nn.LayerNorm(epsilon=1e-5, dtype=dtype, name="norm1")(x)
        y = dense(config.d_ff, "ffn_in")(x)
        y = jax.nn.relu(y) if config.activation == "relu" else jax.nn.gelu(y, approximate=False)
        y = drop(dense(config.d_model, "ffn_out")(drop(y)))
        return nn.LayerNorm(epsilon=1e-5, dtype=dtype, name="norm2")(x + y)


class TimerXL(nn.Module):
    """Forecasts the next patch at every patch of the input."""

    config: TimerXLConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, *, deterministic: bool = True, last_only: bool = False
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Next-patch forecasts; position n of the output forecasts patch n + 1.

        Args:
            x: `[B, L, C]`, L a multiple of the patch length.
            deterministic: no dropout; otherwise the rng `dropout` is consumed.
            last_only: forecast only the patch after the last one. The last block then asks from
                the last patch alone, which saves most of a shallow model's work.

        Returns:
            The mean, `[B, L, C]` (`[B, P, C]` with last_only) float32 in the units of x, or
            `(mean, logvar)` for a gaussian head.

        Raises:
            InputError: x is not `[B, L, C]` with L a positive multiple of the patch length.
        """
        config = self.config
        if x.ndim != 3 or x.shape[1] == 0 or x.shape[1] % config.patch_len:
            raise InputError(
                f"x must be [B, L, C] with L a positive multiple of patch_len "
                f"{config.patch_len}, got shape {x.shape}."
            )
        batch, length, num_vars = x.shape
        num_patches = length // config.patch_len
        dtype = jnp.dtype(config.dtype)
        if config.instance_norm == "window":
            center, scale = window_stats(x)
            x = (x - center) / scale
        # [B, L, C] -> [B, C, L] -> [B, C * N, P]: token (c, n) has index c * N + n
        tokens = x.transpose(0, 2, 1).reshape(batch, num_vars * num_patches, config.patch_len)
        y = nn.Dense(config.d_model, dtype=dtype, kernel_init=kernel_init, name="embedding")(tokens)
        every = np.arange(num_vars * num_patches)
        kept = num_patches - 1 + num_patches * np.arange(num_vars) if last_only else every
        for layer in range(config.num_layers):
            queries = kept if layer == config.num_layers - 1 else every
            y = Block(config, name=f"block_{layer}")(y, num_vars, queries, deterministic)
        y = nn.LayerNorm(epsilon=1e-5, dtype=dtype, name="norm")(y)

        def head(name: str, bias: float) -> jax.Array:
            z = nn.Dense(
                config.patch_len,
                dtype=dtype,
                kernel_init=kernel_init,
                bias_init=nn.initializers.constant(bias),
                name=name,
            )(y)
            # [B, C * M, P] -> [B, C, M * P] -> [B, M * P, C], M the patches kept
            z = z.astype(jnp.float32).reshape(batch, num_vars, -1)
            return z.transpose(0, 2, 1)

        mean = head("head_mean" if config.head == "gaussian" else "head", 0.0)
        if config.instance_norm == "window":
            mean = mean * scale + center
        if config.head == "mean":
            return mean
        logvar = jnp.clip(head("head_logvar", -2.0), -LOGVAR_LIMIT, LOGVAR_LIMIT)
        if config.instance_norm == "window":
            logvar = logvar + 2 * jnp.log(scale)
        return mean, logvar


def init_params(key: jax.Array, config: TimerXLConfig) -> Params:
    """New parameters; `key` is consumed. Their shapes depend on the config alone."""
    dummy = jnp.zeros((1, config.patch_len, 1))
    params: Params = TimerXL(config).init({"params": key}, dummy)["params"]
    return params


@dataclass(frozen=True)
class _NextPatch:
    """`(params, window) -> PatchLaw`; hashable, so that equal configs share one compilation."""

    config: TimerXLConfig

    def __call__(self, params: Params, window: jax.Array) -> PatchLaw:
        out = TimerXL(self.config).apply({"params": params}, window[None], last_only=True)
        mean, logvar = out if isinstance(out, tuple) else (out, None)
        return PatchLaw(mean[0], None if logvar is None else logvar[0])


def make_predict(config: TimerXLConfig, params: Params) -> jax.tree_util.Partial:
    """Turns `(config, params)` into the black-box `predict` of `window_process`.

    Returns:
        `window [L, C] -> PatchLaw` of the next patch, `[P, C]`. It is a pytree whose leaves are
        the parameters, so they are traced: other parameters of the same shape do not recompile.
    """
    return jax.tree_util.Partial(_NextPatch(config), params)
