"""Timer-XL (arXiv 2410.04803) as STRIDE uses it: one Flax module for target and draft."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from stride_jax.decoding.normalization import running_moments, std, window_stats
from stride_jax.errors import InputError
from stride_jax.models.attention import Layout, TimeAttention, dense, full_layout
from stride_jax.models.config import LOGVAR_LIMIT, TimerXLConfig
from stride_jax.types import PatchDistribution

Params = dict[str, Any]


class Block(nn.Module):
    """A post-norm transformer block."""

    config: TimerXLConfig

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        layout: Layout,
        deterministic: bool,
    ) -> jax.Array:
        """`[B, C * N, D]` -> `[B, Q, D]`, the queries after this block."""
        config = self.config
        dtype = jnp.dtype(config.dtype)

        def drop(y: jax.Array) -> jax.Array:
            return nn.Dropout(config.dropout)(y, deterministic=deterministic)

        attended = TimeAttention(config, name="attention")(x, layout, deterministic)
        x = x[:, layout.queries] + drop(attended)
        x = nn.LayerNorm(epsilon=1e-5, dtype=dtype, name="norm1")(x)
        y = dense(config, config.d_ff, "ffn_in")(x)
        y = jax.nn.relu(y) if config.activation == "relu" else jax.nn.gelu(y, approximate=False)
        y = drop(dense(config, config.d_model, "ffn_out")(drop(y)))
        return nn.LayerNorm(epsilon=1e-5, dtype=dtype, name="norm2")(x + y)


class TimerXL(nn.Module):
    """Forecasts the next patch (or the next few) at every patch of the input."""

    config: TimerXLConfig

    def setup(self) -> None:
        """Layers; their names are those of the stored parameters."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        self.embedding = dense(config, config.d_model)
        self.block = [Block(config) for _ in range(config.num_layers)]
        self.norm = nn.LayerNorm(epsilon=1e-5, dtype=dtype)

        def head(bias: float) -> nn.Dense:
            width = config.patch_len * config.output_patches
            return dense(config, width, bias_init=nn.initializers.constant(bias))

        if config.head == "mean":
            self.head = head(0.0)
        else:
            self.head_mean, self.head_logvar = head(0.0), head(-2.0)

    def __call__(
        self, x: jax.Array, *, deterministic: bool = True, last_only: bool = False
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Next-patch forecasts; position n of the output forecasts patch n + 1.

        Args:
            x: `[B, L, C]`, L a multiple of the patch length.
            deterministic: no dropout; otherwise the rng `dropout` is consumed.
            last_only: forecast only what follows the last patch. The last block then asks from
                the last patch alone, which saves most of a shallow model's work.

        Returns:
            The mean, `[B, L, C]` (`[B, P, C]` with last_only) float32 in the units of x, or
            `(mean, logvar)` for a gaussian head. With M = `output_patches` > 1 each position
            gives M patches: `[B, N * M * P, C]`, or `[B, M * P, C]`.

        Raises:
            InputError: x is not `[B, L, C]` with L a positive multiple of the patch length.
        """
        config = self.config
        if x.ndim != 3 or x.shape[1] == 0 or x.shape[1] % config.patch_len:
            raise InputError(
                f"x must be [B, L, C] with L a positive multiple of patch_len "
                f"{config.patch_len}, got shape {x.shape}."
            )
        batch, _, num_vars = x.shape
        patches = x.reshape(batch, -1, config.patch_len, num_vars)  # [B, L, C] -> [B, N, P, C]
        center, scale, origin = instance_stats(config, patches)
        sizes = config, num_vars, patches.shape[1]
        normal = (patches - origin - center) / scale
        features = self.features(
            normal,
            full_layout(*sizes),
            full_layout(*sizes, last_only=True) if last_only else None,
            deterministic=deterministic,
        )
        prediction = self.predictions(features, num_vars, normal)
        if last_only:
            center, scale = center[:, -1:], scale[:, -1:]
        mean = prediction.mean * scale + center + origin
        mean = mean.reshape(batch, -1, num_vars)  # [B, N, M * P, C] -> [B, N * M * P, C]
        if prediction.logvar is None:
            return mean
        logvar = prediction.logvar + 2 * jnp.log(scale)
        return mean, logvar.reshape(batch, -1, num_vars)

    def features(
        self,
        patches: jax.Array,
        layout: Layout,
        last: Layout | None = None,
        *,
        deterministic: bool = True,
    ) -> jax.Array:
        """Normalised patches `[B, N, P, C]` to what the heads read.

        Args:
            patches: normalised.
            layout: of the tokens.
            last: layout of the last block, where it asks from fewer tokens.
            deterministic: no dropout.

        Returns:
            `[B, Q, D]`.
        """
        batch, count, _, num_vars = patches.shape
        # [B, N, P, C] -> [B, C, N, P] -> [B, C * N, P]: token (c, n) has index c * N + n
        tokens = patches.transpose(0, 3, 1, 2).reshape(batch, num_vars * count, -1)
        y = self.embedding(tokens)
        for i, block in enumerate(self.block):
            asked = last if last is not None and i == len(self.block) - 1 else layout

            def run(block: Block, y: jax.Array, asked: Layout = asked) -> jax.Array:
                return block(y, asked, deterministic)

            y = (nn.remat(run) if self.config.remat else run)(block, y)
        return self.norm(y)

    def predictions(
        self, features: jax.Array, num_vars: int, patches: jax.Array
    ) -> PatchDistribution:
        """Predictions `[B, N, M * P, C]`, normalised, float32, from features `[B, C * N, D]`.

        `patches`, `[B, >= N, P, C]` normalised, are those of the input; the last N of them end
        with what the config's anchor may count from.
        """

        def entries(z: jax.Array) -> jax.Array:
            z = z.astype(jnp.float32)
            # [B, C * N, M * P] -> [B, C, N, M * P] -> [B, N, M * P, C]
            return z.reshape(z.shape[0], num_vars, -1, z.shape[-1]).transpose(0, 2, 3, 1)

        def anchored(mean: jax.Array) -> jax.Array:
            if self.config.anchor == "mean":
                return mean
            return mean + patches[:, patches.shape[1] - mean.shape[1] :, -1:].astype(jnp.float32)

        if self.config.head == "mean":
            return PatchDistribution(anchored(entries(self.head(features))))
        logvar = jnp.clip(self.head_logvar(features), -LOGVAR_LIMIT, LOGVAR_LIMIT)
        return PatchDistribution(anchored(entries(self.head_mean(features))), entries(logvar))


def instance_stats(
    config: TimerXLConfig, patches: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`(center, scale, origin)`: a patch is normalised to `(patch - origin - center) / scale`.

    Args:
        config: its instance_norm.
        patches: `[B, N, P, C]`.

    Returns:
        center and scale `[B, 1 or N, 1, C]`, and the origin `[B, 1, 1, C]` that causal statistics
        are counted from: the first value, so that an offset costs no precision.
    """
    batch, _, _, num_vars = patches.shape
    zero = jnp.zeros((batch, 1, 1, num_vars), jnp.float32)
    if config.instance_norm is None:
        return zero, zero + 1, zero
    if config.instance_norm == "window":
        # [B, N, P, C] -> [B, N * P, C]
        mean, scale = window_stats(patches.reshape(batch, -1, num_vars))
        return mean[:, None], scale[:, None], zero
    origin = patches[:, :1, :1].astype(jnp.float32)
    moments = running_moments(patches - origin)  # [B, N, C]
    return moments.mean[:, :, None], std(moments)[:, :, None], origin


def init_params(key: jax.Array, config: TimerXLConfig) -> Params:
    """New parameters; `key` is consumed. Their shapes depend on the config alone."""
    window = jax.ShapeDtypeStruct((1, config.patch_len, 1), jnp.float32)
    # lazy: no pass of the model is computed, which would compile each of its operations
    params: Params = TimerXL(config).lazy_init({"params": key}, window)["params"]
    return params


@dataclass(frozen=True)
class _NextPatch:
    """`(params, window) -> PatchDistribution`; hashable, so that equal configs share a program."""

    config: TimerXLConfig

    def __call__(self, params: Params, window: jax.Array) -> PatchDistribution:
        out = TimerXL(self.config).apply({"params": params}, window[None], last_only=True)
        mean, logvar = out if isinstance(out, tuple) else (out, None)
        return PatchDistribution(mean[0], None if logvar is None else logvar[0])


def make_predict(config: TimerXLConfig, params: Params) -> jax.tree_util.Partial:
    """Turns `(config, params)` into the black-box `predict` of `window_process`.

    Returns:
        `window [L, C] -> PatchDistribution` of the next patch, `[P, C]` (the next M patches,
        `[M * P, C]`, for a multi-patch model). It is a pytree whose leaves are the parameters, so
        they are traced: other parameters of the same shape do not recompile.
    """
    return jax.tree_util.Partial(_NextPatch(config), params)
