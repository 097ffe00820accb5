"""The table of drafts, and the tool that fills it."""

import dataclasses

from helpers.tools import load_tool

from stride_jax.evaluation.programs import Setting
from stride_jax.evaluation.tables import make_table

COUNTS = {
    "gap": 0.1234,
    **{f"acceptance_{rule}": 0.5 for rule in ("mean", "maximal", "block")},
    **{f"patches_{rule}": 2.5 for rule in ("mean", "maximal", "block")},
}
COSTS = {"seconds_proposals": 0.00125, "seconds_block": 0.0105, "speedup_block": 1.75}
CONTENT = {
    "table": "drafts",
    "hardware": {"cpu": "a CPU", "cores": 2, "platform": "cpu"},
    "versions": {"jax": "0.0"},
}


def table(**fields) -> str:
    """The table of one row."""
    row = {"pair": "beijing", "draft": "linear", "num_draft": 5, **fields}
    return make_table({**CONTENT, "rows": [row]})


def test_costs_are_shown_where_they_were_measured():
    """Counts that were taken on a busy machine would come with empty columns, or with seconds."""
    counts, both = table(**COUNTS), table(**COUNTS, **COSTS)
    assert "0.123" in counts
    assert "50.0%" in counts
    assert "Cost" not in counts
    assert "1.25" in both
    assert "10.5" in both
    assert "launches" not in both


def test_every_draft_has_launches_to_count():
    """A row of the table would stay without launches, or the count would fail in the middle."""
    tool = load_tool("draft_table")
    for case in tool.CASES.values():
        assert case.num_draft < case.num_patches
        for kind in case.drafts:
            setting = Setting(**case.setting, **tool.LAUNCHES[kind])
            assert dataclasses.asdict(setting)["num_draft"] == case.num_draft
