"""Renders the tables in Markdown files from their result files.

`python tools/render_tables.py README.md docs` rewrites the tables between the marks
`<!-- table: PATH.json -->` and `<!-- end -->`, and draws the pictures of the sweeps they name;
`--check` only compares the tables. A directory stands for its Markdown files. A word after the path
is the view: `<!-- table: PATH.json quick -->` shows an evaluation as a first look, `brief` its main
rows.
"""

import re
import sys
from pathlib import Path

import tyro

from stride_jax.evaluation.figures import save_pictures
from stride_jax.evaluation.results import read_results
from stride_jax.evaluation.tables import make_table

MARK = re.compile(r"(<!-- table: (\S+) ?(\w*) -->\n).*?(<!-- end -->)", re.DOTALL)


def render(path: Path) -> str:
    """The text of a Markdown file with every marked table rendered from its result file.

    Raises:
        InputError: a result file that a mark names is missing.
    """

    def replace(match: re.Match[str]) -> str:
        content = read_results(path.parent / match[2])
        content["table"] = match[3] or content.get("table", "")
        return f"{match[1]}{make_table(content)}{match[4]}"

    return MARK.sub(replace, path.read_text())


def draw(path: Path) -> None:
    """Draws the pictures of every sweep that a Markdown file names, beside its result file."""
    for match in MARK.finditer(path.read_text()):
        source = path.parent / match[2]
        for picture in save_pictures(source.parent, read_results(source), None):
            print(f"{picture}: drawn")


def main(paths: tyro.conf.Positional[list[Path]], check: bool = False) -> None:
    """Renders the tables in Markdown files from their result files.

    Args:
        paths: Markdown files, or directories of them.
        check: Write nothing, and fail when a table is stale.
    """
    nested = [sorted(p.rglob("*.md")) if p.is_dir() else [p] for p in paths]
    files = [path for group in nested for path in group]
    stale = [path for path in files if render(path) != path.read_text()]
    for path in stale:
        print(f"{path}: {'stale' if check else 'updated'}")
        if not check:
            path.write_text(render(path))
    if not check:
        for path in files:
            draw(path)
    sys.exit(1 if check and stale else 0)


if __name__ == "__main__":
    tyro.cli(main)
