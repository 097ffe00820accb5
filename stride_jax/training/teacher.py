"""The target as a teacher: labels for drafts of one patch or of several."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import Params, TimerXL

Output = jax.Array | tuple[jax.Array, jax.Array]
"""A model's mean `[B, T, C]`, or `(mean, logvar)` of a Gaussian head."""


def mean_of(out: Output) -> jax.Array:
    """The mean of a model's output, which may hold a log variance too."""
    return out[0] if isinstance(out, tuple) else out


def following(teacher: jax.Array, patch_len: int, count: int) -> jax.Array:
    """Labels of the M patches after each position, laid out like a multi-patch draft's output.

    The teacher's forecast of patch n + m stands at its own position n + m - 1, where it has seen
    the patches before.

    Args:
        teacher: `[B, (N + M - 1) * P, C]`, the forecast of the next patch at each position.
        patch_len: P.
        count: M; 1 returns the array unchanged.

    Returns:
        `[B, N * M * P, C]`: at each of N positions the patches n + 1, ..., n + M.
    """
    batch, _, num_vars = teacher.shape
    # [B, (N + M - 1) * P, C] -> [B, N + M - 1, P, C]
    patches = teacher.reshape(batch, -1, patch_len, num_vars)
    num = patches.shape[1] - count + 1
    ahead = jnp.stack([patches[:, m : m + num] for m in range(count)], axis=2)
    return ahead.reshape(batch, -1, num_vars)  # [B, N, M, P, C] -> [B, N * M * P, C]


@dataclass(frozen=True)
class Teacher:
    """A target that labels series for a draft of M patches at once.

    For M > 1 it sees context and patches in one pass, as its cached process does; with window
    normalisation the statistics are then those of the longer window, not those of the context.

    Attributes:
        model: Its config, with the positions (and for M > 1 the reach) that it decodes with.
        params: Its parameters; no gradient flows into them.
        dropout: Whether a key turns its dropout on.
        skip: Steps of its context that the draft does not see.
        count: M.
    """

    model: TimerXLConfig
    params: Params
    dropout: bool
    skip: int
    count: int

    def labels(self, series: jax.Array, key: jax.Array | None = None) -> Output:
        """Predictions of the M patches after each position of the draft, given those between.

        Args:
            series: `[B, L + (M - 1) * P, C]`.
            key: For its dropout; consumed.

        Returns:
            The mean, `[B, N * M * P, C]`, see `following`; `(mean, logvar)` of a Gaussian head.
        """
        noisy = self.dropout and key is not None
        rngs = {"dropout": key} if noisy else {}
        module = TimerXL(self.model)
        out = module.apply({"params": self.params}, series, deterministic=not noisy, rngs=rngs)

        def seen(z: jax.Array) -> jax.Array:
            return following(z[:, self.skip :], self.model.patch_len, self.count)

        labels: Output = jax.tree.map(seen, jax.lax.stop_gradient(out))
        return labels

    def labels_after(
        self, context: jax.Array, proposals: jax.Array, key: jax.Array | None = None
    ) -> Output:
        """Predictions of the M patches after a context, each given the proposals before it.

        Args:
            context: `[B, L, C]`.
            proposals: `[B, M * P, C]`; no gradient flows through them.
            key: For its dropout; consumed.

        Returns:
            The mean, `[B, M * P, C]`; `(mean, logvar)` of a Gaussian head.
        """
        between = jax.lax.stop_gradient(proposals)[:, : -self.model.patch_len]
        series = jnp.concatenate([context, between], axis=1)
        ahead = proposals.shape[1]
        last: Output = jax.tree.map(lambda z: z[:, -ahead:], self.labels(series, key))
        return last
