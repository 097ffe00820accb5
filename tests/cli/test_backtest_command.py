"""The command `stride-jax backtest`: its table, its files, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.cli import Capture, arguments

from stride_jax.checkpoints.build import load_pair
from stride_jax.cli import backtest as command
from stride_jax.cli import forecast as shared
from stride_jax.cli import main as app
from stride_jax.cli.parser import make_parser
from stride_jax.data.long_frames import read_panel
from stride_jax.errors import InputError
from stride_jax.forecasting.frames import backtest

pytestmark = pytest.mark.usefixtures("own_cache")
H, SEASON, WINDOWS = 6, 4, 2


def series() -> pd.DataFrame:
    """Two hourly series, one of them above 0."""
    values = np.random.default_rng(0).normal(size=(30, 2)).cumsum(axis=0).round(6)
    times = pd.date_range("2024-02-28 18:00", periods=30, freq="h")
    parts = [
        pd.DataFrame({"unique_id": name, "ds": times, "y": level + values[:, i]})
        for i, (name, level) in enumerate((("load", 0), ("wind", 100)))
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A long file."""
    series().to_csv(tmp_path / "data.csv", index=False)
    return str(tmp_path / "data.csv")


def call(file: str, model: str, *flags: str) -> list[str]:
    """A backtest of a moment: one program serves all of them."""
    given = ["--season", str(SEASON), "--windows", str(WINDOWS), *flags]
    return ["backtest", *arguments(file, model, *given)[1:]]


def read(path: Path) -> pd.DataFrame:
    """Forecasts that were written."""
    return pd.read_csv(path, parse_dates=["ds", "cutoff"])


