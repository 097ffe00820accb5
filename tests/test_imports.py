"""The module map: who may import whom, read off the source."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LEVELS = {
    "stride_jax.errors": 0,
    "stride_jax.types": 0,
    "stride_jax.programs": 0,
    "stride_jax.config": 0,
    "stride_jax.config_json": 0,
    "stride_jax.config_evaluate": 0,
    "stride_jax.checks": 0,
    "stride_jax.gaussian": 1,
    "stride_jax.normalization": 1,
    "stride_jax.slots": 1,
    "stride_jax.metrics": 1,
    "stride_jax.losses": 1,
    "stride_jax.theory": 1,
    "stride_jax.data": 1,
    "stride_jax.data.cells": 1,
    "stride_jax.data.clock": 1,
    "stride_jax.data.dates": 1,
    "stride_jax.data.download": 1,
    "stride_jax.data.embedded": 1,
    "stride_jax.data.frequencies": 1,
    "stride_jax.data.interchange": 1,
    "stride_jax.data.loaders": 1,
    "stride_jax.data.gaps": 1,
    "stride_jax.data.long": 1,
    "stride_jax.data.orders": 1,
    "stride_jax.data.panel": 1,
    "stride_jax.data.splits": 1,
    "stride_jax.data.stamps": 1,
    "stride_jax.data.windows": 1,
    "stride_jax.models": 2,
    "stride_jax.models.attention": 2,
    "stride_jax.models.rotary": 2,
    "stride_jax.models.cached": 2,
    "stride_jax.models.timer_xl": 2,
    "stride_jax.processes": 3,
    "stride_jax.processes.window": 3,
    "stride_jax.processes.base": 3,
    "stride_jax.processes.cached": 3,
    "stride_jax.coupling": 3,
    "stride_jax.coupling.base": 3,
    "stride_jax.coupling.exact": 3,
    "stride_jax.coupling.approximate": 3,
    "stride_jax.drafts": 3,
    "stride_jax.draft_length": 3,
    "stride_jax.decoding": 4,
    "stride_jax.autoregressive": 4,
    "stride_jax.bookkeeping": 4,
    "stride_jax.speculative": 4,
    "stride_jax.training": 4,
    "stride_jax.teacher": 3,
    "stride_jax.distillation": 4,
    "stride_jax.checkpoints": 4,
    "stride_jax.convert": 4,
    "stride_jax.pairs": 5,
    "stride_jax.lengths": 5,
    "stride_jax.calibrate": 5,
    "stride_jax.scoring": 6,
    "stride_jax.methods": 6,
    "stride_jax.sweep": 6,
    "stride_jax.speed": 6,
    "stride_jax.fidelity": 6,
    "stride_jax.history": 1,
    "stride_jax.sharding": 1,
    "stride_jax.trainer": 4,
    "stride_jax.augmentation": 1,
    "stride_jax.forecasting": 6,
    "stride_jax.spread": 5,
    "stride_jax.frames": 6,
    "stride_jax.app": 6,
    "stride_jax.export": 6,
    "stride_jax.synthetic": 4,
    "stride_jax.distances": 1,
    "stride_jax.sweep_tables": 6,
    "stride_jax.sweep_plots": 6,
    "stride_jax.markdown": 1,
    "stride_jax.benchmark": 6,
    "stride_jax.trace": 6,
    "stride_jax.tune": 6,
    "stride_jax.report": 6,
    "stride_jax.tables": 6,
    "stride_jax.plots": 6,
    "stride_jax.cli": 6,
    "stride_jax.analytic": 6,
    "stride_jax.exactness": 6,
    "stride_jax.latency": 6,
    "stride_jax.training_speed": 6,
    "stride_jax": 6,
}
"""A module may import its own level and lower ones. Programs, configs and tools are level 7.

The package itself only offers names of the modules, and imports them when they are asked for.
"""
MODEL_FREE = (
    "stride_jax.decoding",
    "stride_jax.autoregressive",
    "stride_jax.speculative",
    "stride_jax.processes",
    "stride_jax.processes.base",
    "stride_jax.processes.window",
    "stride_jax.processes.cached",
    "stride_jax.bookkeeping",
    "stride_jax.drafts",
    "stride_jax.draft_length",
    "stride_jax.slots",
    "stride_jax.coupling",
    "stride_jax.coupling.base",
    "stride_jax.coupling.exact",
    "stride_jax.coupling.approximate",
)
OWNERS = {
    "flax": {m for m in LEVELS if m.startswith("stride_jax.models.")},
    "optax": {"stride_jax.training"},
    "orbax": {"stride_jax.checkpoints"},
    "time": {
        "stride_jax.app",
        "stride_jax.benchmark",
        "stride_jax.speed",
        "stride_jax.sweep",
        "stride_jax.trainer",
        "stride_jax.training_speed",
    },
}
"""Packages that only some modules may import."""


def module_name(path: Path) -> str:
    """The dotted name of a file of the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> dict[str, Path]:
    """All modules of the package, by name."""
    return {module_name(path): path for path in sorted((ROOT / "stride_jax").rglob("*.py"))}


