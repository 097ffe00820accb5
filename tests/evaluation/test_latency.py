"""Latencies by size, batch, process and K."""

import csv
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stride_jax.config import from_dict
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import DecodeConfig
from stride_jax.evaluation import latency, tables
from stride_jax.evaluation.config import LatencyConfig
from stride_jax.evaluation.latency import AcceptAll, Cell
from stride_jax.evaluation.results import write_results

pytestmark = pytest.mark.slow
"""Every cell compiles a dozen decoders."""

SIZES = {"d_model": 16, "num_heads": 2, "d_ff": 16, "patch_len": 4, "context_patches": 3}
GRID = {"layers": (1,), "num_vars": (2,), "batches": (2,), "patches": (2, 3)}
REST = {"num_drafts": (1, 8), "measured_num_draft": 1, "repeats": 1, "draft_factor": 0.5}
CONFIG = LatencyConfig(**SIZES, **GRID, **REST)
FIELDS = {
    "layers", "num_vars", "batch", "process", "patches", "num_draft", "acceptance", "accepted",
    "seconds", "compile_seconds", "speedup", "over_calls", "over_fastest", "over_window",
}  # fmt: skip
Results = dict[str, list[dict[str, object]]]


@pytest.fixture(scope="module")
def results() -> dict[str, object]:
    """A whole table of two processes; the calls alone are timed in a test of their own."""
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "model_calls", lambda *_: lambda patches, repeat: None)
        found = latency.latency(CONFIG, said.append).content
    cells = [f"layers 1, num_vars 2, batch 2, process {kind}" for kind in ("cached", "window")]
    assert said == cells
    return json.loads(json.dumps(found))


def test_the_rows_are_those_of_the_config(results: Results) -> None:
    """A size, process or K that was asked for would be missing from the table."""
    rows = results["rows"]
    assert all(set(row) == FIELDS for row in rows)
    names = ("process", "patches", "num_draft", "acceptance")
    found = [tuple(row[name] for name in names) for row in rows]
    expected = []
    for kind in ("cached", "window"):
        expected += [(kind, 2, 0, None), (kind, 2, 1, "forced"), (kind, 2, 1, "measured")]
        expected += [(kind, 3, 0, None), (kind, 3, 1, "forced"), (kind, 3, 1, "measured")]
    assert found == expected
    assert from_dict(LatencyConfig, results["config"]) == CONFIG
    assert {"hardware", "versions"} <= set(results)


def test_speedups_are_over_the_decodes_they_name(results: Results) -> None:
    """A ratio over another size or process would promise a gain that is not there."""
    rows = results["rows"]
    base = {(r["process"], r["patches"]): r["seconds"] for r in rows if r["num_draft"] == 0}
    longest = max(CONFIG.patches)
    most = max(k for k in CONFIG.num_drafts if k < longest)
    for row in rows:
        kinds = {kind: base[kind, row["patches"]] for kind in ("cached", "window")}
        seconds = row["seconds"]
        assert seconds > 0
        np.testing.assert_allclose(row["speedup"], kinds[row["process"]] / seconds)
        np.testing.assert_allclose(row["over_fastest"], min(kinds.values()) / seconds)
        np.testing.assert_allclose(row["over_window"], kinds["window"] / seconds)
        # the calls of the most patches with the largest K are timed
        place = row["acceptance"], row["patches"], row["num_draft"]
        assert (row["over_calls"] is None) == (place != ("forced", longest, most))
        assert row["over_calls"] is None or row["over_calls"] > 0


def test_a_forced_acceptance_keeps_every_proposal(results: Results) -> None:
    """The best case in the table would not be the best case."""
    for row in results["rows"]:
        if row["acceptance"] == "forced":
            assert row["accepted"] == 1.0
        elif row["acceptance"] == "measured":
            assert 0 <= row["accepted"] <= 1
        else:
            assert row["accepted"] is None


