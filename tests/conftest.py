"""Settings of the whole suite: rank promotion raises, programs compile quickly."""

import os
from collections.abc import Iterator
from pathlib import Path

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

MOST_AREAS = 25_000
"""Mapped areas of memory from which on a process drops its compiled programs; 65,530 are the limit.

Each program maps a few."""


@pytest.fixture
def key() -> jax.Array:
    """A fixed key."""
    return jax.random.key(0)


@pytest.fixture(autouse=True, scope="module")
def compiled_programs() -> Iterator[None]:
    """Drops the compiled programs of a module where they have become many; else they are shared."""
    yield
    areas = Path("/proc/self/maps")
    if not areas.exists() or areas.read_bytes().count(b"\n") > MOST_AREAS:
        jax.clear_caches()
