"""Tables of proofs: exactness, distances of distributions, suites of series, any other file."""

from __future__ import annotations

from stride_jax.evaluation.results import Content, Row, machine
from stride_jax.evaluation.suites import summary
from stride_jax.evaluation.tables.cells import Columns, Show, markdown, number, text


def exactness_table(content: Content) -> list[str]:
    """Acceptance, distance of the means, and the p-values of the tests of each rule."""

    def p_value(name: str) -> Show:
        return lambda row: f"{row[name]:.2g}"

    columns: Columns = {
        "rule": text("rule"),
        "exact": text("exact"),
        "process": text("process"),
        "variables": text("variables"),
        "acceptance": number("acceptance", ".1%"),
        "delta": lambda row: " / ".join(f"{row[f'delta_{q}']:.2f}" for q in (5, 50, 95)),
        "p": p_value("p"),
        "direction": p_value("p_direction"),
        "projections": p_value("p_projections"),
        "covariance": p_value("p_covariance"),
        "KS": lambda row: f"{row['ks_direction']:.3f} / {row['ks_projections']:.3f}",
    }
    rows = content["rows"]
    right = sum(row["as_expected"] for row in rows)
    caption = (
        f"{content['num_series']} sample paths for each row, on {machine(content)}; {right} of "
        f"{len(rows)} rows are as expected."
    )
    return [caption, markdown(columns, rows)]


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


def plain_table(content: Content) -> list[str]:
    """The rows of any other result file, one column per field, and where they were measured."""
    columns: Columns = {name.replace("_", " "): text(name) for name in content["rows"][0]}
    caption = f"On {machine(content)}; Python {content['versions']['python']}."
    return [caption, markdown(columns, content["rows"])]
