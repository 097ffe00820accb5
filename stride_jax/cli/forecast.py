"""The command `stride-jax forecast`: a file in, a table and a picture out.

The forecasts go to stdout or `--out`, messages for a person to stderr.
"""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from stride_jax.cli.compilation_cache import cache_directory, keep_programs, quick_compilation
from stride_jax.cli.parser import Arguments
from stride_jax.config import LARGEST_SEED
from stride_jax.errors import InputError, InputWarning, counted
from stride_jax.forecasting.columns import MODEL, check_columns

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from stride_jax.checkpoints.pair import Pair
    from stride_jax.data.long import LongFile
    from stride_jax.data.panel import Panel

USUAL_PATHS = 100
"""Sample paths of a target that reports no quantiles, unless told otherwise."""
BRIEF = 250_000
"""Steps of all sample paths together that are decoded sooner than a better program compiles."""


def say(text: str) -> None:
    """Prints a line on stderr."""
    print(text, file=sys.stderr, flush=True)


def read_table(args: Arguments) -> LongFile:
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


def read_clock(args: Arguments, frame: Any) -> Panel:
    """The series of a long frame on their clock.

    Raises:
        InputError: see `long_frames.read_panel`.
    """
    from stride_jax.data.long_frames import read_panel

    return read_panel(
        frame,
        args.id_col,
        args.time_col,
        args.target_col,
        _freq(args),
        dayfirst=args.dayfirst,
        date_format=args.date_format,
    )


def _freq(args: Arguments) -> Any:
    """The frequency, a number for a clock of numbers."""
    whole = args.freq is not None and args.freq.strip().removeprefix("-").isdecimal()
    return int(args.freq) if whole else args.freq


def choose_pair(args: Arguments, *, brief: bool) -> Pair:
    """The pair of the flags; for brief work the target alone unless a draft is named.

    A draft's program takes longer to compile than it saves there. The distribution is the same.

    Raises:
        InputError: see `load_pair`.
    """
    from stride_jax.checkpoints.build import load_pair
    from stride_jax.checkpoints.store import DRAFTED

    skipped = brief and args.draft == "auto"
    if skipped and args.model in DRAFTED:
        say(
            "short work: decoded by the target alone, which starts sooner and has the same "
            f"distribution (--draft {args.model} decodes with its draft)"
        )
    return load_pair(args.model, None if skipped else args.draft)


def num_draft_of(args: Arguments) -> Any:
    """K as it is given; else 5 for a draft that is named, and the fastest for the model's own.

    With `--calibrate` it is the fastest in any case.
    """
    named = 5 if args.draft != "auto" and not args.calibrate else "auto"
    return named if args.num_draft is None else args.num_draft


def measure_drafts(args: Arguments, panel: Panel) -> None:
    """Measures and remembers which K is fastest, on as many series as are decoded at once.

    Raises:
        InputError: `--num-draft` is a number, which leaves nothing to choose; and see `calibrate`.
    """
    from stride_jax.decoding.rules import parse_rule
    from stride_jax.evaluation.calibration import calibrate
    from stride_jax.forecasting.settings import choose_output, series_at_once

    if args.num_draft not in (None, "auto"):
        raise InputError("--calibrate looks for the fastest --num-draft; give one of the two.")
    pair = choose_pair(args, brief=False)
    num_samples, _ = choose_output(pair.target, args.num_samples, ())
    at_once = series_at_once(len(panel.grids), num_samples)
    # The longest ones, so that the contexts are those that the forecast of all series has.
    longest = sorted(panel.grids, key=lambda grid: len(grid.values), reverse=True)
    choice = calibrate(
        pair,
        [grid.values for grid in longest[:at_once]],
        args.horizon,
        num_samples=num_samples,
        quantiles=(),
        rule=parse_rule(args.rule) if args.rule else None,
        sigma=args.sigma,
        missing=args.missing,
    )
    say(f"calibrated: {choice.reason}")


