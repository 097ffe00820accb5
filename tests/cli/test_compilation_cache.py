"""Where compiled programs are kept, and when."""

import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from stride_jax.cli import flags as cli
from stride_jax.cli.compilation_cache import cache_directory, quick_compilation


@pytest.fixture
def own_settings() -> Iterator[None]:
    """The process's settings as they were, afterwards."""
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    )
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_the_cache_lies_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The home directory would be filled although another place was named."""
    monkeypatch.setenv("STRIDE_JAX_CACHE", str(tmp_path / "xla"))
    assert cache_directory() == tmp_path / "xla"
    monkeypatch.setenv("STRIDE_JAX_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg" / "stride_jax" / "xla"
    monkeypatch.delenv("STRIDE_JAX_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "stride_jax" / "xla"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [("XDG_CACHE_HOME", "", ".cache/stride_jax/xla"), ("STRIDE_JAX_CACHE", "~/kept", "kept")],
)
def test_the_cache_never_lies_in_the_directory_of_the_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, expected: str
) -> None:
    """An empty variable is as good as none, and ~ is the home: else files litter the data."""
    monkeypatch.delenv("STRIDE_JAX_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(name, value)
    assert cache_directory() == tmp_path / expected


@pytest.mark.usefixtures("own_settings")
@pytest.mark.parametrize("asked", [True, False])
def test_programs_keep_what_they_compile_where_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked: bool
) -> None:
    """Compile times in result files would be those of a cache that nobody asked for."""
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("STRIDE_JAX_CACHE", str(tmp_path) if asked else "")
    monkeypatch.setattr(sys, "argv", ["train.py"])
    seen = []
    cli.run(lambda argv: seen.append(jax.config.jax_compilation_cache_dir))
    assert seen == [str(tmp_path) if asked else before]


@pytest.mark.parametrize(("backend", "quick"), [("cpu", True), ("gpu", False)])
def test_quick_compilation_ends(monkeypatch: pytest.MonkeyPatch, backend: str, quick: bool) -> None:
    """A longer forecast of the same process would run at half the speed; or a GPU's any."""
    name = "jax_disable_most_optimizations"
    whole = jax.config.read(name)  # the suite's own setting
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    try:
        jax.config.update(name, False)
        with quick_compilation():
            assert jax.config.read(name) == quick
        assert jax.config.read(name) is False
    finally:
        jax.config.update(name, whole)
