"""The sizes of Timer (thuml/timer-base-84m)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stride_jax.config import Count, check_fields
from stride_jax.models.causal import Heads


@dataclass(frozen=True)
class TimerConfig(Heads):
    """A Timer; the defaults are the released 84 M parameters.

    Attributes:
        patch_len: P, time steps in a patch; one patch in, one patch out.
        d_model: D, width of a token.
        num_heads: H, attention heads; D / H must be even. No shape in a file tells it.
        d_ff: hidden width of the feed-forward layers.
        num_layers: transformer blocks.
        context_limit: time steps of the longest context of the training.
        dtype: of the computation; statistics and outputs stay float32.
        precision: of float32 products, see `jax.lax.Precision`; the highest, as in the original
            also on a GPU.
    """

    patch_len: Count = 96
    d_model: Count = 1024
    num_heads: Count = 8
    d_ff: Count = 2048
    num_layers: Count = 8
    context_limit: Count = 2880
    dtype: Literal["float32", "bfloat16"] = "float32"
    precision: Literal["default", "high", "highest"] = "highest"

    def __post_init__(self) -> None:
        check_fields(self)
        self.check_heads()
