"""Result files in and out: JSON, CSV, Markdown tables, the picture.

`python -m stride_jax.report README.md docs/results/*.md` rewrites the tables between the marks
`<!-- table: PATH.json -->` and `<!-- end -->` from the result files; `--check` only compares.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax import benchmark, theory
from stride_jax.checkpoints import Checkpoint
from stride_jax.config import EvaluateConfig
from stride_jax.coupling import RULES
from stride_jax.data.splits import ForecastData
from stride_jax.errors import InputError, nearest
from stride_jax.plots import Picture, save_forecast

MARK = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def _number(name: str, form: str) -> Callable[[dict[str, Any]], str]:
    return lambda row: "" if row[name] is None else format(row[name], form)


COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "horizon": _number("horizon", "d"),
    "who": lambda row: _who(row),
    "draft": lambda row: _draft(row),
    "guarantee": lambda row: _guarantee(row),
    "MSE": _number("mse", ".4f"),
    "MAE": _number("mae", ".4f"),
    "CRPS": _number("crps", ".4f"),
    "from target": _number("distance", ".4f"),
    "acceptance": _number("acceptance", ".1%"),
    "2 Phi(-delta/2)": _number("expected_acceptance", ".1%"),
    "patches/round": _number("patches_per_round", ".2f"),
    "predicted": _number("predicted_patches", ".2f"),
    "target passes": _number("target_passes", ".2f"),
    "milliseconds": lambda row: format(1000 * row["seconds"], ".2f"),
    "speedup": _number("speedup", ".2f"),
    "over fastest": _number("speedup_over_fastest", ".2f"),
    "paper's formula": _number("predicted_speedup", ".2f"),
}
NOT_COUPLED = ("maximal", "block", "residual", "resample", "as_released")
"""Rules whose path has other noise than the target's path of the same key."""


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


def table(results: dict[str, Any]) -> str:
    """The Markdown tables of an evaluation: point rows and sampled rows apart, with a heading."""
    config = results["config"]
    rows = [_shown(row, results["rows"]) for row in results["rows"]]
    first = rows[0]
    every = "every window" if config["stride"] == 1 else f"one window in {config['stride']}"
    naive = ", ".join(
        f"{scores['mse']:.4f} at {horizon}" for horizon, scores in results["seasonal_naive"].items()
    )
    lines = [
        f"{first['data']}, context {first['context']}, {config['data']['variables']} variables, "
        f"{every} of the test split, standardised units; sigma {results['sigma']:.3f}; tolerance "
        f"of mean and shared_noise {config['tolerance']} sigma. MSE of repeating the last "
        f"{config['season']} steps: {naive}. "
        f"Milliseconds for a batch of {first['batch']}, median of {config['repeats']} draws, on "
        f"{_machine(results)}. Speedup is over the target alone under the same process, and over "
        "the fastest of the target's autoregressive rows. From target: mean squared distance from "
        "the target's own forecast (of the same noise). 2 Phi(-delta/2): what the closed form "
        "expects to be accepted, averaged over the tested proposals. Predicted patches a round and "
        "the paper's formula for the speedup take the measured acceptance and draft cost, the "
        "horizon's number of patches, and a verification as dear as one target pass."
    ]
    headings = {
        "point": "Point forecasts (mean paths)",
        "sampled": f"Sample paths ({config['num_paths']} a window; MSE and MAE are those of a "
        "single path, noise included)",
    }
    for kind, heading in headings.items():
        chosen = [row for row in rows if row["kind"] == kind]
        used = [c for c in COLUMNS if any(COLUMNS[c](row) for row in chosen)]
        lines += ["", f"**{heading}**", "", *_markdown(used, chosen)]
    return "\n".join(lines) + "\n"


