"""Launches counted in the text of compiled programs, and the counts of the decoders."""

import dataclasses
import json
import os
import subprocess
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from helpers.cuda import cuda_python

from stride_jax.errors import InputError
from stride_jax.evaluation.launches import Block, count, parse
from stride_jax.evaluation.programs import Setting, plain_decode, prefill, speculative_decode
from stride_jax.evaluation.results import read_results
from stride_jax.evaluation.tables import make_table

ROOT = Path(__file__).parents[2]
COUNTS = ("target_pass", "draft_step", "proposals", "verification", "round_overhead", "round")
COUNTS += ("round_surplus", "prefill", "outside", "copies", "scatters")

MODULE = """
HloModule jit_program, is_scheduled=true, entry_computation_layout={(f32[4]{0})->f32[4]{0}}

FileNames
1 "a = {"

%fused_add (param_0: f32[4]) -> f32[4] {
  %param_0 = f32[4]{0} parameter(0)
  ROOT %add = f32[4]{0} add(%param_0, %param_0), metadata={op_name="jit(f)/add"}
}

%fused_scatter (param_0.1: f32[4], param_1: s32[1,1]) -> f32[4] {
  %param_0.1 = f32[4]{0} parameter(0)
  %param_1 = s32[1,1]{1,0} parameter(1)
  ROOT %scatter = f32[4]{0} scatter(%param_0.1, %param_1, %param_0.1), to_apply=%assign
}

%inner_body (carry: (s32[], f32[4])) -> (s32[], f32[4]) {
  %carry = (s32[], f32[4]{0}) parameter(0)
  %x = f32[4]{0} get-tuple-element(%carry), index=1
  %copy.1 = f32[4]{0} copy(%x)
  %scattered = f32[4]{0} fusion(%copy.1, %x), kind=kInput, calls=%fused_scatter
  ROOT %out = (s32[], f32[4]{0}) tuple(%x, %scattered)
}

%inner_condition (carry.1: (s32[], f32[4])) -> pred[] {
  %carry.1 = (s32[], f32[4]{0}) parameter(0)
  ROOT %less = pred[] fusion(%carry.1), kind=kLoop, calls=%fused_add
}

%few (b: f32[4]) -> f32[4] {
  %b = f32[4]{0} parameter(0)
  ROOT %add.2 = f32[4]{0} fusion(%b), kind=kLoop, calls=%fused_add
}

%many (c: f32[4]) -> f32[4] {
  %c = f32[4]{0} parameter(0)
  %add.3 = f32[4]{0} fusion(%c), kind=kLoop, calls=%fused_add
  ROOT %sort = f32[4]{0} sort(%add.3), dimensions={0}, to_apply=%compare
}

%command_buffer (d: f32[4]) -> f32[4] {
  %d = f32[4]{0} parameter(0)
  %product = (f32[4]{0}, s8[33554432]{0}) custom-call(%d), custom_call_target="__cublas$gemm"
  %marked = f32[4]{0} custom-call(%d), custom_call_target="Sharding"
  %first = f32[4]{0} get-tuple-element(%product), index=0
  ROOT %add.4 = f32[4]{0} fusion(%first), kind=kLoop, calls=%fused_add
}

%wrapped (e: f32[4]) -> f32[4] {
  %e = f32[4]{0} parameter(0)
  ROOT %add.5 = f32[4]{0} fusion(%e), kind=kLoop, calls=%fused_add
}

%outer_body (loop: (s32[], f32[4], /*index=2*/pred[])) -> (s32[], f32[4], pred[]) {
  %loop = (s32[], f32[4]{0:T(8,128)}, /*index=2*/pred[]) parameter(0)
  %y = f32[4]{0:T(8,128)} get-tuple-element(%loop), index=1
  %bits = s32[4]{0} bitcast(%y)
  %run = f32[4]{0} call(%y), to_apply=%command_buffer
  %started = (f32[4]{0}, f32[4]{0}, u32[]) copy-start(%run)
  %done = f32[4]{0} copy-done(%started)
  %began = ((f32[4]{0}), f32[4]{0}) async-start(%done), calls=%wrapped
  %ended = f32[4]{0} async-done(%began)
  %branch = f32[4]{0} conditional(%y, %ended, %ended), branch_computations={%few, %many}
  %again = (s32[], /*index=1*/f32[4]{0}) while(%branch), condition=%inner_condition, \
body=%inner_body
  ROOT %next = (s32[], f32[4]{0}, pred[]) tuple(%y, %y, %y)
}

ENTRY %main (argument: f32[4]) -> f32[4] {
  %argument = f32[4]{0} parameter(0)
  %zero = s32[] constant(0)
  %start = f32[4]{0} fusion(%argument), kind=kLoop, calls=%fused_add
  %played = (s32[], f32[4]{0}, pred[]) while(%start), condition=%inner_condition, \
body=%outer_body, backend_config={"known_trip_count":{"n":"35"},"known_init_step":{"init":"0"}}
  ROOT %result = f32[4]{0} get-tuple-element(%played), index=1
}
"""
"""A program with everything that the compiler nests; what it computes does not matter."""


