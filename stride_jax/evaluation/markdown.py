"""Markdown tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def cell(name: str, form: str) -> Callable[[dict[str, Any]], str]:
    """How a row shows a field: formatted, or empty where the row has none."""
    return lambda row: "" if row.get(name) is None else format(row[name], form)


def aligned(cells: list[list[str]]) -> list[str]:
    """Lines of a Markdown table; the first row is its header."""
    width = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    text = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, width, strict=True)) + " |"
        for line in cells
    ]
    rule = "|" + "|".join("-" * (w + 2) for w in width) + "|"
    return [text[0], rule, *text[1:]]


def machine(results: dict[str, Any]) -> str:
    """Where a result file was measured, in words."""
    hardware = results["hardware"]
    return (
        f"{hardware['cpu']} ({hardware['cores']} cores, {hardware['platform']}), "
        f"jax {results['versions']['jax']}"
    )
