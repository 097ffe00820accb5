"""The report of bad inputs: every one is answered in words, and none by accident."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.tools import load_tool

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tool():
    """tools/bad_inputs.py as a module."""
    return load_tool("bad_inputs")


def test_every_bad_input_is_answered_in_plain_words(tool, tmp_path):
    """A user would see a traceback of somebody else's code, or wait for a compilation first."""
    rows = tool.answers(tmp_path)
    assert [row for row in rows if not row["well"]] == []
    assert len({row["input"] for row in rows}) == len(rows) >= 60
    assert all(len(row["message"]) > 20 for row in rows)


def test_a_good_input_is_not_counted_as_answered(tool, tmp_path, monkeypatch):
    """The report would call everything well."""
    good = [("a good one", lambda: None), ("a crash", lambda: 1 / 0)]
    late = [("after compiling", lambda: compile_and_fail(tool))]
    for name in ("arrays", "frames", "decoders", "configs"):
        monkeypatch.setattr(tool, name, lambda: iter(()))
    monkeypatch.setattr(tool, "files", lambda folder: iter(good + late))
    rows = tool.answers(tmp_path)
    assert [(row["error"], row["well"]) for row in rows] == [
        ("none", False),
        ("ZeroDivisionError", False),
        ("InputError", False),
    ]


def compile_and_fail(tool):
    """An error that comes after a compilation."""
    import jax

    shape = np.random.default_rng().integers(3, 10_000)
    jax.jit(lambda x: x + 1)(np.zeros(shape))
    raise tool.InputError("too late")


def test_the_report_is_the_tools(tool):
    """The committed report would be of other inputs than the tool's."""
    content = json.loads((ROOT / "docs" / "results" / "bad_inputs.json").read_text())
    names = [row["input"] for row in content["rows"]]
    groups = tool.arrays(), tool.frames(), tool.decoders(), tool.configs()
    known = [name for group in groups for name, _ in group]
    assert names[: len(known)] == known
    assert all(row["well"] for row in content["rows"])
