"""Command lines of the three programs: flags to a config, errors to one line."""

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
        InputError: no such file (the nearest name is suggested), no `get_config`, another class.
    """
    path = Path(name_or_path)
    if path.suffix != ".py":
        path = directory / f"{name_or_path}.py"
    if not path.is_file():
        names = sorted(p.stem for p in directory.glob("*.py"))
        raise InputError(f"no config {name_or_path!r}. {nearest(name_or_path, names)}")
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
            f"{' or '.join(cls.__name__ for cls in expected)}."
        )
    return config


def parse(
    argv: Sequence[str], directory: Path, default: T, prog: str, also: Sequence[type[Any]] = ()
) -> Any:
    """The config of a command line: a name or a path first, then any field by its dotted name.

    `--config NAME_OR_PATH` is the same as the name itself, `--resume` as `--run.resume True`. The
    config file may also hold one of the classes `also`. The seed is printed on stderr.

    An unknown field or a wrong type ends the program with the nearest name and status 2; `--help`
    lists every field of the named config with its meaning and default.

    Raises:
        InputError: see `load_config`; or `--config` without a name.
    """
    resumes = hasattr(default, "run")
    short = {"--resume": "--run.resume=True"} if resumes else {}
    name, rest = _split_name([short.get(arg, arg) for arg in argv])
    config = load_config(name, directory, type(default), *also) if name else default
    names = ", ".join(sorted(p.stem for p in directory.glob("*.py")))
    description = f"{type(config).__doc__}\n\n{prog} NAME starts from one of: {names}."
    if resumes:
        description += " --resume goes on with a stopped run."
    config = tyro.cli(
        type(config),
        prog=prog,
        description=description,
        default=config,
        args=rest,
        use_underscores=True,
        config=(tyro.conf.FlagConversionOff,),
    )
    holder = getattr(config, "run", None) or getattr(config, "setup", None) or config
    print("seed", holder.seed, file=sys.stderr)
    return config


def _split_name(argv: list[str]) -> tuple[str, list[str]]:
    """The name of a config, empty for none, and the other arguments.

    Raises:
        InputError: `--config` without a name.
    """
    if argv and not argv[0].startswith("-"):
        return argv[0], argv[1:]
    for i, arg in enumerate(argv):
        if arg == "--config" or arg.startswith("--config="):
            inline = arg.partition("=")[2]
            name = inline or (argv[i + 1] if i + 1 < len(argv) else "")
            if not name:
                raise InputError("--config needs a name or a path.")
            return name, argv[:i] + argv[i + (1 if inline else 2) :]
    return "", argv


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
