"""Markdown tables of result files: evaluations, latencies, and anything else as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from stride_jax.decoding.rules import RULES
from stride_jax.evaluation import theory
from stride_jax.evaluation.markdown import aligned, cell, machine
from stride_jax.evaluation.sweep_tables import draws_own_noise, sweep_table

COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "horizon": cell("horizon", "d"),
    "who": lambda row: _who(row),
    "draft": lambda row: _draft(row),
    "guarantee": lambda row: _guarantee(row),
    "MSE": cell("mse", ".4f"),
    "MAE": cell("mae", ".4f"),
    "CRPS": cell("crps", ".4f"),
    "in 80 % band": cell("coverage_80", ".1%"),
    "from target": cell("distance", ".4f"),
    "acceptance": cell("acceptance", ".1%"),
    "2 Phi(-delta/2)": cell("expected_acceptance", ".1%"),
    "patches/round": cell("patches_per_round", ".2f"),
    "predicted": cell("predicted_patches", ".2f"),
    "target passes": cell("target_passes", ".2f"),
    "milliseconds": lambda row: format(1000 * row["seconds"], ".2f"),
    "speedup": cell("speedup", ".2f"),
    "over fastest": cell("speedup_over_fastest", ".2f"),
    "paper's formula": cell("predicted_speedup", ".2f"),
}


def _who(row: dict[str, Any]) -> str:
    if row["method"] == "speculative":
        return f"speculative, {row['rule']}, K = {row['num_draft']}"
    name = "target alone" if row["method"] == "autoregressive" else "draft alone"
    return f"{name}, {row['process']}"


def _draft(row: dict[str, Any]) -> str:
    return Path(row["draft"]).name if row["draft"] else ""


def _guarantee(row: dict[str, Any]) -> str:
    if row["method"] == "speculative":
        return RULES[row["rule"]].guarantee
    return "the target itself" if row["method"] == "autoregressive" else "none"


def _missing(results: dict[str, Any]) -> str:
    """How many truths were not there to be scored."""
    found = results.get("missing_truths", {})
    parts = [f"{n['missing']:,} of {n['truths']:,} at {h}" for h, n in found.items()]
    return f"Missing truths are not scored: {', '.join(parts)}. " if parts else ""


def table(results: dict[str, Any]) -> str:
    """The Markdown tables of an evaluation: point rows and sampled rows apart, with a heading."""
    config = results["config"]
    rows = [_shown(row, results["rows"]) for row in results["rows"]]
    first = rows[0]
    every = "every window" if config["stride"] == 1 else f"one window in {config['stride']}"
    tolerance = ""
    if any(row["rule"] in ("mean", "shared_noise") for row in rows):
        tolerance = f"tolerance of mean and shared_noise {config['tolerance']} sigma; "
    naive = ", ".join(
        f"{scores['mse']:.4f} at {horizon}" for horizon, scores in results["seasonal_naive"].items()
    )
    timed = results.get("timed", f"median of {config['repeats']} draws")
    lines = [
        f"{first['data']}, context {first['context']}, {config['data']['variables']} variables, "
        f"{every} of the test split, standardised units; sigma {results['sigma']:.3f}; {tolerance}"
        + (f"repeating the last {config['season']} steps has MSE {naive}. " if naive else "")
        + _missing(results)
        + f"Milliseconds for a batch of {first['batch']}, {timed}, on "
        f"{machine(results)}. Speedup is over the target alone under the same process, and over "
        "the fastest of the target's autoregressive rows. From target: mean squared distance from "
        "the target's own forecast (of the same noise). 2 Phi(-delta/2): what the closed form "
        "expects to be accepted, averaged over the tested proposals. Predicted patches a round and "
        "the paper's formula for the speedup take the measured acceptance and draft cost, the "
        "horizon's number of patches, and a verification as dear as one target pass."
    ]
    headings = {
        "point": "Point forecasts (mean paths)",
        "sampled": f"Sample paths ({config['num_paths']} a window; MSE and MAE are those of a "
        "single path, noise included; one path was timed)",
    }
    for kind, heading in headings.items():
        chosen = [row for row in rows if row["kind"] == kind]
        if not chosen:
            continue
        used = [c for c in COLUMNS if any(COLUMNS[c](row) for row in chosen)]
        lines += ["", f"**{heading}**", "", *_markdown(used, chosen)]
    return "\n".join(lines) + "\n"


def _shown(row: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The row with predictions, without numbers that mean nothing for its rule."""
    shown = {**row, **_predictions(row, rows)}
    if draws_own_noise(row["rule"]):
        shown["distance"] = None
    if row["rule"] != "maximal":
        shown["expected_acceptance"] = None
    return shown


def _predictions(row: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, float | None]:
    """What the paper's formulas expect from the acceptance and the cost of a draft step."""
    nothing: dict[str, float | None] = {"predicted_patches": None, "predicted_speedup": None}
    if row["method"] != "speculative":
        return nothing
    alike = [
        other
        for other in rows
        if (other["kind"], other["horizon"], other["process"])
        == (row["kind"], row["horizon"], row["process"])
    ]
    target = next(other for other in alike if other["method"] == "autoregressive")
    count = target["target_passes"]  # N, a pass a patch
    patches = count / theory.rounds(row["acceptance"], row["num_draft"], int(count))
    drafts = [o for o in alike if o["method"] == "draft" and o["draft"] == row["draft"]]
    if not drafts:
        return {**nothing, "predicted_patches": patches}
    cost = drafts[0]["seconds"] / target["seconds"]
    return {
        "predicted_patches": patches,
        "predicted_speedup": theory.round_speedup(patches, row["num_draft"], cost),
    }


