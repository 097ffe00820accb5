"""The table of a measured accelerator: one for each kind of job."""

from __future__ import annotations

from stride_jax.evaluation.results import Content, machine
from stride_jax.evaluation.tables.cells import Columns, markdown, number, text

COLUMNS: Columns = {
    "layers": text("layers"),
    "variables": text("num_vars"),
    "horizon": text("horizon"),
    "batch": text("batch"),
    "dtype": text("dtype"),
    "method": text("method"),
    "draft": text("draft"),
    "rule": text("rule"),
    "K": text("num_draft"),
    "accepted": number("accepted", ".0%"),
    "ms": number("milliseconds", ".2f"),
    "speedup": number("speedup", ".2f"),
    "MiB": number("memory_mib", ".0f"),
    "steps/s": number("steps_per_second", ".0f"),
    "paths": text("paths"),
    "p": number("p", ".3f"),
    "cases": text("cases"),
    "error of outputs": number("outputs", ".1e"),
    "error of forecast": number("rolled", ".1e"),
}
"""Columns of all kinds; those that are empty in one of them are left out there."""


def accelerator_table(content: Content) -> list[str]:
    """Where it was measured, then each kind of job under its name."""
    missing = f" {content['missing']} jobs are not measured yet." if content["missing"] else ""
    flags = f", with `XLA_FLAGS={content['xla_flags']}`" if content.get("xla_flags") else ""
    parts = [f"On {machine(content)}{flags}, stride-jax at commit {content['commit']}.{missing}"]
    kinds = dict.fromkeys(row["kind"] for row in content["rows"])
    for kind in kinds:
        rows = [row for row in content["rows"] if row["kind"] == kind]
        parts += [f"**{kind.capitalize()}**", markdown(COLUMNS, rows)]
    return parts
