"""What is read from a file: every kind that people report trouble with, and its right answer."""

import argparse
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stride_jax.cli import forecast as app
from stride_jax.cli.main import main
from stride_jax.cli.parser import make_parser
from stride_jax.data import load_series
from stride_jax.data.panel import Panel, describe
from stride_jax.errors import InputError

MODEST = settings(max_examples=60, deadline=None)


def flags_of(path: Path, *flags: str) -> argparse.Namespace:
    """The arguments of the command line, for three steps."""
    return make_parser().parse_args(["forecast", str(path), "--horizon", "3", *flags])


def read(path: Path, *flags: str) -> tuple[Panel, str]:
    """The series of a file as the command reads them, and the line that it prints."""
    args = flags_of(path, *flags)
    app.check_flags(args)
    table = app.read_table(args)
    panel = app.read_clock(args, table.frame)
    return panel, describe(panel, args.horizon, table.note)


def ahead(panel: Panel) -> dict[str, list[str]]:
    """The three stamps after the end of every series, as they are printed."""
    return {grid.name: [str(stamp) for stamp in grid.ahead(3)] for grid in panel.grids}


def wide(*stamps: str, separator: str = ",", name: str = "date") -> str:
    """A file with one variable, 1.5, 2.5, ..."""
    rows = [f"{stamp}{separator}{i}.5" for i, stamp in enumerate(stamps, 1)]
    return "\n".join([f"{name}{separator}sales", *rows]) + "\n"


def long(**series: list[str]) -> str:
    """A file of rows with an id and a stamp each."""
    rows = [f"{name},{s},{i}.5" for name, stamps in series.items() for i, s in enumerate(stamps, 1)]
    return "\n".join(["unique_id,ds,y", *rows]) + "\n"


def days(*texts: str) -> list[str]:
    """Midnights as pandas prints them."""
    return [f"{text} 00:00:00" for text in texts]


def dated(start: str, count: int, freq: str, form: str) -> list[str]:
    """Stamps of pandas in a form."""
    return list(pd.date_range(start, periods=count, freq=freq).strftime(form))


# --- clocks and stamps ---------------------------------------------------------------------------

