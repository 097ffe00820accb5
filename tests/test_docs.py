"""Every Python block of the docs runs as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    pytest.param("docs/decoding.md", marks=pytest.mark.slow),
    "docs/accelerators.md",
    pytest.param("docs/covariance.md", marks=pytest.mark.slow),
    pytest.param("docs/quickstart.md", marks=pytest.mark.slow),
]
"""The README has its own test, in test_public."""


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page: str, tmp_path: Path) -> None:
    """A newcomer's first copy and paste would fail."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        # a process of its own: the strict settings of the tests are not the reader's
        subprocess.run(
            [sys.executable, "-W", "error", "-c", block],
            check=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "passes"), [("own_model", 12), ("timesfm_flax", 8)])
def test_examples_run(name: str, passes: int) -> None:
    """Who brings a model starts from them. timesfm_flax needs the extra `examples`."""
    script = ROOT / "examples" / f"{name}.py"
    done = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, text=True, check=True)
    alone, both = (float(line.split(": ")[1].split()[0]) for line in done.stdout.splitlines())
    assert both < alone == passes  # target passes a path


def test_included_files_are_shown() -> None:
    """The site would print the directive in place of the example."""
    included = re.findall(r"^(.*8 ?<.*)$", (ROOT / "docs/own_model.md").read_text(), re.MULTILINE)
    assert included
    for line in included:
        found = re.fullmatch(r'--8<-- "(.*)"', line)
        assert found, line
        assert (ROOT / found[1]).is_file()