@pytest.mark.parametrize("num_draft", [1, 2])
def test_forced_rounds_are_as_few_as_can_be(num_draft: int) -> None:
    """N patches take ceil(N / (K + 1)) rounds, else the times of the best case are too long."""
    cell = Cell(1, 2, 2, "window")
    pair = latency.build(CONFIG, cell)
    _, info = decode(
        jax.random.key(0),
        latency.contexts(CONFIG, cell),
        target=pair.target,
        draft=pair.draft,
        sigma=1.0,
        rule=AcceptAll(),
        config=DecodeConfig(5 * 4, num_draft),
    )
    assert info.rounds.tolist() == [-(-5 // (num_draft + 1))] * 2
    assert info.target_passes.tolist() == info.rounds.tolist()


def test_the_calls_are_those_of_a_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the loop itself costs would be read off a sum of other calls."""
    cell = Cell(1, 1, 1, "cached")
    pair = latency.build(CONFIG, cell)
    seen: list[list[np.ndarray]] = []

    def note(x: object) -> object:
        seen.append([np.asarray(leaf) for leaf in jax.tree.leaves(x)])
        return x

    calls = latency.model_calls(pair, latency.contexts(CONFIG, cell), 2, 9)
    monkeypatch.setattr(latency.jax, "block_until_ready", note)
    calls(7, 0)
    assert len(seen) == 1 + 3 * 2  # the context, then 3 rounds
    assert [made[0].shape for made in seen[1:]] == 3 * [(1, 1, 2, 4, 1), (1, 1, 3, 4, 1)]
    second = [bool(made[0][0, 0, 1].any()) for made in seen[1::2]]
    assert second == [True, True, False]  # only one of 7 is missing in the last


def test_over_calls_divides_by_the_calls_of_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a cost of the loop that is read off a wrong sum."""
    called: list[int] = []
    monkeypatch.setattr(latency, "model_calls", lambda *_: lambda n, _: called.append(n))

    def seconds(calls, repeats):
        decode, apart = calls
        apart(0)
        assert decode(1)[0].shape == (1, 1, 28, 1)
        return [[442.0, 440.0, 1000.0], [221.0, 1.0, 221.0]]

    monkeypatch.setattr(latency, "time_in_turns", seconds)
    grid = {**GRID, "patches": (7,), "num_drafts": (1,), "measured_num_draft": 7}
    config, cell = LatencyConfig(**SIZES, **grid, repeats=1), Cell(1, 1, 1, "window")
    pair, context = latency.build(config, cell), latency.contexts(config, cell)
    rows = latency.cell_rows(config, cell, pair, context, 7)
    assert [row["over_calls"] for row in rows] == [None, 2.0]
    assert called == [7]


def test_the_estimate_is_two_operations_a_weight_and_row() -> None:
    """Cells that take minutes would be run, or short ones left out."""
    config = LatencyConfig(d_model=10 * 8, num_heads=2, d_ff=50, context_patches=16, gflops=2.0)
    weights = 3 * (4 * 80 * 80 + 2 * 80 * 50)
    window = 2 * weights * (5 * 7) * (4 * 16 + 16) / 2e9
    cached = 2 * weights * (5 * 7) * (4 + 16) / 2e9
    found = [latency.estimated_seconds(config, Cell(3, 7, 5, k), 4) for k in ("window", "cached")]
    np.testing.assert_allclose(found, [window, cached])


@pytest.fixture(scope="module")
def short() -> dict[str, object]:
    """A table whose longer decodes are left out."""
    cached = LatencyConfig(**SIZES, **GRID, **REST, processes=("cached",))
    limits = [latency.estimated_seconds(cached, Cell(1, 2, 2, "cached"), n) for n in (2, 3)]
    limited = {**GRID, **REST, "num_drafts": (8,), "measured_num_draft": 8}
    config = LatencyConfig(**SIZES, **limited, processes=("cached",), max_seconds=sum(limits) / 2)
    return latency.latency(config).content


def test_cells_that_take_too_long_are_listed(short: Results, tmp_path: Path) -> None:
    """A reader would not know that a size was left out, or wait for it for hours."""
    names = ("patches", "num_draft", "seconds", "over_fastest", "over_window")
    run, left_out = short["rows"]
    assert run["patches"] == 2
    assert run["seconds"] > 0
    assert run["over_window"] is None  # only one process was asked for
    assert tuple(left_out[name] for name in names) == (3, None, None, None, None)
    write_results(tmp_path, short)
    with (tmp_path / "results.csv").open(newline="") as file:
        assert [row["seconds"] == "" for row in csv.DictReader(file)] == [False, True]


def test_the_table_has_a_line_for_every_situation(results: Results, short: Results) -> None:
    """Measured or left out, a situation that the table does not show was measured for nothing."""
    text = tables.make_table(results)
    header, _, *lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    place = {name: header.index(name) for name in header}
    assert [line[:5] for line in lines] == [
        ["1", "2", "2", patches, kind] for kind in ("cached", "window") for patches in ("2", "3")
    ]
    for line in lines:
        here = [
            row for row in results["rows"]
            if (str(row["patches"]), row["process"]) == (line[3], line[4])
        ]  # fmt: skip
        forced = {row["num_draft"]: row for row in here if row["acceptance"] == "forced"}
        milliseconds = f"{1000 * here[0]['seconds']:.2f}"
        assert line[place["target ms"]] == milliseconds
        for k in (1, 8):
            shown = f"{forced[k]['speedup']:.2f}" if k in forced else ""
            column = place.get(f"K = {k}")  # None where it would be empty
            assert (line[column] if column is not None else "") == shown
        assert line[place["best"]] == f"{max(r['over_fastest'] for r in forced.values()):.2f}"
        assert line[place["over window"]] == f"{max(r['over_window'] for r in forced.values()):.2f}"
        measured = next(row for row in here if row["acceptance"] == "measured")
        seen = f"{measured['speedup']:.2f} at {measured['accepted']:.0%}"
        assert line[place["measured"]] == seen
    assert "take too long" not in text
    assert "1 of 2 cells take too long and were not run" in tables.make_table(short)


def test_the_contexts_have_the_shape_of_the_cell() -> None:
    """Times would be those of another batch or number of variables."""
    found = latency.contexts(CONFIG, Cell(1, 2, 3, "window"))
    assert found.shape == (3, 12, 2)
    assert abs(float(jnp.mean(found))) < 0.5
