"""Table of drafts: how close each kind is to its target, what it costs, what it brings."""

from __future__ import annotations

from stride_jax.evaluation.results import Content, machine
from stride_jax.evaluation.tables.cells import Columns, markdown, number, text

NAMES: Columns = {"pair": text("pair"), "draft": text("draft")}
RULES = ("mean", "maximal", "block")


def drafts_table(content: Content) -> list[str]:
    """Two tables: gap, acceptance and patches of a round; launches, milliseconds and speedup."""
    close: Columns = {"K": text("num_draft"), "gap / sigma": number("gap", ".3f")}
    close |= {f"{rule}, kept": number(f"acceptance_{rule}", ".1%") for rule in RULES}
    close |= {f"{rule}, patches": number(f"patches_{rule}", ".2f") for rule in RULES}
    cost: Columns = {
        "launches, K proposals": text("launches_proposals"),
        "launches, round": text("launches_round"),
        "ms, K proposals": number("seconds_proposals", ".2f", 1000),
    }
    cost |= {f"{rule}, ms": number(f"seconds_{rule}", ".1f", 1000) for rule in RULES}
    cost |= {f"{rule}, speedup": number(f"speedup_{rule}", ".2f") for rule in RULES}
    rows = content["rows"]
    parts = ["**Closeness**", markdown(NAMES | close, rows)]
    if any(key.startswith(("launches", "seconds")) for row in rows for key in row):
        parts += ["**Cost**", markdown(NAMES | cost, rows)]
    return [f"On {machine(content)}.", *parts]