US, EU = "%m/%d/%Y", "%d/%m/%Y"
AHEAD: dict[str, tuple[str, list[str], list[str]]] = {
    # 1: which part is the month
    "month first, 13 months": (
        wide(*dated("2024-01-01", 13, "MS", US)),
        [],
        days("2025-02-01", "2025-03-01", "2025-04-01"),
    ),
    "day first, 4 months": (
        wide("01/11/2024", "01/12/2024", "01/01/2025", "01/02/2025"),
        [],
        days("2025-03-01", "2025-04-01", "2025-05-01"),
    ),
    "day first, long": (
        long(a=["12/01/2026", "13/01/2026", "14/01/2026"]),
        [],
        days("2026-01-15", "2026-01-16", "2026-01-17"),
    ),
    "day first, two days of hours": (
        wide(*dated("2026-03-01", 48, "h", f"{EU} %H:%M")),
        [],
        ["2026-03-03 00:00:00", "2026-03-03 01:00:00", "2026-03-03 02:00:00"],
    ),
    "month first, weeks": (
        wide(*dated("2026-01-05", 6, "7D", US)),
        [],
        days("2026-02-16", "2026-02-23", "2026-03-02"),
    ),
    "day first, weekdays": (
        wide(*dated("2024-03-01", 8, "B", EU)),
        [],
        days("2024-03-13", "2024-03-14", "2024-03-15"),
    ),
    "day first, said": (
        wide("01/02/2024", "02/02/2024", "03/02/2024"),
        ["--dayfirst"],
        days("2024-02-04", "2024-02-05", "2024-02-06"),
    ),
    "month first, said": (
        wide("01/02/2024", "02/02/2024", "03/02/2024"),
        ["--no-dayfirst"],
        days("2024-04-02", "2024-05-02", "2024-06-02"),
    ),
    "a format, said": (
        wide("01/02/2024", "02/02/2024", "03/02/2024"),
        ["--date-format", "%d/%m/%Y"],
        days("2024-02-04", "2024-02-05", "2024-02-06"),
    ),
    "a frequency says which": (
        wide("01/02/2024", "02/02/2024", "03/02/2024"),
        ["--freq", "D"],
        days("2024-02-04", "2024-02-05", "2024-02-06"),
    ),
    "points, day first": (
        wide("01.02.2024", "02.02.2024", "03.02.2024"),
        [],
        days("2024-02-04", "2024-02-05", "2024-02-06"),
    ),
    "years of two digits": (
        wide("29/01/26", "30/01/26", "31/01/26", "01/02/26"),
        [],
        days("2026-02-02", "2026-02-03", "2026-02-04"),
    ),
    "names of months": (
        wide("30-Jan-2026", "31-Jan-2026", "1-Feb-2026"),
        [],
        days("2026-02-02", "2026-02-03", "2026-02-04"),
    ),
    "months by name": (
        wide("Oct 2025", "Nov 2025", "Dec 2025"),
        [],
        days("2026-01-01", "2026-02-01", "2026-03-01"),
    ),
    "year and month": (
        wide("2025-10", "2025-11", "2025-12"),
        [],
        days("2026-01-01", "2026-02-01", "2026-03-01"),
    ),
    "quarters by number": (
        wide("2025Q2", "2025Q3", "2025Q4"),
        [],
        days("2026-01-01", "2026-04-01", "2026-07-01"),
    ),
    "twelve-hour clock": (
        wide("1/31/2026 10:00 PM", "1/31/2026 11:00 PM", "2/1/2026 12:00 AM"),
        [],
        ["2026-02-01 01:00:00", "2026-02-01 02:00:00", "2026-02-01 03:00:00"],
    ),
    # 2: compact dates, Unix times, counts
    "compact, long": (
        long(a=["20260129", "20260130", "20260131"]),
        [],
        days("2026-02-01", "2026-02-02", "2026-02-03"),
    ),
    "compact, wide": (
        wide("20260129", "20260130", "20260131"),
        [],
        days("2026-02-01", "2026-02-02", "2026-02-03"),
    ),
    "compact under another name": (
        wide("20260129", "20260130", "20260131", name="when"),
        [],
        days("2026-02-01", "2026-02-02", "2026-02-03"),
    ),
    "compact months, long": (
        long(a=["202511", "202512", "202601"]),
        [],
        days("2026-02-01", "2026-03-01", "2026-04-01"),
    ),
    "compact months, wide": (
        wide("202511", "202512", "202601", name="month"),
        [],
        days("2026-02-01", "2026-03-01", "2026-04-01"),
    ),
    "compact hours": (
        long(a=["2026013122", "2026013123", "2026020100"]),
        [],
        ["2026-02-01 01:00:00", "2026-02-01 02:00:00", "2026-02-01 03:00:00"],
    ),
    "Unix seconds": (
        wide("1769900400", "1769904000", "1769907600", name="timestamp"),
        [],
        ["2026-02-01 02:00:00", "2026-02-01 03:00:00", "2026-02-01 04:00:00"],
    ),
    "Unix milliseconds": (
        long(a=["1769900400000", "1769904000000", "1769907600000"]),
        [],
        ["2026-02-01 02:00:00", "2026-02-01 03:00:00", "2026-02-01 04:00:00"],
    ),
    "compact, as pandas writes them beside a gap": (
        wide("20260129.0", "20260130.0", "20260131.0"),
        [],
        days("2026-02-01", "2026-02-02", "2026-02-03"),
    ),
    "a count that is meant": (
        long(a=["20260129", "20260130", "20260131"]),
        ["--freq", "1"],
        ["20260132", "20260133", "20260134"],
    ),
    "a count": (long(a=["7", "8", "9"]), [], ["10", "11", "12"]),
    "years": (wide("2023", "2024", "2025", name="year"), [], ["2026", "2027", "2028"]),
    "a count in steps": (long(a=["0", "5", "15", "20"]), [], ["25", "30", "35"]),
    # 3: trading days
    "weekdays, one week": (
        wide("2026-01-05", "2026-01-06", "2026-01-07", "2026-01-09"),
        [],
        days("2026-01-12", "2026-01-13", "2026-01-14"),
    ),
    "weekdays, a month with a holiday": (
        wide(*dated("2026-01-05", 10, "B", "%Y-%m-%d"), "2026-01-20", "2026-01-21"),
        [],
        days("2026-01-22", "2026-01-23", "2026-01-26"),
    ),
    "all days of a week": (
        wide(*dated("2026-01-05", 7, "D", "%Y-%m-%d")),
        [],
        days("2026-01-12", "2026-01-13", "2026-01-14"),
    ),
    "never on Sundays": (
        wide(*(d[4:] for d in dated("2026-01-05", 41, "D", "%a %Y-%m-%d") if d[:3] != "Sun")),
        [],
        days("2026-02-16", "2026-02-17", "2026-02-18"),
    ),
    # 4: offsets
    "one offset": (
        wide("2026-11-01T00:00:00+01:00", "2026-11-01T01:00:00+01:00"),
        [],
        [f"2026-11-01 0{hour}:00:00+01:00" for hour in (2, 3, 4)],
    ),
    "west, half an hour": (
        long(a=["2026-11-01 22:00-03:30", "2026-11-01 23:00-03:30"]),
        [],
        [f"2026-11-02 0{hour}:00:00-03:30" for hour in (0, 1, 2)],
    ),
    "Z": (
        wide("2026-11-01T22:00:00Z", "2026-11-01T23:00:00Z"),
        [],
        [f"2026-11-02 0{hour}:00:00+00:00" for hour in (0, 1, 2)],
    ),
    "end of summer time, hours": (
        long(
            a=["2026-10-25T01:00+02:00", "2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00"],
        ),
        [],
        [f"2026-10-25 0{hour}:00:00+01:00" for hour in (3, 4, 5)],
    ),
    "end of summer time, days": (
        wide("2026-10-24T00:00+02:00", "2026-10-25T00:00+02:00", "2026-10-26T00:00+01:00"),
        [],
        [f"2026-10-{day} 00:00:00+01:00" for day in (27, 28, 29)],
    ),
    # 10: months and the like, with a gap
    "months, one missing": (
        wide("2025-01-01", "2025-02-01", "2025-03-01", "2025-05-01", "2025-06-01"),
        [],
        days("2025-07-01", "2025-08-01", "2025-09-01"),
    ),
    "quarters, one missing": (
        wide("2024-01-01", "2024-04-01", "2024-10-01", "2025-01-01"),
        [],
        days("2025-04-01", "2025-07-01", "2025-10-01"),
    ),
    "years, one missing": (
        wide("2019-01-01", "2020-01-01", "2022-01-01", "2023-01-01"),
        [],
        days("2024-01-01", "2025-01-01", "2026-01-01"),
    ),
    "the 15th": (
        wide("2025-01-15", "2025-02-15", "2025-04-15", "2025-05-15"),
        [],
        days("2025-06-15", "2025-07-15", "2025-08-15"),
    ),
    "the 30th": (
        wide("2024-11-30", "2024-12-30", "2025-01-30", "2025-02-28"),
        [],
        days("2025-03-30", "2025-04-30", "2025-05-30"),
    ),
    "ends of months": (
        wide("2024-01-31", "2024-02-29", "2024-04-30", "2024-05-31"),
        [],
        days("2024-06-30", "2024-07-31", "2024-08-31"),
    ),
    "ends of quarters": (
        wide("2024-03-31", "2024-06-30", "2024-12-31", "2025-03-31"),
        [],
        days("2025-06-30", "2025-09-30", "2025-12-31"),
    ),
    "last weekdays of months": (
        wide("2026-01-30", "2026-02-27", "2026-03-31", "2026-04-30", "2026-05-29"),
        [],
        days("2026-06-30", "2026-07-31", "2026-08-31"),
    ),
    "Wednesdays, one missing": (
        wide("2026-01-07", "2026-01-14", "2026-01-28", "2026-02-04"),
        [],
        days("2026-02-11", "2026-02-18", "2026-02-25"),
    ),
    "W of Mondays": (
        wide("2026-01-05", "2026-01-12", "2026-01-19"),
        ["--freq", "W"],
        days("2026-01-26", "2026-02-02", "2026-02-09"),
    ),
    "W-MON": (
        wide("2026-01-05", "2026-01-12", "2026-01-19"),
        ["--freq", "W-MON"],
        days("2026-01-26", "2026-02-02", "2026-02-09"),
    ),
    "M of the 15th": (
        wide("2026-01-15"),
        ["--freq", "M"],
        days("2026-02-15", "2026-03-15", "2026-04-15"),
    ),
    "an old name": (
        wide("2026-01-15 03:00"),
        ["--freq", "H"],
        ["2026-01-15 04:00:00", "2026-01-15 05:00:00", "2026-01-15 06:00:00"],
    ),
    "weekdays, said": (
        wide("2026-01-08", "2026-01-09"),
        ["--freq", "B"],
        days("2026-01-12", "2026-01-13", "2026-01-14"),
    ),
    "half months, said": (
        wide("2026-01-15", "2026-01-31", "2026-02-15"),
        ["--freq", "SME"],
        days("2026-02-28", "2026-03-15", "2026-03-31"),
    ),
    # parts of the date in columns
    "year, month": (
        "year,month,sales\n2025,11,1\n2025,12,2\n2026,1,3\n",
        [],
        days("2026-02-01", "2026-03-01", "2026-04-01"),
    ),
    "date and time apart": (
        "Date,Time,sales\n31/01/2026,22:00,1\n31/01/2026,23:00,2\n01/02/2026,00:00,3\n",
        [],
        ["2026-02-01 01:00:00", "2026-02-01 02:00:00", "2026-02-01 03:00:00"],
    ),
}
"""What is in the file, flags, and the stamps of the forecast."""


