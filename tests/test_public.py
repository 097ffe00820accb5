"""The names users import, and what importing them costs."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

import stride_jax

ROOT = Path(__file__).parents[1]


PUBLIC = """
decode DecodeConfig DecodeInfo Maximal Block Residual Resample Mean SharedNoise
Fixed Fallback Threshold Gain window_process cached_process seasonal_draft last_value_draft
nearest_draft multi_patch_draft linear_draft Pair load_pair load_covariance load_model save_model
forecast Forecast forecast_df backtest InputError PatchCovariance Rule
Decoder build_decoder load_decoder calibrate
checkpoints cli data decoding evaluation forecasting models remote testing training
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


def numbers(text: str) -> list[float]:
    """The numbers in a line."""
    return [float(number) for number in re.findall(r"-?\d+\.?\d*", text)]


def test_the_code_of_the_readme_prints_what_it_says() -> None:
    """A newcomer copies it first."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 2
    # each begins with no name; in one process, as JAX is slow to import
    end = "--- end of a block ---"
    code = "".join(
        f"exec({block!r}, {{'__name__': '__main__'}})\nprint({end!r})\n" for block in blocks
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *outputs, rest = done.stdout.split(f"{end}\n")
    assert rest == ""
    for block, output in zip(blocks, outputs, strict=True):
        comments = re.findall(r"^print\(.*\)  # (.*)$", block, re.MULTILINE)
        printed = output.splitlines()
        assert len(comments) == len(printed) > 0
        for comment, line in zip(comments, printed, strict=True):
            expected, values = numbers(comment), numbers(line)
            assert values
            # another processor rounds otherwise, and a path in a hundred may take another pass
            np.testing.assert_allclose(values, expected[: len(values)], atol=0.15)
