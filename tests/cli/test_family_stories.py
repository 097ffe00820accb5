"""A downloaded foundation model and a file of series: from the command line to a table."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers.cli import Capture, table
from helpers.fracast import tiny_file

from stride_jax.checkpoints.build import load_pair
from stride_jax.cli import main as app
from stride_jax.forecasting.forecast import forecast

pytestmark = pytest.mark.usefixtures("own_cache")
DECILES = [f"stride-q-{10 * i}" for i in range(1, 10)]


@pytest.fixture(scope="module")
def fracast(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a small Fracast-0."""
    return tiny_file(tmp_path_factory.mktemp("family") / "tiny.safetensors")


@pytest.fixture
def series(tmp_path) -> tuple[str, np.ndarray]:
    """The path of a file with two variables, and their values."""
    values = np.random.default_rng(0).normal(size=(50, 2)).cumsum(axis=0).round(3) + 20
    times = pd.date_range("2026-01-01", periods=50, freq="h")
    frame = pd.DataFrame({"date": times, "load": values[:, 0], "wind": values[:, 1]})
    frame.to_csv(tmp_path / "data.csv", index=False)
    return str(tmp_path / "data.csv"), values


def run(capsys: Capture, *arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command."""
    status = app.main([*arguments])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def test_a_file_is_forecast_with_a_downloaded_model(fracast, series, capsys):
    """Somebody with a file of weights and a file of numbers would get no forecast."""
    file, values = series
    flags = ["forecast", file, "--horizon", "8", "--model", fracast, "--no-cache"]
    status, out, err = run(capsys, *flags)
    assert status == 0, err
    assert "quantiles are those that the model reports" in err
    found = table(out)
    assert list(found) == ["unique_id", "ds", "stride", *DECILES]
    expected = forecast(load_pair(fracast), values, 8, ids=["load"], non_negative=True)
    load, wind = (found[found.unique_id == name] for name in ("load", "wind"))
    np.testing.assert_allclose(load.stride, expected.mean[:, 0], rtol=1e-5)
    np.testing.assert_allclose(wind[DECILES], expected.reported[:, 1], rtol=1e-5)
    assert list(load.ds) == list(pd.date_range("2026-01-03 02:00", periods=8, freq="h"))

    # With a draft that costs nothing, within its tolerance of the same forecast.
    status, out, err = run(capsys, *flags, "--draft", "last-value", "--rule", "mean:tolerance=0")
    assert status == 0, err
    np.testing.assert_allclose(table(out).stride, found.stride, rtol=1e-5)

    # One quantile of the model's; a level that it does not report is refused with those it does.
    status, out, err = run(capsys, *flags, "--quantiles", "0.2")
    assert list(table(out)) == ["unique_id", "ds", "stride", "stride-q-20"]
    status, out, err = run(capsys, *flags, "--quantiles", "0.25")
    assert (status, out) == (2, "")
    assert "does not report the quantile 0.25" in err


def test_info_says_what_a_downloaded_model_is(fracast, capsys):
    """A user could not see which model a file holds, its licence, or what drafts go with it."""
    status, out, _ = run(capsys, "info", fracast)
    described = json.loads(out)
    assert status == 0
    assert (described["family"], described["licence"]) == ("Fracast-0", "Apache-2.0")
    assert (described["patch_len"], described["context_len"]) == (6, 2048)
    assert described["reports"] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert described["model"]["d_model"] == 8


def test_a_foundation_model_is_not_converted(fracast, tmp_path, capsys):
    """A file would be written that nothing reads."""
    status, _, err = run(capsys, "convert", fracast, str(tmp_path / "x.npz"))
    assert status == 2
    assert "not converted" in err
    assert not (tmp_path / "x.npz").exists()


def test_a_foreign_file_is_refused_before_anything_is_written(series, tmp_path, capsys):
    """The forecast of half a model would be taken for the model's."""
    path = tiny_file(tmp_path / "half.safetensors", lambda t: t.pop("head.queries"))
    out = tmp_path / "out.csv"
    status, _, err = run(
        capsys, "forecast", series[0], "--horizon", "8", "--model", path, "--out", str(out)
    )
    assert status == 2
    assert "missing head.queries" in err.splitlines()[-1]
    assert not out.exists()