@pytest.mark.parametrize("kind", AHEAD)
def test_stamps_go_on_as_they_should(kind: str, tmp_path: Path) -> None:
    """Forecasts would stand at other times than the file means, without a word."""
    content, flags, expected = AHEAD[kind]
    (tmp_path / "x.csv").write_text(content)
    panel, line = read(tmp_path / "x.csv", *flags)
    (found,) = ahead(panel).values()
    assert found == expected
    assert "\n" not in line
    first = expected[0].split("+")[0].removesuffix(" 00:00:00")
    assert f"forecast of 3 from {first[:16]}" in line


LINES = {
    "hours": (
        wide(*dated("2026-01-01", 240, "h", "%Y-%m-%d %H:%M")),
        "hourly, 240 rows, 2026-01-01 00:00 to 2026-01-10 23:00; forecast of 3 from "
        "2026-01-11 00:00",
    ),
    "day first": (
        wide("12/01/2026", "13/01/2026", "14/01/2026"),
        "daily, 3 rows, 2026-01-12 to 2026-01-14; forecast of 3 from 2026-01-15; day first "
        "(14/01/2026 is 2026-01-14)",
    ),
    "compact": (
        long(a=["202511", "202512", "202601"]),
        "monthly, day 1, 3 rows, 2025-11-01 to 2026-01-01; forecast of 3 from 2026-02-01; numbers "
        "read as months such as 202601",
    ),
    "a panel that ends unevenly": (
        long(a=["2026-01-01", "2026-01-02", "2026-01-04"], b=["2026-01-05"]),
        "daily, 4 rows, 2 series, 2026-01-01 to 2026-01-05, 1 step without a row; forecast of 3 "
        "from 2026-01-05 (the series that end last, from 2026-01-06)",
    ),
    "marks": (
        "date;y\n2026-01-01;1,5\n2026-01-02;2,5\n2026-01-03;3\n",
        "daily, 3 rows, 2026-01-01 to 2026-01-03; forecast of 3 from 2026-01-04; separator ';', "
        "decimal comma",
    ),
    "a count": (
        "y\n1\n2\n3\n",
        "whole numbers, 3 rows, 0 to 2; forecast of 3 from 3",
    ),
    "an offset": (
        wide("2026-11-01T00:00:00+01:00", "2026-11-01T01:00:00+01:00"),
        "hourly, 2 rows, 2026-11-01 00:00+01:00 to 2026-11-01 01:00+01:00; forecast of 3 from "
        "2026-11-01 02:00+01:00",
    ),
}


