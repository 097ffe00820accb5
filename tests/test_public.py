"""The names users import, and what importing them costs."""

import os
import subprocess
import sys
from pathlib import Path

import stride_jax

ROOT = Path(__file__).parents[1]


PUBLIC = """
decode DecodeConfig DecodeInfo Maximal Block Residual Resample Mean SharedNoise
Fixed Threshold Gain window_process cached_process seasonal_draft last_value_draft nearest_draft
multi_patch_draft Pair load_pair load_model save_model forecast Forecast forecast_df backtest
InputError Rule
checkpoints cli data decoding evaluation forecasting models testing training
"""


def test_the_public_names_are_these() -> None:
    """A name would be promised, or withdrawn, without a thought."""
    assert sorted(stride_jax.__all__) == sorted(PUBLIC.split())


def test_every_public_name_is_there() -> None:
    """A name in `__all__` that cannot be imported breaks `from stride_jax import *`."""
    for name in stride_jax.__all__:
        assert getattr(stride_jax, name).__name__ in (name, f"stride_jax.{name}")


def test_the_decoder_needs_neither_flax_nor_pandas() -> None:
    """JAX users import the decoder into their own code; it must not drag a framework in."""
    code = (
        "import sys; from stride_jax import decode, window_process, DecodeConfig, "
        "Block, Mean, Gain, Rule, seasonal_draft; "
        "print([m for m in ('flax', 'pandas', 'orbax', 'optax') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_ten_lines_of_the_readme_run() -> None:
    """A newcomer copies them first."""
    text = (ROOT / "README.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        env={**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"(4, 100, 168, 1)" in done.stdout
