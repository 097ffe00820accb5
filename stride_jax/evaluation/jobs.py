"""Jobs of a long measurement: compiled in parallel, timed one by one, each row written as it comes.

Every process compiles its share of the jobs. Nobody times before all have compiled (the gate), and
one times at a time (the lock). A run that was stopped goes on with the jobs that have no rows yet.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stride_jax.evaluation.bench import Progress, silent
from stride_jax.evaluation.results import Row

Job = dict[str, Any]
"""A measurement as JSON: its `kind` and its sizes, which are columns of its rows."""

Measure = Callable[[], list[Row]]
Prepare = Callable[[Job], Measure]
"""Builds and compiles a job; what it returns times it. A function at the top of a module."""


class Limits(NamedTuple):
    """When a run ends, in seconds of `time.time()`, which all processes share.

    Attributes:
        compiled: no job is compiled any more.
        timed: no job is timed any more.
    """

    compiled: float
    timed: float


def name_of(job: Job) -> str:
    """The job as one line, by which its rows are known."""
    return json.dumps(job, sort_keys=True)


def read_rows(path: Path) -> list[Row]:
    """The rows of a file of JSON lines; a line that was cut off is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def unfinished(jobs: Sequence[Job], rows: Sequence[Row]) -> list[Job]:
    """The jobs without rows; those that failed are tried again."""
    done = {row["job"] for row in rows if "error" not in row}
    return [job for job in jobs if name_of(job) not in done]


def run_jobs(
    jobs: Sequence[Job],
    prepare: Prepare,
    path: Path,
    *,
    processes: int,
    seconds: float,
    progress: Progress = silent,
) -> list[Row]:
    """Measures all jobs that have no rows in a file, and adds theirs to it.

    Args:
        jobs: in the order in which they matter.
        prepare: compiles one of them.
        path: of the file, JSON lines.
        processes: that compile; 0 does everything in this one.
        seconds: after so many no job is begun; three quarters of them are for the compilation.
        progress: called with a line for each job.

    Returns:
        All rows of the file whose job is among these, without failures, in the order of the jobs.
    """
    waiting, start = unfinished(jobs, read_rows(path)), time.time()
    limits = Limits(start + 0.75 * seconds, start + seconds)
    progress(f"{len(waiting)} of {len(jobs)} jobs to measure, at most {seconds / 60:.1f} minutes")
    _end_line(path)
    with path.open("a") as file:
        for job, rows in _measured(waiting, prepare, processes, limits):
            text = "".join(json.dumps({"job": name_of(job), **job, **row}) + "\n" for row in rows)
            file.write(text)
            file.flush()
            progress(f"{time.time() - start:.0f} s: {name_of(job)}")
    order = {name_of(job): place for place, job in enumerate(jobs)}
    known = [row for row in read_rows(path) if row["job"] in order and "error" not in row]
    return sorted(known, key=lambda row: order[row["job"]])


def _end_line(path: Path) -> None:
    """Ends a line that was cut off, so that the next row has a line of its own."""
    if path.exists() and not path.read_text().endswith("\n"):
        with path.open("a") as file:
            file.write("\n")


def _measured(
    jobs: Sequence[Job], prepare: Prepare, processes: int, limits: Limits
) -> Iterator[tuple[Job, list[Row]]]:
    """Every job with its rows, as they come."""
    if processes == 0 or not jobs:
        yield from work(jobs, prepare, lambda: None, contextlib.nullcontext(), limits)
        return
    context = multiprocessing.get_context("spawn")
    count = min(processes, len(jobs))
    rows, lock, gate = context.Queue(), context.Lock(), context.Barrier(count)
    workers = [
        context.Process(
            target=_worker, args=(jobs[i::count], prepare, gate, lock, limits, rows), daemon=True
        )
        for i in range(count)
    ]
    for worker in workers:
        worker.start()
    try:
        while any(worker.is_alive() for worker in workers) or not rows.empty():
            with contextlib.suppress(queue.Empty):
                yield rows.get(timeout=0.5)
    finally:
        for worker in workers:
            worker.terminate()


def _worker(
    jobs: Sequence[Job], prepare: Prepare, gate: Any, lock: Any, limits: Limits, rows: Any
) -> None:
    """One process: puts each job and its rows into a queue."""

    def wait() -> None:
        # A process that died would keep the others waiting: they go on without it.
        with contextlib.suppress(threading.BrokenBarrierError):
            gate.wait(max(1.0, limits.compiled - time.time() + 30))

    for job, of_job in work(jobs, prepare, wait, lock, limits):
        rows.put((job, of_job))


def work(
    jobs: Sequence[Job],
    prepare: Prepare,
    gate: Callable[[], None],
    lock: contextlib.AbstractContextManager[Any],
    limits: Limits,
) -> Iterator[tuple[Job, list[Row]]]:
    """Compiles jobs, waits at the gate, then times one after the other under the lock.

    A job that fails gives one row with its `error`, and the others go on.
    """
    measures: list[tuple[Job, Measure]] = []
    for job in jobs:
        if time.time() < limits.compiled:
            measures.append((job, _or_error(prepare, job)))
    gate()
    for job, measure in measures:
        with lock:
            rows = _rows(measure) if time.time() < limits.timed else []
        if rows:
            yield job, rows


def _or_error(prepare: Prepare, job: Job) -> Measure:
    """The compiled job, or one whose row is the error of its compilation."""
    try:
        return prepare(job)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"[:500]
        return lambda: [{"error": text}]


def _rows(measure: Measure) -> list[Row]:
    """The rows of a job, or its error as one."""
    try:
        return measure()
    except Exception as error:
        return [{"error": f"{type(error).__name__}: {error}"[:500]}]
