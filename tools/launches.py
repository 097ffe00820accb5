"""Counts the kernel launches of the decoders on an H100, compiled without one.

It needs jax for CUDA, several GB, in a virtual environment of its own, on any machine:

    python -m venv venv_cuda && venv_cuda/bin/pip install ".[cuda12]"
    PYTHONPATH=. venv_cuda/bin/python tools/launches.py --layers 8 --d-model 1024 --draft-layers 1

The last line is one JSON object with the sizes and the counts. `--all --out FILE` counts a grid of
settings instead, writes each row as it comes, and goes on after the rows that the file has.

Each decoder is compiled for the topology of an H100, and `stride_jax.evaluation.launches` counts
what one iteration of its loops launches:

- `target_pass`: one step of the plain cached decode, the body of its loop;
- `draft_step`: each later step of the draft: what K proposals cost more than a single one, over
  K - 1; 0 where the draft proposes all K patches at once;
- `proposals`: drafting in a round, all K patches;
- `verification`: the target's pass over the K proposals in a round;
- `round_overhead`: everything else in a round, that is rule and bookkeeping;
- `round`: a whole round, the sum of these three;
- `round_surplus`: a round less one `target_pass` and K times `draft_step` (less `proposals` where
  that is 0), so what a round costs beyond the same passes one by one;
- `prefill`: the target over the context, before the first patch;
- `outside`: all that the speculative decoder launches before and after its loop, once a call;
- `copies`, `scatters`: in the loop bodies of both decoders, each body once.

The parts of a round come from three rounds that are compiled: as it is, with a target that costs
nothing, and with target and draft that cost nothing. Such a model hands out means that are
arguments of the program, so the compiler can leave out nothing of rule and bookkeeping. The first
less the second is `verification`, the second less the third `proposals`, and the third
`round_overhead`: it does not depend on the sizes of the models, and what a model does to keep the
accepted patches counts as the model's. A loop in a rule counts as often as it runs, or once where
the compiler does not know its length.

Without autotuning XLA writes the products as fusions, and refuses some shapes that it would tune on
a device. `products` says `library` for a row that was therefore compiled with library calls.
"""

from __future__ import annotations

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Autotuning runs kernels, and there is no device to run them.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_autotune_level=0"

import argparse
import dataclasses
import functools
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from stride_jax.evaluation.h100 import compiled, main_loop
from stride_jax.evaluation.launches import Block
from stride_jax.evaluation.programs import (
    Setting,
    build,
    plain_decode,
    prefill,
    speculative_decode,
)
from stride_jax.evaluation.results import Row, read_results, write_rows

BASE = Setting()
RULES = ("block", "mean", "shared_noise", "resample", "several")
DRAFTS = ("multi-patch", "linear", "layer-skip:1", "seasonal:96", "last-value", "nearest")
SIZES = ("layers", "d_model", "num_vars", "batch", "dtype", "least_lanes")
"""The fields that the target alone depends on."""


def grid() -> Iterator[Setting]:
    """Base size first, then other rules, drafts and precision at base size, then other sizes."""
    yield BASE
    yield from (dataclasses.replace(BASE, rule=rule) for rule in RULES)
    yield from (dataclasses.replace(BASE, draft=draft) for draft in DRAFTS)
    yield dataclasses.replace(BASE, draft_layers=2)
    yield dataclasses.replace(BASE, dtype="bfloat16")
    for layers, num_vars, batch in itertools.product((8, 1), (1, 7), (1, 8, 64)):
        sizes = dataclasses.replace(BASE, layers=layers, num_vars=num_vars, batch=batch)
        if sizes != BASE:
            yield sizes


# --- the counts of a setting ---------------------------------------------------------------------


@functools.cache
def target_alone(setting: Setting, library: bool) -> tuple[Block, Block]:
    """The plain decode, and the prefill; of a setting that says no more than `SIZES`."""
    return compiled(plain_decode(setting), library), compiled(prefill(setting), library)


@functools.cache
def bookkeeping(setting: Setting) -> Block:
    """The speculative decode whose models cost nothing."""
    program = speculative_decode(setting, free_target=True, free_draft=True)
    return compiled(program, library=False)  # it has no products


@functools.cache
def drafting(setting: Setting, library: bool) -> Block:
    """The speculative decode whose target costs nothing."""
    return compiled(speculative_decode(setting, free_target=True), library)


