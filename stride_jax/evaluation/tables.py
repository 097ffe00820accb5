"""Markdown tables of result files: a caption and the columns of each kind of file.

docs/reading_tables.md defines the columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from stride_jax.decoding.rules import RULES
from stride_jax.evaluation import theory
from stride_jax.evaluation.results import Content, Row, machine
from stride_jax.evaluation.subject import SETTINGS

Show = Callable[[Row], str]
Columns = dict[str, Show]


def number(name: str, form: str, factor: float = 1) -> Show:
    """A column that formats a field; empty where a row has none."""
    return lambda row: "" if row.get(name) is None else format(factor * row[name], form)


def text(name: str) -> Show:
    """A column that shows a field as it is; empty where a row has none."""
    return lambda row: "" if row.get(name) is None else str(row[name])


def markdown(columns: Columns, rows: Sequence[Row]) -> str:
    """The table of some rows; columns that are empty in all of them are left out."""
    cells = pd.DataFrame([{name: show(row) for name, show in columns.items()} for row in rows])
    cells = cells.loc[:, (cells != "").any()]
    right = [bool(cells[name].str.fullmatch(r"[-+.\d]*%?").all()) for name in cells]
    align = ["right" if numbers else "left" for numbers in right]
    return str(cells.to_markdown(index=False, disable_numparse=True, colalign=align))


def make_table(content: Content) -> str:
    """The caption and the tables of any result file, as Markdown."""
    tables = {
        "quick": quick_table,
        "evaluation": evaluation_table,
        "speed": speed_table,
        "sweep": sweep_table,
        "tune": tune_table,
        "latency": latency_table,
        "fidelity": fidelity_table,
        "zero_shot": zero_shot_table,
        "launches": launches_table,
        "tpu_programs": tpu_table,
    }
    return "\n\n".join(tables.get(content.get("table", ""), plain_table)(content)) + "\n"


# --- cells ---------------------------------------------------------------------------------------


def decoder_name(row: Row) -> str:
    """The decoder of a row in words."""
    if row["method"] != "speculative":
        return f"{row['method']} only, {row['process']}"
    return f"speculative, {rule_text(row)}, K = {row['num_draft']}"


def rule_text(row: Row) -> str:
    """A rule with its settings that are not the defaults; a tolerance is always shown."""
    fields = {field.name: field for field in dataclasses.fields(RULES[row["rule"]])}  # type: ignore[arg-type]
    shown = [
        f"{name.replace('_', ' ')} {row[name]:g}"
        for name in SETTINGS
        if row.get(name) is not None and (name == "tolerance" or row[name] != fields[name].default)
    ]
    return f"{row['rule']} ({', '.join(shown)})" if shown else str(row["rule"])


def draft_name(row: Row) -> str:
    """The last part of the draft's name."""
    return Path(row["draft"]).stem if row["draft"] else ""


def is_exact(row: Row) -> bool:
    """Whether a row follows the distribution of the target, whatever the draft does."""
    return row["method"] == "target" or (row["rule"] in RULES and RULES[row["rule"]].exact)


def samples_anew(row: Row) -> bool:
    """Whether the paths of a rule have other noise than the target's path of the same key."""
    return row["rule"] in RULES and RULES[row["rule"]].proposes == "sample"


def _several(name: str, show: Show, rows: Sequence[Row]) -> Columns:
    """A column that is shown only where its field has several values."""
    values = {row[name] for row in rows if row[name] is not None}
    return {name: show} if len(values) > 1 else {}


OUTPUTS = {"mean": "Mean paths", "sample": "Sample paths"}
MILLISECONDS = number("seconds", ".2f", 1000)


# --- experiments on a trained pair ---------------------------------------------------------------


def _series(content: Content) -> str:
    """The series of an experiment, in the words of a caption."""
    data, row = content["config"]["setup"]["data"], content["rows"][0]
    horizons = sorted({row["horizon"] for row in content["rows"]})
    steps = ", ".join(map(str, horizons))
    return (
        f"{data['source']}, {data['variables']} variables, context {row['context']}, "
        f"horizon {steps}"
    )


