"""Calls of the command line and what they print."""

import io

import pandas as pd
import pytest

from stride_jax.models.config import TimerXLConfig

MODEL = TimerXLConfig(
    patch_len=4,
    d_model=8,
    num_heads=2,
    d_ff=8,
    instance_norm="causal",
    variable_stride=0,
    dropout=0.0,
)
Capture = pytest.CaptureFixture[str]


def arguments(file: str, model: str, *flags: str, horizon: str = "6") -> list[str]:
    """A forecast of a moment: one program serves all of them."""
    few = ["--draft", "none", "--num-samples", "10", "--sigma", "0.5", "--no-cache"]
    return ["forecast", file, "--horizon", horizon, "--model", model, *few, *flags]


def table(text: str) -> pd.DataFrame:
    """The CSV of a command."""
    return pd.read_csv(io.StringIO(text), parse_dates=["ds"])
