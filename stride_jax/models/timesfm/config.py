"""The sizes of TimesFM 2.5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stride_jax.config import Count, check_fields, require
from stride_jax.models.causal import Heads

NUM_OUTPUTS = 10
"""Q, outputs of a step: the mean, then the deciles .1 to .9."""
MEDIAN = 5
"""The output that is fed back, as released."""
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Levels of the outputs 1 to 9."""

ROOM = 16
"""Patches that a context leaves for the horizon and its proposals, where none is asked for."""


@dataclass(frozen=True)
class TimesFMConfig(Heads):
    """A TimesFM 2.5; the defaults are the released 200 M parameters (231 M with the long head).

    Attributes:
        token_len: T, time steps in a token.
        patch_len: P, time steps forecast at a token; a patch that is fed back is P / T tokens.
        long_len: time steps that the long head forecasts at a token.
        d_model: D, width of a token.
        num_heads: H, attention heads; D / H must be even.
        d_ff: hidden width of the feed-forward layers.
        num_layers: transformer blocks.
        context_limit: time steps of context and horizon together.
        dtype: of the computation; statistics and outputs stay float32.
        precision: of float32 products, see `jax.lax.Precision`; the highest, as in the original
            also on a GPU.
    """

    token_len: Count = 32
    patch_len: Count = 128
    long_len: Count = 1024
    d_model: Count = 1280
    num_heads: Count = 16
    d_ff: Count = 1280
    num_layers: Count = 20
    context_limit: Count = 16384
    dtype: Literal["float32", "bfloat16"] = "float32"
    precision: Literal["default", "high", "highest"] = "highest"

    def __post_init__(self) -> None:
        check_fields(self)
        require(
            self.patch_len % self.token_len == 0,
            f"patch_len {self.patch_len} must be whole tokens of {self.token_len} steps.",
        )
        self.check_heads()

    @property
    def longest_context(self) -> int:
        """Steps of a context at most where none is asked for; at least one patch."""
        return max(self.context_limit - ROOM * self.patch_len, self.patch_len)

    @property
    def tokens_per_patch(self) -> int:
        """P / T."""
        return self.patch_len // self.token_len