def quick_table(content: Content) -> list[str]:
    """One table of five columns; of an evaluation, the rows of its pairs' process."""
    config, process = content["config"], content["rows"][-1]["process"]
    rows = [
        row
        for row in content["rows"]
        if row["process"] == process and (row["method"], row["output"]) != ("draft", "sample")
    ]

    def name(row: Row) -> str:
        if row["method"] == "speculative":
            return f"speculative, {rule_text(row)}"
        return f"{row['method']} only, {row['output']} path"

    def error(row: Row) -> str:
        names = ("output", "horizon")
        targets = [r for r in rows if r["method"] == "target"]
        target = next(r for r in targets if all(r[name] == row[name] for name in names))
        score = "mse" if row["crps"] is None else "crps"
        if row is target or is_exact(row):
            return "-" if row is target else "none (exact)"
        return f"{row[score] / target[score] - 1:+.1%}"

    columns = {
        **_several("horizon", text("horizon"), rows),
        "decoder": name,
        "error over target's": error,
        "target passes": number("target_passes", ".1f"),
        "ms": number("seconds", ".1f", 1000),
        "speed": lambda row: f"{row['speedup']:.1f}x",
    }
    windows = config.get("windows", rows[0].get("windows"))
    caption = (
        f"{_series(content)}, K = {config['num_draft']};\n{windows} test windows, timed one at a "
        f"time on {machine(content)}."
    )
    return [caption, markdown(columns, rows)]


def _missing(content: Content) -> str:
    """The truths that were not there to be scored; empty where none is missing."""
    counts = content.get("missing_truths", {}).items()
    parts = [f"{n['missing']:,} of {n['truths']:,} at {h}" for h, n in counts if n["missing"]]
    return f"; missing truths, not scored: {', '.join(parts)}" if parts else ""


def evaluation_table(content: Content) -> list[str]:
    """Errors and speeds, of mean paths and of sample paths."""
    config = content["config"]
    rows = [_with_predictions(row, content["rows"]) for row in content["rows"]]
    stride, first = config["setup"]["stride"], rows[0]
    every = "every window" if stride == 1 else f"one window in {stride}"
    naive = ", ".join(f"{scores['mse']:.4f}" for scores in content["seasonal_naive"].values())
    caption = (
        f"{_series(content)}, {every} of the test split; sigma {content['sigma']:.3f}"
        + (f", MSE of repeating {config['season']} steps {naive}" if naive else "")
        + f"{_missing(content)}.\n"
        + f"Timed at batch {first['batch']}, median of {config['repeats']}, on {machine(content)}."
    )
    parts = [caption]
    for output, heading in OUTPUTS.items():
        shown = [row for row in rows if row["output"] == output]
        if not shown:
            continue
        decoder = {
            **_several("horizon", text("horizon"), shown),
            "decoder": decoder_name,
            **_several("draft", draft_name, shown),
        }
        paths = f" ({config['num_paths']} per window)" if output == "sample" else ""
        parts += [f"**{heading}{paths}: errors**", markdown({**decoder, **ERRORS}, shown)]
        parts += [f"**{heading}: speed of one path**", markdown({**decoder, **SPEEDS}, shown)]
    return parts


ERRORS: Columns = {
    "exact": lambda row: "yes" if is_exact(row) else "no",
    "MSE": number("mse", ".4f"),
    "MAE": number("mae", ".4f"),
    "CRPS": number("crps", ".4f"),
    "in 80 % band": number("coverage_80", ".1%"),
    "from target": number("distance", ".4f"),
}

SPEEDS: Columns = {
    "acceptance": number("acceptance", ".1%"),
    "closed form": number("expected_acceptance", ".1%"),
    "patches/round": number("patches_per_round", ".2f"),
    "predicted": number("predicted_patches", ".2f"),
    "target passes": number("target_passes", ".2f"),
    "ms": MILLISECONDS,
    "speedup": number("speedup", ".2f"),
    "over fastest": number("speedup_over_fastest", ".2f"),
    "paper's formula": number("predicted_speedup", ".2f"),
}


def _with_predictions(row: Row, rows: Sequence[Row]) -> Row:
    """The row with the paper's predictions, without numbers that mean nothing for its rule."""
    if row["method"] != "speculative":
        return row
    row = dict(row)
    if samples_anew(row):
        row["distance"] = None
    if row["rule"] != "maximal":
        row["expected_acceptance"] = None
    names = ("output", "horizon", "process")
    alike = [other for other in rows if all(other[name] == row[name] for name in names)]
    target = next(other for other in alike if other["method"] == "target")
    count = int(target["target_passes"])  # N, one pass per patch
    patches = count / theory.rounds(row["acceptance"], row["num_draft"], count)
    row["predicted_patches"] = patches
    for draft in alike:
        if (draft["method"], draft["draft"]) == ("draft", row["draft"]):
            cost = draft["seconds"] / target["seconds"]
            row["predicted_speedup"] = theory.round_speedup(patches, row["num_draft"], cost)
    return row


