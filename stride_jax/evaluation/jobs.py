"""Jobs of a long measurement: compiled in parallel, timed one by one, written as they come.

Every process compiles its share of the jobs, and none is timed while anything compiles: a compiler
beside it takes the cores that launch, and its autotuning the device. A process that is still
compiling at the limit is stopped, and its job fails. What it had compiled before is compiled again,
quickly where jax keeps programs, also of a process that died. Then the jobs are timed one at a
time. A run that was stopped goes on with the jobs that have no rows yet, if it measures the same as
before.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as first_of
from pathlib import Path
from typing import Any, NamedTuple

from stride_jax.evaluation.bench import Progress, silent
from stride_jax.evaluation.job_file import (
    Facts,
    Job,
    append,
    check_facts,
    name_of,
    read_rows,
    unfinished,
)
from stride_jax.evaluation.results import Row

Measure = Callable[[], list[Row]]
Prepare = Callable[[Job], Measure]
"""Builds and compiles a job; what it returns times it. A function at the top of a module."""

COMPILE, LATE, MOST_LATE, TIMED_LATE = 0.6, 30.0, 0.15, 60.0
"""The share of a run in which compilation may begin; the seconds that what is compiling then may
take longer, and that loading the programs of a stopped process may take, and the most of each as a
share of the run; and the seconds after the end in which what is being timed may end."""


class Limits(NamedTuple):
    """When a run ends, in seconds of `time.time()`, which all processes share.

    Attributes:
        compiled: no job is compiled any more.
        timed: no job is timed any more.
        late: seconds that what is begun before `compiled` may take after it.
    """

    compiled: float
    timed: float
    late: float = 0.0


# --- a run ---------------------------------------------------------------------------------------


def run_jobs(
    jobs: Sequence[Job],
    prepare: Prepare,
    path: Path,
    *,
    facts: Facts,
    processes: int,
    seconds: float,
    progress: Progress = silent,
) -> list[Row]:
    """Measures all jobs that have no rows in a file, and adds theirs to it.

    Args:
        jobs: in the order in which they matter.
        prepare: compiles one of them.
        path: of the file, JSON lines: the facts, then each job with its rows.
        facts: what the rows depend on besides their jobs; a file is only for equal ones.
        processes: that compile; 0 does everything in this one.
        seconds: after so many no job is begun; compilation begins in three fifths of them.
        progress: called with a line for each job.

    Returns:
        All rows of the file whose job is among these, without failures, in the order of the jobs.

    Raises:
        InputError: the rows of the file were measured with other facts; it stays as it is.
    """
    check_facts(path, facts)
    waiting, start = unfinished(jobs, read_rows(path)), time.time()
    late = min(max(LATE, 0.1 * seconds), MOST_LATE * seconds)
    limits = Limits(start + COMPILE * seconds, start + seconds, late)
    progress(f"{len(waiting)} of {len(jobs)} jobs to measure, at most {seconds / 60:.1f} minutes")
    measured = _in_processes if processes and waiting else _in_this_one
    for job, rows in measured(waiting, prepare, processes, limits):
        append(path, {"job": job, "rows": rows})
        progress(f"{time.time() - start:.0f} s: {name_of(job)}")
    order = {name_of(job): place for place, job in enumerate(jobs)}
    known = [row for row in read_rows(path) if row["job"] in order and "error" not in row]
    return sorted(known, key=lambda row: order[row["job"]])


def _in_this_one(
    jobs: Sequence[Job], prepare: Prepare, _: int, limits: Limits
) -> Iterator[tuple[Job, list[Row]]]:
    """Every job with its rows, all measured in this process."""
    for job, measure in list(_compiled(jobs, prepare, limits)):
        if time.time() < limits.timed:
            yield job, _rows(measure)


def _compiled(
    jobs: Sequence[Job], prepare: Prepare, limits: Limits
) -> Iterator[tuple[Job, Measure]]:
    """The jobs that are compiled before the limit, as they are."""
    for job in jobs:
        if time.time() < limits.compiled:
            yield job, _or_error(prepare, job)


def _or_error(prepare: Prepare, job: Job) -> Measure:
    """The compiled job, or one whose row is the error of its compilation."""
    try:
        return prepare(job)
    except Exception as error:
        rows = _failure(f"{type(error).__name__}: {error}")
        return lambda: rows


def _rows(measure: Measure) -> list[Row]:
    """The rows of a job, or its error as one."""
    try:
        return measure()
    except Exception as error:
        return _failure(f"{type(error).__name__}: {error}")


def _failure(text: str) -> list[Row]:
    """The one row of a job that failed."""
    return [{"error": text[:500]}]


# --- processes -----------------------------------------------------------------------------------


class _Worker(NamedTuple):
    """A process and this end of its pipe.

    It sends `COMPILED` after each of its jobs that it has compiled, `READY` after the last of them,
    and then the rows of the next one for each message.
    """

    process: Any
    pipe: Connection
    jobs: Sequence[Job]


COMPILED, READY = "compiled", "ready"


def _work(jobs: Sequence[Job], prepare: Prepare, limits: Limits, pipe: Connection) -> None:
    """The program of a worker; it ends with the process that started it."""
    try:
        measures = []
        for _, measure in _compiled(jobs, prepare, limits):
            measures.append(measure)
            pipe.send(COMPILED)
        pipe.send(READY)
        for measure in measures:
            pipe.recv()
            pipe.send(_rows(measure))
    except (EOFError, BrokenPipeError):
        return


def _in_processes(
    jobs: Sequence[Job], prepare: Prepare, processes: int, limits: Limits
) -> Iterator[tuple[Job, list[Row]]]:
    """Every job with its rows, as they come."""
    count = min(processes, len(jobs))
    workers = [_start(jobs[i::count], prepare, limits) for i in range(count)]
    try:
        first = _wait(workers, limits.compiled + limits.late)

        # Those that still compile are stopped, and the job that each was at has failed.
        yield from _given_up(first)

        # Other processes load what these had compiled; none begins a program in the last half.
        now = time.time()
        halfway = Limits(now + 0.5 * limits.late, limits.timed)
        again = [
            _start(worker.jobs[:number], prepare, halfway)
            for worker, number in (*first.late, *first.died)
            if number
        ]
        workers += again
        second = _wait(again, now + limits.late)
        yield from _given_up(second)

        yield from _turns([*first.ready, *second.ready], limits)
    finally:
        _stop(workers)


def _start(jobs: Sequence[Job], prepare: Prepare, limits: Limits) -> _Worker:
    """A new process that compiles these jobs."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(jobs, prepare, limits, there), daemon=True)
    process.start()
    there.close()  # so that this end is told when the process dies
    return _Worker(process, here, jobs)