@pytest.mark.parametrize("kind", LINES)
def test_one_line_says_what_was_read(kind: str, tmp_path: Path) -> None:
    """A person could not see that a month was read as a day."""
    (tmp_path / "x.csv").write_text(LINES[kind][0])
    assert read(tmp_path / "x.csv")[1] == LINES[kind][1]


# --- panels and ids ------------------------------------------------------------------------------

OLD = dated("2024-01-01", 24, "MS", "%Y-%m-%d")


@pytest.mark.parametrize("young", [["2025-11-01", "2025-12-01"], ["2025-12-01"]])
def test_a_young_series_has_the_clock_of_its_panel(young: list[str], tmp_path: Path) -> None:
    """It would go on in steps of 30 days, or the whole panel be refused."""
    (tmp_path / "x.csv").write_text(long(old=OLD, young=young))
    panel, _ = read(tmp_path / "x.csv")
    expected = days("2026-01-01", "2026-02-01", "2026-03-01")
    assert ahead(panel) == {"old": expected, "young": expected}


def test_series_on_different_weekdays_are_one_panel(tmp_path: Path) -> None:
    """Weeks of one shop would be forced on the day of another."""
    mondays, fridays = (dated(s, 5, "7D", "%Y-%m-%d") for s in ("2026-01-05", "2026-01-09"))
    (tmp_path / "x.csv").write_text(long(a=mondays, b=fridays, c=["2026-02-04"]))
    panel, _ = read(tmp_path / "x.csv")
    firsts = {name: stamps[0] for name, stamps in ahead(panel).items()}
    assert list(firsts.values()) == days("2026-02-09", "2026-02-13", "2026-02-11")


