"""Cells, columns and captions that the tables of result files share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from stride_jax.decoding.rules import RULES
from stride_jax.evaluation.results import Content, Row
from stride_jax.evaluation.subject import SETTINGS

Show = Callable[[Row], str]
Columns = dict[str, Show]


def number(name: str, form: str, factor: float = 1) -> Show:
    """A column that formats a field; empty where a row has none."""
    return lambda row: "" if row.get(name) is None else format(factor * row[name], form)


def text(name: str) -> Show:
    """A column that shows a field as one line of text; empty where a row has none."""

    def cell(row: Row) -> str:
        value = row.get(name)
        if value is None or isinstance(value, bool):
            return {None: "", True: "yes", False: "no"}[value]
        form = ".0f" if isinstance(value, float) and 1000 <= abs(value) < 1e6 else ".3g"
        shown = format(value, form) if isinstance(value, float) else str(value)
        return " ".join(shown.split()).replace("|", "\\|")

    return cell


def markdown(columns: Columns, rows: Sequence[Row]) -> str:
    """The table of some rows; columns that are empty in all of them are left out."""
    cells = pd.DataFrame([{name: show(row) for name, show in columns.items()} for row in rows])
    cells = cells.loc[:, (cells != "").any()]
    right = [bool(cells[name].str.fullmatch(r"[-+.\d]*(e-\d+)?%?").all()) for name in cells]
    align = ["right" if numbers else "left" for numbers in right]
    return str(cells.to_markdown(index=False, disable_numparse=True, colalign=align))


def decoder_name(row: Row) -> str:
    """The decoder of a row in words."""
    if row["method"] != "speculative":
        return f"{row['method']} only, {row['process']}"
    return f"speculative, {rule_text(row)}, K = {row['num_draft']}"


def rule_text(row: Row) -> str:
    """A rule with its settings that are not the defaults; a tolerance is always shown."""
    fields = {field.name: field for field in dataclasses.fields(RULES[row["rule"]])}  # type: ignore[arg-type]
    shown = [
        f"{name.replace('_', ' ')} {row[name]:g}"
        for name in SETTINGS
        if row.get(name) is not None and (name == "tolerance" or row[name] != fields[name].default)
    ]
    return f"{row['rule']} ({', '.join(shown)})" if shown else str(row["rule"])


def draft_name(row: Row) -> str:
    """The last part of the draft's name."""
    return Path(row["draft"]).stem if row["draft"] else ""


def is_exact(row: Row) -> bool:
    """Whether a row follows the distribution of the target, whatever the draft does."""
    return row["method"] == "target" or (row["rule"] in RULES and RULES[row["rule"]].exact)


def samples_anew(row: Row) -> bool:
    """Whether the paths of a rule have other noise than the target's path of the same key."""
    return row["rule"] in RULES and RULES[row["rule"]].proposes == "sample"


def several(name: str, show: Show, rows: Sequence[Row]) -> Columns:
    """A column that is shown only where its field has several values."""
    values = {row[name] for row in rows if row[name] is not None}
    return {name: show} if len(values) > 1 else {}


OUTPUTS = {"mean": "Mean paths", "sample": "Sample paths"}
MILLISECONDS = number("seconds", ".2f", 1000)


def series_text(content: Content) -> str:
    """The series of an experiment, in the words of a caption."""
    data, row = content["config"]["setup"]["data"], content["rows"][0]
    horizons = sorted({row["horizon"] for row in content["rows"]})
    steps = ", ".join(map(str, horizons))
    return (
        f"{data['source']}, {data['variables']} variables, context {row['context']}, "
        f"horizon {steps}"
    )