def _stop(workers: Sequence[_Worker]) -> None:
    """Ends processes, whatever they do, and waits until they have ended."""
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        worker.process.join(5)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


Counted = list[tuple[_Worker, int]]
"""Workers, and how many of the jobs of each are compiled."""


class _Waited(NamedTuple):
    """Workers that are ready, that still compile, and whose process has died."""

    ready: Counted
    late: Counted
    died: Counted


def _wait(workers: Sequence[_Worker], until: float) -> _Waited:
    """Waits until every worker is ready or dead, or until a time."""
    ready: Counted = []
    died: Counted = []
    waiting: dict[Any, _Worker] = {worker.pipe: worker for worker in workers}
    compiled = dict.fromkeys(waiting, 0)
    while waiting:
        pipes: list[Any] = first_of(list(waiting), max(0.0, until - time.time()))
        if not pipes:
            break
        for pipe in pipes:
            try:
                message = pipe.recv()
            except (EOFError, OSError):
                died.append((waiting.pop(pipe), compiled[pipe]))
                continue
            if message == READY:
                ready.append((waiting.pop(pipe), compiled[pipe]))
            else:
                compiled[pipe] += 1
    return _Waited(ready, [(worker, compiled[pipe]) for pipe, worker in waiting.items()], died)


def _given_up(waited: _Waited) -> Iterator[tuple[Job, list[Row]]]:
    """Ends the processes that are not ready; the job that each of them was at, as failed."""
    _stop([worker for worker, _ in (*waited.late, *waited.died)])
    for worker, number in waited.late:
        if number < len(worker.jobs):
            yield worker.jobs[number], _failure("it was still being compiled at the limit")
    for worker, number in waited.died:
        if number < len(worker.jobs):
            yield worker.jobs[number], _failure(_death(worker))


def _death(worker: _Worker) -> str:
    """The text of a failure: a process that has died, and its exit code."""
    worker.process.join(5)
    return f"its process died, exit code {worker.process.exitcode}"


def _turns(ready: Counted, limits: Limits) -> Iterator[tuple[Job, list[Row]]]:
    """The first job of each worker, then the second ones, until the limit."""
    for place in range(max((number for _, number in ready), default=0)):
        for worker, number in ready:
            if place < number and time.time() < limits.timed:
                yield worker.jobs[place], _ask(worker, limits.timed + TIMED_LATE)


def _ask(worker: _Worker, until: float) -> list[Row]:
    """The rows of a worker's next job; a failure if it dies, or is not done by a time."""
    try:
        worker.pipe.send(None)
        if worker.pipe.poll(max(0.0, until - time.time())):
            rows: list[Row] = worker.pipe.recv()
            return rows
    except (EOFError, OSError):
        return _failure(_death(worker))
    return _failure("it was still being timed when the run ended")
