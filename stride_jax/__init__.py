"""Fast autoregressive time-series forecasting in JAX, with proof.

A functional JAX/Flax reimplementation of STRIDE, "Accelerating Time Series Foundation Models with
Speculative Decoding" (arXiv 2511.18191). The names below are imported when first used, so that the
decoder alone needs neither flax nor pandas.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stride_jax.config import DecodeConfig, TimerXLConfig
    from stride_jax.convert import find_model, load_model, load_pytorch, save_pytorch
    from stride_jax.coupling import (
        Block,
        Maximal,
        Mean,
        Resample,
        Residual,
        Rule,
        SharedNoise,
    )
    from stride_jax.decoding import DecodeInfo
    from stride_jax.draft_length import Fixed, Gain, Threshold
    from stride_jax.drafts import (
        last_value_draft,
        multi_patch_draft,
        nearest_draft,
        seasonal_draft,
    )
    from stride_jax.errors import InputError
    from stride_jax.export import export_decoder, load_decoder
    from stride_jax.forecasting import Forecast, forecast
    from stride_jax.frames import backtest, forecast_df
    from stride_jax.models import TimerXL, init_params, make_predict
    from stride_jax.pairs import Pair, make_pair, make_target
    from stride_jax.processes import cached_process, window_process
    from stride_jax.speculative import decode
    from stride_jax.types import PatchLaw, Series

_HOMES = {
    "Threshold": "draft_length",
    "Gain": "draft_length",
    "Fixed": "draft_length",
    "SharedNoise": "coupling",
    "Rule": "coupling",
    "Residual": "coupling",
    "Resample": "coupling",
    "Mean": "coupling",
    "Maximal": "coupling",
    "Block": "coupling",
    "DecodeConfig": "config",
    "DecodeInfo": "decoding",
    "Forecast": "forecasting",
    "InputError": "errors",
    "Pair": "pairs",
    "PatchLaw": "types",
    "Series": "types",
    "TimerXL": "models",
    "TimerXLConfig": "config",
    "backtest": "frames",
    "cached_process": "processes",
    "decode": "speculative",
    "export_decoder": "export",
    "find_model": "convert",
    "forecast": "forecasting",
    "forecast_df": "frames",
    "init_params": "models",
    "last_value_draft": "drafts",
    "load_decoder": "export",
    "load_model": "convert",
    "load_pytorch": "convert",
    "make_pair": "pairs",
    "make_predict": "models",
    "make_target": "pairs",
    "multi_patch_draft": "drafts",
    "nearest_draft": "drafts",
    "save_pytorch": "convert",
    "seasonal_draft": "drafts",
    "window_process": "processes",
}

__all__ = [
    "Block",
    "DecodeConfig",
    "DecodeInfo",
    "Fixed",
    "Forecast",
    "Gain",
    "InputError",
    "Maximal",
    "Mean",
    "Pair",
    "PatchLaw",
    "Resample",
    "Residual",
    "Rule",
    "Series",
    "SharedNoise",
    "Threshold",
    "TimerXL",
    "TimerXLConfig",
    "backtest",
    "cached_process",
    "decode",
    "export_decoder",
    "find_model",
    "forecast",
    "forecast_df",
    "init_params",
    "last_value_draft",
    "load_decoder",
    "load_model",
    "load_pytorch",
    "make_pair",
    "make_predict",
    "make_target",
    "multi_patch_draft",
    "nearest_draft",
    "save_pytorch",
    "seasonal_draft",
    "window_process",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"stride_jax.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'stride_jax' has no attribute {name!r}")