class Lines(logging.Handler):
    """Prints what the package logs as lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        say(record.getMessage())


@contextmanager
def logged_lines() -> Iterator[None]:
    """Shows what the package logs."""
    logger, handler = logging.getLogger("stride_jax"), Lines()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def forecast_table(args: Arguments, panel: Panel, *, brief: bool) -> pd.DataFrame:
    """The forecasts of a panel, as the flags say.

    Raises:
        InputError: see `decode_settings` and `frames.forecast_panel`.
    """
    from stride_jax.forecasting.frames import forecast_panel

    columns = args.id_col, args.time_col
    settings = decode_settings(args, brief=brief)
    return forecast_panel(panel, args.horizon, columns=columns, **settings)


def decode_settings(args: Arguments, *, brief: bool) -> dict[str, Any]:
    """The pair and the other arguments of `forecast`, as the flags say.

    Raises:
        InputError: see `choose_pair` and `rules.parse_rule`.
    """
    from stride_jax.decoding.rules import parse_rule

    pair = choose_pair(args, brief=brief)
    _say_reported(args, pair)
    return {
        "pair": pair,
        "quantiles": args.quantiles,
        "key": args.seed,
        "num_samples": args.num_samples,
        "num_draft": num_draft_of(args),
        "rule": parse_rule(args.rule) if args.rule else None,
        "sigma": args.sigma,
        "missing": args.missing,
        "non_negative": args.non_negative,
    }


def _say_reported(args: Arguments, pair: Pair) -> None:
    """Prints where the columns come from for a target that reports quantiles."""
    from stride_jax.forecasting.settings import reported_levels

    if reported_levels(pair.target) and not args.num_samples:
        say(
            "quantiles are those that the model reports (--num-samples 100 draws sample paths "
            "instead)"
        )


def say_non_negative(args: Arguments, histories: Sequence[np.ndarray], noun: str) -> None:
    """Prints how many forecasts were cut off at 0 without being asked."""
    import numpy as np

    count = sum(bool(np.nanmin(values) >= 0) for values in histories)
    if args.non_negative is None and count:
        several = f"the forecasts of {count} of {counted(len(histories), noun)} are"
        text = several if len(histories) > 1 else "the forecast is"
        say(f"{text} cut off at 0, as the history is never below it (--no-non-negative lets it be)")


def _show_warning(message: Any, category: type[Warning], *place: Any, **rest: Any) -> None:
    """Prints our own warnings as one line, others as Python shows them."""
    ours = issubclass(category, InputWarning)
    text = f"warning: {message}" if ours else warnings.formatwarning(message, category, *place[:2])
    say(text.rstrip())


def check_flags(args: Arguments) -> None:
    """Refuses what can be seen to be wrong before the file is read."""
    if args.out and args.out.suffix.lower() not in (".csv", ".json"):
        raise InputError(f"--out must end in .csv or .json, got {args.out}.")
    if args.plot and args.plot.suffix.lower() != ".png":
        raise InputError(f"--plot must end in .png, got {args.plot}.")
    for path in (args.out, args.plot):
        if path and not path.parent.is_dir():
            raise InputError(f"there is no directory {str(path.parent)!r} to write {path.name} to.")
        if path and path.exists():
            raise InputError(f"{path} exists; name a new file, or remove it.")
    if not 0 <= args.seed <= LARGEST_SEED:
        raise InputError(f"--seed must be from 0 to {LARGEST_SEED}, got {args.seed}.")
    if args.horizon < 1:
        raise InputError(f"--horizon must be a whole number from 1 on, got {args.horizon}.")
    check_columns((args.id_col, args.time_col), (MODEL,))


@contextmanager
def decoding(args: Arguments, panel: Panel) -> Iterator[bool]:
    """Compiles as is best for the histories of a panel, prints logs and warnings as lines.

    Yields whether the work is brief. With `--calibrate` it is measured first.

    Raises:
        InputError: see `measure_drafts`.
    """
    paths = 1 if args.num_samples == 0 else args.num_samples or USUAL_PATHS
    steps = len(panel.grids) * paths * args.horizon
    brief = steps <= BRIEF and not args.calibrate
    quick = quick_compilation() if brief else nullcontext()
    with quick, logged_lines(), warnings.catch_warnings():
        warnings.simplefilter("always", InputWarning)
        warnings.showwarning = _show_warning
        if args.calibrate:
            measure_drafts(args, panel)
        yield brief


def open_file(args: Arguments) -> tuple[Panel, str]:
    """Series of the file, and what there is to say of how it was read; compiled programs are kept.

    Raises:
        InputError: see `read_table` and `read_clock`.
    """
    if not args.no_cache:
        keep_programs(cache_directory())
    say(f"reading {args.file}")
    table = read_table(args)
    return read_clock(args, table.frame), table.note


def run_forecast(args: Arguments) -> None:
    """`stride-jax forecast`."""
    from stride_jax.data.panel import describe

    check_flags(args)
    panel, note = open_file(args)
    count = len(panel.grids)
    say(describe(panel, args.horizon, note))
    say(f"{count} series; forecasting {counted(args.horizon, 'step')}, seed {args.seed}")
    start = time.perf_counter()
    with decoding(args, panel) as brief:
        forecasts = forecast_table(args, panel, brief=brief)
    say_non_negative(args, [grid.values for grid in panel.grids], "series")
    say(f"done in {time.perf_counter() - start:.1f} s, compilation included")
    write_table(args, forecasts, (args.time_col,))
    if args.plot:
        from stride_jax.evaluation.figures.forecasts import save_intervals
        from stride_jax.forecasting.frames import history_frame

        columns = args.id_col, args.time_col, args.target_col
        save_intervals(args.plot, history_frame(panel, columns), forecasts, columns)
        say(f"picture in {args.plot}")


def write_table(args: Arguments, forecasts: pd.DataFrame, times: Sequence[str]) -> None:
    """The forecasts to `--out` or stdout; in JSON the columns `times` keep their offset."""
    if args.out is None:
        forecasts.to_csv(sys.stdout, index=False)
    elif args.out.suffix.lower() == ".csv":
        forecasts.to_csv(args.out, index=False)
    else:
        for name in times:
            stamps = forecasts[name]
            if getattr(stamps.dtype, "tz", None) is not None or stamps.dtype == object:
                texts = [stamp.isoformat() for stamp in stamps]
                forecasts = forecasts.assign(**{name: texts})
        forecasts.to_json(args.out, orient="records", date_format="iso", indent=1)
