"""The command `stride-jax`: forecast a file, download a series, convert or describe a checkpoint.

Exit status 0; 2 for bad input, with its reason as the last line of stderr; 130 after Ctrl-C. What a
program reads goes to stdout or `--out`, what a person reads to stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stride_jax.cli.compilation_cache import cache_directory, keep_programs, quick_compilation
from stride_jax.errors import InputError, InputWarning, full_disk

if TYPE_CHECKING:
    from stride_jax.data.long import LongFile
    from stride_jax.data.panel import Panel

TARGET, DRAFT = "beijing_target.safetensors", "beijing_draft.safetensors"
"""What forecasts where nothing else is named."""
QUANTILES = (0.1, 0.5, 0.9)
BRIEF = 250_000
"""Steps of all sample paths together that are decoded sooner than a better program compiles."""


def _forecast_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", type=Path, help=".csv, .tsv, .txt, .npy or .npz, also .gz or .xz; wide or long")
    add("--horizon", type=int, required=True, help="steps to forecast")
    levels = "probabilities; default .1 .5 .9, none for the mean path alone"
    add("--quantiles", type=float, nargs="*", default=None, metavar="Q", help=levels)
    add("--columns", nargs="*", default=None, help="variables of a wide file; default all")
    add("--id-col", default="unique_id", help="of a long file")
    add("--time-col", default="ds", help="of a long file")
    add("--target-col", default="y", help="of a long file")
    add("--freq", default=None, help="pandas offset of the clock, such as h, or a number")
    add("--dayfirst", action=argparse.BooleanOptionalAction, help="01/02 is 1 February; or not")
    add("--date-format", default=None, help="of strptime, such as %%d/%%m/%%Y, for all stamps")
    add("--decimal", choices=(".", ","), default=None, help="decimal mark; default sniffed")
    add("--target", default=TARGET, help="checkpoint, or a name in the package")
    said = "what proposes; 'none' for the target alone, which is the default for brief work, whose "
    said += "law is the same, and for a target of your own"
    add("--draft", default=None, help=said)
    add("--num-samples", type=int, default=100, help="sample paths; 0 for the mean path alone")
    add("--num-draft", type=int, default=5, help="K, patches proposed a round")
    settings = "acceptance rule with its settings, such as block or shared_noise:tolerance=0.2; "
    settings += "default: block for sample paths, mean for the mean path"
    add("--rule", default=None, metavar="NAME[:SETTING=VALUE,...]", help=settings)
    add("--sigma", type=float, default=None, help="std of a step's law; default measured")
    add("--missing", choices=("interpolate", "error"), default="interpolate")
    said = "cut forecasts off at 0; default where a history is never below 0"
    add("--non-negative", action=argparse.BooleanOptionalAction, default=None, help=said)
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=None, help=".csv or .json; default CSV on stdout")
    add("--plot", type=Path, default=None, help="PNG of the first series (extra plot)")
    add("--no-cache", action="store_true", help="do not keep compiled programs on disk")


def read_table(args: argparse.Namespace) -> LongFile:
    """The file as a long frame: as it is, or a wide one with one row per variable and time.

    Raises:
        InputError: see `data.long.read_long`.
    """
    from stride_jax.data.long import read_long
    from stride_jax.data.orders import Reading

    return read_long(
        args.file,
        (args.id_col, args.time_col, args.target_col),
        columns=args.columns,
        how=Reading(args.dayfirst, args.date_format, _freq(args)),
        decimal=args.decimal,
    )


def read_clock(args: argparse.Namespace, frame: Any) -> Panel:
    """The series of a long frame on their clock.

    Raises:
        InputError: see `frames.read_panel`.
    """
    from stride_jax.forecasting.frames import read_panel

    return read_panel(
        frame,
        args.id_col,
        args.time_col,
        args.target_col,
        _freq(args),
        dayfirst=args.dayfirst,
        date_format=args.date_format,
    )


def _freq(args: argparse.Namespace) -> Any:
    """The frequency, a number for a clock of numbers."""
    whole = args.freq is not None and args.freq.strip().removeprefix("-").isdecimal()
    return int(args.freq) if whole else args.freq


def forecast_table(args: argparse.Namespace, panel: Panel, *, brief: bool) -> Any:
    """The forecasts of a panel, as the flags say.

    Brief work is decoded by the target alone: a draft's program takes longer to compile than it
    saves. The distribution is the same.

    Raises:
        InputError: see `coupling.parse_rule` and `frames.forecast_panel`.
    """
    from stride_jax.decoding.rules import parse_rule
    from stride_jax.forecasting.frames import forecast_panel

    draft = args.draft or (DRAFT if args.target == TARGET and not brief else "none")
    usual = QUANTILES if args.num_samples else ()
    return forecast_panel(
        panel,
        args.horizon,
        target=args.target,
        draft=None if draft == "none" else draft,
        columns=(args.id_col, args.time_col),
        quantiles=usual if args.quantiles is None else args.quantiles,
        key=args.seed,
        num_samples=args.num_samples,
        num_draft=args.num_draft,
        rule=parse_rule(args.rule) if args.rule else None,
        sigma=args.sigma,
        missing=args.missing,
        non_negative=args.non_negative,
    )


def _say_non_negative(args: argparse.Namespace, panel: Panel) -> None:
    """Which forecasts were cut off at 0 without being asked."""
    import numpy as np

    count = sum(bool(np.nanmin(grid.values) >= 0) for grid in panel.grids)
    if args.non_negative is None and count:
        _say(
            f"{count} of {len(panel.grids)} series are never below 0, and their forecasts are cut "
            "off there (--no-non-negative lets them be)"
        )


def _show_warning(message: Any, category: type[Warning], *place: Any, **rest: Any) -> None:
    """Our own as one line; others as Python shows them."""
    ours = issubclass(category, InputWarning)
    text = f"warning: {message}" if ours else warnings.formatwarning(message, category, *place[:2])
    _say(text.rstrip())


def check_forecast(args: argparse.Namespace) -> None:
    """Refuses what can be seen to be wrong before the file is read."""
    if args.out and args.out.suffix.lower() not in (".csv", ".json"):
        raise InputError(f"--out must end in .csv or .json, got {args.out}.")
    if args.plot and args.plot.suffix.lower() != ".png":
        raise InputError(f"--plot must end in .png, got {args.plot}.")
    for path in (args.out, args.plot):
        if path and not path.parent.is_dir():
            raise InputError(f"there is no directory {str(path.parent)!r} to write {path.name} to.")
    if not 0 <= args.seed < 2**32:  # jax would silently take the last 32 bits of another one
        raise InputError(f"--seed must be from 0 to {2**32 - 1}, got {args.seed}.")
    if args.horizon < 1:
        raise InputError(f"--horizon must be a whole number from 1 on, got {args.horizon}.")


def run_forecast(args: argparse.Namespace) -> None:
    """`stride-jax forecast`."""
    from stride_jax.data.panel import describe

    check_forecast(args)
    if not args.no_cache:
        keep_programs(cache_directory())
    _say(f"reading {args.file}")
    table = read_table(args)
    panel = read_clock(args, table.frame)
    count = len(panel.grids)
    _say(describe(panel, args.horizon, table.note))
    _say(f"{count} series; forecasting {args.horizon} steps, seed {args.seed}")
    start = time.perf_counter()
    brief = count * max(1, args.num_samples) * args.horizon <= BRIEF
    with quick_compilation() if brief else nullcontext(), warnings.catch_warnings():
        warnings.simplefilter("always", InputWarning)
        warnings.showwarning = _show_warning
        found = forecast_table(args, panel, brief=brief)
    _say_non_negative(args, panel)
    _say(f"done in {time.perf_counter() - start:.1f} s, compilation included")
    write_table(args, found)
    if args.plot:
        from stride_jax.evaluation.figures import save_intervals
        from stride_jax.forecasting.frames import history_frame

        columns = args.id_col, args.time_col, args.target_col
        save_intervals(args.plot, history_frame(panel, columns), found, columns)
        _say(f"picture in {args.plot}")


def write_table(args: argparse.Namespace, found: Any) -> None:
    """The forecasts to `--out` or stdout; in JSON stamps keep their offset."""
    if args.out is None:
        found.to_csv(sys.stdout, index=False)
    elif args.out.suffix.lower() == ".csv":
        found.to_csv(args.out, index=False)
    else:
        stamps = found[args.time_col]
        if getattr(stamps.dtype, "tz", None) is not None or stamps.dtype == object:
            found = found.assign(**{args.time_col: [stamp.isoformat() for stamp in stamps]})
        found.to_json(args.out, orient="records", date_format="iso", indent=1)


def run_info(args: argparse.Namespace) -> None:
    """`stride-jax info`: a checkpoint as JSON."""
    import jax

    from stride_jax.checkpoints.store import find_model
    from stride_jax.config import to_dict

    checkpoint = find_model(args.checkpoint)
    sizes = [leaf.size for leaf in jax.tree.leaves(checkpoint.params)]
    described = {
        "checkpoint": args.checkpoint,
        "parameters": int(sum(sizes)),
        "context_len": checkpoint.context_len,
        "model": to_dict(checkpoint.model),
    }
    print(json.dumps(described, indent=1))


def run_download(args: argparse.Namespace) -> None:
    """`stride-jax download`: prints the path of each series."""
    from stride_jax.data.download import fetch

    for name in args.names:
        print(fetch(name, root=args.root))


def run_convert(rest: Sequence[str]) -> int:
    """`stride-jax convert`: see `stride_jax.checkpoints.pytorch`, which reads the flags itself."""
    from stride_jax.checkpoints import store

    return store.main(list(rest))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def make_parser() -> argparse.ArgumentParser:
    """All commands."""
    version = metadata.version("stride-jax")
    parser = argparse.ArgumentParser(prog="stride-jax", description=__doc__)
    parser.add_argument("--version", action="version", version=f"stride-jax {version}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[..., Any], said: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=said, description=said)
        command.set_defaults(run=run)
        return command

    _forecast_flags(add("forecast", run_forecast, "forecast every series of a file"))
    info = add("info", run_info, "describe a checkpoint as JSON")
    info.add_argument("checkpoint", help="directory, file, or a name in the package")
    download = add("download", run_download, "fetch public benchmark series, checked by sha256")
    download.add_argument("names", nargs="+", metavar="NAME")
    download.add_argument("--root", type=Path, help="data directory (default: STRIDE_JAX_DATA)")
    add("convert", run_convert, "convert checkpoints from and to the original's format")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; the exit status."""
    given = sys.argv[1:] if argv is None else list(argv)
    if given[:1] == ["convert"]:
        return run_convert(given[1:])
    args = make_parser().parse_args(given)
    try:
        return args.run(args) or 0
    except InputError as error:
        _say("error: " + " ".join(str(error).split()))
        return 2
    except OSError as error:
        if not full_disk(error):
            raise
        _say(full_disk(error))
        return 2
    except KeyboardInterrupt:
        _say("stopped")
        return 130


if __name__ == "__main__":
    sys.exit(main())
