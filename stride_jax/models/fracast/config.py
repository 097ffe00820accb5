"""The sizes of Fracast-0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from stride_jax.config import Count, Share, check_fields, require

DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class FracastConfig:
    """A Fracast-0 forecaster; the defaults are those of the released model.

    Attributes:
        patch_len: P, steps forecast in one pass.
        context_len: W, steps it sees; those that are missing are masked.
        levels: of the quantiles that it forecasts, ascending; the one nearest to .5 is fed back.
        d_model: D, width of a step.
        d_ff: hidden width of the gated feed-forward layers of the blocks.
        head_d_ff: the same of the head.
        kernel_size: taps of the convolutions along time.
        num_scales: times that the one block is applied, with the dilations 1, 2, 4, ...
        scale_frequencies: frequencies of the features that tell the block its dilation.
        num_periods: strongest periods of the window whose phases it is told.
        period_alpha: level of the test that a period must pass.
        head_layers: gated feed-forward layers of the head.
        head_convolutions: causal convolutions along the forecast, with the dilations 1, 2, 4, ...
        future_layers: times that the block of the future is applied.
        future_seed: last steps of the context in front of the future.
        phase_bins: bins of the mean over the phases of the strongest period.
    """

    patch_len: Count = 48
    context_len: Annotated[int, Ge(4)] = 2048
    levels: tuple[Share, ...] = DECILES
    d_model: Count = 64
    d_ff: Count = 96
    head_d_ff: Count = 96
    kernel_size: Count = 3
    num_scales: Count = 10
    scale_frequencies: Count = 4
    num_periods: Count = 4
    period_alpha: Share = 0.05
    head_layers: Count = 1
    head_convolutions: Annotated[int, Ge(0)] = 2
    future_layers: Count = 6
    future_seed: Count = 128
    phase_bins: Count = 16

    def __post_init__(self) -> None:
        check_fields(self)
        ascending = all(a < b for a, b in zip(self.levels, self.levels[1:], strict=False))
        require(ascending, f"levels must ascend, got {self.levels}.")

    @property
    def median(self) -> int:
        """Index of the quantile that is fed back."""
        return min(range(len(self.levels)), key=lambda i: abs(self.levels[i] - 0.5))
