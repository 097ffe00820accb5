"""Tables of proofs: exactness, distances of distributions, any other file."""

from __future__ import annotations

from stride_jax.evaluation.results import Content, machine
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


def plain_table(content: Content) -> list[str]:
    """The rows of any other result file, one column per field, and where they were measured."""
    columns: Columns = {name.replace("_", " "): text(name) for name in content["rows"][0]}
    caption = f"On {machine(content)}; Python {content['versions']['python']}."
    return [caption, markdown(columns, content["rows"])]
