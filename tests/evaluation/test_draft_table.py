"""The table of drafts, and the tool that fills it."""

import dataclasses

import jax
import pytest
from helpers.tools import load_tool

from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.checkpoints.store import save_model
from stride_jax.data.config import DataConfig
from stride_jax.evaluation import programs
from stride_jax.evaluation.programs import Setting
from stride_jax.evaluation.tables import make_table
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import init_params

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


def test_the_program_of_a_linear_draft_is_built():
    """Its launches could not be counted: its matrices need concrete numbers."""
    draft = programs.build(Setting(draft="linear", layers=1, d_model=64)).draft
    assert draft.means.shape[1] == programs.PATCH_LEN


@pytest.mark.slow
def test_rows_hold_counts_and_times(tmp_path, monkeypatch):
    """The long run would stop at its end, with the times."""
    tool = load_tool("draft_table")
    monkeypatch.setattr(tool, "REPEATS", 2)
    monkeypatch.setattr(tool, "CONTEXTS", 32)
    model = TimerXLConfig(
        patch_len=24, d_model=16, num_heads=2, d_ff=16, instance_norm="causal", variable_stride=0
    )
    path = tmp_path / "target.safetensors"
    save_model(path, Checkpoint(model, init_params(jax.random.key(0), model), 96))
    case = tool.Case(
        data=DataConfig(context_len=96, variables="separate"),
        target=str(path),
        drafts={"multi-patch": "last-value", "seasonal": "seasonal:24"},
        num_draft=2,
        num_patches=3,
        patch_len=24,
        stride=2503,
        setting={},
    )
    rows = tool.case_rows("toy", case, tmp_path, timed=True)
    assert [row["draft"] for row in rows] == ["multi-patch", "seasonal", "multi-patch, corrected"]
    for row in rows:
        assert 1 <= row["patches_block"] <= 3
        assert row["gap"] > 0
        assert row["seconds_proposals"] > 0
        assert row["speedup_mean"] > 0
    assert rows[0]["gap"] == pytest.approx(rows[2]["gap"], rel=0.05)  # first places have no errors
