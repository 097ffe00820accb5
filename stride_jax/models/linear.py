"""The sizes of a linear draft; its maps are fitted by `training.ridge`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stride_jax.config import Count, check_fields, require
from stride_jax.decoding.linear_draft import num_features


@dataclass(frozen=True)
class LinearConfig:
    """A linear draft: the next patch is `o + (window - o) A`, o the level of the window.

    Attributes:
        patch_len: P, time steps in a patch.
        context_len: L, steps of the window.
        level: o, the last value of the window or its mean.
        num_vars: C of a draft with a map for each variable; None for maps of any variable.
        num_maps: M, maps of a mixture whose gate weights them by the context; 1 for no mixture.
    """

    patch_len: Count
    context_len: Count
    level: Literal["mean", "last"] = "last"
    num_vars: Count | None = None
    num_maps: Count = 1

    def __post_init__(self) -> None:
        check_fields(self)
        require(
            self.context_len >= self.patch_len,
            f"context_len {self.context_len} must be at least patch_len {self.patch_len}.",
        )
        require(
            self.num_vars is None or self.num_maps == 1,
            f"a map for each of {self.num_vars} variables is no mixture; set num_maps 1.",
        )

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The parameters by name: the maps, and of a mixture the kernel and bias of its gate."""
        size = (self.context_len, self.patch_len)
        if self.num_vars is not None:
            return {"maps": (self.num_vars, *size)}
        if self.num_maps == 1:
            return {"maps": size}
        return {
            "maps": (self.num_maps, *size),
            "gate_kernel": (num_features(self.context_len), self.num_maps),
            "gate_bias": (self.num_maps,),
        }
