"""The generator of synthetic series as a GPU runs it: all families for every series."""

import os
import subprocess
from pathlib import Path

import pytest
from helpers.cuda import cuda_python

ROOT = Path(__file__).parents[2]
SECONDS = 120
"""It takes 14 on two cores, and took more than 250 where numbers were made normal by `ndtri`."""

PROGRAM = """
import jax
from stride_jax.data.synthetic_series import draw_windows
from stride_jax.evaluation.h100 import device

key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype, sharding=device())
traced = jax.jit(lambda key: draw_windows(key, 64, 2144)).trace(key)
traced.lower(lowering_platforms=("cuda",)).compile()
"""


@pytest.mark.slow
def test_it_compiles_for_a_gpu_within_two_minutes() -> None:
    """A training on a lent card would be over before its first step."""
    flags = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_gpu_autotune_level=0"}
    subprocess.run(
        [cuda_python(), "-c", PROGRAM],
        env={**os.environ, **flags, "PYTHONPATH": str(ROOT)},
        timeout=SECONDS,
        check=True,
    )
