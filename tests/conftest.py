"""Settings of the whole suite: rank promotion raises, programs compile quickly."""

import gc
import os
from collections.abc import Iterator

import jaxlib.version

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # workers share an accelerator
# Thousands of small programs run once each: compiling them with few optimisations halves the time.
# The programs that a test starts inherit it.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
if jaxlib.version.__version__.startswith("0.10."):
    # The older code generator of the CPU, in one part, compiles thousands of small programs in half
    # the time. XLA stops at a flag that it does not know, so only the versions that this was tried
    # on are given it.
    flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")

# Traces make many objects that live on, and each full collection looks at all of them.
gc.freeze()
gc.set_threshold(100_000, 20, 50)


@pytest.fixture
def key() -> jax.Array:
    """A fixed key."""
    return jax.random.key(0)


@pytest.fixture(autouse=True, scope="module")
def compiled_programs() -> Iterator[None]:
    """Drops a module's compiled programs: each maps memory, and a process may map 65,530 areas."""
    yield
    jax.clear_caches()
