"""Flags of the command `stride-jax` and of each of its commands."""

from __future__ import annotations

import argparse
from importlib import metadata
from pathlib import Path

Arguments = argparse.Namespace
"""Parsed flags; `command` is the name of the command."""


def number_or_auto(text: str) -> int | str:
    """A whole number, or the word auto.

    Raises:
        ArgumentTypeError: neither of the two.
    """
    try:
        return text if text == "auto" else int(text)
    except ValueError:
        message = f"must be a whole number or auto, got {text!r}"
        raise argparse.ArgumentTypeError(message) from None


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands; a flag must be written out, so that none is taken for another."""
    parser = argparse.ArgumentParser(
        prog="stride-jax",
        description="Forecast files with speculative decoding, and manage models and series.",
        allow_abbrev=False,
    )
    version = metadata.version("stride-jax")
    parser.add_argument("--version", action="version", version=f"stride-jax {version}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text, allow_abbrev=False)

    _forecast_flags(add("forecast", "forecast every series of a file"))
    text = "forecast the ends of the series of a file from what came before, and score that"
    _backtest_flags(add("backtest", text))
    info = add("info", "describe a model as JSON")
    text = "directory, file (also of a foundation model), or a pair in the package (its target)"
    info.add_argument("model", help=text)
    download = add("download", "fetch public benchmark series, checked by sha256")
    download.add_argument("names", nargs="*", metavar="NAME")
    download.add_argument("--root", type=Path, help="data directory (default: STRIDE_JAX_DATA)")
    download.add_argument("--list", action="store_true", help="show the catalogue and stop")
    _convert_flags(add("convert", "convert models from and to the original's format"))
    _serve_flags(add("serve", "verify the proposals of clients, see stride_jax.remote"))
    return parser


def _convert_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("input", type=Path, help="file or checkpoint directory to read")
    add("output", type=Path, help=".safetensors, .npz, or a directory to write")
    text = "not held by a state dict of the original; our own files hold it"
    add("--activation", choices=("relu", "gelu"), help=text)
    add("--no-instance-norm", action="store_true", help=text)
    add("--covariate", action="store_true", help=text)
    add("--half", action="store_true", help="store float16 in the output file")
    add(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="what a forecaster computes in from now on, in place of what it was trained in",
    )


def _serve_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    text = "the target: one in the package, a path, or the file of a foundation model"
    add("--model", default="zero_shot", help=text)
    text = "address to listen at; there is no password, so the default is this machine alone"
    add("--host", default="127.0.0.1", help=text)
    add("--port", type=int, default=0, help="default any free one; the address is printed")


def _forecast_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _common_flags(parser)
    add("--out", type=Path, default=None, help=".csv or .json; default CSV on stdout")
    add("--plot", type=Path, default=None, help="PNG of the first series (extra plot)")


def _backtest_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    _common_flags(parser)
    text = "cutoffs per series, the last one a horizon before its end; default 8, or as many as fit"
    add("--windows", type=int, default=None, metavar="N", help=text)
    add("--step", type=int, default=None, help="steps between two cutoffs; default the horizon")
    text = "steps that seasonal-naive repeats; default by the clock: 24 for hours, 7 for days, 5 "
    text += "for weekdays, 52 for weeks, 12 for months, 4 for quarters, a day for minutes, else 1"
    add("--season", type=int, default=None, help=text)
    text = "all forecasts with cutoff and truth, .csv or .json; a new file"
    add("--out", type=Path, default=None, help=text)
    text = "PNG of the first series with their forecasts in them (extra plot); a new file"
    add("--plot", type=Path, default=None, help=text)


def _common_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of forecast and backtest: the file, the model, and how it decodes."""
    add = parser.add_argument
    add("file", type=Path, help=".csv, .tsv, .txt, .npy or .npz, also .gz or .xz; wide or long")
    add("--horizon", type=int, required=True, help="steps to forecast")
    levels = "probabilities; default .1 .5 .9, none for the mean path alone, all that the model "
    levels += "reports for one that reports quantiles"
    add("--quantiles", type=float, nargs="*", default=None, metavar="Q", help=levels)
    add("--columns", nargs="*", default=None, help="variables of a wide file; default all")
    add("--id-col", default="unique_id", help="of a long file")
    add("--time-col", default="ds", help="of a long file")
    add("--target-col", default="y", help="of a long file")
    add("--freq", default=None, help="pandas offset of the clock, such as h, or a number")
    add("--dayfirst", action=argparse.BooleanOptionalAction, help="01/02 is 1 February; or not")
    add("--date-format", default=None, help="of strptime, such as %%d/%%m/%%Y, for all stamps")
    add("--decimal", choices=(".", ","), default=None, help="decimal mark; default sniffed")
    text = "the target: one in the package, a path, or the file of a foundation model"
    add("--model", default="zero_shot", help=text)
    text = "a pair in the package, a path, seasonal:PERIOD, last-value, nearest, layer-skip:N, or "
    text += (
        "none; default: its own for beijing, but for short work (the distribution is the same), "
    )
    text += "and none for any other model"
    add("--draft", default="auto", help=text)
    text = "sample paths; 0 for the mean path alone; default 100, or 0 for a model that reports "
    text += "quantiles of its own"
    add("--num-samples", type=int, default=None, help=text)
    text = "K, patches proposed per round; auto is what is fastest on this device as far as that "
    text += "is known, which may be no draft; default: 5 with a draft that is named, else auto"
    add("--num-draft", type=number_or_auto, default=None, metavar="K", help=text)
    text = "first measure which K is fastest for work like this, and remember it"
    add("--calibrate", action="store_true", help=text)
    text = "acceptance rule with its settings, such as block or shared_noise:tolerance=0.2; "
    text += "default: mean for the mean path, block for sample paths, or residual where the model "
    text += "predicts a density"
    add("--rule", default=None, metavar="NAME[:SETTING=VALUE,...]", help=text)
    add("--sigma", type=float, default=None, help="std of a step's prediction; default measured")
    add("--missing", choices=("interpolate", "error"), default="interpolate")
    text = "cut forecasts off at 0; default where a history is never below 0"
    add("--non-negative", action=argparse.BooleanOptionalAction, default=None, help=text)
    text = "of the draws; the draws also depend on the number of proposals that is chosen, so "
    text += "give --num-draft a number where they have to be the same on every machine; default 0"
    add("--seed", type=int, default=0, help=text)
    add("--no-cache", action="store_true", help="do not keep compiled programs on disk")
