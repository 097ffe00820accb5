"""Result files, their Markdown tables, and the bounds of configs."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.tools import load_tool

from stride_jax.config import check_fields
from stride_jax.errors import InputError
from stride_jax.evaluation.config import (
    EvaluateConfig,
    LatencyConfig,
    QuickConfig,
    Setup,
    SpeedConfig,
    SweepConfig,
    TuneConfig,
)
from stride_jax.evaluation.figures import save_pictures
from stride_jax.evaluation.results import (
    environment,
    machine,
    make_directory,
    read_results,
    write_results,
)
from stride_jax.evaluation.tables import make_table
from stride_jax.evaluation.tables.cells import markdown, number, text
from stride_jax.evaluation.tables.grids import ROWS
from stride_jax.evaluation.theory import PREDICTIONS, front, misses

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"


def renderer():
    """`tools/render_tables.py`."""
    return load_tool("render_tables")


def cells_of(table: str) -> list[dict[str, str]]:
    """The rows of all tables in a text."""
    rows, header = [], []
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            header = []
        elif not header:
            header = cells
        elif not set(line) <= set("|:-"):
            rows.append(dict(zip(header, cells, strict=True)))
    return rows


# --- the docs ------------------------------------------------------------------------------------


def test_no_committed_table_is_stale():
    """Guards against numbers in the docs that no result file holds."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    render = renderer().render
    stale = [page.name for page in pages if render(page) != page.read_text()]
    assert not stale, "run: python tools/render_tables.py README.md docs"


def test_every_committed_file_has_a_short_caption():
    """Guards against a result file that no table shows, and a caption longer than its table."""
    files = sorted(RESULTS.rglob("*.json"))
    assert len(files) > 30
    for path in files:
        content = read_results(path)
        caption = make_table(content).split("\n\n")[0]
        assert caption.count("\n") <= 1, path
        assert max(map(len, caption.splitlines())) <= 200, path
        assert cells_of(make_table(content)), path


def test_a_page_is_rendered_and_checked(tmp_path, capsys):
    """Guards against a check that passes stale tables, or a text that is changed around them."""
    write_results(tmp_path, {"rows": [{"name": "x", "seconds": 0.12345}], **environment()})
    page = tmp_path / "page.md"
    page.write_text("# A\n<!-- table: results.json -->\nold\n<!-- end -->\nafter\n")
    main = renderer().main
    for check, status in ((True, 1), (False, 0), (True, 0)):
        with pytest.raises(SystemExit) as stop:
            main([tmp_path], check)
        assert stop.value.code == status
    shown = page.read_text()
    assert shown.startswith("# A\n")
    assert shown.endswith("<!-- end -->\nafter\n")
    assert "old" not in shown
    assert cells_of(shown) == [{"name": "x", "seconds": "0.123"}]
    page.write_text("<!-- table: gone.json -->\n<!-- end -->\n")
    with pytest.raises(InputError, match=r"gone\.json"):
        renderer().render(page)


# --- files ---------------------------------------------------------------------------------------


def test_json_and_csv_hold_the_same_rows(tmp_path):
    """Guards against a CSV that loses rows, columns or the places of an acceptance."""
    rows = [{"a": 1, "b": None, "places": [0.5, None]}, {"a": 2, "c": "x", "places": None}]
    write_results(tmp_path / "new", {"rows": rows})
    assert read_results(tmp_path / "new" / "results.json") == {"rows": rows}
    frame = pd.read_csv(tmp_path / "new" / "results.csv")
    assert list(frame.columns) == ["a", "b", "places", "c"]
    assert frame["places"].tolist()[0] == "0.5 None"
    assert frame["a"].tolist() == [1, 2]


def test_a_directory_that_cannot_be_made_is_refused(tmp_path):
    """Guards against hours of work whose results cannot be written."""
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write results"):
        make_directory(tmp_path / "file")


# --- tables --------------------------------------------------------------------------------------


def test_cells_are_those_of_the_rows():
    """Guards against a cell in another column, and columns that nothing fills."""
    columns = {"name": text("name"), "value": number("value", ".2f"), "none": text("none")}
    rows = [{"name": "a b", "value": 1.234}, {"name": "c", "value": None}]
    expected = [{"name": "a b", "value": "1.23"}, {"name": "c", "value": ""}]
    assert cells_of(markdown(columns, rows)) == expected


@pytest.mark.parametrize("name", ["beijing", "etth1_672", "etth1_1536"])
def test_an_evaluation_shows_its_rows(name):
    """Guards against a table that leaves out a decoder, or rounds another number."""
    content = read_results(RESULTS / name / "results.json")
    shown = cells_of(make_table(content))
    rows = sorted(content["rows"], key=lambda row: row["output"])
    assert len(shown) == 2 * len(rows)  # errors and speeds
    assert [c["MSE"] for c in shown if "MSE" in c] == [f"{r['mse']:.4f}" for r in rows]
    expected = [f"{1000 * r['seconds']:.2f}" for r in rows]
    assert [c["ms"] for c in shown if "ms" in c] == expected
    exact = [c["exact"] for c in shown if "exact" in c]
    rules = ("maximal", "block", "residual")
    assert exact == ["yes" if r["method"] == "target" or r["rule"] in rules else "no" for r in rows]
    assert machine(content) in make_table(content)


