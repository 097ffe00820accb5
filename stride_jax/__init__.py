"""Fast autoregressive time-series forecasting in JAX, with proof.

A functional JAX/Flax reimplementation of STRIDE, "Accelerating Time Series Foundation Models with
Speculative Decoding" (arXiv 2511.18191). The names below are imported when first used, so that the
decoder alone needs neither flax nor pandas.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stride_jax.autoregressive import decode_autoregressive
    from stride_jax.config import DecodeConfig, TimerXLConfig
    from stride_jax.convert import find_model, load_model, load_pytorch, save_pytorch
    from stride_jax.coupling import RuleParams
    from stride_jax.decoding import DecodeInfo
    from stride_jax.errors import InputError
    from stride_jax.models import TimerXL, init_params, make_predict
    from stride_jax.processes import window_process
    from stride_jax.speculative import decode_speculative
    from stride_jax.types import PatchLaw, Series

_HOMES = {
    "DecodeConfig": "config",
    "DecodeInfo": "decoding",
    "InputError": "errors",
    "PatchLaw": "types",
    "RuleParams": "coupling",
    "Series": "types",
    "TimerXL": "models",
    "TimerXLConfig": "config",
    "decode_autoregressive": "autoregressive",
    "decode_speculative": "speculative",
    "find_model": "convert",
    "init_params": "models",
    "load_model": "convert",
    "load_pytorch": "convert",
    "make_predict": "models",
    "save_pytorch": "convert",
    "window_process": "processes",
}

__all__ = [
    "DecodeConfig",
    "DecodeInfo",
    "InputError",
    "PatchLaw",
    "RuleParams",
    "Series",
    "TimerXL",
    "TimerXLConfig",
    "decode_autoregressive",
    "decode_speculative",
    "find_model",
    "init_params",
    "load_model",
    "load_pytorch",
    "make_predict",
    "save_pytorch",
    "window_process",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"stride_jax.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'stride_jax' has no attribute {name!r}")
