"""The table of a sweep: the settings that no other one beats, and how well theory expects them."""

from __future__ import annotations

from typing import Any

import numpy as np

from stride_jax.decoding.rules import RULES
from stride_jax.evaluation.markdown import aligned, cell, machine

PREDICTIONS = {
    "paper": "predicted_paper",
    "independent": "predicted_independent",
    "Markov": "predicted_markov",
}
"""Names of the predictions in a table, and their fields."""


COLUMNS = {
    "rule": cell("rule", ""),
    "K": cell("num_draft", "d"),
    "sigma": cell("sigma", ".3g"),
    "bias": cell("bias", "g"),
    "MSE tolerance": cell("mse_tolerance", "g"),
    "tolerance": cell("tolerance", "g"),
    "MSE": cell("mse", ".4f"),
    "CRPS": cell("crps", ".4f"),
    "error": cell("relative_error", "+.2%"),
    "distance": cell("distance_over_drafts", ".3f"),
    "acceptance": cell("acceptance", ".1%"),
    "target passes": cell("target_passes", ".2f"),
    "milliseconds": lambda row: format(1000 * row["seconds"], ".2f"),
    "speedup": cell("speedup", ".2f"),
    **{name: cell(field, ".2f") for name, field in PREDICTIONS.items()},
}


def draws_own_noise(rule: str | None) -> bool:
    """Whether paths of a rule have other noise than the target's path of the same key."""
    return rule in RULES and RULES[rule].proposes == "sample"


def front(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that no other row beats in both error and speedup, fastest last."""
    best, kept = np.inf, []
    for row in sorted(rows, key=lambda r: (-r["speedup"], r["relative_error"])):
        if row["relative_error"] < best:
            best = row["relative_error"]
            kept.append(row)
    return kept[::-1]


def misses(rows: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Median and largest relative miss of each prediction of the speedup."""
    found = {}
    for name, field in PREDICTIONS.items():
        off = [abs(row[field] / row["speedup"] - 1) for row in rows]
        found[name] = (float(np.median(off)), float(max(off)))
    return found


def chance(rows: list[dict[str, Any]]) -> float | None:
    """RMS of the measured relative CRPS of exact rules, whose true one is 0; None without any."""
    alone = [row for row in rows if (row["method"], row["kind"]) == ("autoregressive", "sampled")]
    own = {row["sigma"]: row["crps"] for row in alone}
    exact = [row for row in rows if row["rule"] in RULES and RULES[row["rule"]].exact]
    off = [row["crps"] / own[row["sigma"]] - 1 for row in exact]
    return float(np.sqrt(np.mean(np.square(off)))) if off else None


def sweep_table(results: dict[str, Any]) -> str:
    """The Pareto front of each rule (all rows of a small sweep), and the misses of theory."""
    rows = [row for row in results["rows"] if row["method"] == "speculative"]
    config = results["config"]["base"]
    small = len(rows) <= 40
    shown: list[dict[str, Any]] = []
    for row in results["rows"]:
        name = f"({row['method']}, {row['kind']})"  # the first sigma of each
        if row["method"] != "speculative" and name not in [other["rule"] for other in shown]:
            shown.append({**row, "rule": name})
    for rule in dict.fromkeys(row["rule"] for row in rows):
        own = [row for row in rows if row["rule"] == rule]
        shown += own if small else front(own)
    shown = [
        {**row, "distance_over_drafts": None} if draws_own_noise(row["rule"]) else row
        for row in shown
    ]
    used = [name for name, show in COLUMNS.items() if any(show(row) for row in shown)]
    off = [
        f"{name} {middle:.1%} (at most {most:.1%})" for name, (middle, most) in misses(rows).items()
    ]
    what = "all of them" if small else "those that no other setting of the rule beats in both"
    first, spread = rows[0], chance(results["rows"])
    noise = "" if spread is None else f", {spread:.1%} RMS here"
    lines = [
        f"{config['data']['source']}, context {config['data']['context_len']}, "
        f"{config['data']['variables']} variables, horizon {first['horizon']}, {first['windows']} "
        f"windows (one in {config['stride']}), {len(rows)} settings: {what}. Batch "
        f"{first['batch']}, mean of the batches, on {machine(results)}. Error: MSE of mean paths, "
        "CRPS of sample paths, over the target's own with the same sigma (0 for exact rules, "
        f"where what is measured is chance{noise}); distance: mean squared distance from the "
        "target's own forecast over the draft's; speedup over the autoregressive decode of the "
        "same process.",
        "",
        f"Predicted speedups miss the measured ones by, in the median: {', '.join(off)}.",
        "",
        *aligned([used, *([COLUMNS[name](row) for name in used] for row in shown)]),
    ]
    return "\n".join(lines) + "\n"
