"""Files of every kind a user may bring, and the ones that must be refused with a clear word."""

import gzip
import lzma
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stride_jax.data import load_file
from stride_jax.errors import InputError

PLAIN = "date,a,b\n2020-01-01 00:00:00,1,2\n2020-01-01 01:00:00,3,4\n2020-01-01 02:00:00,5,6.5\n"
GAPS = "date,a,b\n2020-01-01,?,1\n2020-01-02,10,NA\n2020-01-03,,?\n2020-01-04,30,4\n"
FINITE = st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = hnp.arrays(
    st.sampled_from([np.float64, np.float32, np.int16]),
    hnp.array_shapes(min_dims=1, max_dims=3),
    elements=st.integers(-1000, 1000),
)
DAYS = ("%Y-%m-%d", "%Y/%m/%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y")
HOURS = (" %H:%M", " %H:%M:%S", " %I:%M:%S %p")
MODEST = settings(max_examples=40, deadline=None)

Write = Callable[..., Path]
Folders = pytest.TempPathFactory


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(content: str | bytes, name: str = "series.csv", encoding: str = "utf-8") -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return path

    return _write


def refused(path: Path, *words: str, **options: object) -> str:
    """The one-line message with which a file is refused, holding its path and the words."""
    with pytest.raises(InputError) as caught:
        load_file(path, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message
    return message


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("x.csv", bytes),
        ("x.CSV", bytes),
        ("x.csv.gz", lambda raw: gzip.compress(raw, mtime=0)),
        ("x.csv.XZ", lzma.compress),
    ],
)
def test_plain_and_packed(write: Write, name: str, pack: Callable[[bytes], bytes]) -> None:
    """The usual benchmark file would come with wrong values, names, types or clock."""
    path = write(pack(PLAIN.encode()), name)
    series, files = load_file(str(path)), list(path.parent.iterdir())
    assert series.names == ("a", "b")
    assert (series.values.dtype, series.times.dtype) == (np.float64, "datetime64[us]")
    np.testing.assert_array_equal(series.values, [[1, 2], [3, 4], [5, 6.5]])
    expected = np.datetime64("2020-01-01") + np.arange(3) * np.timedelta64(1, "h")
    np.testing.assert_array_equal(series.times, expected)
    assert (path.read_bytes(), files) == (pack(PLAIN.encode()), [path])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encodings(write: Write, encoding: str, newline: str) -> None:
    """Files from other systems would lose rows, or get names with stray characters."""
    text = "T (°C),date,PAR (µmol)\n1,2020-01-01,2\n3,2020-01-02,4\n\n"
    series = load_file(write(text.replace("\n", newline), encoding=encoding))
    assert series.names == ("T (°C)", "PAR (µmol)")
    np.testing.assert_array_equal(series.values, [[1, 2], [3, 4]])


@MODEST
@given(values=hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2), elements=FINITE))
def test_exact(tmp_path_factory: Folders, values: np.ndarray) -> None:
    """Numbers would change in their last digit on the way in, and results with them."""
    path = tmp_path_factory.mktemp("exact") / "x.csv"
    rows = [(f"v{i}" for i in range(values.shape[1])), *(map(repr, row) for row in values.tolist())]
    path.write_text("\n".join(map(",".join, rows)))
    np.testing.assert_array_equal(load_file(path).values, values)


