"""Tables of grids: sweeps of settings, the choice of K, and latencies by model size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stride_jax.evaluation import theory
from stride_jax.evaluation.results import Content, Row, machine
from stride_jax.evaluation.tables.cells import (
    MILLISECONDS,
    OUTPUTS,
    Columns,
    draft_name,
    markdown,
    number,
    samples_anew,
    series_text,
    several,
    text,
)

ROWS = 40
"""A sweep of so many settings or fewer is shown as a whole."""

SWEEP: Columns = {
    "rule": lambda row: row["rule"] or f"({row['method']} only)",
    "K": text("num_draft"),
    "sigma": number("sigma", ".3g"),
    "bias": number("bias", "g"),
    "MSE tolerance": number("mse_tolerance", "g"),
    "tolerance": number("tolerance", "g"),
    "error": number("relative_error", "+z.2%"),
    "distance": number("distance_over_drafts", ".3f"),
    "acceptance": number("acceptance", ".1%"),
    "target passes": number("target_passes", ".2f"),
    "ms": MILLISECONDS,
    "speedup": number("speedup", ".2f"),
    **{name: number(field, ".2f") for name, field in theory.PREDICTIONS.items()},
}


def sweep_table(content: Content) -> list[str]:
    """The Pareto front of each rule (all rows of a small sweep), and the misses of theory."""
    rows, setup = content["rows"], content["config"]["setup"]
    tried = [row for row in rows if row["method"] == "speculative"]
    small, noise = len(tried) <= ROWS, theory.chance(rows)
    misses = ", ".join(
        f"{name} {middle:.1%} (at most {most:.1%})"
        for name, (middle, most) in theory.misses(tried).items()
    )
    caption = (
        f"{series_text(content)}, {tried[0]['windows']} windows (one in {setup['stride']}) "
        f"in batches of {tried[0]['batch']}, {len(tried)} settings"
        + (", all of them" if small else ", the Pareto front of each rule")
        + ("" if noise is None else f"; chance moves the error of sample paths by {noise:.1%}")
        + f";\non {machine(content)}. Predictions miss the speedup in the median by: {misses}."
    )
    parts = [caption]
    for output, heading in OUTPUTS.items():
        here = [row for row in rows if row["output"] == output]
        sigma = min((row["sigma"] for row in here if row["rule"] is None), default=0.0)
        shown = [row for row in here if row["rule"] is None and row["sigma"] == sigma]
        for rule in dict.fromkeys(row["rule"] for row in here if row["rule"]):
            same = [row for row in here if row["rule"] == rule]
            shown += same if small else theory.front(same)
        shown = [
            {**row, "distance_over_drafts": None} if samples_anew(row) else row for row in shown
        ]
        parts += [f"**{heading}**", markdown(SWEEP, shown)] if shown else []
    return parts


TUNE: Columns = {
    "process": text("process"),
    "rule": lambda row: row["rule"] or "(target only)",
    "K": text("num_draft"),
    "tolerance": number("tolerance", "g"),
    "error": number("error", ".4f"),
    "over target's": number("relative_error", "+z.2%"),
    "distance": number("distance_over_drafts", ".3f"),
    "target passes": number("target_passes", ".2f"),
    "ms": MILLISECONDS,
    "best": text("best"),
}


def tune_table(content: Content) -> list[str]:
    """Every setting on the validation split; the best ones are marked."""
    config = content["config"]
    rows = [{**row, "best": "yes" if row in content["best"] else ""} for row in content["rows"]]
    distance = config["max_distance"]
    within = "" if distance is None else f" and {distance:.0%} of the draft's distance"
    caption = (
        f"{series_text(content)}, validation split; best: the fastest within "
        f"{config['max_error']:.1%} of the target's error{within}.\n"
        f"Timed at batch {config['timing_batch']}, on {machine(content)}."
    )
    columns = {
        **several("horizon", text("horizon"), rows),
        **several("draft", draft_name, rows),
        **TUNE,
    }
    return [caption, markdown(columns, rows)]


def latency_table(content: Content) -> list[str]:
    """One line per situation: the decode by the target only, and the speedup of each K over it."""
    config = content["config"]
    names = ("layers", "num_vars", "batch", "patches", "process")
    groups: dict[Any, list[Row]] = {}
    for row in content["rows"]:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    lines = [_latency_line(rows) for rows in groups.values() if rows[0]["seconds"] is not None]
    left_out = f"; {len(groups) - len(lines)} of {len(groups)} cells take too long and were not run"
    columns: Columns = {name.replace("num_vars", "variables"): text(name) for name in names}
    columns |= {"target ms": MILLISECONDS}
    columns |= {f"K = {k}": number(f"K {k}", ".2f") for k in config["num_drafts"]}
    columns |= {
        "best": number("over_fastest", ".2f"),
        "over window": number("over_window", ".2f"),
        "measured": text("measured"),
        "over calls": number("over_calls", ".2f"),
    }
    caption = (
        f"Untrained models of width {config['d_model']}, draft {config['draft_factor']} x, patches "
        f"of {config['patch_len']} steps, context {config['context_patches']} patches;\n"
        f"median of {config['repeats']}, on {machine(content)}; measured with `maximal`, "
        f"K = {config['measured_num_draft']}, sigma {config['sigma']}"
        + (left_out if len(lines) < len(groups) else "")
        + "."
    )
    return [caption, markdown(columns, lines)]


def _latency_line(rows: Sequence[Row]) -> Row:
    """The rows of one situation as one line."""
    first = rows[0]
    forced = [row for row in rows if row["acceptance"] == "forced"]
    best = max(forced, key=lambda row: float(row["speedup"]), default={})
    measured = [row for row in rows if row["acceptance"] == "measured"]
    return {
        **first,
        **{f"K {row['num_draft']}": row["speedup"] for row in forced},
        "over_fastest": best.get("over_fastest"),
        "over_window": best.get("over_window"),
        "measured": "".join(f"{row['speedup']:.2f} at {row['accepted']:.0%}" for row in measured),
        "over_calls": next((row["over_calls"] for row in forced if row["over_calls"]), None),
    }
