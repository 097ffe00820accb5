"""The zero-shot page beside its result files."""

import json
from pathlib import Path

from helpers.tools import load_tool

from stride_jax.evaluation.results import read_results

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "zero_shot"


def test_the_table_of_what_was_demanded_is_of_the_result_files() -> None:
    """The page would show what an earlier model reached."""
    files = [read_results(RESULTS / f"{x}.json") for x in ("foreign", "benchmarks", "paths")]
    found = json.loads(json.dumps(load_tool("demanded").demanded(*files)))
    assert read_results(RESULTS / "demanded.json")["rows"] == found
