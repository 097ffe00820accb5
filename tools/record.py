"""Runs the commands of a Markdown page and writes down what they print.

`python tools/record.py docs/stories.md` takes every block fenced as `console`, runs its lines that
begin with `$ ` (and their continuations after a backslash) one after the other in one temporary
directory, and puts what they print, stdout and stderr, in the place of what stood below them. It
stops at the first command that fails.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"(```console\n)(.*?)(```)", re.DOTALL)


def commands(block: str) -> list[str]:
    """The commands of a block, continuation lines included."""
    found: list[str] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append(line)
        elif found and found[-1].endswith("\\"):
            found[-1] += "\n" + line
    return found


def run(command: str, directory: Path) -> str:
    """What a command prints, without progress that was overwritten and without the directory."""
    shell = command.removeprefix("$ ").replace("\\\n", " ")
    done = subprocess.run(
        ["bash", "-c", shell],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "STRIDE_JAX_CACHE": str(directory / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{command}\n{done.stdout}\nstatus {done.returncode}")
    lines = (line.split("\r")[-1].rstrip() for line in done.stdout.splitlines())
    kept = [line.replace(f"{directory}/", "") for line in lines if "step/s" not in line]
    return "".join(f"{line}\n" for line in kept)


def recorded(text: str, directory: Path) -> str:
    """The page with every command's output as it is now."""

    def block(match: re.Match[str]) -> str:
        parts = [f"{line}\n{run(line, directory)}" for line in commands(match[2])]
        return match[1] + "\n".join(parts) + match[3]

    return BLOCK.sub(block, text)


def main() -> None:
    """Rewrites the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", type=Path, nargs="+")
    for page in parser.parse_args().pages:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            for part in ("train.py", "distill.py", "evaluate.py", "configs", "examples"):
                (directory / part).symlink_to(ROOT / part)
            page.write_text(recorded(page.read_text(), directory))
        print(f"{page}: recorded")


if __name__ == "__main__":
    main()