def speed_table(content: Content) -> list[str]:
    """Time, acceptance by place and memory at every batch size."""
    config, rows = content["config"], content["rows"]

    def places(row: Row) -> str:
        rates = row["acceptance_by_place"] or []
        return " ".join("-" if rate is None else format(100 * rate, ".0f") for rate in rates)

    caption = (
        f"{_series(content)}, one path per series; sigma {content['sigma']:.3f}.\n"
        f"Median of {config['repeats']} repeats, each on other test windows, on {machine(content)}."
    )
    parts = [caption]
    for output, heading in OUTPUTS.items():
        shown = [row for row in rows if row["output"] == output]
        columns = {
            **_several("horizon", text("horizon"), shown),
            "batch": text("batch"),
            "decoder": decoder_name,
            **_several("draft", draft_name, shown),
            "target passes": number("target_passes", ".2f"),
            "acceptance": number("acceptance", ".1%"),
            "by place, %": places,
            "ms": MILLISECONDS,
            "ms per series": lambda row: format(1000 * row["seconds"] / row["batch"], ".2f"),
            "speedup": number("speedup", ".2f"),
            "over fastest": number("speedup_over_fastest", ".2f"),
            "MiB": number("memory_bytes", ".1f", 2**-20),
        }
        parts += [f"**{heading}**", markdown(columns, shown)] if shown else []
    return parts


# --- grids of settings ---------------------------------------------------------------------------

ROWS = 40
"""A sweep of so many settings or fewer is shown as a whole."""

SWEEP: Columns = {
    "rule": lambda row: row["rule"] or f"({row['method']} only)",
    "K": text("num_draft"),
    "sigma": number("sigma", ".3g"),
    "bias": number("bias", "g"),
    "MSE tolerance": number("mse_tolerance", "g"),
    "tolerance": number("tolerance", "g"),
    "error": number("relative_error", "+.2%"),
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
        f"{_series(content)}, {tried[0]['windows']} windows (one in {setup['stride']}) in batches "
        f"of {tried[0]['batch']}, {len(tried)} settings"
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
    "over target's": number("relative_error", "+.2%"),
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
        f"{_series(content)}, validation split; best: the fastest within "
        f"{config['max_error']:.1%} of the target's error{within}.\n"
        f"Timed at batch {config['timing_batch']}, on {machine(content)}."
    )
    columns = {
        **_several("horizon", text("horizon"), rows),
        **_several("draft", draft_name, rows),
        **TUNE,
    }
    return [caption, markdown(columns, rows)]


# --- other files ---------------------------------------------------------------------------------


def latency_table(content: Content) -> list[str]:
    """One line per situation: the decode by the target only, and the speedup of each K over it."""
    config = content["config"]
    names = ("layers", "num_vars", "batch", "patches", "process")
    groups: dict[Any, list[Row]] = {}
    for row in content["rows"]:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    lines = [_latency_line(rows) for rows in groups.values()]
    columns: Columns = {name.replace("num_vars", "variables"): text(name) for name in names}
    columns |= {"target ms": text("target")}
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
        f"K = {config['measured_num_draft']}, sigma {config['sigma']}."
    )
    return [caption, markdown(columns, lines)]


def _latency_line(rows: Sequence[Row]) -> Row:
    """The rows of one situation as one line."""
    first = rows[0]
    if first["seconds"] is None:
        return {**first, "target": "not run (too long)"}
    forced = [row for row in rows if row["acceptance"] == "forced"]
    best = max(forced, key=lambda row: float(row["speedup"]), default={})
    measured = [row for row in rows if row["acceptance"] == "measured"]
    return {
        **{name: first[name] for name in ("layers", "num_vars", "batch", "patches", "process")},
        "target": f"{1000 * first['seconds']:.2f}",
        **{f"K {row['num_draft']}": row["speedup"] for row in forced},
        "over_fastest": best.get("over_fastest"),
        "over_window": best.get("over_window"),
        "measured": "".join(f"{row['speedup']:.2f} at {row['accepted']:.0%}" for row in measured),
        "over_calls": next((row["over_calls"] for row in forced if row["over_calls"]), None),
    }