def _shown(row: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The row with predictions, without numbers that mean nothing for its rule."""
    shown = {**row, **_predictions(row, rows)}
    if row["rule"] in NOT_COUPLED:
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
    cells = [columns, *([COLUMNS[c](row) for c in columns] for row in rows)]
    width = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    text = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, width, strict=True)) + " |"
        for line in cells
    ]
    rule = "|" + "|".join("-" * (w + 2) for w in width) + "|"
    return [text[0], rule, *text[1:]]


def plain_table(content: dict[str, Any]) -> str:
    """Any other result file: its rows, one column a field, and where they were measured."""
    rows, versions = content["rows"], content["versions"]
    names = list(rows[0])

    def show(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(show(row[n]) for n in names) + " |" for row in rows]
    lines += ["", f"On {_machine(content)}; Python {versions['python']}."]
    return "\n".join(lines) + "\n"


def _machine(content: dict[str, Any]) -> str:
    hardware = content["hardware"]
    return (
        f"{hardware['cpu']} ({hardware['cores']} cores, {hardware['platform']}), "
        f"jax {content['versions']['jax']}"
    )


def write_results(out: Path, results: dict[str, Any]) -> None:
    """Writes `results.json` and `results.csv` into the directory."""
    make_directory(out)
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    with (out / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(results["rows"][0]))
        writer.writeheader()
        writer.writerows(results["rows"])


def plotted(config: EvaluateConfig, data: ForecastData) -> str:
    """The variable in the picture.

    Raises:
        InputError: it is not in the data.
    """
    name = config.plot_variable or data.names[0]
    if name not in data.names:
        raise InputError(f"no variable {name!r} to plot. {nearest(name, list(data.names))}")
    return name


def make_directory(path: Path) -> None:
    """Makes a directory for results.

    Raises:
        InputError: a file is in the way, or it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write results to {path}: {error}") from error


def save_picture(
    out: Path, config: EvaluateConfig, data: ForecastData, target: Checkpoint, sigma: float
) -> Path:
    """Decodes the middle test window and draws one variable to `forecast.png`.

    Raises:
        InputError: `config.plot_variable` is not in the data.
    """
    name = plotted(config, data)
    pairs = benchmark.make_pairs(config, target, len(data.names))
    kind = benchmark.process_kind(config, target)
    variable = data.names.index(name)
    horizon = max(config.horizons)
    windows = benchmark.test_windows(config, data, horizon)
    values = jnp.asarray(data.values)
    skipped = variable if windows.separate else 0  # windows are laid out variable-major
    middle = jnp.asarray([windows.num_starts * skipped + windows.num_starts // 2])
    series = windows.gather(values, middle)
    context, key = series[:, :-horizon], jax.random.key(config.seed)
    methods = benchmark.methods(pairs, None, kind, config, horizon, sigma)
    speculating = [m for m in methods if m.name == "speculative"]
    spoken = next((m for m in speculating if m.sampled), speculating[0])
    draft = next((m for m in methods if m.name == "draft" and not m.sampled), None)
    target_path, _ = methods[0].decode(key, context, middle, None, False)
    draft_path = None if draft is None else draft.decode(key, context, middle, None, False)[0]
    path, info = spoken.decode(key, context, middle, None, False)

    def units(x: jax.Array) -> np.ndarray:
        shown = np.asarray(x)[0, ..., 0 if windows.separate else variable]
        return shown * data.std[variable] + data.mean[variable]

    picture = Picture(
        context=units(context)[-2 * horizon :],
        truth=units(series[:, -horizon:]),
        target=units(target_path),
        draft=None if draft_path is None else units(draft_path),
        speculative=units(path),
        proposal=units(info.proposal),
        kind=np.asarray(info.kind)[0],
        patch_len=target.model.patch_len,
        title=f"{config.data.source}, test window {windows.num_starts // 2}, horizon {horizon}; "
        f"rule {spoken.rule}, K = {config.num_draft}, sigma = {sigma:.3f} (standardised)",
        unit=name,
    )
    save_forecast(out / "forecast.png", picture)
    return out / "forecast.png"


def render(markdown: Path) -> str:
    """The text of a Markdown file with every marked table made anew.

    Raises:
        InputError: a result file that a mark names is missing.
    """

    def replace(match: re.Match[str]) -> str:
        source = markdown.parent / match[2]
        if not source.is_file():
            raise InputError(f"{markdown} names {match[2]}, which does not exist.")
        content = json.loads(source.read_text())
        made = table(content) if "config" in content else plain_table(content)
        return f"{match[1]}{made}{match[3]}"

    return MARK.sub(replace, markdown.read_text())


def main(argv: list[str] | None = None) -> int:
    """The command `python -m stride_jax.report`; with `--check` 1 if a table is stale."""
    parser = argparse.ArgumentParser(prog="python -m stride_jax.report")
    parser.add_argument("files", type=Path, nargs="+", help="Markdown files with marked tables")
    parser.add_argument("--check", action="store_true", help="write nothing, fail when stale")
    args = parser.parse_args(argv)
    stale = [path for path in args.files if render(path) != path.read_text()]
    for path in stale:
        print(f"{path}: {'stale' if args.check else 'updated'}")
        if not args.check:
            path.write_text(render(path))
    return 1 if args.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
