"""The file of a long measurement: its facts, then each job with its rows, one line of JSON each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stride_jax.errors import InputError
from stride_jax.evaluation.results import Row

Job = dict[str, Any]
"""A measurement as JSON: its `kind` and its sizes, which are columns of its rows."""

Facts = dict[str, Any]
"""Where and how all rows of a file are measured, as JSON."""


def name_of(job: Job) -> str:
    """The job as one line, by which its rows are known."""
    return json.dumps(job, sort_keys=True)


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, failures too; what is no whole line of a job is left out."""
    lines = [line for line in _objects(path) if line.keys() == {"job", "rows"}]
    return [
        {"job": name_of(line["job"]), **line["job"], **row}
        for line in lines
        for row in line["rows"]
    ]


def unfinished(jobs: Sequence[Job], rows: Sequence[Row]) -> list[Job]:
    """The jobs without rows; those that failed come last, so that none of them holds up others."""
    done = {row["job"] for row in rows if "error" not in row}
    failed = {row["job"] for row in rows}
    missing = [job for job in jobs if name_of(job) not in done]
    return sorted(missing, key=lambda job: name_of(job) in failed)


def _objects(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file that has one in each line; a line that was cut off is none."""
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    return [value for value in map(_value, lines) if isinstance(value, dict)]


def _value(line: str) -> Any:
    """The value of a line of JSON, or None."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def append(path: Path, value: dict[str, Any]) -> None:
    """Adds a line; one before it that was cut off is ended first."""
    text = json.dumps(value) + "\n"
    before = path.read_bytes() if path.exists() else b""
    with path.open("a") as file:
        file.write("\n" * (before[-1:] not in (b"", b"\n")) + text)


def check_facts(path: Path, facts: Facts) -> None:
    """Writes the facts into the first line of a file, or compares them with those in it.

    Raises:
        InputError: the rows of the file were measured otherwise, or nobody knows how.
    """
    here, objects = json.loads(json.dumps(facts)), _objects(path)
    if not objects:
        append(path, {"facts": here})
        return
    advice = "Choose another directory with --out, or move the file away; nothing was changed."
    if objects[0].keys() != {"facts"}:
        raise InputError(f"the first line of {path} does not say how it was measured. {advice}")
    there = objects[0]["facts"]
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    if names:
        both = [f"{name} was {there.get(name)!r} and is {here.get(name)!r} now" for name in names]
        raise InputError(f"the rows of {path} were measured otherwise: {'; '.join(both)}. {advice}")