@pytest.mark.parametrize(
    ("content", "names", "values"),
    [
        ('"date", "a"\n"2020-01-01","  60"\n"2020-01-02", " 7.5 "\n', ("a",), [[60], [7.5]]),
        ("1,2\n3,4\n", ("var0", "var1"), [[1, 2], [3, 4]]),
        ("2020-01-01,?,2,\n2020-01-02,3,4,5\n", ("var1", "var2", "var3"), [[3, 2, 5], [3, 4, 5]]),
        ("date,0,1\n1990/1/1 0:00,1,2\n", ("0", "1"), [[1, 2]]),
        (GAPS, ("a", "b"), [[10, 1], [10, 2], [20, 3], [30, 4]]),
        ("No,a\n1,5\n2,7\n", ("a",), [[5], [7]]),
        (",7,8\n0,5,6\n1,7,8\n", ("7", "8"), [[5, 6], [7, 8]]),
        ("Unnamed: 0,a\n0,5\n1,7\n", ("a",), [[5], [7]]),
        ("No,a\n1,5\n3,7\n", ("No", "a"), [[1, 5], [3, 7]]),
        ("No,a\n2,5\n3,7\n", ("No", "a"), [[2, 5], [3, 7]]),
        ("x,a\n0,5\n1,7\n", ("x", "a"), [[0, 5], [1, 7]]),
    ],
)
def test_tables(write: Write, content: str, names: tuple[str, ...], values: list) -> None:
    """A first row or a column would be lost, a row number be forecast, or a gap be misfilled."""
    series = load_file(write(content), missing="interpolate")
    assert series.names == names
    np.testing.assert_array_equal(series.values, values)


def test_columns(write: Write) -> None:
    """Columns would come in another order than asked for, or with unused ones in the way."""
    path = write("No,date,a,dir,gap,b\n1,2020-01-01,1,NW,?,2\n2,2020-01-02,3,SE,,4\n")
    series = load_file(path, columns=["b", "No", "a"])
    assert series.names == ("b", "No", "a")
    np.testing.assert_array_equal(series.values, [[2, 1, 1], [4, 2, 3]])
    assert "'a'" not in refused(path, "'dir'", "'NW'", "columns=")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"columns": ["HUF"]}, "no column 'HUF'; did you mean one of ['HUFL']"),
        ({"columns": []}, "at least one"),
        ({"columns": ["OT", "OT"]}, "each once"),
        ({"columns": [3]}, "no column 3"),
        ({"columns": "OT"}, "['OT']"),
        ({"missing": "drop"}, "'drop'"),
        ({"missing": "interpolate"}, "'gap' is wholly missing"),
    ],
)
def test_bad_options(write: Write, options: dict[str, object], word: str) -> None:
    """A misspelt choice would give a traceback, or columns="OT" be taken for O and T."""
    refused(write("OT,HUFL,gap\n1,2,?\n"), word, **options)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("", "no rows"),
        ("\n\n", "no rows"),
        ("date,a\n", "no rows"),
        ("date\n2020-01-01\n2020-01-02\n", "no numeric columns"),
        ("date,a\n2020-01-01,1,9\n2020-01-02,2,9\n", "regular table"),
        ("date,a\n2020-01-01,1\n2020-01-02,2,9\n", "regular table"),
        ('date,a\n2020-01-01,"1\n2020-01-02,2\n', "regular table"),
        ("a,a\n1,2\n", "['a']"),
        ("a,b\n1,2\n3,oops\n", "'oops', data row 2"),
        ("a,b\n1,2\n3,1_000\n", "1_000"),
        ("a,b\n1,True\n3,False\n", "'True'"),
        ("a,b\n1,2\n3", "data row 2 of column 'b'"),
        ("a\n1\n\n3\n", "data row 2 of column 'a'"),
        (PLAIN.encode("utf-16-le"), "NUL"),
        ("date,a\n2020-01-01,1\n2020-01-03,2\n2020-01-02,3\n", "data row 3: 2020-01-02T"),
        ("date,a\n2020-01-01,1\n,2\n", "'' in data row 2 of column 'date'"),
        ("date,a\n2020-01-01,1\nsoon,2\n", "'soon' in data row 2 of column 'date'"),
        ("date,a\n2020-01-01,1\n2020-02-30,2\n", "'2020-02-30' in data row 2"),
        ("Date,Time,a\n2020-01-01,01:00,1\n2020-01-01,?,2\n", "'?' in data row 2 of column 'Time'"),
        ("year,month,day,a\n2020,2,28,5\n2020,2,30,6", "data row 2 has no valid date: year '2020'"),
        ("year,month,day,a\n2020,2,28,5\n2020,,1,6", "data row 2 has no valid date"),
        ("year,month,day,a\n2020,2,28,5\n2020,1.5,1,6", "data row 2 has no valid date"),
        (GAPS, "4, the first in data row 1 of column 'a'; fill them with missing='interpolate'"),
    ],
)
def test_refused_tables(write: Write, content: str | bytes, word: str) -> None:
    """A broken table would be read with cells, rows or dates made up, or end in a traceback."""
    refused(write(content), word)