def _markdown(columns: list[str], rows: list[dict[str, Any]]) -> list[str]:
    return aligned([columns, *([COLUMNS[c](row) for c in columns] for row in rows)])


def plain_table(content: dict[str, Any]) -> str:
    """Any other result file: its rows, one column a field, and where they were measured."""
    rows, versions = content["rows"], content["versions"]
    names = list(rows[0])

    def show(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(show(row[n]) for n in names) + " |" for row in rows]
    lines += ["", f"On {machine(content)}; Python {versions['python']}."]
    return "\n".join(lines) + "\n"


def latency_table(results: dict[str, Any]) -> str:
    """One line a situation: the autoregressive decode, and the speedup of each K over it."""
    config, rows = results["config"], results["rows"]
    names = ("layers", "num_vars", "batch", "patches", "process")
    keys = list(dict.fromkeys(tuple(row[name] for name in names) for row in rows))
    forced = [f"K = {k}" for k in config["num_drafts"]]
    lines = [
        f"Width {config['d_model']}, draft {config['draft_factor']} x, patches of "
        f"{config['patch_len']} steps, context {config['context_patches']} patches, new weights; "
        f"median of {config['repeats']}, on {machine(results)}. Columns K: speedup over the "
        "autoregressive decode of the same process when every proposal is accepted; best: the "
        "largest of them over the faster process's autoregressive decode, and over the window "
        "process's; measured: speedup and acceptance under `maximal` with K = "
        f"{config['measured_num_draft']} and sigma {config['sigma']}, weights untrained; over "
        "calls: decode time over that of the same model calls made one by one.",
        "",
    ]
    header = [*names, "autoregressive ms", *forced, "best", "over window", "measured", "over calls"]
    cells = [header]
    for key in keys:
        here = [row for row in rows if tuple(row[name] for name in names) == key]
        cells.append([*map(str, key), *_latency_cells(here, config["num_drafts"])])
    return "\n".join(lines + aligned(cells)) + "\n"


def _latency_cells(rows: list[dict[str, Any]], lengths: list[int]) -> list[str]:
    """The cells of one situation after its name."""
    if rows[0]["seconds"] is None:
        return ["not run (too long)", *[""] * (len(lengths) + 4)]
    forced = {row["num_draft"]: row for row in rows if row["acceptance"] == "forced"}
    speeds = [f"{forced[k]['speedup']:.2f}" if k in forced else "" for k in lengths]
    best, window, calls, seen = "", "", "", ""
    if forced:
        chosen = max(forced.values(), key=lambda row: float(row["speedup"]))
        best = f"{chosen['over_fastest']:.2f}"
        window = "" if chosen["over_window"] is None else f"{chosen['over_window']:.2f}"
        known = [row["over_calls"] for row in forced.values() if row["over_calls"] is not None]
        calls = f"{max(known):.2f}" if known else ""
    for row in rows:
        if row["acceptance"] == "measured":
            seen = f"{row['speedup']:.2f} at {row['accepted']:.0%}"
    return [f"{1000 * rows[0]['seconds']:.2f}", *speeds, best, window, seen, calls]


SPEED_COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "batch": cell("batch", "d"),
    "who": lambda row: _who(row),
    "draft": lambda row: _draft(row),
    "target passes": cell("target_passes", ".2f"),
    "patches/round": cell("patches_per_round", ".2f"),
    "acceptance": cell("acceptance", ".1%"),
    "by place, %": lambda row: _places(row),
    "milliseconds": lambda row: format(1000 * row["seconds"], ".2f"),
    "a series": lambda row: format(1000 * row["seconds"] / row["batch"], ".2f"),
    "speedup": cell("speedup", ".2f"),
    "over fastest": cell("speedup_over_fastest", ".2f"),
    "MiB": lambda row: format(row["memory_bytes"] / 2**20, ".1f"),
}


def _places(row: dict[str, Any]) -> str:
    rates = row["acceptance_by_place"] or []
    return " ".join("-" if rate is None else format(100 * rate, ".0f") for rate in rates)


def speed_table(results: dict[str, Any]) -> str:
    """Time, acceptance by place and memory at every batch size, mean paths and sample paths."""
    config, rows = results["config"], results["rows"]
    base = config["base"]
    lines = [
        f"{base['data']['source']}, context {base['data']['context_len']}, "
        f"{base['data']['variables']} variables, horizon {rows[0]['horizon']}, one path a series, "
        f"sigma {results['sigma']:.3f}; tolerance of mean and shared_noise {base['tolerance']} "
        f"sigma. Median of {config['repeats']} repeats, each on other test windows, on "
        f"{machine(results)}. Speedup is over the target alone under the same process, and over "
        "the faster of its processes that are listed, at the same batch. By place: acceptance of "
        "the first, second, ... proposal of a round, where the ones before it were accepted. MiB: "
        "inputs, parameters, results and scratch of the compiled decode.",
    ]
    for kind, heading in {"point": "Mean paths", "sampled": "Sample paths"}.items():
        chosen = [row for row in rows if row["kind"] == kind]
        used = [c for c in SPEED_COLUMNS if any(SPEED_COLUMNS[c](row) for row in chosen)]
        cells = [used, *([SPEED_COLUMNS[c](row) for c in used] for row in chosen)]
        lines += ["", f"**{heading}**", "", *aligned(cells)]
    return "\n".join(lines) + "\n"


def make_table(content: dict[str, Any]) -> str:
    """The table of any result file."""
    kinds = {
        "evaluation": table,
        "latency": latency_table,
        "sweep": sweep_table,
        "speed": speed_table,
    }
    return kinds.get(content.get("table", ""), plain_table)(content)