IDS = ["01", "06", "NA", "1e5", "100000", "1.50", "nan", "None", "007", "-", "é", "True"]


def test_ids_are_text_to_the_letter(tmp_path: Path) -> None:
    """Shop 01 would come back as 1, NA be called missing, 1e5 and 100000 become one."""
    (tmp_path / "x.csv").write_text(
        "unique_id,ds,y\n" + "".join(f"{i},2026-01-0{d},{d}\n" for i in IDS for d in (1, 2, 3))
    )
    panel, _ = read(tmp_path / "x.csv")
    assert [grid.name for grid in panel.grids] == sorted(IDS)
    assert all(grid.values.tolist() == [1, 2, 3] for grid in panel.grids)


# --- gaps and numbers ----------------------------------------------------------------------------


def test_blanks_at_the_ends_arrive_as_missing(tmp_path: Path) -> None:
    """What was never measured would be made up, and forecast from."""
    wave = np.sin(2 * np.pi * np.arange(240) / 24).round(4)
    cells = ["" if i < 192 or i >= 236 or i == 200 else str(v) for i, v in enumerate(wave)]
    hours = dated("2026-01-01", 240, "h", "%Y-%m-%d %H:%M")
    rows = [f"{h},{c},{i}" for i, (h, c) in enumerate(zip(hours, cells, strict=True))]
    (tmp_path / "x.csv").write_text("\n".join(["date,a,b", *rows]))
    a, b = read(tmp_path / "x.csv")[0].grids
    expected = np.array([float(cell or "nan") for cell in cells])
    np.testing.assert_array_equal(a.values, expected)
    np.testing.assert_array_equal(b.values, np.arange(240))


VALUES: dict[str, tuple[str | bytes, list[float]]] = {
    "semicolon, decimal comma": ("date;y\n2026-01-01;1,5\n2026-01-02;12,25\n", [1.5, 12.25]),
    "semicolon, both marks": (
        "date;y\n2026-01-01;1.200,50\n2026-01-02;12.345.678,5\n",
        [1200.5, 12345678.5],
    ),
    "semicolon, three decimals": ("date;y\n2026-01-01;1,205\n2026-01-02;3,125\n", [1.205, 3.125]),
    "semicolon, decimal point": ("date;y\n2026-01-01;1.5\n2026-01-02;2\n", [1.5, 2]),
    "tabs": ("date\ty\n2026-01-01\t1.5\n2026-01-02\t2\n", [1.5, 2]),
    "tabs, decimal comma": ("date\ty\n2026-01-01\t1,5\n2026-01-02\t2\n", [1.5, 2]),
    "bars": ("date|y\n2026-01-01|1.5\n2026-01-02|2\n", [1.5, 2]),
    "thousands": ('date,y\n2026-01-01,"1,200.00"\n2026-01-02,"12,345,678"\n', [1200, 12345678]),
    "thousands alone": ('date,y\n2026-01-01,"1,200"\n2026-01-02,999\n', [1200, 999]),
    "spaces for thousands": (
        "date,y\n2026-01-01,1 200\n2026-01-02,12\u00a0345.5\n",
        [1200, 12345.5],
    ),
    "blank rows": ("date,y\n\n2026-01-01,1\n\n2026-01-02,2\n\n\n", [1, 2]),
    "rows of separators": ("date,y\n2026-01-01,1\n,\n2026-01-02,2\n,\n,\n", [1, 2]),
    "a separator after each row": ("date,y,\n2026-01-01,1,\n2026-01-02,2,\n", [1, 2]),
    "a separator after each row but the first": ("date,y\n2026-01-01,1,\n2026-01-02,2,\n", [1, 2]),
    "blanks after commas": ("date, y\n2026-01-01, 1\n2026-01-02, 2\n", [1, 2]),
    "a byte-order mark": (b"\xef\xbb\xbfdate,y\n2026-01-01,1\n2026-01-02,2\n", [1, 2]),
    "UTF-16": ("date;y\n2026-01-01;1,5\n2026-01-02;2\n".encode("utf-16"), [1.5, 2]),
    "carriage returns": ("date;y\r\n2026-01-01;1,5\r\n2026-01-02;2\r\n", [1.5, 2]),
    "no header": ("2026-01-01;1,5\n2026-01-02;2\n", [1.5, 2]),
    "one column": ("y\n1,5\n2,25\n", [1.5, 2.25]),
    "minus and plus": ("date;y\n2026-01-01;-1,5\n2026-01-02;+2,5e1\n", [-1.5, 25]),
}