@MODEST
@given(
    start=st.datetimes(datetime(1950, 1, 1), datetime(2100, 1, 1)),
    step=st.sampled_from([timedelta(hours=1), timedelta(days=1), timedelta(days=7)]),
    form=st.sampled_from([day + hour for day in DAYS for hour in HOURS] + ["%Y-%m-%dT%H:%M"]),
)
def test_dates(tmp_path_factory: Folders, start: datetime, step: timedelta, form: str) -> None:
    """Dates would be read as other dates, for example with month and day swapped."""
    stamps = [start.replace(second=0, microsecond=0) + i * step for i in range(800)]
    path = tmp_path_factory.mktemp("dates") / "x.csv"
    path.write_text("\n".join(["x,ds", *(f"{i % 5},{s:{form}}" for i, s in enumerate(stamps))]))
    series = load_file(path)
    assert series.names == ("x",)
    np.testing.assert_array_equal(series.times, np.array(stamps, "datetime64[us]"))


@pytest.mark.parametrize(
    ("content", "times"),
    [
        ("date,a\n1990/1/9 0:00,1\n1990/1/10 0:00,2", ["1990-01-09", "1990-01-10"]),
        # Day first although every number is below 13: the steps are even only that way.
        (
            "a,date\n1,1/3/2020 23:00\n1,2/3/2020 0:00\n1,2/3/2020 1:00\n1,2/3/2020 2:00",
            ["2020-03-01T23", "2020-03-02"],
        ),
        # Two stamps across the end of summer time.
        ("date,a\n2020-10-25 02:30+02:00,1\n2020-10-25 02:00+01:00,2", ["2020-10-25T00:30"]),
        # The household data, the bike-sharing data, the weather data.
        ("Date,Time,a\n16/12/2006,0:00,1\n16/12/2006,7:59,2", ["2006-12-16", "2006-12-16T07:59"]),
        ("day,ts,a\n2020-1-1,2020-1-1 5:00,1\n2020-1-1,2020-1-1 6:00,2", ["2020-01-01T05"]),
        ("date,a\n2020-01-01,1\n2020-01-01,2", ["2020-01-01", "2020-01-01"]),
        ("No,Year,MONTH,day,a\n1,2020,2,28,5\n2,2020,2,29,6", ["2020-02-28", "2020-02-29"]),
        ("year,month,day,hour,a\n2020,2,28,23,5\n2020,2,29,0,6", ["2020-02-28T23", "2020-02-29"]),
        ("year,month,day,hour,minute,a\n2020,2,28,1,5,1", ["2020-02-28T01:05"]),
    ],
)
def test_clocks(write: Write, content: str, times: list[str]) -> None:
    """Data sets with these clocks would be refused, or get wrong times or clocks as variables."""
    series = load_file(write(content))
    assert series.names == ("a",)
    assert series.times[: len(times)].tolist() == np.array(times, "M8[us]").tolist()


@MODEST
@given(holes=hnp.arrays(np.bool_, st.tuples(st.integers(2, 30), st.integers(1, 3))))
def test_ramp(tmp_path_factory: Folders, holes: np.ndarray) -> None:
    """Interpolation would bend a straight line or touch cells that were measured."""
    holes[[0, -1]] = False
    ramp = np.outer(np.arange(len(holes)), np.arange(1.0, holes.shape[1] + 1))
    np.save(path := tmp_path_factory.mktemp("ramp") / "x.npy", np.where(holes, np.nan, ramp))
    values = load_file(path, missing="interpolate").values
    np.testing.assert_allclose(values, ramp, atol=1e-12)
    np.testing.assert_array_equal(values[~holes], ramp[~holes])
    if holes.any():
        refused(path, f"{holes.sum()}, the first in data row {holes.any(axis=1).argmax() + 1} ")


