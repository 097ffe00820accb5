"""The command `stride-jax`, run in process: what it prints and writes, and its exit status."""

import dataclasses
import errno
import hashlib
import io
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from helpers.cli import MODEL, Capture, arguments, table
from jax.experimental.compilation_cache import compilation_cache

from stride_jax.checkpoints import store
from stride_jax.checkpoints.build import load_pair
from stride_jax.checkpoints.checkpoint import LinearCheckpoint
from stride_jax.cli import forecast as command
from stride_jax.cli import main as app
from stride_jax.cli.parser import make_parser
from stride_jax.data.download import CATALOG, Dataset
from stride_jax.decoding.rules import Mean
from stride_jax.errors import InputError
from stride_jax.forecasting.frames import forecast_df
from stride_jax.models.linear import LinearConfig

pytestmark = pytest.mark.usefixtures("own_cache")
ROOT = Path(__file__).parents[2]


def wide_frame() -> pd.DataFrame:
    """Two variables, hourly."""
    values = np.random.default_rng(0).normal(size=(30, 2)).cumsum(axis=0).round(6)
    times = pd.date_range("2024-02-28 18:00", periods=30, freq="h")
    return pd.DataFrame({"date": times, "load": values[:, 0], "wind": 100 + values[:, 1]})


def long_frame() -> pd.DataFrame:
    """The wide frame with one row per variable and time."""
    frame = wide_frame().melt("date", var_name="unique_id", value_name="y")
    return frame.rename(columns={"date": "ds"})[["unique_id", "ds", "y"]]


@pytest.fixture
def wide(tmp_path: Path) -> str:
    """A wide file."""
    wide_frame().to_csv(tmp_path / "wide.csv", index=False)
    return str(tmp_path / "wide.csv")


@pytest.fixture
def long(tmp_path: Path) -> str:
    """A long file."""
    long_frame().to_csv(tmp_path / "long.csv", index=False)
    return str(tmp_path / "long.csv")


def expected(model: str, **settings: object) -> pd.DataFrame:
    """The same by the library."""
    pair = load_pair(model, settings.pop("draft", None))
    values = {"num_samples": 10, "sigma": 0.5, "quantiles": (0.1, 0.5, 0.9), **settings}
    return forecast_df(long_frame(), 6, pair=pair, **values)


