"""Imports of a part bring in no more than it needs; the direction itself is in pyproject.toml."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = [*ROOT.glob("*.py"), *(ROOT / "configs").rglob("*.py"), *(ROOT / "tools").glob("*.py")]
DECODING = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "stride_jax" / "decoding").rglob("*.py")
    if path.name != "__init__.py"
)


def loaded(code: str) -> set[str]:
    """The top-level packages and our own modules that are loaded after running `code`."""
    report = "import sys\n" + code + "\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", report], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_the_decoder_runs_without_flax_and_pandas():
    """People who import the decoder into their own JAX code would get a framework with it."""
    assert DECODING
    modules = loaded("".join(f"import {name}\n" for name in DECODING))
    assert "jax" in modules
    unwanted = {"flax", "optax", "orbax", "pandas", "scipy", "tyro"}
    assert {name for name in modules if name.split(".")[0] in unwanted} == set()
    assert {name for name in modules if name.startswith("stride_jax.models")} == set()


def test_the_package_itself_brings_nothing_in():
    """`import stride_jax` would take as long as everything in it."""
    modules = loaded("import stride_jax")
    assert {name for name in modules if name.split(".")[0] in ("jax", "numpy", "flax")} == set()


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_programs_import_the_library_and_not_each_other(path):
    """Logic would move out of the package, where nothing tests it."""
    others = {other.stem for other in PROGRAMS} | {"tests", "configs", "tools"}
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert {name.split(".")[0] for name in names} & others == set()


def imported(path: Path) -> set[str]:
    """The packages that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").split(".")[0])
    return names


def test_what_the_package_needs_is_a_dependency():
    """A feature would end in a ModuleNotFoundError after a plain `pip install`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = [re.split(r"[\[<>=]", need)[0].replace("-", "_") for need in project["dependencies"]]
    given = {"orbax" if need == "orbax_checkpoint" else need for need in needs}
    used = set().union(*map(imported, (ROOT / "stride_jax").rglob("*.py")))
    used.add("flatbuffers")  # jax.export, which saves a decoder, needs it
    extras = {"matplotlib", "torch"}  # named by a message where they are absent
    assert used - given - extras - set(sys.stdlib_module_names) - {"stride_jax"} == set()