def test_distances_are_shown_where_the_noise_is_shared():
    """Guards against two draws of one distribution shown as if one had strayed."""
    content = read_results(RESULTS / "beijing" / "results.json")
    shown = [c for c in cells_of(make_table(content)) if "MSE" in c]
    for row, cells in zip(content["rows"], shown, strict=True):
        other_noise = row["rule"] in ("maximal", "block")
        empty = other_noise or row["method"] == "target"
        assert (cells["from target"] == "") == empty


def test_a_first_look_fits_a_terminal():
    """Guards against a first table that wraps, or has more columns than a newcomer reads."""
    content = read_results(RESULTS / "beijing" / "results.json")
    table = make_table({**content, "table": "quick"})
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {6}
    assert max(map(len, lines)) <= 110
    cells = cells_of(table)
    means = [row for row in content["rows"] if row["output"] == "mean"]
    fastest = min(row["seconds"] for row in means if row["method"] == "target")
    drafts = [row["seconds"] for row in means if row["method"] == "draft"]
    speeds = [1.0, *(fastest / seconds for seconds in drafts)]
    assert [c["speed"] for c in cells[: len(speeds)]] == [f"{speed:.1f}x" for speed in speeds]
    assert {c["error over target's"] for c in cells if "block" in c["decoder"]} == {"none (exact)"}


def test_the_brief_table_has_rows_of_the_quick_one():
    """Guards against a first screen of more than four columns, or a speed over another row's."""
    content = read_results(RESULTS / "beijing" / "results.json")
    quick, brief = (cells_of(make_table({**content, "table": t})) for t in ("quick", "brief"))
    without_times = [{k: v for k, v in cells.items() if k != "ms"} for cells in quick]
    assert len(brief) == 5
    assert all(len(cells) == 4 and cells in without_times for cells in brief)
    assert {"none (exact)", "-"} <= {cells["error over target's"] for cells in brief}


@pytest.mark.parametrize("name", ["sweep", "sweep_tolerance"])
def test_a_sweep_shows_the_best_of_each_rule(name, tmp_path):
    """Guards against a front that hides the best setting, and pictures that are not drawn."""
    content = read_results(RESULTS / name / "results.json")
    tried = [row for row in content["rows"] if row["method"] == "speculative"]
    table = make_table(content)
    shown = [cells for cells in cells_of(table) if cells["K"]]
    small = len(tried) <= ROWS
    for rule in {row["rule"] for row in tried}:
        rows = [row for row in tried if row["rule"] == rule]
        expected = [f"{row['speedup']:.2f}" for row in (rows if small else front(rows))]
        assert [c["speedup"] for c in shown if c["rule"] == rule] == expected
    for label, (middle, most) in misses(tried).items():
        assert f"{label} {middle:.1%} (at most {most:.1%})" in table
    assert set(PREDICTIONS) < set(shown[0])
    if small:
        paths = save_pictures(tmp_path, content, None)
        assert [path.name for path in paths] == ["pareto.png"]
        assert (tmp_path / "heat.png").read_bytes().startswith(b"\x89PNG")


def test_a_tuning_marks_its_best():
    """Guards against a reader who takes the fastest row for the one within the error."""
    content = read_results(RESULTS / "beijing_tune" / "results.json")
    cells = cells_of(make_table(content))
    assert len(cells) == len(content["rows"])
    (best,) = [c for c in cells if c["best"] == "yes"]
    (row,) = content["best"]
    assert (best["K"], best["tolerance"]) == (str(row["num_draft"]), f"{row['tolerance']:g}")


# --- bounds of configs ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "field", "bad"),
    [
        *[(Setup, "horizons", bad) for bad in ((), (0,), (96, -1))],
        *[(Setup, "sigma", bad) for bad in (0.0, -1.0, math.nan, math.inf)],
        *[(Setup, field, 0) for field in ("stride", "batch_size", "calibration_stride")],
        (Setup, "drafts", ()),
        (QuickConfig, "windows", 0),
        *[(EvaluateConfig, field, 0) for field in ("num_draft", "timing_batch", "repeats")],
        *[(EvaluateConfig, "num_paths", bad) for bad in (1, -1)],
        (EvaluateConfig, "season", 505),
        *[(SweepConfig, "num_drafts", bad) for bad in ((), (3, 0))],
        *[(SweepConfig, "biases", (1.0, bad)) for bad in (0.5, math.nan, math.inf)],
        *[(SweepConfig, name, (0.1, -0.1)) for name in ("mse_tolerances", "tolerances")],
        *[(SweepConfig, "sigmas", (0.5, bad)) for bad in (0.0, math.inf)],
        *[(TuneConfig, "max_error", bad) for bad in (-0.01, math.nan)],
        (TuneConfig, "max_distance", -0.1),
        *[(SpeedConfig, "batches", bad) for bad in ((), (0,))],
        *[(LatencyConfig, "patches", bad) for bad in ((), (0,))],
    ],
)
def test_values_out_of_bounds_are_refused(make, field, bad):
    """Guards against a mistake that shows after the first hour."""
    with pytest.raises(InputError, match=field):
        make(**{field: bad})


def test_the_edges_are_accepted():
    """Guards against a check that refuses a sensible config."""
    SweepConfig(num_drafts=(1,), biases=(1.0,), mse_tolerances=(0.0,), tolerances=(0.0,))
    TuneConfig(max_error=0.0, max_distance=None)
    EvaluateConfig(num_paths=0, rules=(), season=504)
    check_fields(Setup(sigma=np.nextafter(0, 1)))