def test_nested_programs_are_counted_once_each() -> None:
    """A launch missed in a call, a branch or a buffer would hide what a decode costs."""
    entry = count(MODULE)
    assert entry.kinds == Counter({"fusion": 1, "while": 1})
    (outer,) = entry.loops
    assert outer.trips == 35
    assert outer.kinds == Counter(
        {"custom-call": 1, "fusion": 3, "copy": 1, "conditional": 1, "sort": 1, "while": 1}
    )
    (inner,) = outer.loops
    assert inner.trips is None
    assert inner.kinds == Counter({"copy": 1, "fusion": 1})
    assert (inner.copies, inner.scatters, outer.scatters) == (1, 1, 0)
    assert list(entry.bodies()) == [outer, inner]


def test_totals_repeat_the_loops() -> None:
    """A rule with a loop of forty steps would look as cheap as one without."""
    inner = Block(Counter({"fusion": 2}), trips=40)
    unknown = Block(Counter({"fusion": 3}))
    block = Block(Counter({"fusion": 1, "while": 2}), loops=(inner, unknown))
    assert block.launches == 3
    assert block.total(1) == 3 + 40 * 2 + 3
    assert block.total(7) == 3 + 40 * 2 + 7 * 3


def test_the_text_of_this_jax_is_understood() -> None:
    """A new layout of the text would silently count nothing."""

    def scanned(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, 5, lambda i, x: jnp.sin(x @ x), x)

    text = jax.jit(scanned).lower(jnp.ones((8, 8))).compile().as_text()
    computations, entry = parse(text)
    assert entry in computations
    (loop,) = count(text).loops
    assert loop.trips == 5
    assert loop.launches > 0


def test_other_texts_are_refused() -> None:
    """An empty text would have no launches, and every check of the counts would pass."""
    with pytest.raises(InputError, match="no ENTRY computation"):
        count("module {}")


def test_programs_are_the_decoders() -> None:
    """Counts of something else than the decoders would guard nothing."""
    setting = Setting(layers=1, d_model=32, num_vars=2, draft="multi-patch", rule="mean")
    decoders = plain_decode(setting), speculative_decode(setting)
    rounds = [speculative_decode(setting, free_target=True, free_draft=f) for f in (True, False)]
    others = {"draft": "linear"}, {"draft": "autoregressive", "rule": "several"}
    rounds += [speculative_decode(dataclasses.replace(setting, **other)) for other in others]
    for program in (*decoders, *rounds):
        forecast = jax.eval_shape(program.function, *program.args)
        assert forecast.shape == (1, 35 * 96, 2)
    filled = prefill(setting)
    shapes = jax.tree.leaves(jax.eval_shape(filled.function, *filled.args))
    assert all(x.shape[:2] == (1, 1) for x in shapes)


def counted(**changes: object) -> dict[str, object]:
    """A row of a result file."""
    return {
        **vars(Setting()),
        **dict.fromkeys(COUNTS, 9),
        "jax": "0",
        "products": "fusion",
        **changes,
    }


def test_a_table_compares_with_an_earlier_file(tmp_path: Path) -> None:
    """A row compared with another setting, or with none, would show a gain that is not there."""
    then = [counted(target_pass=178, round=500), counted(rule="mean", target_pass=170)]
    now = [counted(rule="mean", target_pass=100), counted(target_pass=100), counted(rule="block")]
    (tmp_path / "then.json").write_text(json.dumps({"rows": then}))
    path = tmp_path / "now.json"
    path.write_text(json.dumps({"table": "launches", "before": "then.json", "rows": now}))
    cells: list[dict[str, str]] = [{}, {}, {}]
    for table in make_table(read_results(path)).split("\n\n**")[1:]:
        lines = [[x.strip() for x in y.split("|")] for y in table.splitlines() if "|" in y]
        header = lines[0]
        for cell, line in zip(cells, lines[2:], strict=True):
            cell.update(zip(header, line, strict=True))
    assert [x["rule"] for x in cells] == ["mean", "maximal", "block"]
    assert [x["target pass"] for x in cells] == ["170 -> 100", "178 -> 100", "9"]
    assert [x["round"] for x in cells] == ["9", "500 -> 9", "9"]
    assert [x["prefill"] for x in cells] == ["9", "9", "9"]
    assert cells[1]["best speedup"] == "3.20 -> 100.00"  # 9 * 178 / 500, 9 * 100 / 9
    assert "batch" not in cells[0]


def committed_rows() -> list[dict[str, object]]:
    """The rows that are counted again: the base size, and a small one with 7 variables."""
    rows = json.loads((ROOT / "docs/results/launches.json").read_text())["rows"]
    base = Setting()
    settings = (base, Setting(layers=1, num_vars=7, batch=8), Setting(rule="mean"))
    return [row for row in rows if any(vars(s).items() <= row.items() for s in settings)]


@pytest.mark.slow
def test_no_count_rises() -> None:
    """A change that adds launches makes every decode on a GPU slower, and no CPU shows it."""
    python, rows = cuda_python(), committed_rows()
    assert len(rows) == 3
    for row in rows:
        flags = [(f"--{name.replace('_', '-')}", str(row[name])) for name in vars(Setting())]
        done = subprocess.run(
            [python, str(ROOT / "tools/launches.py"), *[word for pair in flags for word in pair]],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        now = json.loads(done.stdout.splitlines()[-1])
        risen = {n: (row[n], now[n]) for n in COUNTS if now[n] > row[n]}
        assert not risen, f"{risen} of {row}, counted with jax {now['jax']}"
