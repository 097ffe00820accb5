"""What `stride-jax forecast` says on stderr of what a forecast rests on: a line each."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.cli import Capture, arguments, table

from stride_jax.cli import main as app

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def counts(tmp_path: Path) -> str:
    """Sales of two shops, and a temperature."""
    rng, times = np.random.default_rng(0), pd.date_range("2026-01-01", periods=24, freq="h")
    values = {"a": rng.poisson(0.4, 24), "b": rng.poisson(2, 24), "c": rng.normal(size=24)}
    parts = [pd.DataFrame({"unique_id": name, "ds": times, "y": y}) for name, y in values.items()]
    pd.concat(parts).to_csv(tmp_path / "counts.csv", index=False)
    return str(tmp_path / "counts.csv")


def test_the_cut_at_zero_is_said_and_can_be_switched(
    model: str,
    counts: str,
    capsys: Capture,
) -> None:
    """Nobody would know why no interval goes below 0, or could let it."""
    least = {}
    for flag, said in ((None, True), ("--non-negative", False), ("--no-non-negative", False)):
        assert app.main(arguments(counts, model, *([flag] if flag else []))) == 0
        shown = capsys.readouterr()
        line = "the forecasts of 2 of 3 series are cut off at 0"
        assert (line in shown.err) == said
        least[flag] = table(shown.out).groupby("unique_id")["stride-q-10"].min()
    assert (least[None][["a", "b"]] == 0).any()
    assert least[None]["c"] < 0
    assert (least["--non-negative"] >= 0).all()
    assert (least["--no-non-negative"] < 0).all()


def test_warnings_are_lines(
    model: str,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    """They would come with a path of our code and a line of it, or not at all, or end the run."""
    file = tmp_path / "short.csv"
    file.write_text("unique_id,ds,y\na,2026-01-01,5\n")
    flags = ["--freq", "D", "--quantiles", ".001", ".5", "--num-samples", "10", "--no-cache"]
    given = ["forecast", str(file), "--horizon", "4", "--model", model, *flags]
    assert app.main(given) == 0
    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if line.startswith("warning: ")]
    assert len(lines) == 2
    assert "10 sample paths do not tell the quantiles 0.001" in lines[0]
    assert "series 'a': one value" in lines[1]
    assert ".py" not in shown.err
    assert list(table(shown.out).columns[3:]) == ["stride-q-0.1", "stride-q-50"]


def test_what_is_fastest_is_measured_once_and_said(
    model: str, counts: str, own_cache: Path, capsys: Capture
) -> None:
    """A calibration would not be remembered, or nobody would know how the file was decoded."""
    given = ["forecast", counts, "--horizon", "8", "--model", model]
    given += ["--draft", "last-value", "--num-samples", "0", "--calibrate"]
    assert app.main(given) == 0
    lines = capsys.readouterr().err.splitlines()
    (calibrated,) = (line for line in lines if line.startswith("calibrated: decoded "))
    assert "times as fast as the target alone (measured)" in calibrated
    assert calibrated.removeprefix("calibrated: ") in lines  # what the forecast then did
    assert (own_cache / "costs.json").exists()
    assert app.main([*given, "--num-draft", "2"]) == 2
    assert "--calibrate looks for the fastest --num-draft" in capsys.readouterr().err
