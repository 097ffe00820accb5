"""The sizes of Toto 1.0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stride_jax.config import Count, check_fields, require
from stride_jax.models.causal import Heads

HEAD_WIDTH = 64
"""Numbers in a head of the released model, where a file does not tell."""


@dataclass(frozen=True)
class TotoConfig(Heads):
    """A Toto 1.0; the defaults are the released 151 M parameters (Toto-Open-Base-1.0).

    Attributes:
        patch_len: P, time steps in a patch; one patch in, one patch out.
        d_model: D, width of a token.
        num_heads: H, attention heads; D / H must be even.
        d_ff: hidden width of the feed-forward layers.
        num_layers: transformer blocks.
        space_every: the last of so many blocks attends to the other variables, not to the past; a
            model of fewer blocks, the first ones of another, has none of these.
        num_components: M, Student's t distributions in the mixture of a step.
        context_limit: time steps of the longest context that counts where none is asked for.
        dtype: of the computation; statistics and outputs stay float32.
        precision: of float32 products, see `jax.lax.Precision`; the highest, as in the original
            also on a GPU.
    """

    patch_len: Count = 64
    d_model: Count = 768
    num_heads: Count = 12
    d_ff: Count = 3072
    num_layers: Count = 12
    space_every: Count = 12
    num_components: Count = 24
    context_limit: Count = 4096
    dtype: Literal["float32", "bfloat16"] = "float32"
    precision: Literal["default", "high", "highest"] = "highest"

    def __post_init__(self) -> None:
        check_fields(self)
        self.check_heads()
        require(
            self.num_layers % self.space_every == 0 or self.num_layers < self.space_every,
            f"num_layers {self.num_layers} must be a multiple of space_every {self.space_every}.",
        )

    def in_space(self, layer: int) -> bool:
        """Whether a layer attends to the other variables at its time step."""
        return (layer + 1) % self.space_every == 0

    @property
    def num_time_layers(self) -> int:
        """Layers that attend to the past, which alone have caches."""
        return self.num_layers - self.num_layers // self.space_every

    @property
    def longest_context(self) -> int:
        """Steps of a context at most where none is asked for, whole patches."""
        return max(self.context_limit // self.patch_len, 1) * self.patch_len
