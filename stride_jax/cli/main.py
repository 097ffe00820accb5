"""The command `stride-jax`: forecast or backtest a file, download, convert or serve models.

Exit status 0; 2 for bad input, with its reason as the last line of stderr; 130 after Ctrl-C. What a
program reads goes to stdout or `--out`, what a person reads to stderr.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence

from stride_jax.cli.backtest import run_backtest
from stride_jax.cli.forecast import run_forecast, say
from stride_jax.cli.parser import Arguments, make_parser
from stride_jax.cli.serve import run_serve
from stride_jax.errors import InputError, full_disk


def run_info(args: Arguments) -> None:
    """`stride-jax info`: a model as JSON."""
    import jax

    from stride_jax.checkpoints.families import FamilyCheckpoint, describe_family
    from stride_jax.checkpoints.store import find_any
    from stride_jax.config import to_dict

    checkpoint = find_any(args.model)
    sizes = [leaf.size for leaf in jax.tree.leaves(checkpoint.params)]
    described = {"checkpoint": args.model, "parameters": int(sum(sizes))}
    if isinstance(checkpoint, FamilyCheckpoint):
        described |= describe_family(checkpoint)
    else:
        described |= {"context_len": checkpoint.context_len, "model": to_dict(checkpoint.model)}
    print(json.dumps(described, indent=1))


def run_download(args: Arguments) -> None:
    """`stride-jax download`: prints the path of each series, or the catalogue.

    Raises:
        InputError: no name and no `--list`, an unknown name, or see `data.download.fetch`.
    """
    from stride_jax.data.download import CATALOG, fetch

    if args.list:
        for entry in CATALOG.values():
            size = f"{entry.rows:,} x {entry.num_vars}"
            print(f"{entry.name:14} {size:>11}  {entry.step:7} {entry.licence:27} {entry.url}")
        return
    if not args.names:
        raise InputError(f"name at least one series out of {list(CATALOG)}")
    for name in args.names:
        print(fetch(name, root=args.root))


def run_convert(args: Arguments) -> None:
    """`stride-jax convert`: reads a model of ours or of the original and writes it elsewhere.

    Raises:
        InputError: a foundation model of another family, or a part of the config for a directory
            that holds it; see `checkpoints.pytorch.load_pytorch` and
            `checkpoints.store.save_model`.
    """
    from stride_jax.checkpoints.checkpoint import Checkpoint
    from stride_jax.checkpoints.families import FamilyCheckpoint
    from stride_jax.checkpoints.pytorch import load_pytorch
    from stride_jax.checkpoints.store import AnyCheckpoint, load_any, save_model

    if args.activation or args.no_instance_norm or args.covariate:
        if args.input.is_dir():
            raise InputError(
                f"{args.input} is a directory of ours, which holds the whole config; leave out "
                "--activation, --no-instance-norm and --covariate."
            )
        config, params = load_pytorch(
            args.input,
            activation=args.activation or "relu",
            instance_norm=None if args.no_instance_norm else "window",
            covariate=args.covariate,
        )
        checkpoint: AnyCheckpoint = Checkpoint(config, params, None)
    else:
        checkpoint = load_any(args.input)
    if isinstance(checkpoint, FamilyCheckpoint):
        raise InputError(
            f"{args.input} is {checkpoint.family.title}, whose own file is read as it is: it is "
            "not converted."
        )
    if args.dtype:
        if not isinstance(checkpoint, Checkpoint):
            raise InputError(f"{args.input} is a linear draft, which has no --dtype; leave it out.")
        model = dataclasses.replace(checkpoint.model, dtype=args.dtype)
        checkpoint = checkpoint._replace(model=model)
    save_model(args.output, checkpoint, half=args.half)
    print(f"{args.input} -> {args.output}: {checkpoint.model}")


COMMANDS: dict[str, Callable[[Arguments], None]] = {
    "forecast": run_forecast,
    "backtest": run_backtest,
    "info": run_info,
    "download": run_download,
    "convert": run_convert,
    "serve": run_serve,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; the exit status."""
    args = make_parser().parse_args(argv)
    try:
        COMMANDS[args.command](args)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except InputError as error:
        say("error: " + " ".join(str(error).split()))
        return 2
    except OSError as error:
        if not full_disk(error):
            raise
        say(full_disk(error))
        return 2
    except KeyboardInterrupt:
        say("stopped")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
