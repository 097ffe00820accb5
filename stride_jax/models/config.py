"""The sizes of a forecaster."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Lt

from stride_jax.config import Count, check_factor, check_fields, require

LOGVAR_LIMIT = 10.0
"""Log variances are clamped to +-10 in normalised units, as in the original."""


@dataclass(frozen=True)
class TimerXLConfig:
    """A Timer-XL forecaster; target and draft are the same module in different sizes.

    Attributes:
        patch_len: P, time steps in a patch; one patch in, one patch out.
        d_model: D, width of a token.
        num_heads: H, attention heads; the head width D/H must be a multiple of 4.
        d_ff: hidden width of the feed-forward layers.
        num_layers: transformer blocks.
        activation: of the feed-forward layers; gelu is the exact (erf) one.
        head: mean, or gaussian for a mean and a log variance.
        instance_norm: window standardises every input by its own mean and std; causal each patch
            by those of everything up to and including it; None does not.
        covariate: the last variable sees the others, each of the others sees only itself; see
            covariate_mask.
        variable_stride: rotary position of (variable c, patch n) is c * variable_stride + n.
            None takes the input's own number of patches (the original), 0 the patch index alone.
        dropout: rate in attention weights, attention output and feed-forward, when training.
        dtype: of the computation; parameters, statistics and outputs stay float32.
        covariate_mask: original lets the last variable see the future patches of the others;
            causal does not, must be trained so, and is what the cached process takes.
        max_patches: a patch attends to at most so many last patches, itself included; None for
            all before it.
        output_patches: patches forecast in one pass from each position; more than 1 makes a
            multi-patch draft.
        remat: compute a block's activations again in the backward pass instead of keeping them;
            saves memory in training, changes no value.
        anchor: what the head's mean is counted from: the mean of the normalisation, or the last
            value of the patch it follows, so that a forecast of 0 is that of a random walk.
        precision: of float32 products, see `jax.lax.Precision`. The default is TF32 on a GPU with
            tensor cores (10 bits of mantissa), bfloat16 passes on a TPU, and float32 on a CPU;
            highest is float32 everywhere.
    """

    patch_len: Count = 96
    d_model: Count = 1024
    num_heads: Count = 8
    d_ff: Count = 2048
    num_layers: Count = 1
    activation: Literal["relu", "gelu"] = "relu"
    head: Literal["mean", "gaussian"] = "mean"
    instance_norm: Literal["window", "causal"] | None = "window"
    covariate: bool = False
    variable_stride: Annotated[int, Ge(0)] | None = None
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.1
    dtype: Literal["float32", "bfloat16"] = "float32"
    covariate_mask: Literal["original", "causal"] = "original"
    max_patches: Count | None = None
    output_patches: Count = 1
    remat: bool = False
    anchor: Literal["mean", "last"] = "mean"
    precision: Literal["default", "high", "highest"] = "default"

    def __post_init__(self) -> None:
        check_fields(self)
        require(
            self.d_model % (4 * self.num_heads) == 0,
            f"d_model {self.d_model} over num_heads {self.num_heads} must be a multiple of 4, "
            "because rotary pairs fill half of each head; change one of the two.",
        )
        require(
            not self.covariate
            or self.covariate_mask == "causal"
            or (self.instance_norm != "causal" and self.max_patches is None),
            "the original's covariate mask sees future patches, so it cannot go with causal "
            "normalisation or max_patches; set covariate_mask 'causal'.",
        )

    @property
    def head_width(self) -> int:
        """E, numbers in a head."""
        return self.d_model // self.num_heads

    def scaled(self, factor: float) -> TimerXLConfig:
        """The draft's configuration: every dimension times `factor`, kept usable.

        Width, layers, heads and feed-forward are rounded; the width has at least 16 and gives up
        what it must to be a multiple of 4 H; where that would cost more than 24, a head goes
        instead (so .7 x (768, 12 heads) is 532 with 7 heads, not 512 with 8). Reproduces the
        original's table of draft dimensions row by row.

        Raises:
            InputError: factor outside (0, 1].
        """
        check_factor(factor)
        width = max(16, round(self.d_model * factor))
        heads = max(1, round(self.num_heads * factor))
        while heads > 1 and (width < 4 * heads or width % (4 * heads) > 24):
            heads -= 1
        return dataclasses.replace(
            self,
            d_model=width - width % (4 * heads),
            num_heads=heads,
            d_ff=max(64, round(self.d_ff * factor)),
            num_layers=max(1, round(self.num_layers * factor)),
        )
