"""What the programs share: flags to config, errors to one line."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from stride_jax.cli.compilation_cache import cache_directory, keep_programs
from stride_jax.errors import InputError, full_disk, nearest

T = TypeVar("T")


def load_config(name_or_path: str, directory: Path, *expected: type[T]) -> T:
    """The config of `get_config()` in `directory/<name>.py`, or in the file of that path.

    Raises:
        InputError: no such file (the nearest name is suggested), no `get_config`, another kind.
    """
    path = Path(name_or_path)
    if path.suffix != ".py":
        path = directory / f"{name_or_path}.py"
    if not path.is_file():
        known = sorted(p.stem for p in directory.glob("*.py"))
        raise InputError(f"no config {name_or_path!r}. {nearest(name_or_path, known)}")
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} cannot be loaded as a Python file.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise InputError(f"{path} has no function get_config().")
    config = module.get_config()
    if not isinstance(config, expected):
        raise InputError(
            f"{path} gives a {type(config).__name__}, this program needs a "
            f"{' or '.join(kind.__name__ for kind in expected)}."
        )
    return config


def parse(
    argv: Sequence[str], directory: Path, default: T, prog: str, also: Sequence[type[Any]] = ()
) -> Any:
    """`--config NAME_OR_PATH` first, then any field by its dotted name.

    `--resume` is short for `--run.resume True`. The config file may also hold one of the kinds
    `also`; the result is then of that kind.

    Says the seed on stderr. An unknown field or a wrong type ends the program with the nearest name
    and status 2; `--help` lists every field with its meaning and default.
    """
    resumes = hasattr(default, "run")
    short = {"--resume": "--run.resume=True"} if resumes else {}
    rest, chosen = [short.get(arg, arg) for arg in argv], default
    for i, arg in enumerate(rest):
        if arg == "--config" or arg.startswith("--config="):
            inline = arg.partition("=")[2]
            value = inline or (rest[i + 1] if i + 1 < len(rest) else "")
            if not value:
                raise InputError("--config needs a name or a path.")
            del rest[i : i + (1 if inline else 2)]
            chosen = load_config(value, directory, type(default), *also)
            break
    known = ", ".join(sorted(p.stem for p in directory.glob("*.py")))
    description = f"{type(default).__doc__}\n\n--config NAME_OR_PATH starts from one of: {known}."
    if resumes:
        description += " --resume goes on with a stopped run."
    config = tyro.cli(
        type(chosen),
        prog=prog,
        description=description,
        default=chosen,
        args=rest,
        use_underscores=True,
        config=(tyro.conf.FlagConversionOff,),
    )
    print("seed", _seed(config), file=sys.stderr)
    return config


def _seed(config: Any) -> int:
    """Of a run, of what an evaluation stands on, or its own."""
    holder = getattr(config, "run", None) or getattr(config, "base", None) or config
    return int(holder.seed)


def run(main: Callable[[Sequence[str]], Any]) -> None:
    """Runs a program: InputError and a full disk become one line and status 2; Ctrl-C is 130.

    With `STRIDE_JAX_CACHE` set, compiled programs are kept there; the compile times in result files
    are then those of the cache.
    """
    if os.environ.get("STRIDE_JAX_CACHE"):
        keep_programs(cache_directory())
    try:
        main(sys.argv[1:])
    except InputError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if not full_disk(error):
            raise
        print(full_disk(error), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; a training run goes on with --resume", file=sys.stderr)
        sys.exit(130)
