"""Result files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stride_jax.errors import InputError
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


@pytest.mark.parametrize("fact", [("hardware", "cpu"), ("versions", "jax")])
def test_rows_of_another_machine_are_not_put_beside(tmp_path: Path, fact: tuple[str, str]) -> None:
    """Rows of two machines would be read as before and after, under the name of the last one."""
    path = tmp_path / "times.json"
    write_labelled_rows(path, "before", [{"label": "before", "seconds": 2}])
    content = json.loads(path.read_text())
    content[fact[0]][fact[1]] = "another"
    path.write_text(json.dumps(content))
    taken = []

    def rows() -> Iterator[dict[str, Any]]:
        taken.append("measured")
        yield {"label": "after", "seconds": 1}

    with pytest.raises(InputError, match=r"rows of 'before' from .*another.*on one machine"):
        write_labelled_rows(path, "after", rows())
    assert not taken
    assert json.loads(path.read_text()) == content

    write_labelled_rows(path, "before", [{"label": "before", "seconds": 3}])
    assert read_results(path)["rows"] == [{"label": "before", "seconds": 3}]
