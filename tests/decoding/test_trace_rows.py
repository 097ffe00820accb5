"""The trace as rows, a file and a picture."""

import csv
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.toys import speculate

from stride_jax.decoding import info as trace
from stride_jax.decoding.types import DecodeConfig, Trace
from stride_jax.errors import InputError
from stride_jax.evaluation.figures import forecasts as plots

PATH = Trace(  # three rounds of room, two played; the second drafted one proposal only
    start=np.array([0, 2, -1], np.int32),
    log_ratio=np.float32([[0.5, -2.0], [-0.25, 9.0], [7.0, 7.0]]),
    threshold=np.float32([[-1.0, -0.5], [-0.5, 9.0], [7.0, 7.0]]),
    accepted=np.array([[True, False], [True, False], [False, False]]),
    gap=np.float32([[0.125, 1.5], [0.25, 9.0], [7.0, 7.0]]),
    length=np.array([2, 1, -1], np.int32),
)
ROWS = [
    (0, 0, 0, 0.5, -1.0, True, 0.125),
    (0, 1, 1, -2.0, -0.5, False, 1.5),
    (1, 2, 0, -0.25, -0.5, True, 0.25),
]
NAMES = ("round", "position", "place", "log_ratio", "threshold", "accepted", "gap")


def test_one_row_a_drafted_proposal() -> None:
    """Rounds that were never played, or proposals never drafted, would be looked at as real."""
    assert trace.rows(PATH) == [dict(zip(NAMES, row, strict=True)) for row in ROWS]


def test_the_rows_of_jax_arrays_are_plain_numbers() -> None:
    """Rows that hold device arrays can be written to no JSON file."""
    found = trace.rows(jax.tree.map(jax.numpy.asarray, PATH))
    assert found == trace.rows(PATH)
    assert {type(value) for row in found for value in row.values()} == {int, float, bool}


def test_the_csv_holds_the_rows(tmp_path: Path) -> None:
    """The file beside the picture would tell another story, or lose its header."""
    trace.save_csv(tmp_path / "trace.csv", PATH)
    with (tmp_path / "trace.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    assert tuple(lines[0]) == NAMES
    assert lines[1:] == [[str(value) for value in row] for row in ROWS]


def test_a_decode_without_a_trace_is_refused(tmp_path: Path) -> None:
    """Forgetting trace=True would end in a traceback about None."""
    for call in (trace.rows, lambda t: trace.save_csv(tmp_path / "a.csv", t)):
        with pytest.raises(InputError, match=r"DecodeConfig\(trace=True\)"):
            call(None)
    assert not (tmp_path / "a.csv").exists()


@pytest.mark.parametrize("axes", [(0,), (0, 0)])
def test_a_trace_of_several_paths_is_refused(axes: tuple[int, ...]) -> None:
    """The rows of all paths would be mixed up into one."""
    many = jax.tree.map(lambda x: x[(None,) * len(axes)], PATH)
    with pytest.raises(InputError, match="one path"):
        trace.rows(many)


def test_the_rows_of_a_decode_count_up(key: jax.Array) -> None:
    """Acceptances counted from the rows would differ from those of the decode."""
    _, info = speculate(key, config=DecodeConfig(20, 3, trace=True))
    found = trace.rows(info.trace)
    assert len(found) == int(info.drafted)
    assert {row["round"] for row in found} == set(range(int(info.rounds)))
    kept = [row for row in found if row["accepted"] and row["position"] < len(info.origin)]
    assert len(kept) == int(info.accepted.sum())
    assert all(row["log_ratio"] >= row["threshold"] for row in kept)


def test_the_trace_is_drawn(tmp_path: Path) -> None:
    """The picture of what the rule saw would be missing or empty."""
    plots.save_trace(tmp_path / "trace.png", trace.rows(PATH), "a rule")
    assert (tmp_path / "trace.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "trace.png").stat().st_size > 10_000


def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing extra would be a traceback after all the work."""
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"stride-jax\[plot\]"):
        plots.save_trace(tmp_path / "trace.png", trace.rows(PATH), "a rule")
