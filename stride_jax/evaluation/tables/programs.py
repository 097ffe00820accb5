"""Tables of compiled programs: launches on a GPU, operations and memory on a TPU."""

from __future__ import annotations

from typing import Any

from stride_jax.evaluation.results import Content, Row
from stride_jax.evaluation.tables.cells import Columns, Show, markdown, number, several, text

ROUND: Columns = {
    "target pass": text("target_pass"),
    "draft step": text("draft_step"),
    "proposals": text("proposals"),
    "verification": text("verification"),
    "round": text("round"),
    "best speedup": lambda row: format(
        (row["num_draft"] + 1) * row["target_pass"] / row["round"], ".2f"
    ),
}
BESIDE: Columns = {
    "overhead": text("round_overhead"),
    "surplus": text("round_surplus"),
    "prefill": text("prefill"),
    "outside": text("outside"),
    "copies": text("copies"),
    "scatters": text("scatters"),
}
"""A table of all columns would be wider than a page."""


def launches_table(content: Content) -> list[str]:
    """Launches by setting; `before -> now` where an earlier file is compared and they differ."""
    rows, first = content["rows"], content["rows"][0]
    headings = {
        **{name: name for name in ("layers", "batch", "draft", "rule", "dtype")},
        **{"num_vars": "variables", "draft_layers": "draft layers", "num_draft": "K"},
    }

    def sizes(row: Row) -> tuple[Any, ...]:
        return tuple(row[name] for name in headings)

    earlier = {sizes(row): row for row in content.get("before", [])}

    def changed(show: Show) -> Show:
        def cell(row: Row) -> str:
            now, then = show(row), show(earlier.get(sizes(row), row))
            return now if then == now else f"{then} -> {now}"

        return cell

    columns: Columns = {}
    for name, heading in headings.items():
        columns |= {heading: text(name)} if len({row[name] for row in rows}) > 1 else {}
    columns |= several("products", text("products"), rows)
    counts = [{name: changed(show) for name, show in part.items()} for part in (ROUND, BESIDE)]
    caption = (
        f"Compiled for an NVIDIA H100 with jax {first['jax']}, without autotuning; target of width "
        f"{first['d_model']}, draft {first['draft']}, K {first['num_draft']}, rule "
        f"{first['rule']} where no column says otherwise."
    )
    first_table, second_table = (markdown(columns | part, rows) for part in counts)
    return [caption, "**A round**", first_table, "**Beside it**", second_table]


def tpu_table(content: Content) -> list[str]:
    """Operations, bytes and memory of the programs compiled for a TPU."""
    columns: Columns = {
        "program": text("program"),
        "devices": text("devices"),
        "layers": text("layers"),
        "variables": text("num_vars"),
        "batch": text("batch"),
        "GFLOP": number("gflop", ".1f"),
        "GB": number("gbyte", ".2f"),
        "peak MiB": number("peak_mib", ".0f"),
        "collectives": text("collectives"),
    }
    first = content["rows"][0]
    caption = (
        f"Compiled for a TPU v5e with jax {first['jax']}; models of width {first['d_model']}; "
        "numbers of one device."
    )
    return [caption, markdown(columns, content["rows"])]
