"""Fixtures of the command line's tests."""

from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from helpers.cli import MODEL
from helpers.models import params_of
from jax.experimental.compilation_cache import compilation_cache

from stride_jax.checkpoints import store
from stride_jax.checkpoints.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a small target."""
    path = tmp_path_factory.mktemp("model") / "target.npz"
    store.save_model(path, Checkpoint(MODEL, params_of(MODEL), 16))
    return str(path)


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A cache directory of the test's own; what a command sets in jax is set back."""
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    )
    before = {name: getattr(jax.config, name) for name in names}
    monkeypatch.setenv("STRIDE_JAX_CACHE", str(tmp_path / "xla"))
    yield tmp_path / "xla"
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
