"""Jobs: compiled before any is timed, timed one by one, written as they come, resumed."""

import functools
import json
import time
from multiprocessing import Pipe
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace

import pytest
from helpers.jobs import prepare

from stride_jax.errors import InputError
from stride_jax.evaluation import jobs as jobs_module
from stride_jax.evaluation.job_file import name_of, read_rows, unfinished
from stride_jax.evaluation.jobs import (
    COMPILED,
    READY,
    Limits,
    Measure,
    _in_processes,
    _turns,
    _work,
    _Worker,
    run_jobs,
)

FACTS = {"device": "a card", "sizes": (1, 2)}
measure = functools.partial(run_jobs, prepare=prepare, facts=FACTS, processes=0, seconds=60)


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
        measure(jobs, path=path, progress=stop)
    assert [row["value"] for row in read_rows(path)] == [0, 1, 10, 11]
    with path.open("a") as file:
        file.write('{"job": "cut o')  # the stop came in the middle of a line
    (tmp_path / "log").unlink()
    rows = measure(jobs, path=path)
    assert [row["value"] for row in rows] == [0, 1, 10, 11, 20, 21, 30, 31]
    assert {number for _, number in log_of(tmp_path)} == {2, 3}
    assert all(row["number"] == json.loads(row["job"])["number"] for row in rows)


def test_a_job_that_fails_leaves_the_others_and_is_tried_again(tmp_path: Path) -> None:
    """One program too large for the device would end the run, or be taken for measured."""
    path, good, bad = tmp_path / "rows.jsonl", jobs_of(tmp_path, 1), jobs_of(tmp_path, 1, breaks=1)
    for _ in range(2):
        rows = measure([*bad, *good], path=path)
        assert [row["value"] for row in rows] == [0, 1]
    errors = [row["error"] for row in read_rows(path) if "error" in row]
    assert errors == ["ValueError: it does not compile"] * 2


def test_nothing_is_begun_after_the_limit(tmp_path: Path) -> None:
    """A run would hold a rented machine for longer than it was rented."""
    path = tmp_path / "rows.jsonl"
    assert measure(jobs_of(tmp_path), path=path, seconds=0) == []
    assert not (tmp_path / "log").exists()


def test_a_file_may_be_cut_off_at_every_byte(tmp_path: Path) -> None:
    """A job that was stopped between its rows would count as finished, or the file as lost."""
    path, jobs = tmp_path / "rows.jsonl", jobs_of(tmp_path, 2, seconds=0)
    rows = measure(jobs, path=path)
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        assert measure(jobs, path=path) == rows
        assert path.read_bytes().startswith(whole[:size])


@pytest.mark.parametrize("line", ["3", "null", "[1, 2]", '"text"', '{"job": 1}', "\0\0"])
def test_a_line_that_is_no_job_is_left_out(tmp_path: Path, line: str) -> None:
    """A file that the disk spoiled in one line could not be read any more."""
    path, jobs = tmp_path / "rows.jsonl", jobs_of(tmp_path, 2)
    rows = measure(jobs, path=path)
    with path.open("a") as file:
        file.write(line + "\n")
    assert measure(jobs, path=path) == rows


@pytest.mark.parametrize("facts", [{**FACTS, "device": "another"}, {}, {**FACTS, "commit": "a"}])
def test_rows_that_were_measured_otherwise_are_refused(
    tmp_path: Path, facts: dict[str, object]
) -> None:
    """Rows of another size, device or commit would be published as those of this run."""
    path, jobs = tmp_path / "rows.jsonl", jobs_of(tmp_path)
    measure(jobs[:2], path=path)
    before = path.read_bytes()
    (name, *_) = (name for name in (*FACTS, "commit") if facts.get(name) != FACTS.get(name))
    with pytest.raises(InputError, match=f"otherwise: {name} was .*--out"):
        measure(jobs, path=path, facts=facts)
    assert path.read_bytes() == before


def test_rows_of_which_nobody_knows_how_they_were_measured_are_refused(tmp_path: Path) -> None:
    """Rows of a file without its first line would be published as those of this run."""
    path, jobs = tmp_path / "rows.jsonl", jobs_of(tmp_path, 2)
    measure(jobs, path=path)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(InputError, match=r"first line of .*rows.jsonl does not say how"):
        measure(jobs, path=path)


