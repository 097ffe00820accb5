"""Tables of a trained pair: a first look, errors and speeds, batch sizes."""

from __future__ import annotations

from collections.abc import Sequence

from stride_jax.evaluation import theory
from stride_jax.evaluation.results import Content, Row, machine
from stride_jax.evaluation.tables.cells import (
    MILLISECONDS,
    OUTPUTS,
    Columns,
    decoder_name,
    draft_name,
    is_exact,
    markdown,
    number,
    rule_text,
    samples_anew,
    series_text,
    several,
    text,
)

BRIEF_RULES = (None, "mean", "block")
"""Rules of the rows of a brief table: one for mean paths and one for sample paths."""


def brief_table(content: Content) -> list[str]:
    """The quick table for a first screen: fewer rules, and no times."""
    rows = [row for row in content["rows"] if row["rule"] in BRIEF_RULES]
    return quick_table({**content, "rows": rows}, times=False)


def quick_table(content: Content, *, times: bool = True) -> list[str]:
    """One table of five columns, and one more each for several horizons and several drafts.

    Of an evaluation it has the rows of its pairs' process.
    """
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
        return f"{row[score] / target[score] - 1:+z.1%}"

    columns = {
        **several("horizon", text("horizon"), rows),
        "decoder": name,
        **several("draft", draft_name, rows),
        "error over target's": error,
        "target passes": number("target_passes", ".1f"),
        **({"ms": number("seconds", ".1f", 1000)} if times else {}),
        "speed": lambda row: f"{row['speedup']:.1f}x",
    }
    windows = rows[0].get("windows", config.get("windows"))
    caption = (
        f"{series_text(content)}, K = {config['num_draft']};\n"
        f"{windows} test windows, timed one at a time on {machine(content)}."
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
        f"{series_text(content)}, {every} of the test split; sigma {content['sigma']:.3f}"
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
            **several("horizon", text("horizon"), shown),
            "decoder": decoder_name,
            **several("draft", draft_name, shown),
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
        f"{series_text(content)}, one path per series; sigma {content['sigma']:.3f}.\n"
        f"Median of {config['repeats']} repeats, each on other test windows, on {machine(content)}."
    )
    parts = [caption]
    for output, heading in OUTPUTS.items():
        shown = [row for row in rows if row["output"] == output]
        columns = {
            **several("horizon", text("horizon"), shown),
            "batch": text("batch"),
            "decoder": decoder_name,
            **several("draft", draft_name, shown),
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