def assert_same(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    """Equal but for the type of the stamps and the last digits of printed numbers."""
    pd.testing.assert_frame_equal(found, wanted, check_dtype=False, rtol=1e-12)


# --- forecast ------------------------------------------------------------------------------------


def test_a_wide_file_becomes_a_table_on_stdout(model: str, wide: str, capsys: Capture) -> None:
    """`stride-jax forecast x.csv > out.csv` would write something that is no CSV."""
    assert app.main(arguments(wide, model)) == 0
    shown = capsys.readouterr()
    found = table(shown.out)
    assert list(found.columns[:3]) == ["unique_id", "ds", "stride"]
    assert found["unique_id"].tolist() == ["load"] * 6 + ["wind"] * 6
    assert found["ds"][0] == pd.Timestamp("2024-03-01 00:00")
    assert_same(found, expected(model))
    assert wide in shown.err
    assert "2 series" in shown.err


def test_a_long_file_is_taken_as_it_is(model: str, long: str, capsys: Capture) -> None:
    """Ids would be taken for a variable."""
    assert app.main(arguments(long, model)) == 0
    assert_same(table(capsys.readouterr().out), expected(model))


def test_a_long_file_with_names_of_its_own(model: str, tmp_path: Path, capsys: Capture) -> None:
    """A file from a data base would have to be rewritten."""
    names = {"unique_id": "shop", "ds": "day", "y": "sales"}
    file = tmp_path / "named.csv.gz"
    long_frame().rename(columns=names).to_csv(file, index=False)
    flags = ["--id-col", "shop", "--time-col", "day", "--target-col", "sales"]
    assert app.main(arguments(str(file), model, *flags)) == 0
    found = pd.read_csv(io.StringIO(capsys.readouterr().out), parse_dates=["day"])
    assert_same(found.rename(columns={b: a for a, b in names.items()}), expected(model))


def test_a_file_without_a_clock_counts_its_rows(
    model: str, tmp_path: Path, capsys: Capture
) -> None:
    """A plain array could not be forecast, or would be given dates."""
    values = wide_frame()[["load", "wind"]].to_numpy()
    np.save(tmp_path / "values.npy", values)
    assert app.main(arguments(str(tmp_path / "values.npy"), model)) == 0
    found = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert found["unique_id"].tolist() == ["var0"] * 6 + ["var1"] * 6
    assert found["ds"].tolist() == [*range(30, 36)] * 2
    frame = long_frame().replace({"unique_id": {"load": "var0", "wind": "var1"}})
    same = forecast_df(frame, 6, pair=load_pair(model), num_samples=10, sigma=0.5)
    np.testing.assert_allclose(found["stride"], same["stride"], rtol=1e-12)


def test_columns_choose_variables(model: str, tmp_path: Path, capsys: Capture) -> None:
    """The forecast of a variable that nobody asked for would be in the way of the others."""
    file = tmp_path / "more.csv"
    wide_frame().assign(rain=0.5, place="north").to_csv(file, index=False)
    assert app.main(arguments(str(file), model, "--columns", "wind", "load")) == 0
    assert_same(table(capsys.readouterr().out), expected(model))
    assert app.main(arguments(str(file), model)) == 2
    assert "'place'" in capsys.readouterr().err  # is no number


def test_a_clock_of_numbers_with_its_step(model: str, tmp_path: Path, capsys: Capture) -> None:
    """`--freq 5` would be taken for an offset of pandas."""
    frame = long_frame().assign(ds=[*range(0, 150, 5)] * 2)
    frame.to_csv(tmp_path / "count.csv", index=False)
    assert app.main(arguments(str(tmp_path / "count.csv"), model, "--freq", "5")) == 0
    found = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert found["ds"].tolist() == [*range(150, 180, 5)] * 2


def test_flags_reach_the_forecast(model: str, wide: str, capsys: Capture) -> None:
    """A seed, quantiles or a draft would be accepted and ignored."""
    found = []
    for flags in (["--seed", "7"], ["--seed", "7"], ["--seed", "8"]):
        assert app.main(arguments(wide, model, *flags)) == 0
        found.append(table(capsys.readouterr().out))
    pd.testing.assert_frame_equal(found[0], found[1])
    assert_same(found[0], expected(model, key=7))
    assert (found[0]["stride"] != found[2]["stride"]).any()
    assert app.main(arguments(wide, model, "--quantiles", "0.25")) == 0
    assert_same(table(capsys.readouterr().out), expected(model, quantiles=(0.25,)))
    assert app.main(arguments(wide, model, "--quantiles")) == 0
    assert_same(table(capsys.readouterr().out), expected(model, quantiles=()))
    flags = ["--draft", "last-value", "--num-samples", "0", "--num-draft", "2", "--rule"]
    flags += ["mean:tolerance=0.02"]
    assert app.main(arguments(wide, model, *flags)) == 0
    settings = {"draft": "last-value", "num_samples": 0, "num_draft": 2, "rule": Mean(0.02)}
    settings["quantiles"] = ()
    found = table(capsys.readouterr().out)
    assert list(found.columns) == ["unique_id", "ds", "stride"]
    assert_same(found, expected(model, **settings))


def test_tables_are_written_to_files(
    model: str, wide: str, tmp_path: Path, capsys: Capture
) -> None:
    """Another program could not read the output, or would find the table on stdout as well."""
    wanted = expected(model)
    for name in ("out.csv", "out.json"):
        assert app.main(arguments(wide, model, "--out", str(tmp_path / name))) == 0
        assert capsys.readouterr().out == ""
    assert_same(table((tmp_path / "out.csv").read_text()), wanted)
    rows = json.loads((tmp_path / "out.json").read_text())
    assert list(rows[0]) == list(wanted.columns)
    found = pd.DataFrame(rows)
    found["ds"] = pd.to_datetime(found["ds"])
    pd.testing.assert_frame_equal(found, wanted, check_dtype=False, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kind", ["wide", "long"])
def test_a_picture_is_drawn(
    model: str, kind: str, tmp_path: Path, capsys: Capture, request: pytest.FixtureRequest
) -> None:
    """`--plot` would end in a traceback after all the work, or leave a broken file."""
    file, picture = request.getfixturevalue(kind), tmp_path / "picture.png"
    assert app.main(arguments(file, model, "--plot", str(picture))) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 10_000
    shown = capsys.readouterr()
    assert str(picture) in shown.err
    assert_same(table(shown.out), expected(model))


def test_gaps_follow_the_flag(model: str, tmp_path: Path, capsys: Capture) -> None:
    """A hole in the data would be filled although that was forbidden, or end the forecast."""
    frame = wide_frame()
    frame.loc[27, "load"] = np.nan
    frame.to_csv(tmp_path / "gap.csv", index=False)
    long_frame().drop(index=27).to_csv(tmp_path / "lost.csv", index=False)
    outputs = []
    for name in ("gap.csv", "lost.csv"):
        assert app.main(arguments(str(tmp_path / name), model)) == 0
        outputs.append(table(capsys.readouterr().out))
        assert app.main(arguments(str(tmp_path / name), model, "--missing", "error")) == 2
        assert "load" in capsys.readouterr().err.splitlines()[-1]
    assert_same(*outputs)


def test_the_clock_that_was_read_is_said(model: str, wide: str, capsys: Capture) -> None:
    """A month that was read as a day would be seen by nobody."""
    assert app.main(arguments(wide, model)) == 0
    lines = capsys.readouterr().err.splitlines()
    expected = "hourly, 60 rows, 2 series, 2024-02-28 18:00 to 2024-02-29 23:00; "
    assert expected + "forecast of 6 from 2024-03-01 00:00" in lines


def test_leading_blanks_of_a_wide_file_are_no_history(
    model: str, tmp_path: Path, capsys: Capture
) -> None:
    """A variable that begins late would be forecast from values that nobody measured."""
    frame = wide_frame()
    frame.loc[:21, "load"] = np.nan
    frame.to_csv(tmp_path / "wide.csv", index=False)
    long_frame().drop(index=range(22)).to_csv(tmp_path / "long.csv", index=False)
    found = []
    for name in ("wide.csv", "long.csv"):
        assert app.main(arguments(str(tmp_path / name), model)) == 0
        found.append(table(capsys.readouterr().out))
    assert_same(*found)


def test_offsets_are_printed_as_they_came(model: str, tmp_path: Path, capsys: Capture) -> None:
    """The first hour of the forecast would be printed as the last one that is known."""
    stamps = [f"2026-11-01T{hour:02d}:00:00+01:00" for hour in range(20)]
    pd.DataFrame({"date": stamps, "load": np.arange(20.0)}).to_csv(tmp_path / "x.csv", index=False)
    out = tmp_path / "out.json"
    assert app.main(arguments(str(tmp_path / "x.csv"), model, horizon="1")) == 0
    assert "load,2026-11-01 20:00:00+01:00," in capsys.readouterr().out
    argv = arguments(str(tmp_path / "x.csv"), model, "--out", str(out), horizon="1")
    assert app.main(argv) == 0
    assert json.loads(out.read_text())[0]["ds"] == "2026-11-01T20:00:00+01:00"


def test_a_picture_shows_the_dates_that_were_read(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The history would be drawn month first and the forecast day first."""
    shown: list[pd.DataFrame] = []
    monkeypatch.setattr(
        "stride_jax.evaluation.figures.forecasts.save_intervals",
        lambda _, known, *rest: shown.append(known),
    )
    frame = long_frame()[:30].assign(
        ds=pd.date_range("2026-01-03", periods=30).strftime("%d/%m/%Y")
    )
    frame.to_csv(tmp_path / "x.csv", index=False)
    assert (
        app.main(arguments(str(tmp_path / "x.csv"), model, "--plot", str(tmp_path / "a.png"))) == 0
    )
    assert shown[0]["ds"].tolist() == pd.date_range("2026-01-03", periods=30).tolist()


# --- bad input -----------------------------------------------------------------------------------

BAD = {
    "no file": (["nowhere.csv"], [], "nowhere.csv"),
    "another kind of file": (["data.xlsx"], [], ".xlsx"),
    "no table": (["empty.csv"], [], "empty.csv"),
    "torn": (["torn.csv"], [], "torn.csv"),
    "words for values": (["words.csv"], [], "'y'"),
    "no horizon": ([], ["--horizon", "0"], "horizon"),
    "an endless horizon": ([], ["--horizon", "99999999999"], "99999999999"),
    "ids in a column of the result": ([], ["--id-col", "stride"], "'stride' is the name"),
    "times in a column of the result": ([], ["--time-col", "stride-q-10"], "'stride-q-10' is the"),
    "an endless seed": ([], ["--seed", str(2**70)], str(2**70)),
    "no step": ([], ["--freq", "0D"], "0D"),
    "quantiles of no paths": ([], ["--quantiles", ".1", "--num-samples", "0"], "sample paths"),
    "a wild number": (["wild.csv"], [], "'a'"),
    "a wild stamp": (["stray.csv"], [], "1970-01-01"),
    "two columns y": (["twice.csv"], [], "'y'"),
    "percents": ([], ["--quantiles", "10", "90"], "10"),
    "no such model": ([], ["--model", "nothing.npz"], "nothing.npz"),
    "no such draft": ([], ["--draft", "lastvalue"], "lastvalue"),
    "no such rule": ([], ["--draft", "last-value", "--rule", "blok"], "'blok'"),
    "no such setting": ([], ["--draft", "last-value", "--rule", "block:bias=2"], "'bias'"),
    "no such value": ([], ["--draft", "last-value", "--rule", "resample:bias=much"], "'much'"),
    "a value out of range": ([], ["--draft", "last-value", "--rule", "resample:bias=0.5"], "0.5"),
    "a rule of means": ([], ["--draft", "last-value", "--rule", "mean"], "'mean'"),
    "no sigma": ([], ["--sigma", "-1"], "-1"),
    "no samples": ([], ["--num-samples", "-1"], "-1"),
    "no proposals": ([], ["--draft", "last-value", "--num-draft", "-1"], "-1"),
    "no such column": ([], ["--columns", "laod"], "laod"),
    "columns of a long file": (["long.csv"], ["--columns", "y"], "--columns"),
    "no such offset": ([], ["--freq", "fortnight"], "fortnight"),
    "a number for stamps": ([], ["--freq", "2"], "2"),
    "another table": ([], ["--out", "out.xlsx"], "out.xlsx"),
    "no such directory": ([], ["--out", "no/such/out.csv"], "no/such"),
    "no directory for the picture": ([], ["--plot", "no/such/a.png"], "no/such"),
    "another picture": ([], ["--plot", "picture.doc"], "picture.doc"),
    "a table that exists": ([], ["--out", "old.csv"], "old.csv exists"),
    "a picture that exists": ([], ["--plot", "old.png"], "old.png exists"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_status_2(
    name: str,
    model: str,
    wide: str,
    long: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    """A script would take a failure for success, or a user would see a traceback."""
    monkeypatch.chdir(tmp_path)
    for name_of_file in ("empty.csv", "old.csv", "old.png"):
        (tmp_path / name_of_file).write_text("")
    (tmp_path / "data.xlsx").write_text("x")
    (tmp_path / "torn.csv").write_text("unique_id,ds,y\na,2024-01-01,1\na,2024-01-02,2,3\n")
    (tmp_path / "words.csv").write_text("unique_id,ds,y\na,2024-01-01,x\na,2024-01-02,y\n")
    days = [f"a,2024-01-0{day},{day}\n" for day in range(1, 10)]
    content = {
        "wild": ["unique_id,ds,y\n", *days, "a,2024-01-10,1e200\n"],
        "stray": ["unique_id,ds,y\n", "a,1970-01-01,1\n", *days],
        "twice": ["unique_id,ds,y,y\n", "a,2024-01-01,1,2\n"],
    }
    for file_name, lines in content.items():
        (tmp_path / f"{file_name}.csv").write_text("".join(lines))
    file, flags, said = BAD[name]
    assert app.main(arguments(file[0] if file else wide, model, *flags)) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    *before, last = shown.err.splitlines()
    assert last.startswith("error: ")
    assert said in last
    assert not [line for line in before if "error" in line.lower() or "Traceback" in line]


@pytest.mark.parametrize("flag", ["--out", "--plot"])
def test_a_place_to_write_is_checked_before_the_work(
    flag: str, model: str, wide: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """A forecast of an hour would be lost to a directory that does not exist."""

    def reached(*_: object) -> None:
        raise AssertionError("the file was read first")

    monkeypatch.setattr(command, "read_table", reached)
    assert app.main(arguments(wide, model, flag, "no/such/place.csv")) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert shown.err.startswith("error: ")


def test_an_interrupted_command_says_so(
    model: str, wide: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Ctrl-C would print a traceback, or pass for success."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "read_table", interrupted)
    assert app.main(arguments(wide, model)) == 130
    assert capsys.readouterr().out == ""


def test_a_bug_keeps_its_traceback(model: str, wide: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours would be blamed on the user, without a line to find it by."""

    def broken(*_: object) -> None:
        raise ValueError("ours")

    monkeypatch.setattr(command, "read_table", broken)
    with pytest.raises(ValueError, match="ours") as caught:
        app.main(arguments(wide, model))
    assert not isinstance(caught.value, InputError)


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["forcast"],
        ["forecast"],
        ["forecast", "x.csv"],
        ["forecast", "x.csv", "--horizon", "six"],
        ["forecast", "x.csv", "--horizon", "6", "--missing", "drop"],
        ["forecast", "x.csv", "--horizon", "6", "--unknown"],
        ["forecast", "x.csv", "--horizon", "6", "--target", "runs/mine"],
        ["info"],
        ["convert", "x.npz"],
    ],
)
def test_a_mistyped_command_is_status_2(argv: list[str], capsys: Capture) -> None:
    """A mistyped flag would be ignored, or `--target MODEL` be taken for `--target-col`."""
    with pytest.raises(SystemExit) as caught:
        app.main(argv)
    assert caught.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "usage: stride-jax" in shown.err


# --- cache ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_programs_are_kept_on_disk(model: str, wide: str, own_cache: Path, capsys: Capture) -> None:
    """Every start would compile for a minute."""
    jax.clear_caches()
    compilation_cache.reset_cache()  # this process has compiled before, which a command has not
    argv = [flag for flag in arguments(wide, model) if flag != "--no-cache"]
    assert app.main(argv) == 0
    first = capsys.readouterr().out
    kept = sorted(path.name for path in own_cache.iterdir() if path.name.endswith("-cache"))
    assert any("decode" in name for name in kept)
    jax.clear_caches()
    assert app.main(argv) == 0
    assert capsys.readouterr().out == first
    again = sorted(path.name for path in own_cache.iterdir() if path.name.endswith("-cache"))
    assert again == kept  # everything was found


def test_nothing_is_kept_where_that_is_not_wanted(
    model: str, wide: str, own_cache: Path, capsys: Capture
) -> None:
    """A read-only home, or a machine that is billed by the file, would be written to."""
    before = jax.config.jax_compilation_cache_dir
    assert app.main(arguments(wide, model)) == 0  # with --no-cache
    assert jax.config.jax_compilation_cache_dir == before != str(own_cache)
    assert not own_cache.exists()


def test_only_brief_work_is_compiled_quickly(
    model: str, wide: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Ten thousand series would be decoded at half the speed, to save seconds of compilation."""
    calls: list[bool] = []

    @contextmanager
    def noted() -> Iterator[None]:
        calls.append(True)
        yield

    monkeypatch.setattr(command, "quick_compilation", noted)
    assert app.main(arguments(wide, model)) == 0
    assert calls == [True]
    monkeypatch.setattr(command, "BRIEF", 1)
    assert app.main(arguments(wide, model)) == 0
    assert calls == [True]


def test_a_full_disk_is_one_line(
    model: str, wide: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Who has no room left would read a traceback; another failure of a file is a bug."""
    number = errno.ENOSPC

    def full(*_args: object, **_options: object) -> None:
        raise OSError(number, "No space left on device", "out.csv")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    assert app.main(arguments(wide, model)) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: [Errno 28]")
    number = errno.EBADF
    with pytest.raises(OSError, match="Errno 9"):
        app.main(arguments(wide, model))


# --- the other commands --------------------------------------------------------------------------


def test_info_describes_a_checkpoint(model: str, capsys: Capture) -> None:
    """A program could not read off a file what it holds."""
    assert app.main(["info", model]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["checkpoint"] == model
    assert described["context_len"] == 16
    assert described["model"]["patch_len"] == 4
    assert described["model"]["instance_norm"] == "causal"
    with np.load(model) as file:
        sizes = [file[name].size for name in file.files if name != "stride_jax"]
    assert described["parameters"] == sum(sizes)
    assert app.main(["info", "beijing"]) == 0  # a name in the package
    assert json.loads(capsys.readouterr().out)["parameters"] > 0


def test_info_of_nothing_is_status_2(tmp_path: Path, capsys: Capture) -> None:
    """A wrong path would be described by a traceback."""
    (tmp_path / "torn.npz").write_bytes(b"PK")
    for name in ("nothing.npz", str(tmp_path / "torn.npz")):
        assert app.main(["info", name]) == 2
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.startswith("error: ")
        assert shown.err.count("\n") == 1
        assert name in shown.err


def test_download_prints_the_path_of_each_series(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """A script could not find what was fetched; a misspelt name would be a traceback."""
    body = b"date,a\n2020-01-01,1\n"
    for name in ("one", "two"):
        digest = hashlib.sha256(body).hexdigest()
        entry = Dataset(name, f"sub/{name}.csv", "http://127.0.0.1:9/x", digest, 1, 1, "1 day", "")
        monkeypatch.setitem(CATALOG, name, entry)
        (tmp_path / "sub").mkdir(exist_ok=True)
        (tmp_path / "sub" / f"{name}.csv").write_bytes(body)
    assert app.main(["download", "one", "two", "--root", str(tmp_path)]) == 0
    expected = [str(tmp_path / "sub" / f"{name}.csv") for name in ("one", "two")]
    assert capsys.readouterr().out.splitlines() == expected
    monkeypatch.setenv("STRIDE_JAX_DATA", str(tmp_path))
    assert app.main(["download", "two"]) == 0
    assert capsys.readouterr().out.splitlines() == expected[1:]
    assert app.main(["download", "tow"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert "two" in shown.err
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(("draft", "expected"), [("auto", None), ("beijing", "beijing")])
def test_a_draft_that_is_left_out_is_told(
    draft: str, expected: str | None, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Short work would be decoded without the draft, and nobody be told."""
    asked: list[tuple[str, str | None]] = []
    monkeypatch.setattr(
        "stride_jax.checkpoints.build.load_pair", lambda *names: asked.append(names)
    )
    flags = ["forecast", "x.csv", "--horizon", "6", "--model", "beijing", "--draft", draft]
    command.choose_pair(make_parser().parse_args(flags), brief=True)
    assert asked == [("beijing", expected)]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (draft == "auto")
    assert all("target alone" in line and "--draft beijing" in line for line in lines)
    command.choose_pair(make_parser().parse_args(flags), brief=False)
    assert asked[1:] == [("beijing", draft)]
    assert capsys.readouterr().err == ""


def test_download_without_a_name_is_status_2(capsys: Capture) -> None:
    """A script would take nothing for success."""
    assert app.main(["download"]) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err[:7], shown.err.count("\n")) == ("", "error: ", 1)


def test_download_lists_the_catalogue(capsys: Capture) -> None:
    """A user could not see which series there are, or how large."""
    assert app.main(["download", "--list"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    for entry in CATALOG.values():
        assert f"{entry.rows:,} x {entry.num_vars}" in shown.out
        assert entry.url in shown.out


@pytest.mark.parametrize("place", ["behind", "in front"])
def test_convert_takes_its_own_flags(
    place: str, model: str, tmp_path: Path, capsys: Capture
) -> None:
    """`stride-jax convert --half in out` would be refused where the module takes it."""
    out = tmp_path / "half.safetensors"
    files, flags = [model, str(out)], ["--half"]
    assert app.main(["convert", *(files + flags if place == "behind" else flags + files)]) == 0
    capsys.readouterr()
    assert store.load_model(out).model == MODEL
    assert out.stat().st_size < Path(model).stat().st_size
    assert app.main(["convert", model, str(out)]) == 2  # it exists
    assert capsys.readouterr().err.startswith("error: ")


def test_convert_sets_the_dtype_of_the_computation(
    model: str, tmp_path: Path, capsys: Capture
) -> None:
    """A model trained in bfloat16 would forecast in it, with two digits, on every CPU."""
    fast, exact = tmp_path / "fast.safetensors", tmp_path / "exact.safetensors"
    assert app.main(["convert", model, str(fast), "--dtype", "bfloat16"]) == 0
    assert store.load_model(fast).model == dataclasses.replace(MODEL, dtype="bfloat16")
    assert app.main(["convert", str(fast), str(exact), "--dtype", "float32"]) == 0
    assert store.load_model(exact).model == MODEL
    linear = tmp_path / "linear.safetensors"
    config = LinearConfig(4, 8)
    params = {name: np.zeros(shape, np.float32) for name, shape in config.shapes.items()}
    store.save_model(linear, LinearCheckpoint(config, params))
    out = tmp_path / "out.safetensors"
    assert app.main(["convert", str(linear), str(out), "--dtype", "float32"]) == 2
    assert "has no --dtype" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    "flag", [["--activation", "gelu"], ["--no-instance-norm"], ["--covariate"]]
)
def test_convert_of_a_directory_takes_no_part_of_a_config(
    flag: list[str], tmp_path: Path, capsys: Capture
) -> None:
    """It would be called unreadable, with the advice to give what it is."""
    assert app.main(["convert", str(tmp_path), str(tmp_path / "out.npz"), *flag]) == 2
    assert "is a directory of ours, which holds the whole config; leave out" in (
        capsys.readouterr().err
    )


def test_convert_explains_itself(capsys: Capture) -> None:
    """The help of `convert` would say to see the help of `convert`."""
    with pytest.raises(SystemExit) as caught:
        app.main(["convert", "--help"])
    assert caught.value.code == 0
    assert "--no-instance-norm" in capsys.readouterr().out


def test_help_names_every_command(capsys: Capture) -> None:
    """A command would be there that nobody finds."""
    with pytest.raises(SystemExit) as caught:
        app.main(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for name in ("forecast", "info", "download", "convert"):
        assert f"\n    {name} " in shown
    with pytest.raises(SystemExit) as caught:
        app.main(["forecast", "--help"])
    assert caught.value.code == 0
    assert "--num-samples" in capsys.readouterr().out


def test_the_command_is_installed_under_its_name() -> None:
    """`pip install stride-jax` would give no command, or one that cannot be run as a module."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"stride-jax": "stride_jax.cli.main:main"}
    command = [sys.executable, "-W", "error", "-m", "stride_jax.cli.main", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == f"stride-jax {project['version']}"