@pytest.mark.parametrize("kind", VALUES)
def test_numbers_are_read_as_they_are_meant(kind: str, tmp_path: Path) -> None:
    """A file of any spreadsheet would be refused, or 1,5 be taken for 15."""
    content, expected = VALUES[kind]
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "x.csv").write_bytes(data)
    (grid,) = read(tmp_path / "x.csv")[0].grids
    assert grid.values.tolist() == expected
    assert grid.name == ("var1" if kind == "no header" else "y")


LONG_VALUES = [kind for kind in VALUES if kind not in ("no header", "one column")]


@pytest.mark.parametrize("kind", LONG_VALUES)
def test_long_files_are_read_as_wide_ones(kind: str, tmp_path: Path) -> None:
    """The same marks would be taken in one form of file and refused in the other."""
    content, expected = VALUES[kind]
    encoding = "utf-16" if kind == "UTF-16" else "utf-8-sig"
    text = content if isinstance(content, str) else content.decode(encoding)
    head, *rows = text.splitlines()
    mark = next(mark for mark in "\t;|," if mark in head)
    rows = [f"a{mark}{row}" if row.strip(mark) else row for row in rows]
    head = f"unique_id{mark}{head.replace('date', 'ds')}"
    if isinstance(content, bytes):
        (tmp_path / "x.csv").write_bytes("\n".join([head, *rows]).encode(encoding))
    else:
        (tmp_path / "x.csv").write_text("\n".join([head, *rows]))
    (grid,) = read(tmp_path / "x.csv")[0].grids
    assert grid.values.tolist() == expected
    assert grid.name == "a"


@pytest.mark.parametrize("name", ["DATA.CSV", "Data.Csv.GZ", "data.TSV"])
def test_suffixes_are_read_in_any_case(name: str, tmp_path: Path) -> None:
    """A long file from another system would be read as a wide one."""
    content = long(a=["2026-01-01", "2026-01-02"]).encode()
    content = content.replace(b",", b"\t") if name.endswith("TSV") else content
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("GZ") else content)
    panel, _ = read(tmp_path / name)
    assert ahead(panel) == {"a": days("2026-01-03", "2026-01-04", "2026-01-05")}


# --- what is refused -----------------------------------------------------------------------------

