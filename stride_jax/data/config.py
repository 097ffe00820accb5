"""Config of the data: which series, and how it is cut into windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stride_jax.config import Count, Share, check_fields, require


@dataclass(frozen=True)
class DataConfig:
    """A series, and how it is cut into windows.

    Attributes:
        source: the embedded series beijing_weather, a benchmark name such as ETTh1 (downloaded
            once), the path of a CSV, txt, npy or npz file, or synthetic for generated series
            alone, some of which are held out for validation.
        columns: variables to use, in this order; empty for all.
        missing: what to do with missing cells: error, or interpolate along time in each window,
            a context never from what comes after it; missing truths are not scored.
        split: benchmark split; auto takes ett_hour or ett_minute for files named ETTh*, ETTm*,
            and 70/10/20 percent (ratio) for the rest.
        variables: joint windows hold all variables; separate ones hold one variable each.
        context_len: L, time steps the model sees; a multiple of the patch length.
        validation_stride: steps between two validation windows of a training; 1 takes every one.
        synthetic_share: of the windows of a training step that are generated anew, in [0, 1]; the
            source's are the others. 1 with the source synthetic; separate variables.
        synthetic_without: families of synthetic series to leave out.
        mirrored_share: of the windows of a training step that are turned upside down, in [0, 1].
    """

    source: str = "beijing_weather"
    columns: tuple[str, ...] = ()
    missing: Literal["error", "interpolate"] = "error"
    split: Literal["auto", "ett_hour", "ett_minute", "ratio"] = "auto"
    variables: Literal["joint", "separate"] = "joint"
    context_len: Count = 672
    validation_stride: Count = 1
    synthetic_share: Share = 0.0
    synthetic_without: tuple[str, ...] = ()
    mirrored_share: Share = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        share = self.synthetic_share
        require(
            share == 0 or self.variables == "separate",
            "synthetic series have one variable; with synthetic_share set variables 'separate'.",
        )
        require(
            self.source != "synthetic" or share == 1,
            f"the source synthetic has no other series; set synthetic_share 1, got {share}.",
        )
