"""Config of the data: which series, and how it is cut into windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stride_jax.config import Count, check_fields


@dataclass(frozen=True)
class DataConfig:
    """A series, and how it is cut into windows.

    Attributes:
        source: the embedded series beijing_weather, a benchmark name such as ETTh1 (downloaded
            once), or the path of a CSV, txt, npy or npz file.
        columns: variables to use, in this order; empty for all.
        missing: what to do with missing cells: error, or interpolate along time in each window,
            a context never from what comes after it; missing truths are not scored.
        split: benchmark split; auto takes ett_hour or ett_minute for files named ETTh*, ETTm*,
            and 70/10/20 percent (ratio) for the rest.
        variables: joint windows hold all variables; separate ones hold one variable each.
        context_len: L, time steps the model sees; a multiple of the patch length.
        validation_stride: steps between two validation windows of a training; 1 takes every one.
    """

    source: str = "beijing_weather"
    columns: tuple[str, ...] = ()
    missing: Literal["error", "interpolate"] = "error"
    split: Literal["auto", "ett_hour", "ett_minute", "ratio"] = "auto"
    variables: Literal["joint", "separate"] = "joint"
    context_len: Count = 672
    validation_stride: Count = 1

    def __post_init__(self) -> None:
        check_fields(self)