def naive(known: np.ndarray) -> np.ndarray:
    """Mean and the .1, .5 and .9 quantiles after a history, `[H, 4]`, with a loop."""
    differences = [known[i] - known[i - SEASON] for i in range(SEASON, len(known))]
    std = np.sqrt(np.mean(np.square(differences)))
    found = []
    for step in range(H):
        middle = known[len(known) - SEASON + step % SEASON]
        width = 1.2815515655446004 * std * np.sqrt(step // SEASON + 1)  # of the normal's .9
        found.append([middle, middle - width, middle, middle + width])
    return np.array(found)


def test_the_table_is_that_of_a_hand_computation(
    model: str, file: str, tmp_path: Path, capsys: Capture
) -> None:
    """A model would look better or worse than it is: another truth, season, cutoff or level."""
    out, plot = tmp_path / "out.csv", tmp_path / "out.png"
    assert app.main(call(file, model, "--out", str(out), "--plot", str(plot))) == 0
    shown, df, tested = capsys.readouterr(), series(), read(out)
    # the forecasts are those of the library
    settings: dict[str, Any] = {"num_samples": 10, "sigma": 0.5, "quantiles": (0.1, 0.5, 0.9)}
    wanted = backtest(df, H, n_windows=WINDOWS, pair=load_pair(model, None), **settings)
    pd.testing.assert_frame_equal(
        tested[wanted.columns], wanted, check_dtype=False, rtol=1e-12, atol=1e-12
    )
    # the naive ones come from what was known
    names = [f"seasonal-naive{end}" for end in ("", "-q-10", "-q-50", "-q-90")]
    for (name, cutoff), rows in tested.groupby(["unique_id", "cutoff"]):
        known = df[(df["unique_id"] == name) & (df["ds"] <= cutoff)]["y"].to_numpy()
        np.testing.assert_allclose(rows[names], naive(known), rtol=1e-12)
    # errors and shares
    lines = [line.split() for line in shown.out.splitlines()]
    assert [line[0] for line in lines[1:]] == ["load", "wind", "all"]
    ratios = []
    for line, name in zip(lines[1:3], ("load", "wind"), strict=True):
        rows = tested[tested["unique_id"] == name]
        mae, of_naive = (
            (rows["y"] - rows[f"{column}-q-50"]).abs().mean()
            for column in ("stride", "seasonal-naive")
        )
        inside = rows["y"].between(rows["stride-q-10"], rows["stride-q-90"]).mean()
        ratios.append(mae / of_naive)
        assert line[1:5] == ["2", f"{mae:.4g}", f"{of_naive:.4g}", f"{ratios[-1]:.3f}"]
        assert line[-2:] == [f"{100 * inside:.1f}", "%"]
    assert lines[3][1:5] == ["4", "-", "-", f"{np.sqrt(np.prod(ratios)):.3f}"]
    # files and lines
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert all(str(path) in shown.err for path in (out, plot))
    assert "2 series, 2 cutoffs each, 6 steps apart, histories of 18 to 24 steps" in shown.err
    assert "\nseasonal-naive repeats 4 steps\n" in shown.err
    assert "the forecasts of 2 of 4 cutoffs are cut off at 0" in shown.err


def test_a_forecast_does_not_see_what_comes_later(model: str, file: str, tmp_path: Path) -> None:
    """Errors that are too small would be reported, with the numbers of the future in them."""
    later = tmp_path / "later.csv"
    changed = series()
    changed.loc[changed["ds"] > changed["ds"][23], "y"] -= 1000
    changed.to_csv(later, index=False)
    found = []
    for name in (file, str(later)):
        out = tmp_path / f"{Path(name).stem}_out.csv"
        assert app.main(call(name, model, "--out", str(out))) == 0
        found.append(read(out))
    first, second = found
    forecasts = [name for name in first if name.startswith(("stride", "seasonal-naive"))]
    assert len(forecasts) == 8
    # both cutoffs, as the last one is the step before the change
    np.testing.assert_array_equal(first[forecasts], second[forecasts])
    assert (first["y"] != second["y"]).sum() == 2 * H


BAD = {
    "no window": (["--windows", "0"], "--windows must be a whole number from 1 on, got 0"),
    "no step": (["--step", "-1"], "--step must be a whole number from 1 on, got -1"),
    "no season": (["--season", "0"], "--season must be a whole number from 1 on, got 0"),
    "no horizon": (["--horizon", "0"], "--horizon must be a whole number from 1 on, got 0"),
    "too many windows": (
        ["--windows", "5"],
        "'load' has 30 steps, too few for 5 windows of 6",
    ),
    "a long horizon": (["--horizon", "30"], "'load' has 30 steps, too few for 2 windows of 30"),
    "a missing column": (["--target-col", "z"], "'z'"),
    "a name that is taken": (
        ["--target-col", "stride"],
        "'stride' is the name of a column of the result",
    ),
    "another table": (["--out", "out.xlsx"], "out.xlsx"),
    "a table that exists": (["--out", "old.csv"], "old.csv exists"),
    "a picture that exists": (["--plot", "old.png"], "old.png exists"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_before_the_work(
    name: str,
    model: str,
    file: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    """A user would wait for a compilation, see a traceback, or lose a file."""

    def reached(*_: object, **__: object) -> None:
        raise AssertionError("a model was read first")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shared, "choose_pair", reached)
    for old in ("old.csv", "old.png"):
        (tmp_path / old).write_text("mine")
    flags, said = BAD[name]
    assert app.main(call(file, model, *flags)) == 2
    shown = capsys.readouterr()
    last = shown.err.splitlines()[-1]
    assert shown.out == ""
    assert last.startswith("error: ")
    assert said in last
    assert [(tmp_path / old).read_text() for old in ("old.csv", "old.png")] == ["mine", "mine"]


def cuts(df: pd.DataFrame, *flags: str, season: int = 4) -> list[tuple[str, int]]:
    """Series and steps known at each cutoff that the command chooses."""
    args = make_parser().parse_args(["backtest", "x.csv", "--horizon", "6", *flags])
    panel = read_panel(df, "unique_id", "ds", "y")
    return [(grid.name, stop) for grid, stop in command.choose_cutoffs(args, panel, season)]


def test_as_many_cutoffs_as_fit_are_taken(capsys: Capture) -> None:
    """A short file would be refused, or be forecast from no season at all."""
    df = series()[:30]
    assert cuts(df) == [("load", stop) for stop in (12, 18, 24)]
    assert cuts(df, "--step", "1") == [("load", stop) for stop in range(17, 25)]
    assert cuts(df, season=7) == [("load", stop) for stop in (18, 24)]
    assert cuts(df, season=12) == [("load", 24)]
    assert capsys.readouterr().err == ""
    with pytest.raises(InputError, match=r"30 steps, too few .* 32 steps \(26 of history.* of 13"):
        cuts(df, season=13)


def test_short_series_are_left_out_and_named(capsys: Capture) -> None:
    """One new shop would end the backtest of all others, or vanish without a word."""
    df = series().drop(index=range(30, 50))  # ten steps of wind
    assert {name for name, _ in cuts(df)} == {"load"}
    assert "warning: left out, too short for a backtest" in (line := capsys.readouterr().err)
    assert line.endswith(": 'wind'\n")
    with pytest.raises(InputError, match="'wind' has 10 steps, too few for 1 window"):
        cuts(df, "--windows", "1")


def test_cutoffs_lie_between_the_first_and_the_last_value() -> None:
    """Blanks at the end of a wide column would be forecast, with nothing to compare with."""
    df = series()[:30]
    df.loc[27:, "y"] = df.loc[:1, "y"] = np.nan
    assert cuts(df) == [("load", stop) for stop in (13, 19)]  # of the 25 steps with values
    df = series()[:30]
    df.loc[4:23, "y"] = np.nan
    with pytest.raises(InputError, match=r"'load', cutoff 2024-02-29 05:00.* season of 4"):
        cuts(df)


def test_the_season_follows_the_clock_of_the_file() -> None:
    """A daily file would be compared with the value of a day before."""
    args = make_parser().parse_args(["backtest", "x.csv", "--horizon", "6"])
    panel = read_panel(series(), "unique_id", "ds", "y")
    line = command.describe_cutoffs(args, [(panel.grids[0], 24)], 24, panel.clock.describe())
    assert "histories of 24 steps; " in line
    assert line.endswith("repeats 24 steps, as the clock is hourly (--season changes that)")


def test_the_help_names_the_command(capsys: Capture) -> None:
    """A command would be there that nobody finds, or with other flags than `forecast`."""
    for flags in ([], ["backtest"]):
        with pytest.raises(SystemExit) as caught:
            app.main([*flags, "--help"])
        assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert "\n    backtest " in shown
    assert all(flag in shown for flag in ("--windows", "--season", "--quantiles", "--draft"))


def test_cutoffs_of_a_json_file_keep_their_offset(model: str, tmp_path: Path) -> None:
    """The cutoff would be an hour before the time that it is, beside stamps that are right."""
    stamps = [f"2026-11-01T{hour:02d}:00:00+01:00" for hour in range(24)]
    file, out = tmp_path / "x.csv", tmp_path / "out.json"
    pd.DataFrame({"date": stamps, "load": np.arange(24.0)}).to_csv(file, index=False)
    flags = ("--season", "4", "--windows", "1", "--out", str(out))
    argv = arguments(str(file), model, *flags, horizon="1")
    assert app.main(["backtest", *argv[1:]]) == 0
    (row,) = json.loads(out.read_text())
    assert (row["cutoff"], row["ds"]) == (stamps[-2], stamps[-1])
