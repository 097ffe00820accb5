"""Writes what was demanded of the zero-shot pair beside what it reached, from its result files.

    python tools/demanded.py docs/results/zero_shot

reads `foreign.json` and `benchmarks.json` of tools/zero_shot.py and `paths.json` of
tools/zero_shot_paths.py, and writes `demanded.json`. Intervals are of the bootstrap over series.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from stride_jax.evaluation.results import Content, read_results, write_rows
from stride_jax.evaluation.suites import bootstrap, geometric

NAIVE, TARGET = "seasonal-naive", "target"
MAP = "linear map, fitted to it"
Row = dict[str, Any]


def ratio(rows: list[Row], base: str, what: str, most: float, *, below: bool = False) -> Row:
    """The target's MAE over that of another method, at most so much, or below it."""
    compared = geometric(rows, TARGET, base, "mae")
    assert compared is not None
    value, low, high = compared
    return {
        "what": what,
        "demanded": f"{'below' if below else 'at most'} {most:.2f}",
        "reached": f"{value:.3f}",
        "interval": f"{low:.2f} to {high:.2f}",
        "met": value < most if below else value <= most,
    }


def share(values: np.ndarray, what: str, least: float, most: float) -> Row:
    """A mean over series that should lie between two shares."""
    low, high = bootstrap(values)
    bounds = f"{least:.0%} to {most:.0%}" if least else f"at most {most:.0%}"
    return {
        "what": what,
        "demanded": bounds,
        "reached": f"{values.mean():.0%}",
        "interval": f"{low:.0%} to {high:.0%}",
        "met": bool(least <= values.mean() <= most),
    }


def column(rows: list[Row], score: str) -> np.ndarray:
    """A score of the target, of each series that has it."""
    return np.asarray([row[score] for row in rows if row["method"] == TARGET and score in row])


def worse(rows: list[Row]) -> np.ndarray:
    """Whether the target's MAE is above that of seasonal-naive, for each series."""
    naive = {row["series"]: row["mae"] for row in rows if row["method"] == NAIVE}
    ours = {row["series"]: row["mae"] for row in rows if row["method"] == TARGET}
    return np.asarray([float(ours[name] > naive[name] * (1 + 1e-9)) for name in ours])


def walks(paths: Content) -> Row:
    """Coverage on random walks, which should be right however far ahead."""
    cover = [row["cover_80"] for row in paths["walks"] if row["method"] == TARGET]
    return {
        "what": "80 % interval, random walks, at every horizon",
        "demanded": "70% to 90%",
        "reached": f"{min(cover):.0%} to {max(cover):.0%}",
        "met": min(cover) >= 0.7 and max(cover) <= 0.9,
    }


def better(rows: list[Row], base: str, what: str) -> Row:
    """On how many of the benchmarks the target's MAE is below that of another method."""
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    ratios = [geometric([r for r in rows if r["kind"] == k], TARGET, base, "mae") for k in kinds]
    count = sum(compared is not None and compared[0] < 1 for compared in ratios)
    return {
        "what": what,
        "demanded": f"{len(kinds)} of {len(kinds)}",
        "reached": f"{count} of {len(kinds)}",
        "met": count == len(kinds),
    }


def demanded(foreign: Content, benchmarks: Content, paths: Content) -> list[Row]:
    """One row for each number that was demanded."""
    rows, known = foreign["rows"], benchmarks["rows"]
    exchange = [row for row in known if row["kind"] == "exchange_rate"]
    rates = "MAE over the last value's, exchange rates"
    return [
        ratio(rows, NAIVE, "MAE over seasonal-naive's, foreign suite", 0.8),
        ratio(rows, "Fracast-0", "MAE over that of Fracast-0, foreign suite", 1.0, below=True),
        share(worse(rows), "series worse than seasonal-naive, foreign suite", 0.0, 0.1),
        ratio(exchange, "last value", rates, 1.02),
        share(column(rows, "cover_80"), "80 % interval, all steps", 0.75, 0.85),
        share(column(rows, "cover_80_first"), "80 % interval, first three steps", 0.7, 0.9),
        share(column(rows, "cover_80_last"), "80 % interval, last three steps", 0.7, 0.9),
        share(column(paths["rows"], "cover_80_day"), "80 % interval, sums over a day", 0.7, 0.9),
        walks(paths),
        better(known, "draft", "benchmarks on which the target is better than its draft"),
        better(known, MAP, "benchmarks on which it is better than a linear map"),
    ]


def main() -> None:
    """Reads, and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    files = (read_results(directory / f"{x}.json") for x in ("foreign", "benchmarks", "paths"))
    write_rows(directory / "demanded.json", demanded(*files), table="demanded")


if __name__ == "__main__":
    main()