def test_a_process_that_died_is_reported_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One crash on the device would hang the run until somebody looks, at the price of a card.

    The answers lie in the pipes already. The first worker died while it compiled its second job,
    the third one while it timed; what the first had compiled is started again.
    """
    gone = SimpleNamespace(
        exitcode=-9, join=lambda *_: None, terminate=lambda: None, is_alive=lambda: False
    )
    messages = [[COMPILED], [COMPILED, READY, [{"value": 5}]], [COMPILED, READY]]
    messages.append([COMPILED, READY, [{"value": 7}]])  # of the worker that starts again
    started: list[list[int]] = []
    kept = []

    def start(jobs: list[dict[str, int]], *_: object) -> _Worker:
        here, there = Pipe()
        for message in messages[len(started)]:
            there.send(message)
        if len(started) in (0, 2):
            there.close()
        kept.append(there)
        started.append([job["number"] for job in jobs])
        return _Worker(gone, here, jobs)

    monkeypatch.setattr(jobs_module, "_start", start)
    jobs = [{"number": number} for number in (0, 1, 2, 10)]
    late = time.time() + 60
    found = {
        job["number"]: rows for job, rows in _in_processes(jobs, prepare, 3, Limits(late, late, 9))
    }
    died = [{"error": "its process died, exit code -9"}]
    assert started == [[0, 10], [1], [2], [0]]
    assert found == {0: [{"value": 7}], 1: [{"value": 5}], 2: died, 10: died}


def test_jobs_that_failed_come_last() -> None:
    """A program that never compiles would hold up those behind it in every run."""
    jobs = [{"number": number} for number in range(3)]
    rows = [{"job": name_of(jobs[0]), "error": "late"}, {"job": name_of(jobs[1]), "value": 1}]
    assert unfinished(jobs, rows) == [jobs[2], jobs[0]]


class Threaded:
    """A worker's process as a thread; `terminate` ends what hangs in `prepare`."""

    def __init__(self, jobs: list[dict[str, object]], limits: Limits, log: list[str]) -> None:
        self.log, self.ended = log, Event()
        here, there = Pipe()
        args = (jobs, self.prepare, limits, there)
        self.thread = Thread(target=_work, args=args, daemon=True)
        self.thread.start()
        self.worker = _Worker(self, here, jobs)

    def prepare(self, job: dict[str, object]) -> Measure:
        """Hangs where the job says so, once."""
        if job.pop("hangs", False):
            self.ended.wait(60)
            self.log.append("stopped")
            raise RuntimeError
        self.log.append(f"compiled {job['number']}")
        return lambda: [{"timed": self.log.append(f"timed {job['number']}")}]

    def terminate(self) -> None:
        """As of a process."""
        self.ended.set()

    def join(self, seconds: float = 0.0) -> None:
        """As of a process; one that waits for its next job does not end."""
        self.thread.join(0.1)

    def is_alive(self) -> bool:
        """As of a process that ended."""
        return False


def test_nothing_is_timed_while_a_process_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler beside a decoder would take its cores, and its time would be published.

    The first worker hangs in its second job. It is stopped, its first job is compiled again, and
    its second one has failed.
    """
    log: list[str] = []
    monkeypatch.setattr(
        jobs_module, "_start", lambda jobs, _, limits: Threaded(jobs, limits, log).worker
    )
    jobs = [{"number": number} for number in range(4)]
    jobs[2]["hangs"] = True
    now = time.time()
    found = _in_processes(jobs, prepare, 2, Limits(now + 0.2, now + 60, 0.3))
    failed = {job["number"]: rows[0].get("error") for job, rows in found}
    late = "it was still being compiled at the limit"
    assert failed == {0: None, 1: None, 2: late, 3: None}
    first = next(place for place, entry in enumerate(log) if entry.startswith("timed"))
    assert log.count("compiled 0") == 2
    assert "stopped" in log[:first]
    assert not any(entry.startswith("compiled") for entry in log[first:])


def test_a_job_that_does_not_end_is_stopped_after_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A call that hangs on the device would hold a rented machine for ever."""
    monkeypatch.setattr(jobs_module, "TIMED_LATE", 0.1)
    pipe, silent = Pipe()
    worker = _Worker(None, pipe, [{"number": 0}, {"number": 1}])
    (only,) = _turns([(worker, 2)], Limits(0, time.time() + 0.1))
    assert only == ({"number": 0}, [{"error": "it was still being timed when the run ended"}])
    silent.close()


@pytest.mark.slow  # three processes that import jax
def test_a_process_that_compiles_for_too_long_is_stopped(tmp_path: Path) -> None:
    """A real process would go on beside the timing, or take along what it had compiled."""
    path, jobs = tmp_path / "rows.jsonl", jobs_of(tmp_path, 4)
    jobs[2]["compiling"] = 600
    rows = measure(jobs, path=path, processes=2, seconds=60)
    assert [row["number"] for row in rows] == [0, 0, 1, 1, 3, 3]
    begun = next(i for i, (what, _) in enumerate(log_of(tmp_path)) if what == "begun")
    assert {what for what, _ in log_of(tmp_path)[begun:]} == {"begun", "timed"}


@pytest.mark.slow  # three processes that import jax
def test_processes_that_die_do_not_hang_the_run(tmp_path: Path) -> None:
    """The end of a real process would not be seen through its pipe."""
    path, jobs = tmp_path / "rows.jsonl", jobs_of(tmp_path, 3)
    jobs[0]["dies"], jobs[1]["dies"] = "compiling", "timing"
    rows = measure(jobs, path=path, processes=3, seconds=120)
    assert [row["value"] for row in rows] == [20, 21]
    errors = {row["number"]: row["error"] for row in read_rows(path) if "error" in row}
    assert errors == dict.fromkeys((0, 1), "its process died, exit code 9")


@pytest.mark.slow  # two processes that import jax
def test_processes_compile_together_and_time_apart(tmp_path: Path) -> None:
    """A decoder would be timed while another one compiles or runs beside it."""
    path, jobs = tmp_path / "rows.jsonl", jobs_of(tmp_path, 5)
    rows = measure(jobs, path=path, processes=2, seconds=120)
    assert [row["value"] for row in rows] == [10 * i + j for i in range(5) for j in range(2)]
    done = log_of(tmp_path)
    assert [what for what, _ in done[:5]] == ["compiled"] * 5
    times = done[5:]
    assert [what for what, _ in times] == ["begun", "timed"] * 5
    assert all(a == b for (_, a), (_, b) in zip(times[::2], times[1::2], strict=True))
