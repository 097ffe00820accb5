"""The command `stride-jax backtest`: how well the end of a file would have been forecast.

The table of errors goes to stdout, the forecasts to `--out`, messages for a person to stderr.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from stride_jax.cli.forecast import (
    check_flags,
    decode_settings,
    decoding,
    open_file,
    say,
    say_non_negative,
    write_table,
)
from stride_jax.cli.parser import Arguments
from stride_jax.errors import InputError, counted
from stride_jax.forecasting.columns import CUTOFF, MODEL, NAIVE, check_columns

if TYPE_CHECKING:
    import pandas as pd

    from stride_jax.data.panel import Grid, Panel
    from stride_jax.evaluation.backtest import Score

USUAL_WINDOWS = 8
"""Cutoffs per series, as far as they fit, unless told otherwise."""
LEAST = 8
"""Steps of the shortest history; where two seasons are longer, they are."""


def check_backtest(args: Arguments) -> None:
    """Refuses what can be seen to be wrong before the file is read."""
    check_flags(args)
    for name in ("windows", "step", "season"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} must be a whole number from 1 on, got {value}.")
    check_columns((args.id_col, args.time_col, args.target_col), (MODEL, NAIVE, CUTOFF))


def choose_cutoffs(args: Arguments, panel: Panel, season: int) -> list[tuple[Grid, int]]:
    """The series, from the first to the last value of each, and the steps known at each cutoff.

    Series in which no cutoff fits are left out with a warning.

    Raises:
        InputError: a series without a value; `--windows` do not fit into a series; none fits into
            any; or a history has no more than a season of steps before it ends in a gap.
    """
    from stride_jax.forecasting.frames import cutoffs

    least, step = max(2 * season, LEAST), args.step or args.horizon
    grids = [grid.known() for grid in panel.grids]
    count, exactly = args.windows or USUAL_WINDOWS, args.windows is not None
    stops = [
        cutoffs(grid, args.horizon, count, step, least=least, exactly=exactly) for grid in grids
    ]
    short = [grid for grid, each in zip(grids, stops, strict=True) if not each]
    needs = f"{least + args.horizon} steps ({least} of history, at least two seasons of {season}"
    needs += f", and a horizon of {args.horizon})"
    if len(short) == len(grids):
        longest = max(grids, key=lambda grid: len(grid.values))
        raise InputError(
            f"series {longest.name!r} has {counted(len(longest.values), 'step')}, too few for a "
            f"backtest: it needs {needs}; give a shorter --horizon or --season."
        )
    if short:
        names = ", ".join(repr(grid.name) for grid in short[:3])
        names += f" and {len(short) - 3} more" if len(short) > 3 else ""
        say(f"warning: left out, too short for a backtest, which needs {needs}: {names}")
    cuts = [(grid, stop) for grid, each in zip(grids, stops, strict=True) for stop in each]
    for grid, stop in cuts:
        history = grid.until(stop)
        if len(history.known().values) <= season:
            raise InputError(
                f"series {grid.name!r}, cutoff {history.times[-1]}: no value is known of the last "
                f"season of {season} steps; give fewer --windows, another --step or --season."
            )
    return cuts


def describe_cutoffs(args: Arguments, cuts: list[tuple[Grid, int]], season: int, clock: str) -> str:
    """Two lines: series, cutoffs, horizon and seed; and the season."""
    each: dict[str, int] = {}
    for grid, _ in cuts:
        each[str(grid.name)] = each.get(str(grid.name), 0) + 1
    least, most = min(each.values()), max(each.values())
    several = f"{least} to {most} cutoffs" if least < most else counted(most, "cutoff")
    lengths = [stop for _, stop in cuts]
    words = [f"{len(each)} series", f"{several} each" if len(each) > 1 else several]
    apart = counted(args.step or args.horizon, "step")
    words += [f"{apart} apart"] if most > 1 else []
    shortest = f"{min(lengths)} to " if min(lengths) < max(lengths) else ""
    words.append(f"histories of {shortest}{counted(max(lengths), 'step')}")
    source = "" if args.season else f", as the clock is {clock} (--season changes that)"
    repeated = f"seasonal-naive repeats {counted(season, 'step')}{source}"
    horizon = counted(args.horizon, "step")
    return f"{', '.join(words)}; forecasting {horizon}, seed {args.seed}\n{repeated}"


def backtest_table(
    args: Arguments, panel: Panel, cuts: list[tuple[Grid, int]], season: int
) -> pd.DataFrame:
    """The forecasts of all cutoffs beside the true and the naive values.

    Raises:
        InputError: see `decode_settings`, `frames.backtest_panel` and `read_histories`.
    """
    import pandas as pd

    from stride_jax.evaluation.backtest import naive_forecasts
    from stride_jax.forecasting.columns import column_levels
    from stride_jax.forecasting.frames import backtest_panel

    histories = [grid.until(stop) for grid, stop in cuts]
    with decoding(args, panel._replace(grids=histories)) as brief:
        tested = backtest_panel(
            panel,
            cuts,
            args.horizon,
            columns=(args.id_col, args.time_col, args.target_col),
            **decode_settings(args, brief=brief),
        )
    say_non_negative(args, [history.values for history in histories], "cutoff")
    levels = list(column_levels(list(tested.columns)))
    naive = naive_forecasts(histories, args.horizon, season, levels, args.missing)
    return pd.concat([tested, naive], axis=1)


def score_rows(args: Arguments, cuts: list[tuple[Grid, int]], tested: pd.DataFrame) -> list[Score]:
    """The scores of each series, and of all together where there are several."""
    from stride_jax.evaluation.backtest import score_all, score_series

    counts: dict[str, int] = {}
    for grid, _ in cuts:
        counts[str(grid.name)] = counts.get(str(grid.name), 0) + args.horizon
    scores, start = [], 0
    for name, count in counts.items():
        scores.append(score_series(name, tested[start : start + count], args.target_col))
        start += count
    return [*scores, score_all(scores)] if len(scores) > 1 else scores


def run_backtest(args: Arguments) -> None:
    """`stride-jax backtest`."""
    from stride_jax.data.panel import describe
    from stride_jax.data.seasons import season_of
    from stride_jax.evaluation.backtest import point_column, score_table

    check_backtest(args)
    panel, note = open_file(args)
    say(describe(panel, note=note))
    season = args.season or season_of(panel.clock)
    cuts = choose_cutoffs(args, panel, season)
    say(describe_cutoffs(args, cuts, season, panel.clock.describe()))
    start = time.perf_counter()
    tested = backtest_table(args, panel, cuts, season)
    say(f"done in {time.perf_counter() - start:.1f} s, compilation included")
    scores = score_rows(args, cuts, tested)
    point = "median" if point_column(list(tested.columns)) != "stride" else "mean"
    several = "; all: geometric mean of the ratios, mean of the shares" if len(scores) > 1 else ""
    say(f"MAE of the {point}; ratios are to seasonal-naive, below 1 is better{several}")
    print(score_table(scores), flush=True)
    if args.out:
        write_table(args, tested, (args.time_col, "cutoff"))
        say(f"forecasts in {args.out}")
    if args.plot:
        _plot(args, panel, cuts, tested)


def _plot(
    args: Arguments, panel: Panel, cuts: list[tuple[Grid, int]], tested: pd.DataFrame
) -> None:
    """Draws the picture of `--plot`."""
    from stride_jax.evaluation.figures.forecasts import save_backtest
    from stride_jax.forecasting.frames import history_frame

    columns = args.id_col, args.time_col, args.target_col
    grids = {str(grid.name): grid for grid, _ in cuts}
    history = history_frame(panel._replace(grids=list(grids.values())), columns)
    save_backtest(args.plot, history, tested, columns)
    say(f"picture in {args.plot}")
