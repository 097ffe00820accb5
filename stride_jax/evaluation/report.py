"""Result files in and out: JSON, CSV, tables in Markdown files, the picture.

`python -m stride_jax.evaluation.report README.md docs/results` rewrites the tables between marks
`<!-- table: PATH.json -->` and `<!-- end -->` from the result files, and draws the pictures of the
sweeps they name; `--check` only compares the tables. A directory stands for its Markdown files.
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

from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.config import to_dict
from stride_jax.data.splits import ForecastData
from stride_jax.decoding import info as trace
from stride_jax.errors import InputError, nearest
from stride_jax.evaluation import benchmark, tune
from stride_jax.evaluation.config import EvaluateConfig
from stride_jax.evaluation.figures import Picture, save_forecast, save_trace
from stride_jax.evaluation.methods import make_methods, make_pairs, process_kind
from stride_jax.evaluation.sweep_figures import save_heat, save_pareto
from stride_jax.evaluation.tables import make_table, plain_table

MARK = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def write_results(out: Path, results: dict[str, Any]) -> None:
    """Writes `results.json` and `results.csv` into the directory."""
    make_directory(out)
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    with (out / "results.csv").open("w", newline="") as file:
        names = dict.fromkeys(name for row in results["rows"] for name in row)
        writer = csv.DictWriter(file, list(names))
        writer.writeheader()
        writer.writerows(results["rows"])


def write_rows(path: Path, rows: list[dict[str, Any]], **more: Any) -> None:
    """Writes rows to a JSON file, with the hardware and versions they were measured on."""
    make_directory(path.parent)
    content = {"rows": rows, **more, **benchmark.environment()}
    path.write_text(json.dumps(content, indent=1) + "\n")


def calibrated(
    config: EvaluateConfig,
    data: ForecastData,
    target: Checkpoint,
    progress: Callable[[str], object],
) -> EvaluateConfig:
    """Picks the setting within `config.budget`; writes `calibration.json`, says what it found."""
    assert config.budget is not None
    sampled = config.budget_for == "sampled"
    found = tune.calibrate(
        config, data, target, sampled=sampled, budget=config.budget, progress=progress
    )
    content = {**found, **benchmark.environment(), "settings": to_dict(config)}
    make_directory(Path(config.out))
    (Path(config.out) / "calibration.json").write_text(json.dumps(content, indent=1) + "\n")
    chosen = found["chosen"]
    progress(plain_table({**content, "rows": sorted(found["rows"], key=lambda r: r["seconds"])}))
    if found["pays"]:
        progress(f"chosen: {chosen}")
    else:
        progress(f"speculation does not pay here within {config.budget}: K = 0, {chosen}")
    return tune.apply(config, chosen)


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
) -> Path | None:
    """Decodes the middle test window and draws one variable to `forecast.png`; its path.

    Beside it, what the rule saw: `trace.csv` and `trace.png`.

    None where no rule speculates.

    Raises:
        InputError: `config.plot_variable` is not in the data.
    """
    name = plotted(config, data)
    pairs = make_pairs(config, target, len(data.names))
    kind = process_kind(config, target)
    variable = data.names.index(name)
    horizon = max(config.horizons)
    windows = benchmark.test_windows(config, data, horizon)
    skipped = variable if windows.separate else 0  # windows are laid out variable-major
    middle = jnp.asarray([windows.num_starts * skipped + windows.num_starts // 2])
    series = windows.gather(data.on_device, middle)
    context, key = series[:, :-horizon], jax.random.key(config.seed)
    methods = make_methods(pairs, None, kind, config, horizon, sigma)
    speculating = [m for m in methods if m.name == "speculative"]
    if not speculating:
        return None
    spoken = next((m for m in speculating if m.sampled), speculating[0])
    draft = next(m for m in methods if m.name == "draft" and m.draft == spoken.draft)
    target_path, _ = methods[0].decode(key, context, middle, None, False)
    draft_path, _ = draft.decode(key, context, middle, None, False)
    path, info = spoken.decode(key, context, middle, None, True)
    one = jax.tree.map(lambda x: np.asarray(x)[0], info.trace)
    trace.save_csv(out / "trace.csv", one)
    save_trace(out / "trace.png", trace.rows(one), f"rule {spoken.rule}, one window")

    def units(x: jax.Array) -> np.ndarray:
        shown = np.asarray(x)[0, ..., 0 if windows.separate else variable]
        return shown * data.std[variable] + data.mean[variable]

    picture = Picture(
        context=units(context)[-2 * horizon :],
        truth=units(series[:, -horizon:]),
        target=units(target_path),
        draft=units(draft_path),
        speculative=units(path),
        proposal=units(info.proposal),
        kind=np.asarray(info.origin)[0],
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
        return f"{match[1]}{make_table(content)}{match[3]}"

    return MARK.sub(replace, markdown.read_text())


def pictures(markdown: Path) -> list[Path]:
    """Draws `pareto.png` and `heat.png` beside every sweep that a Markdown file names.

    `heat.png` only where two settings vary together.

    Returns:
        Their directories.
    """
    drawn = []
    for _, name, _ in MARK.findall(markdown.read_text()):
        source = markdown.parent / name
        content = json.loads(source.read_text())
        if content.get("table") == "sweep":
            save_pareto(source.parent / "pareto.png", content)
            save_heat(source.parent / "heat.png", content)
            drawn.append(source.parent)
    return drawn


def main(argv: list[str] | None = None) -> int:
    """The command that rewrites tables; with `--check` 1 if one is stale."""
    parser = argparse.ArgumentParser(prog="python -m stride_jax.evaluation.report")
    parser.add_argument("files", type=Path, nargs="+", help="Markdown files, or directories")
    parser.add_argument("--check", action="store_true", help="write nothing, fail when stale")
    args = parser.parse_args(argv)
    nested = [sorted(p.rglob("*.md")) if p.is_dir() else [p] for p in args.files]
    files = [path for group in nested for path in group]
    stale = [path for path in files if render(path) != path.read_text()]
    for path in stale:
        print(f"{path}: {'stale' if args.check else 'updated'}")
        if not args.check:
            path.write_text(render(path))
    if not args.check:
        for path in files:
            for directory in pictures(path):
                print(f"{directory}: pictures drawn")
    return 1 if args.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
