"""Result files in and out: rows as JSON and CSV, with hardware, versions and config."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import pandas as pd

from stride_jax.config import to_dict
from stride_jax.errors import InputError

Row = dict[str, Any]
Content = dict[str, Any]
"""A result file: `rows` (a list), `table` (which table shows it), where and how it was measured."""


def content(table: str, rows: list[Row], config: Any, **facts: Any) -> Content:
    """A result file of these rows, as JSON-ready dictionaries."""
    return {"table": table, "rows": rows, **facts, **environment(), "config": to_dict(config)}


def make_directory(path: Path) -> Path:
    """Makes a directory for results; the directory.

    Raises:
        InputError: a file is in the way, or it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write results to {path}: {error}") from error
    return path


def write_results(out: Path, results: Content) -> None:
    """Writes `results.json` and `results.csv` into a directory."""
    make_directory(out)
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    frame(results).map(_flat).to_csv(out / "results.csv", index=False)


def write_rows(path: Path, rows: list[Row], **facts: Any) -> None:
    """Writes rows to a JSON file, with the hardware and versions they were measured on."""
    make_directory(path.parent)
    path.write_text(json.dumps({"rows": rows, **facts, **environment()}, indent=1) + "\n")


def write_labelled_rows(path: Path, label: str, rows: Iterable[Row]) -> None:
    """Writes rows that carry a label, each as it comes; those of other labels stay in the file.

    Args:
        path: JSON file to write, or to go on with.
        label: of all the rows.
        rows: measured as they are taken.

    Raises:
        InputError: rows of another label were measured on another machine or version of jax, so
            the two could not be compared. Nothing is measured then.
    """
    together: list[Row] = []
    if path.exists():
        before = read_results(path)
        together = [row for row in before["rows"] if row["label"] != label]
        there, here = machine(before), machine(environment())
        if together and there != here:
            raise InputError(
                f"{path} has rows of {together[0]['label']!r} from {there}, and this is {here}; "
                "measure every label on one machine, into a new file."
            )
    for row in rows:
        print(row, flush=True)
        together.append(row)
        write_rows(path, together)


def read_results(path: Path) -> Content:
    """The content of a JSON result file; `before` names a file beside it and becomes its rows.

    Raises:
        InputError: there is no such file.
    """
    if not path.is_file():
        raise InputError(f"there is no result file {path}.")
    results: Content = json.loads(path.read_text())
    if "before" in results:
        results["before"] = read_results(path.parent / results["before"])["rows"]
    return results


def frame(results: Content) -> pd.DataFrame:
    """The rows as a DataFrame of objects; None where a row has no such value."""
    table = pd.DataFrame(results["rows"], dtype=object)
    return table.where(table.notna(), None)


def _flat(value: Any) -> Any:
    """A cell of a CSV file; a list becomes its numbers with spaces between."""
    return " ".join(map(str, value)) if isinstance(value, list) else value


def environment() -> dict[str, Any]:
    """Hardware and versions."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    packages = ("stride-jax", "jax", "jaxlib", "flax", "numpy")
    return {
        "hardware": {
            "device": jax.devices()[0].device_kind,
            "platform": jax.default_backend(),
            "devices": jax.device_count(),
            "cpu": model,
            "cores": os.cpu_count(),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in packages},
        },
    }


def machine(results: Content) -> str:
    """Where a result file was measured, in words: the processor, or the accelerator beside it."""
    hardware = results["hardware"]
    alone = hardware["platform"] == "cpu"
    name, beside = (hardware["cpu"], "") if alone else (hardware["device"], " beside it")
    return (
        f"{name} ({hardware['cores']} cores{beside}, {hardware['platform']}), "
        f"jax {results['versions']['jax']}"
    )
