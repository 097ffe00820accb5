"""Tables of the zero-shot page: suites, paths and rules, the ablation, demands."""

from __future__ import annotations

import numpy as np

from stride_jax.evaluation.results import Content, Row
from stride_jax.evaluation.suites import geometric, summary
from stride_jax.evaluation.tables.cells import Columns, Show, markdown, number, text


def zero_shot_table(content: Content) -> list[str]:
    """Each method over all series of a suite, relative to repeating the last season."""

    def interval(row: Row) -> str:
        return f"{row['mae_low']:.2f} to {row['mae_high']:.2f}"

    columns: Columns = {
        "method": text("method"),
        "MAE": number("mae", ".3f"),
        "95 % interval": interval,
        "worse": number("worse", ".0%"),
        "MSE": number("mse", ".3f"),
        "CRPS": number("crps", ".3f"),
        "in 50 %": number("cover_50", ".0%"),
        "in 80 %": number("cover_80", ".0%"),
        "first 3": number("cover_80_first", ".0%"),
        "last 3": number("cover_80_last", ".0%"),
        "sum": number("cover_80_sum", ".0%"),
        "in 95 %": number("cover_95", ".0%"),
    }
    rows = content["summary"]
    caption = (
        f"{rows[0]['series']} series, up to 12 cut-offs each, {content['paths']} sample paths; "
        "errors over those of seasonal-naive, geometric means."
    )
    return [caption, markdown(columns, rows), "**MAE by kind of series**", by_kind(content)]


def by_kind(content: Content) -> str:
    """The MAE of each method over seasonal-naive's, one row per kind of series."""
    rows, methods = content["rows"], [row["method"] for row in content["summary"]]
    table = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        of_kind = [row for row in rows if row["kind"] == kind]
        means = {one: summary(of_kind, one) for one in methods}
        counts: Row = {"kind": kind, "series": means[methods[0]]["series"]}
        table.append(counts | {one: means[one]["mae"] for one in methods[1:]})
    columns: Columns = {"kind": text("kind"), "series": text("series")}
    columns |= {one: number(one, ".2f") for one in methods[1:]}
    return markdown(columns, table)


def aggregations_table(content: Content) -> list[str]:
    """Errors by rates and by stretch of the horizon, relative to those without means."""
    rows = content["rows"]
    stretches = dict.fromkeys(row["steps"] for row in rows)
    table: dict[tuple[str, str], Row] = {}
    for row in rows:
        named = {"means of": row["means of"], "windows": row["windows"], "number": row["number"]}
        line = table.setdefault((row["windows"], row["means of"]), named)
        line |= {f"{score} {row['steps']}": row[score] for score in ("MAE", "CRPS", "in 80 %")}
    names = ("means of", "windows", "number")
    columns: Columns = {name: text(name) for name in names}
    columns |= {f"MAE {one}": number(f"MAE {one}", ".3f") for one in stretches}
    last = list(stretches)[-1]
    columns[f"CRPS {last}"] = number(f"CRPS {last}", ".3f")
    columns[f"in 80 % {last}"] = number(f"in 80 % {last}", ".0%")
    caption = "Errors over those without means, geometric means over windows."
    return [caption, markdown(columns, list(table.values()))]


def zero_shot_paths_table(content: Content) -> list[str]:
    """Scores of paths and of rules over a suite, and coverage on random walks."""
    rows, naive, one_sigma = content["rows"], "seasonal-naive", "target, one sigma"
    methods = [x for x in dict.fromkeys(row["method"] for row in rows) if x != naive]
    table = []
    for method in methods:
        scores: Row = {"method": method}
        for score, base in (("mae", naive), ("crps", naive), *_JOINT):
            ratio = geometric(rows, method, base, score)
            scores[score] = None if ratio is None else ratio[0]
        for score in ("cover_80_day", "acceptance", "target_passes"):
            values = [row[score] for row in rows if row["method"] == method and score in row]
            scores[score] = float(np.mean(values)) if values else None
        table.append(scores)
    columns: Columns = {
        "method": text("method"),
        "MAE": number("mae", ".3f"),
        "CRPS": number("crps", ".3f"),
        "energy": number("energy", ".3f"),
        "variogram": number("variogram", ".3f"),
        "sum of a day": number("cover_80_day", ".0%"),
        "acceptance": number("acceptance", ".0%"),
        "target passes": number("target_passes", ".2f"),
    }
    caption = (
        f"{len({row['series'] for row in rows})} series, up to {content['cutoffs']} cut-offs each, "
        f"at most 96 steps (6 patches) ahead, {content['paths']} sample paths; geometric means.\n"
        "MAE and CRPS over those of seasonal-naive, energy and variogram score over those of "
        f"*{one_sigma}*."
    )
    steps = dict.fromkeys(row["steps"] for row in content["walks"])
    walks: dict[str, Row] = {}
    for row in content["walks"]:
        walks.setdefault(row["method"], {"method": row["method"]})[row["steps"]] = row["cover_80"]
    by_step: Columns = {"method": text("method"), **{x: number(x, ".0%") for x in steps}}
    return [
        caption,
        markdown(columns, table),
        "**Random walks: values within the 80 % interval, by the steps ahead**",
        markdown(by_step, list(walks.values())),
    ]


_JOINT = (("energy", "target, one sigma"), ("variogram", "target, one sigma"))
"""Scores of whole paths, and the method that they are compared with."""


def ablation_table(content: Content) -> list[str]:
    """The CRPS of each small model, and its change from the one that has all."""
    rows, suites = content["rows"], ("real", "synthetic", "foreign")
    reference = [row for row in rows if row["arm"] == rows[0]["arm"]]
    base = {name: np.mean([row[f"{name}_crps"] for row in reference]) for name in suites}

    def change(name: str) -> Show:
        return lambda row: f"{row[f'{name}_crps'] / base[name] - 1:+.1%}"

    columns: Columns = {"model": text("arm"), "seed": text("seed")}
    for name in suites:
        columns |= {name: number(f"{name}_crps", ".3f"), f"change, {name}": change(name)}
    others = [row for row in rows if row not in reference]
    sizes = content["series"]
    caption = (
        f"{rows[0]['steps']} steps each, {content['paths']} sample paths; changes from the mean of "
        f"*{rows[0]['arm']}*. CRPS over the last value's on {sizes['real']} held-out real series\n"
        f"and {sizes['synthetic']} synthetic ones, and over seasonal-naive's on the foreign suite "
        f"({sizes['foreign']}); geometric means."
    )
    return [caption, markdown(columns, [*reference, *others])]


def demanded_table(content: Content) -> list[str]:
    """The numbers that the zero-shot pair should reach, and those that it reached."""
    columns: Columns = {name: text(name) for name in ("what", "demanded", "reached", "met")}
    columns = {**columns, "95 % interval": text("interval")}
    order = ("what", "demanded", "reached", "95 % interval", "met")
    caption = (
        "From the result files of the other tables of the target that forecasts unseen series."
    )
    return [caption, markdown({name: columns[name] for name in order}, content["rows"])]
