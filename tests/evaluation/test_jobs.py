"""Jobs: compiled before any is timed, timed one by one, written as they come, resumed."""

import json
from pathlib import Path

import pytest
from helpers.jobs import prepare

from stride_jax.evaluation.jobs import name_of, read_rows, run_jobs


def jobs_of(folder: Path, count: int = 4, **more: object) -> list[dict[str, object]]:
    """Jobs that write their log into a folder."""
    return [{"number": i, "log": str(folder / "log"), **more} for i in range(count)]


def log_of(folder: Path) -> list[tuple[str, int]]:
    """The work that was done, in order."""
    entries = (line.split() for line in (folder / "log").read_text().splitlines())
    return [(what, int(number)) for what, number, _ in entries]


def test_a_stopped_run_goes_on_without_measuring_again(tmp_path: Path) -> None:
    """A run that is stopped would start anew, lose its rows, or count some of them twice."""
    path, jobs = tmp_path / "rows.jsonl", jobs_of(tmp_path)

    def stop(text: str) -> None:
        if text.endswith(name_of(jobs[1])):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs, prepare, path, processes=0, seconds=60, progress=stop)
    assert [row["value"] for row in read_rows(path)] == [0, 1, 10, 11]
    with path.open("a") as file:
        file.write('{"job": "cut o')  # the stop came in the middle of a line
    (tmp_path / "log").unlink()
    rows = run_jobs(jobs, prepare, path, processes=0, seconds=60)
    assert [row["value"] for row in rows] == [0, 1, 10, 11, 20, 21, 30, 31]
    assert {number for _, number in log_of(tmp_path)} == {2, 3}
    assert all(row["number"] == json.loads(row["job"])["number"] for row in rows)


def test_a_job_that_fails_leaves_the_others_and_is_tried_again(tmp_path: Path) -> None:
    """One program too large for the device would end the run, or be taken for measured."""
    path, good, bad = tmp_path / "rows.jsonl", jobs_of(tmp_path, 1), jobs_of(tmp_path, 1, breaks=1)
    for _ in range(2):
        rows = run_jobs([*bad, *good], prepare, path, processes=0, seconds=60)
        assert [row["value"] for row in rows] == [0, 1]
    errors = [row["error"] for row in read_rows(path) if "error" in row]
    assert errors == ["ValueError: it does not compile"] * 2


def test_nothing_is_begun_after_the_limit(tmp_path: Path) -> None:
    """A run would hold a lent machine for longer than it was lent."""
    path = tmp_path / "rows.jsonl"
    assert run_jobs(jobs_of(tmp_path), prepare, path, processes=0, seconds=0) == []
    assert not (tmp_path / "log").exists()


@pytest.mark.slow  # two processes that import jax
def test_processes_compile_together_and_time_apart(tmp_path: Path) -> None:
    """A decoder would be timed while another one compiles or runs beside it."""
    path, jobs = tmp_path / "rows.jsonl", jobs_of(tmp_path, 5)
    rows = run_jobs(jobs, prepare, path, processes=2, seconds=120)
    assert [row["value"] for row in rows] == [10 * i + j for i in range(5) for j in range(2)]
    done = log_of(tmp_path)
    assert [what for what, _ in done[:5]] == ["compiled"] * 5
    times = done[5:]
    assert [what for what, _ in times] == ["begun", "timed"] * 5
    assert all(a == b for (_, a), (_, b) in zip(times[::2], times[1::2], strict=True))
