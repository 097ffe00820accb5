"""The field's words: names and docstrings of the package use them (see CONTRIBUTING.md)."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "stride_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = {
    "law", "laws", "slot", "slots", "pace", "pacing", "made", "found", "own", "said", "spoken",
    "chosen", "kept", "elsewhere", "contestants",
}  # fmt: skip
"""Identifiers that name no thing, or have a standard term."""
THING = "series|patch|variable|path|step|round|proposal|context|window|weight|horizon|epoch|row"
WORDS = {
    r"\blaws?\b": "distribution, predictions",
    r"\bslots?\b": "cache",
    r"\bpac(?:e|ing)\b": "draft length",
    r"\bspoken\b": "the name of the thing",
    rf"\b\w+ an? (?:{THING})(?: and an? \w+)? ?(?=[,.;:)]|$)": None,
}
COUNTED = (
    "an?|one|two|no|more|fewer|patches|passes|rows?|columns?|draws?|calls?|counts|rate|seconds"
)
KINDS = "row|target pass|pass|column|draw|call|line|number|key|patches|passes"
PER = re.compile(rf"\b(?:{COUNTED}) (?:{KINDS})? ?an? (?:{THING})\b(?! of\b)")
POINTERS = re.compile(r"(?:What|Who|Those|These|The same|Of|It|As|That|Its|They)\b")


def docstrings(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """`(owner, docstring)` of modules, classes, functions, and of constants that have one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "name", "module"), text
            for before, after in zip(node.body, node.body[1:], strict=False):
                constant = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                if constant and isinstance(before, ast.Assign | ast.AnnAssign):
                    yield "constant", str(after.value.value)


def names(tree: ast.AST) -> Iterator[str]:
    """Every name that the code introduces: variables, parameters, fields, functions, classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_names_and_docstrings_use_the_fields_words(path):
    """A reader would have to learn a dialect before the code."""
    tree = ast.parse(path.read_text())
    banned = sorted({name for name in names(tree) if name.strip("_").lower() in NAMES})
    assert banned == []
    for owner, text in docstrings(tree):
        for pattern, use in WORDS.items():
            if use:
                assert not re.search(pattern, text), f"{owner}: {text!r}; say {use}"
        assert not PER.search(text), f"{owner}: {text!r}; say 'per'"
        assert not POINTERS.match(text), f"{owner}: {text!r}; the first line names the thing"


@pytest.mark.parametrize(
    "text",
    ["A row a series and step.", "one target pass a patch", "two rows a variable", "a key a path"],
)
def test_the_pattern_sees_the_dialect(text):
    """The test above would pass because it sees nothing."""
    assert PER.search(text)


@pytest.mark.parametrize(
    "text", ["One row per series.", "Keeps a path.", "of a step", "in a round"]
)
def test_the_pattern_leaves_plain_prose_alone(text):
    """Ordinary sentences would be refused."""
    assert not PER.search(text)