def fidelity_table(content: Content) -> list[str]:
    """Distances of distributions with the p-values of their tests."""

    def tested(name: str) -> Show:
        return lambda row: f"{row[name]:.3g} ({row['p_' + name]:.2g})"

    columns: Columns = {
        "case": text("case"),
        "patches": text("patches"),
        "rule": lambda row: row["rule"] or "(target again)",
        "acceptance": number("acceptance", ".1%"),
        "energy (p)": tested("energy"),
        "MMD (p)": tested("mmd"),
        "KS (p)": tested("ks"),
        "Wasserstein": number("wasserstein", ".3f"),
        "TV bound": number("tv_bound", ".2f"),
    }
    config = content["config"]
    caption = (
        f"{config['num_paths']} sample paths of each rule against as many of the target, "
        f"{config['permutations']} permutations,\non {machine(content)}."
    )
    return [caption, markdown(columns, content["rows"])]


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
    return [caption, markdown(columns, rows)]


LAUNCHES: Columns = {
    "target pass": text("target_pass"),
    "draft step": text("draft_step"),
    "proposals": text("proposals"),
    "verification": text("verification"),
    "overhead": text("round_overhead"),
    "round": text("round"),
    "surplus": text("round_surplus"),
    "prefill": text("prefill"),
    "outside": text("outside"),
    "copies": text("copies"),
    "scatters": text("scatters"),
    "best speedup": lambda row: format(
        (row["num_draft"] + 1) * row["target_pass"] / row["round"], ".2f"
    ),
}


def launches_table(content: Content) -> list[str]:
    """Launches by setting; `before -> now` where an earlier file is compared and they differ."""
    rows, first = content["rows"], content["rows"][0]
    headings = {
        **{name: name for name in ("layers", "batch", "draft", "rule", "dtype")},
        **{"num_vars": "variables", "draft_layers": "draft layers", "num_draft": "K"},
    }

    def sizes(row: Row) -> tuple[Any, ...]:
        return tuple(row[name] for name in headings)

    earlier = {sizes(row): row for row in content.get("before", [])}

    def changed(show: Show) -> Show:
        def cell(row: Row) -> str:
            now, then = show(row), show(earlier.get(sizes(row), row))
            return now if then == now else f"{then} -> {now}"

        return cell

    columns: Columns = {}
    for name, heading in headings.items():
        columns |= {heading: text(name)} if len({row[name] for row in rows}) > 1 else {}
    columns |= _several("products", text("products"), rows)
    columns |= {name: changed(show) for name, show in LAUNCHES.items()}
    caption = (
        f"Compiled for an NVIDIA H100 with jax {first['jax']}, without autotuning; target of width "
        f"{first['d_model']}, draft {first['draft']}, K {first['num_draft']}, rule "
        f"{first['rule']} where no column says otherwise."
    )
    return [caption, markdown(columns, rows)]


def tpu_table(content: Content) -> list[str]:
    """Operations, bytes and memory of the programs compiled for a TPU."""
    columns: Columns = {
        "program": text("program"),
        "devices": text("devices"),
        "layers": text("layers"),
        "variables": text("num_vars"),
        "batch": text("batch"),
        "GFLOP": number("gflop", ".1f"),
        "GB": number("gbyte", ".2f"),
        "peak MiB": number("peak_mib", ".0f"),
        "collectives": text("collectives"),
    }
    first = content["rows"][0]
    caption = (
        f"Compiled for a TPU v5e with jax {first['jax']}; models of width {first['d_model']}; "
        "numbers of one device."
    )
    return [caption, markdown(columns, content["rows"])]


def plain_table(content: Content) -> list[str]:
    """The rows of any other result file, one column per field, and where they were measured."""

    def show(name: str) -> Show:
        def cell(row: Row) -> str:
            value = row[name]
            shown = f"{value:.3g}" if isinstance(value, float) else str(value)
            return "" if value is None else shown.replace("|", "\\|")

        return cell

    table = markdown({name: show(name) for name in content["rows"][0]}, content["rows"])
    return [f"On {machine(content)}; Python {content['versions']['python']}.", table]
