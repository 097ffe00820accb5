"""Result files."""

from pathlib import Path

import pytest

from stride_jax.evaluation.results import read_results, write_labelled_rows


def test_rows_of_other_labels_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A measurement after a change would lose, or repeat, the rows of the one before it."""
    path = tmp_path / "times.json"
    write_labelled_rows(path, "before", [{"label": "before", "seconds": 2}])
    write_labelled_rows(path, "after", [{"label": "after", "seconds": 9}])
    write_labelled_rows(path, "after", [{"label": "after", "seconds": 1}])
    rows = read_results(path)["rows"]
    assert rows == [{"label": "before", "seconds": 2}, {"label": "after", "seconds": 1}]
    assert len(capsys.readouterr().out.splitlines()) == 3