def only(setting: Setting, *names: str) -> Setting:
    """A setting with all but these fields as in the base, so that its program is compiled once."""
    return dataclasses.replace(BASE, **{name: getattr(setting, name) for name in names})


def row(setting: Setting) -> Row:
    """The row of a setting: its sizes and its counts, with fusions where XLA can."""
    sizes = dataclasses.asdict(setting)
    try:
        return {**sizes, **counts(setting, library=False), "products": "fusion"}
    except jax.errors.JaxRuntimeError as error:
        if "output tile sizes" not in str(error):
            raise
        return {**sizes, **counts(setting, library=True), "products": "library"}


def counts(setting: Setting, library: bool) -> Row:
    """The counts of a setting."""
    plain, before = target_alone(only(setting, *SIZES), library)
    whole = compiled(speculative_decode(setting), library)
    overhead, drafted = without_target(setting, library)
    later = setting.num_draft - 1
    step, proposals = main_loop(plain).launches, drafted - overhead

    draft_step: float = 0
    if stepwise(setting) and later:
        one_overhead, one_drafted = without_target(
            dataclasses.replace(setting, num_draft=1), library
        )
        draft_step = round((proposals - (one_drafted - one_overhead)) / later, 1)

    total = round_of(whole, bookkeeping_of(setting), later)
    bodies = [*plain.bodies(), *whole.bodies()]
    return {
        "target_pass": step,
        "draft_step": draft_step,
        "proposals": proposals,
        "verification": total - drafted,
        "round_overhead": overhead,
        "round": total,
        "round_surplus": round(total - step - (setting.num_draft * draft_step or proposals)),
        "prefill": before.launches,
        "outside": whole.launches,
        "copies": sum(body.copies for body in bodies),
        "scatters": sum(body.scatters for body in bodies),
        "jax": jax.__version__,
    }


def stepwise(setting: Setting) -> bool:
    """Whether the draft predicts patch by patch."""
    return hasattr(build(setting).proposer(), "step")


def bookkeeping_of(setting: Setting) -> Block:
    """The program of `bookkeeping` for a setting."""
    return bookkeeping(only(setting, "num_vars", "batch", "num_draft", "rule", "least_lanes"))


def without_target(setting: Setting, library: bool) -> tuple[int, int]:
    """Launches of a round of rule and bookkeeping, and of one that also drafts."""
    nothing, later = bookkeeping_of(setting), setting.num_draft - 1
    return main_loop(nothing).total(1), round_of(drafting(setting, library), nothing, later)


def round_of(program: Block, nothing: Block, later: int) -> int:
    """Launches of a round whose draft takes `later` steps after its first.

    Loops of the rule run once here, or as often as the compiler knows. A loop of the draft's steps,
    where they are not written out, is what `nothing` does not have.
    """
    loop, of_rule = (main_loop(x).total(1) - main_loop(x).total(0) for x in (program, nothing))
    return main_loop(program).total(1) + (later - 1) * (loop - of_rule)


# --- the command ---------------------------------------------------------------------------------


def count_all(out: Path, facts: dict[str, Any]) -> None:
    """Writes the rows of the grid that a file does not have yet, with facts beside them."""
    rows = read_results(out)["rows"] if out.exists() else []
    for setting in grid():
        sizes = dataclasses.asdict(setting)
        if any(sizes.items() <= counted.items() for counted in rows):
            continue
        rows.append(row(setting))
        print(json.dumps(rows[-1]), flush=True)
        write_rows(out, rows, table="launches", **facts)


def main() -> None:
    """Prints the counts of one setting, or writes those of the grid."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for field in dataclasses.fields(Setting):
        flag: dict[str, Any] = {"type": type(field.default), "default": field.default}
        parser.add_argument("--" + field.name.replace("_", "-"), **flag)
    parser.add_argument("--all", action="store_true", help="count the grid of settings")
    parser.add_argument("--out", type=Path, help="the result file of the grid")
    parser.add_argument("--before", help="a file beside it that its table is compared with")
    args = vars(parser.parse_args())
    every, out, before = (args.pop(name) for name in ("all", "out", "before"))
    if every != (out is not None):
        parser.error("--all and --out go together")
    if every:
        count_all(out, {} if before is None else {"before": before})
    else:
        print(json.dumps(row(Setting(**args))))


if __name__ == "__main__":
    main()
