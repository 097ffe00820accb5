"""A Python that compiles for a GPU, on a machine that may have none."""

import os
import subprocess
import sys

import pytest


def cuda_python() -> str:
    """The Python that has jax for CUDA; skips the test where there is none."""
    python = os.environ.get("STRIDE_JAX_CUDA_PYTHON", sys.executable)
    probe = "import importlib.util as u; print(any(map(u.find_spec, {plugins})))"
    probe = probe.format(plugins=("jax_cuda12_plugin", "jax_cuda13_plugin"))
    found = subprocess.run([python, "-c", probe], stdout=subprocess.PIPE, text=True, check=True)
    if found.stdout.strip() != "True":
        pytest.skip("no jax for CUDA here; name a Python that has it in STRIDE_JAX_CUDA_PYTHON")
    return python