GOOD = long(a=["2026-01-01", "2026-01-02", "2026-01-03"])
REFUSED: dict[str, tuple[str, list[str], list[str]]] = {
    "two orders": (
        wide("01/02/2024", "02/02/2024", "03/02/2024"),
        [],
        ["month first (2024-01-02 to 2024-03-02, monthly", "day first (2024-02-01", "--dayfirst"],
    ),
    "two orders, months of 12": (
        wide(*dated("2024-03-01", 12, "D", EU)),
        [],
        ["month first", "day first", "--date-format"],
    ),
    "two orders, one day of hours": (
        wide(*dated("2024-03-04", 24, "h", f"{EU} %H:%M")),
        [],
        ["2024-03-04", "2024-04-03", "--dayfirst"],
    ),
    "not day first": (
        wide("01/13/2024", "01/14/2024"),
        ["--dayfirst"],
        ["01/13/2024", "day first"],
    ),
    "another format": (GOOD, ["--date-format", "%d/%m/%Y"], ["2026-01-01", "%d/%m/%Y"]),
    "no format": (GOOD, ["--date-format", "%Q"], ["%Q"]),
    "a compact date that is none": (
        long(a=["20260129", "20260130", "20260131", "20260132"]),
        [],
        ["20260132", "data row 4", "--freq 1"],
    ),
    "a clock that does not grow": (wide("3", "1", "2"), [], ["'date'", "--columns"]),
    "a clock of fractions": (wide("2026.1", "2026.2", "2026.3"), [], ["'date'", "--columns"]),
    "numbers beyond 64 bits": (long(a=["9999999999999999999"]), [], ["9999999999999999999"]),
    "a stray stamp": (
        long(a=["1970-01-01 00:00", *dated("2026-01-01", 50, "h", "%Y-%m-%d %H:%M")]),
        [],
        ["1970-01-01", "data row 1"],
    ),
    "a mistyped year": (
        wide(*dated("2026-01-01", 999, "h", "%Y-%m-%d %H:%M"), "2062-02-11 15:00"),
        [],
        ["2062-02-11 15:00:00", "data row 1000"],
    ),
    "a stamp of the year 9999": (
        long(a=[*dated("2026-01-01", 5, "D", "%Y-%m-%d"), "9999-12-31"]),
        [],
        ["9999-12-31", "data row 6"],
    ),
    "a stamp of the year 0": (long(a=["0000-01-01", "0000-01-02"]), [], ["0000-01-01", "row 1"]),
    "a clock alone": ("x\n20260101\n20260102\n20260103\n", [], ["besides the clock ['x']"]),
    "a zone by name": (wide("2026-01-01 00:00 CET", "2026-01-01 01:00 CET"), [], ["CET", "row 1"]),
    "a stamp off the clock": (
        wide(*dated("2026-01-01", 9, "h", "%Y-%m-%d %H:%M"), "2026-01-01 09:20"),
        [],
        ["2026-01-01 09:20:00", "data row 10", "hourly"],
    ),
    "a month off the clock": (
        wide("2025-01-01", "2025-02-01", "2025-03-02", "2025-04-01", "2025-05-01"),
        [],
        ["2025-03-02", "data row 3", "monthly, day 1"],
    ),
    "series that disagree": (
        long(
            a=dated("2026-01-01", 40, "D", "%Y-%m-%d"), b=dated("2026-01-01", 5, "7D", "%Y-%m-%d")
        ),
        [],
        ["'b' is weekly", "daily"],
    ),
    "one row": (wide("2026-01-01"), [], ["one row", "--freq"]),
    "another weekday": (wide("2026-01-05", "2026-01-12"), ["--freq", "W-TUE"], ["2026-01-05"]),
    "a Saturday": (wide("2026-01-09", "2026-01-10"), ["--freq", "B"], ["2026-01-10"]),
    "no step": (GOOD, ["--freq", "0D"], ["0D"]),
    "a step back": (GOOD, ["--freq=-1D"], ["-1D"]),
    "no frequency": (GOOD, ["--freq", "fortnight"], ["fortnight"]),
    "an offset or none": (
        wide("2026-01-01T00:00+01:00", "2026-01-01T01:00"),
        [],
        ["2026-01-01T01:00", "data row 2", "offset"],
    ),
    "infinite, wide": ("date,y\n2026-01-01,1\n2026-01-02,inf\n", [], ["'y'", "inf", "data row 2"]),
    "infinite, long": (GOOD.replace("2.5", "-Infinity"), [], ["'y'", "-Infinity", "data row 2"]),
    "too large": (GOOD.replace("2.5", "1e999"), [], ["'y'", "1e999", "data row 2"]),
    "two decimal marks": (
        "date;y\n2026-01-01;1,5\n2026-01-02;2.5\n",
        [],
        ["1,5", "2.5", "--decimal"],
    ),
    "thousands or decimals": ("date;y\n2026-01-01;1.200\n2026-01-02;2.345\n", [], ["--decimal"]),
    "thousands or decimals, tabs": ("ds\ty\n2026-01-01\t1,200\n2026-01-02\t2,345\n", [], ["1.200"]),
    "two columns y": ("unique_id,ds,y,y\na,2026-01-01,1,2\n", [], ["'y'"]),
    "no id": (GOOD.replace("a,2026-01-02", ",2026-01-02"), [], ["data row 2", "unique_id"]),
    "a large seed": (GOOD, ["--seed", str(2**70)], ["--seed", str(2**70)]),
    "a seed that jax would cut": (GOOD, ["--seed", str(2**40)], [str(2**40)]),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_can_be_meant_in_two_ways_is_refused(kind: str, tmp_path: Path) -> None:
    """A guess would be forecast, or a traceback be shown."""
    content, flags, words = REFUSED[kind]
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(InputError) as caught:
        read(tmp_path / "x.csv", *flags)
    message = str(caught.value)
    for word in words:
        assert word in message
    assert len(message) < 400


@pytest.mark.parametrize("content", [GOOD, long(a=["7", "8"]), wide("2026-01-05", "2026-01-12")])
def test_a_horizon_without_end_is_refused(content: str, tmp_path: Path) -> None:
    """A slip of the keyboard would ask for the memory of a data centre."""
    (tmp_path / "x.csv").write_text(content)
    panel, _ = read(tmp_path / "x.csv")
    with pytest.raises(InputError, match="99999999999"):
        panel.grids[0].ahead(99_999_999_999)


@pytest.mark.parametrize(("decimal", "expected"), [(".", [1.2, 2.345]), (",", [1200, 2345])])
def test_the_decimal_mark_can_be_said(decimal: str, expected: list[float], tmp_path: Path) -> None:
    """What is refused could not be read at all."""
    (tmp_path / "x.csv").write_text("date;y\n2026-01-01;1.200\n2026-01-02;2.345\n")
    (grid,) = read(tmp_path / "x.csv", "--decimal", decimal)[0].grids
    assert grid.values.tolist() == expected


def test_quantiles_without_paths_are_refused(tmp_path: Path, capsys: Any) -> None:
    """Who asks for quantiles would get a table without them, and no word."""
    (tmp_path / "x.csv").write_text(GOOD)
    argv = [
        "forecast",
        str(tmp_path / "x.csv"),
        "--horizon",
        "3",
        "--num-samples",
        "0",
        "--no-cache",
    ]
    assert main([*argv, "--quantiles", ".05", ".95"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "sample paths" in last
    assert "--num-samples" in last


# --- round trips ---------------------------------------------------------------------------------

FREQS = ["h", "15min", "D", "B", "W-WED", "MS", "ME", "QE", "YS", "36h"]
FORMS = [
    "%Y-%m-%d %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %I:%M %p",
    "%d.%m.%Y %H:%M",
    "%Y%m%d%H%M",
    "%d-%b-%Y %H:%M",
    "%Y-%m-%dT%H:%M:%S+05:30",
]


@MODEST
@given(
    start=st.datetimes(pd.Timestamp("1990-01-01"), pd.Timestamp("2060-01-01")),
    freq=st.sampled_from(FREQS),
    form=st.sampled_from(FORMS),
    holes=st.sets(st.integers(20, 39), max_size=3),
)
def test_any_clock_in_any_form_goes_on(
    tmp_path_factory: pytest.TempPathFactory, start: Any, freq: str, form: str, holes: set[int]
) -> None:
    """Some clock in some form would be read as another, or a gap as another clock."""
    times = pd.date_range(pd.Timestamp(start).floor("h"), periods=48, freq=freq)
    # whole numbers are read as dates of 1900 to 2100, see `stamps.compact_dates`
    assume(times[-1].year <= 2100 or not times[0].strftime(form).isdigit())
    known = [stamp for i, stamp in enumerate(times[:45]) if i not in holes]
    path = tmp_path_factory.mktemp("clock") / "x.csv"
    path.write_text(wide(*(stamp.strftime(form) for stamp in known)))
    day_first = "--dayfirst" if form.startswith("%d") else "--no-dayfirst"
    try:
        (grid,) = read(path)[0].grids
    except InputError:  # a day of quarters of an hour may be of either month
        with pytest.raises(InputError, match=r"first .* or .* first .*--dayfirst"):
            read(path)
        (grid,) = read(path, day_first)[0].grids
    assert [stamp.tz_localize(None) for stamp in grid.ahead(3)] == list(times[45:])
    assert np.flatnonzero(np.isnan(grid.values)).tolist() == sorted(holes)
    assert [stamp.tz_localize(None) for stamp in grid.times] == list(times[:45])


MARKS = [(",", "."), (";", ","), (";", "."), ("\t", "."), ("\t", ","), ("|", ",")]


@MODEST
@given(
    values=st.lists(st.floats(-1e6, 1e6).map(lambda x: round(x, 2)), min_size=2, max_size=30),
    marks=st.sampled_from(MARKS),
    ends=st.tuples(st.booleans(), st.booleans()),
)
def test_any_number_in_any_marks_is_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[float],
    marks: tuple[str, str],
    ends: tuple[bool, bool],
) -> None:
    """Numbers would change with the country of the spreadsheet."""
    separator, decimal = marks
    dates = dated("2026-01-01", len(values), "D", "%Y-%m-%d")
    rows = [f"{d}{separator}{v:.2f}" for d, v in zip(dates, values, strict=True)]
    rows = [row.replace(".", decimal) + separator * ends[0] for row in rows]
    text = "\n".join([f"date{separator}y" + separator * ends[0], *rows])
    path = tmp_path_factory.mktemp("marks") / "x.csv"
    path.write_text(text + f"\n{separator * (1 + ends[0])}\n" * ends[1])
    (grid,) = read(path)[0].grids
    assert grid.values.tolist() == values


def test_a_counter_beside_a_variable_is_no_clock(tmp_path: Path) -> None:
    """A meter that counts up in numbers like Unix times would vanish from the variables."""
    rows = [f"{i}.5,{1_600_000_000 + 3600 * i}" for i in range(8)]
    (tmp_path / "x.csv").write_text("\n".join(["load,meter", *rows]))
    found = load_series(str(tmp_path / "x.csv"))
    assert found.names == ("load", "meter")
    assert found.times is None
