"""Compiled programs kept on disk, so that the next start does not compile them again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_directory() -> Path:
    """Where compiled programs are kept: `STRIDE_JAX_CACHE`, or under the user's cache."""
    from stride_jax.forecasting.cost_file import default_path

    above = default_path().parent
    return above if os.environ.get("STRIDE_JAX_CACHE") else above / "xla"


def keep_programs(directory: Path) -> None:
    """Keeps compiled programs on disk, so that the next start does not compile them again."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


@contextmanager
def quick_compilation() -> Iterator[None]:
    """On a CPU, compiles with few optimisations: half the wait for programs that run but briefly.

    They run up to twice as long.
    """
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", before or jax.default_backend() == "cpu")
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