def programs() -> dict[str, Path]:
    """What sits on top of the package."""
    files = [*ROOT.glob("*.py"), *(ROOT / "configs").glob("*.py"), *(ROOT / "tools").glob("*.py")]
    return {module_name(path): path for path in sorted(files)}


def imported(name: str, tree: ast.AST, known: set[str], package: bool) -> set[str]:
    """Everything that a module imports anywhere in it, as dotted names; ours to the module."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = name.split(".")
                kept = len(parents) - node.level + package
                base = ".".join([*parents[:kept], *([base] if base else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                found.add(full if full in known else base)
    return found


@functools.cache
def graph() -> dict[str, frozenset[str]]:
    """Module or program -> what it imports."""
    files, known = {**sources(), **programs()}, set(sources())
    return {
        name: frozenset(
            imported(name, ast.parse(path.read_text()), known, path.name == "__init__.py")
        )
        for name, path in files.items()
    }


def ours(name: str) -> set[str]:
    """The modules of the package that a module imports."""
    return {m for m in graph()[name] if m.split(".")[0] == "stride_jax"}


def top(modules) -> set[str]:
    """First parts of dotted names."""
    return {m.split(".")[0] for m in modules}


@pytest.mark.parametrize(
    ("source", "package", "expected"),
    [
        ("import a.b as c, time", False, {"a.b", "time"}),
        ("from p import q, other", False, {"p.q", "p"}),
        ("from p.q import f", False, {"p.q"}),
        ("def f():\n    from p import q", False, {"p.q"}),
        ("from . import r", False, {"p.r"}),
        ("from .q import f", False, {"p.q"}),
        ("from .q import f", True, {"p.x.q"}),
        ("from .. import q", True, {"p.q"}),
    ],
)
def test_the_reader_finds_every_form_of_import(source, package, expected):
    """The tests below would pass because they see nothing."""
    assert imported("p.x", ast.parse(source), {"p", "p.q", "p.r"}, package) == expected


def test_every_module_is_on_the_map():
    """A new module would belong nowhere; give it a level, and the design page a line."""
    assert set(sources()) == set(LEVELS)


@pytest.mark.parametrize("name", sorted(LEVELS))
def test_imports_point_downwards(name):
    """Layers would grow together: a model inside a process, a clock inside a decoder."""
    upward = {m for m in ours(name) if LEVELS.get(m, 99) > LEVELS[name]}
    assert upward == set()


@pytest.mark.parametrize("name", sorted(programs()))
def test_programs_import_the_library_and_not_each_other(name):
    """Logic would move out of the package, where nothing tests it."""
    assert ours(name) <= set(LEVELS)
    others = {m.split(".")[0] for m in programs()} | {"tests"}
    assert top(graph()[name]) & others == set()


def test_the_package_imports_no_program():
    """An installed package would look for files that are only in the repository."""
    outside = {m.split(".")[0] for m in programs()} | {"tests"}
    assert {
        name: top(graph()[name]) & outside for name in LEVELS if top(graph()[name]) & outside
    } == {}


def test_no_cycles():
    """Import order would begin to matter."""
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name in done:
            return
        for other in sorted(ours(name) & set(LEVELS)):
            visit(other, (*trail, name))
        done.add(name)

    for name in sorted(LEVELS):
        visit(name, ())
    assert done == set(LEVELS)


@pytest.mark.parametrize("package", sorted(OWNERS))
def test_some_packages_have_owners(package):
    """A library's interface, or the clock, would spread through the package."""
    users = {name for name in LEVELS if package in top(graph()[name])}
    assert users <= OWNERS[package]
    assert users != set()


def reach(name: str) -> set[str]:
    """All modules that importing a module may bring in, with their parents but for the root."""
    found: set[str] = set()
    todo = [name]
    while todo:
        module = todo.pop()
        if module in found or module not in LEVELS:
            continue
        found.add(module)
        parts = module.split(".")
        todo += [".".join(parts[:i]) for i in range(2, len(parts))]
        todo += ours(module)
    return found


def test_the_package_itself_brings_nothing_in():
    """Every import of a part would load the whole, Flax and pandas with it."""
    tree = ast.parse((ROOT / "stride_jax" / "__init__.py").read_text())
    # what runs on import: neither function bodies nor `if TYPE_CHECKING`
    runs = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        and not isinstance(node, ast.FunctionDef)
    ]
    found = imported("stride_jax", ast.Module(runs, []), set(LEVELS), package=True)
    assert top(found) <= sys.stdlib_module_names | {"__future__"}


@pytest.mark.parametrize("name", MODEL_FREE)
def test_decoders_know_no_model(name):
    """Another forecaster could not be plugged in without Flax."""
    reached = reach(name)
    assert {m for m in reached if m.startswith("stride_jax.models")} == set()
    assert {m for m in reached if "flax" in top(graph()[m])} == set()


def test_decoders_run_without_flax():
    """The same, as Python sees it: no import of a third package brings Flax in either."""
    code = "import sys\n" + "".join(f"import {name}\n" for name in MODEL_FREE)
    code += "print([m for m in sys.modules if m.split('.')[0] == 'flax' or '.models' in m])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
