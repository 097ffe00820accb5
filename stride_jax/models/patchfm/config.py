"""The sizes of PatchFM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stride_jax.config import Count, check_fields, require
from stride_jax.models.causal import Heads

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Levels of the Q outputs of a step."""
MEDIAN = 4
"""The output that the median path feeds back."""


@dataclass(frozen=True)
class PatchFMConfig(Heads):
    """A PatchFM; the defaults are the released 345 M parameters of version 3.2.

    Attributes:
        patch_len: P, time steps in a patch; one patch in, one patch out.
        d_model: D, width of a patch inside the model.
        num_heads: H, attention heads; D / H must be a multiple of 4.
        d_ff: hidden width of the feed-forward layers.
        num_layers: transformer blocks.
        context_limit: time steps of a history that count, the last ones, as in the original. Those
            that are forecast come on top of them.
        dtype: of the computation; statistics and outputs stay float32.
        precision: of float32 products, see `jax.lax.Precision`; the highest, as in the original
            also on a GPU.
    """

    patch_len: Count = 32
    d_model: Count = 2048
    num_heads: Count = 32
    d_ff: Count = 5632
    num_layers: Count = 6
    context_limit: Count = 1024
    dtype: Literal["float32", "bfloat16"] = "float32"
    precision: Literal["default", "high", "highest"] = "highest"

    def __post_init__(self) -> None:
        check_fields(self)
        self.check_heads()
        require(
            self.head_width % 4 == 0,
            f"d_model {self.d_model} over num_heads {self.num_heads} must be a multiple of 4, "
            "because rotary pairs fill half of a head; change one of the two.",
        )

    @property
    def d_hidden(self) -> int:
        """Hidden width of the layers that read and write patches."""
        return 4 * self.d_model