@MODEST
@given(values=NUMBERS)
def test_arrays(tmp_path_factory: Folders, values: np.ndarray) -> None:
    """An array would come with other numbers, or a traffic benchmark with another feature."""
    folder = tmp_path_factory.mktemp("arrays")
    np.savez(folder / "x.npz", data=values, other=np.ones(3))
    np.save(folder / "x.npy", values)
    flat = values.reshape(len(values), -1) if values.ndim < 3 else values[:, :, 0]
    for name, wrong_rank in (("x.npz", 1), ("x.npy", 3)):
        if values.ndim == wrong_rank:
            refused(folder / name, str(values.shape))
            continue
        series = load_file(folder / name)
        assert (series.values.dtype, series.times) == (np.float64, None)
        assert series.names == tuple(f"var{i}" for i in range(flat.shape[1]))
        np.testing.assert_array_equal(series.values, flat)
        last = load_file(folder / name, columns=[series.names[-1]])
        np.testing.assert_array_equal(last.values, flat[:, -1:])


@pytest.mark.parametrize(
    "values", [np.ones((0, 2)), np.ones((2, 0)), np.array(["a"]), np.array([1j]), np.array(3.0)]
)
def test_unfit_arrays(tmp_path: Path, values: np.ndarray) -> None:
    """Empty, complex or text arrays, or an archive of others, would fail far from their cause."""
    np.save(tmp_path / "x.npy", values)
    refused(tmp_path / "x.npy", str(values.shape))
    np.savez(tmp_path / "x.npz", flow=values, speed=values)
    refused(tmp_path / "x.npz", "'data'", "['flow', 'speed']")


@pytest.mark.parametrize("save", [np.save, np.savez])
def test_no_pickles(tmp_path: Path, save: Callable[..., None]) -> None:
    """Opening a file from the network could run foreign code."""
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> tuple:
            return Path.touch, (trap,)

    path = tmp_path / ("x.npy" if save is np.save else "x.npz")
    save(path, **{"arr" if save is np.save else "data": np.array([[Trap()]], dtype=object)})
    refused(path, "not a readable array of numbers")
    assert not trap.exists()


def test_solar(write: Write) -> None:
    """The solar benchmark would lose its first row to a header that is not there."""
    series = load_file(write(gzip.compress(b"0.5,1\n2,3\n4,5\n", mtime=0), "solar_AL.txt.gz"))
    assert (series.names, series.times) == (("var0", "var1"), None)
    np.testing.assert_array_equal(series.values, [[0.5, 1], [2, 3], [4, 5]])
    refused(write("a,b\n1,2\n", "x.txt"), "'a'")


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("x.xlsx", b"1", "'.xlsx' is not supported; use one of .csv, .txt, .npz, .npy"),
        ("x", b"1", "not supported"),
        ("x.gz", b"1", "not supported"),
        ("x.csv.zip", b"1", "not supported"),
        ("x.csv.gz", b"not packed", "cannot be read"),
        ("x.csv.gz", gzip.compress(PLAIN.encode(), mtime=0)[:-9], "cannot be read"),
        ("x.csv.xz", b"not packed", "cannot be read"),
        ("x.csv.xz", lzma.compress(PLAIN.encode())[:-20], "cannot be read"),
        ("x.npy", b"", "not a readable array"),
        ("x.npy", b"not an array", "not a readable array"),
        ("x.npz", b"PK\x03\x04 not an archive", "not a readable array"),
    ],
)
def test_unfit_files(write: Write, name: str, content: bytes, word: str) -> None:
    """A file of another kind, a broken or a mistyped one would give a traceback, or less data."""
    refused(write(content, name), word)
    refused(Path("nowhere") / name, "no such file")
