"""The structure of the package in figures, of this checkout and of an earlier one.

`git worktree add ../before d4705f7 && python tools/structure.py ../before . --run
--out docs/results/structure.json` writes one row per figure and prints them. `--run` also times the
first command of the README and the tests of both checkouts, with the packages that are installed
(half an hour on a quiet machine).
"""

import argparse
import ast
import io
import os
import re
import subprocess
import sys
import time
import tokenize
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

from stride_jax.evaluation.results import write_rows

PACKAGE = "stride_jax"
DECODING = ("speculative", "rounds", "lanes", "info", "bookkeeping", "alone", "autoregressive")
LOOPS = (*DECODING, "loop", "trainer")
"""Names of the modules that hold the loops of decoding and training, before and after."""


def modules(root: Path) -> list[Path]:
    """The modules of the package of a checkout."""
    return sorted((root / PACKAGE).rglob("*.py"))


def room(path: Path, root: Path) -> str:
    """The sub-package of a module, or the module itself at the top level."""
    return path.relative_to(root / PACKAGE).with_suffix("").parts[0]


def edges(root: Path) -> set[tuple[str, str]]:
    """Pairs of sub-packages or top-level modules of which one imports the other."""
    found = set()
    for path in modules(root):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith(PACKAGE):
                continue
            parts = (node.module or "").split(".")[1:2]
            for name in parts or [alias.name for alias in node.names]:
                found.add((room(path, root), name))
    rooms = {room(path, root) for path in modules(root)}
    return {(a, b) for a, b in found if a != b and b in rooms}


def longest_function(root: Path) -> tuple[int, str]:
    """Lines and name of the longest function or method."""
    return max(
        ((node.end_lineno or 0) - node.lineno + 1, node.name)
        for path in modules(root)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    )


def comments_per_100_lines(paths: list[Path]) -> float:
    """Comments per hundred lines that hold code."""
    kinds: Counter[int] = Counter()
    code = 0
    for path in paths:
        text = path.read_text()
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
        kinds.update(token.type for token in tokens)
        blank = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
        code += len({token.start[0] for token in tokens if token.type not in blank})
    return 100 * kinds[tokenize.COMMENT] / code


def commands(root: Path) -> int:
    """Modules and scripts with a command line, tools apart, and the installed commands."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    runnable = [p for p in [*modules(root), *root.glob("*.py")] if '"__main__"' in p.read_text()]
    return len(runnable) + len(project.get("scripts", {}))


def figures(root: Path) -> dict[str, Any]:
    """Every figure of one checkout."""
    paths = modules(root)
    lines = Counter({p: len(p.read_text().splitlines()) for p in paths})
    length, name = longest_function(root)
    by_room: Counter[str] = Counter()
    for path in paths:
        by_room[room(path, root)] += lines[path]
    packages = sorted(p.name for p in (root / PACKAGE).iterdir() if (p / "__init__.py").exists())
    flat = sum(n for room, n in by_room.items() if room not in packages)
    return {
        "modules at the top of the package": sum(p.parent == root / PACKAGE for p in paths),
        "sub-packages": len(packages),
        "import edges between them": len(edges(root)),
        "longest module, lines": max(lines.values()),
        "longest function, lines": f"{length} ({name})",
        "comments per 100 lines of code, loops": round(
            comments_per_100_lines([p for p in paths if p.stem in LOOPS]), 1
        ),
        "command lines": commands(root),
        "lines": sum(lines.values()),
        "lines of modules at the top": flat,
        **{f"lines of {package}/": by_room[package] for package in packages},
    }


def timed(root: Path, *command: str) -> tuple[float, str]:
    """Seconds that a Python command takes in a checkout, and what it prints."""
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(root.resolve())}
    done = subprocess.run(
        [sys.executable, *command], cwd=root, env=environment, stdout=subprocess.PIPE, text=True
    )
    return time.perf_counter() - start, done.stdout


def times(root: Path) -> dict[str, Any]:
    """What a newcomer waits for: the first command and its table, and the tests."""
    seconds, printed = timed(root, "evaluate.py")
    columns = [line.count("|") - 1 for line in printed.splitlines() if line.startswith("|")]
    waited, tested = timed(root, "-m", "pytest", "-q")
    counts = re.findall(r"\d+ (?:failed|passed|errors?)\b", tested)
    return {
        "python evaluate.py, seconds": round(seconds),
        "columns of its last table": columns[-1] if columns else "-",
        "pytest, seconds": round(waited),
        "tests": ", ".join(counts) or "-",
    }


def main() -> None:
    """Prints the figures of both checkouts and writes them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--run", action="store_true", help="also time what a newcomer runs")
    args = parser.parse_args()
    before, after = figures(args.before), figures(args.after)
    if args.run:
        before, after = before | times(args.before), after | times(args.after)
    names = [*after, *(name for name in before if name not in after)]
    rows = [{"figure": n, "before": before.get(n, "-"), "after": after.get(n, "-")} for n in names]
    for row in rows:
        print(*row.values(), sep="\t")
    write_rows(args.out, rows)


if __name__ == "__main__":
    main()
