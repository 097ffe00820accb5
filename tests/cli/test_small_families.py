"""Files of the foundation models on the command line: recognised, forecast, described."""

import json

import numpy as np
import pandas as pd
import pytest
from golden import GOLDEN
from helpers.cli import Capture, table
from helpers.families import relative, rolled
from safetensors.numpy import save_file

from stride_jax.cli import main as app
from stride_jax.models.families import FAMILIES

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def values() -> np.ndarray:
    """48 values around 20."""
    return np.random.default_rng(0).normal(size=48).round(3) + 20


@pytest.fixture
def series(tmp_path, values) -> str:
    """The path of a file with these values."""
    times = pd.date_range("2026-01-01", periods=48, freq="h")
    pd.DataFrame({"date": times, "load": values}).to_csv(tmp_path / "data.csv", index=False)
    return str(tmp_path / "data.csv")


def model_file(tmp_path, name: str, layout: str) -> tuple[str, dict[str, np.ndarray]]:
    """A recorded small model as a `.safetensors` file: its path and its tensors."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        start = f"{layout}/"
        arrays = {k.removeprefix(start): file[k] for k in file.files if k.startswith(start)}
    save_file(arrays, tmp_path / "model.safetensors")
    return str(tmp_path / "model.safetensors"), arrays


def run(capsys: Capture, *arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command."""
    status = app.main([*arguments])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("timesfm", "google"),
        ("timesfm", "transformers"),
        ("timer", "timer"),
        ("patchfm", "patchfm"),
        ("toto", "toto"),
    ],
)
def test_a_file_is_forecast(name, layout, tmp_path, series, values, capsys):
    """Somebody with a downloaded file and a table would get another forecast, or none."""
    path, arrays = model_file(tmp_path, name, layout)
    process = FAMILIES[name].make_process(*FAMILIES[name].read(arrays))
    flags = ["forecast", series, "--horizon", "16", "--model", path, "--no-cache"]
    draft = "quantile-head" if name == "timesfm" else "last-value"
    extra = ["--num-samples", "0", "--draft", draft, "--rule", "mean:tolerance=0"]
    status, out, err = run(capsys, *flags, *extra)
    assert status == 0, err
    found = table(out)
    alone, _ = rolled(process, values.astype(np.float32)[:, None] - 20, None, patches=2)
    expected = np.asarray(alone.mean).reshape(-1)[:16]
    assert relative(found.stride - 20, np.maximum(expected, -20)) < 1e-4
    if process.reports:
        outputs = np.asarray(alone.reported).reshape(-1, len(process.reports))
        reported = outputs[:16, -9:]  # TimesFM has the mean before the deciles
        deciles = found[[f"stride-q-{10 * i}" for i in range(1, 10)]]
        assert relative(deciles - 20, np.maximum(reported, -20)) < 1e-4


def test_sample_paths_of_a_mixture(tmp_path, series, capsys):
    """A file whose model predicts no Gaussian would be refused with the usual rule, or not drawn.

    The quantiles are those of sample paths: the model reports none.
    """
    path, _ = model_file(tmp_path, "toto", "toto")
    flags = ["forecast", series, "--horizon", "8", "--model", path, "--no-cache"]
    extra = ["--num-samples", "30", "--draft", "last-value", "--num-draft", "1"]
    status, out, err = run(capsys, *flags, *extra)
    assert status == 0, err
    found = table(out)
    assert np.all(found["stride-q-10"] < found["stride-q-90"])
    status, _, err = run(capsys, *flags, *extra, "--rule", "block")
    assert (status, "rule 'block' needs Gaussian predictions" in err) == (2, True)


def test_info_names_family_and_drafts(tmp_path, capsys):
    """A user could not see what a downloaded file is and what goes with it."""
    path, _ = model_file(tmp_path, "timesfm", "google")
    status, out, _ = run(capsys, "info", path)
    described = json.loads(out)
    assert status == 0
    assert (described["family"], described["drafts"]) == ("TimesFM 2.5", ["quantile-head"])
    assert described["reports"] == ["mean", 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert described["model"]["num_heads"] == 2
