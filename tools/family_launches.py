"""Counts the kernel launches of the foundation models on an H100, compiled without one.

    PYTHONPATH=. venv_cuda/bin/python tools/family_launches.py \
        --out docs/results/families/launches.json

in the environment of tools/launches.py, whose docstring says what is counted and how. Each model
has its released sizes, and its parameters are shapes alone. One series, the context of
tools/family_speed.py, 1,024 steps ahead:

- `target_pass`: one step of the model alone, from its caches;
- `verification`: a round with K = 4 proposals of a draft that costs nothing, less the rule;
- `draft`: the further launches of a round with the draft inside the weights, where there is one.

Fracast-0 decodes from windows, all of a verification at once, as it does on a GPU.
"""

from __future__ import annotations

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Autotuning runs kernels, and there is no device to run them.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_autotune_level=0"

import argparse
import json
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

from stride_jax.decoding.autoregressive import roll_process
from stride_jax.decoding.checks import Inputs
from stride_jax.decoding.draft_length import Fixed
from stride_jax.decoding.drafts import as_draft
from stride_jax.decoding.rounds import Model
from stride_jax.decoding.rules import Mean
from stride_jax.decoding.speculative import _speculate
from stride_jax.decoding.types import DecodeConfig
from stride_jax.evaluation.h100 import compiled, main_loop
from stride_jax.evaluation.programs import FreeDraft, FreeProcess, Program
from stride_jax.evaluation.released import SUBJECTS, Subject
from stride_jax.evaluation.results import Row, write_rows

HORIZON, NUM_DRAFT = 1024, 4


def shapes_of(subject: Subject) -> Any:
    """The process of a model of its released sizes, as shapes."""

    def make() -> Any:
        config = subject.config()
        return subject.process(config, subject.init(jax.random.key(0), config))

    return jax.eval_shape(make)


def inputs_of(steps: int, columns: int) -> Any:
    """The shapes of the inputs of one series."""

    def zeros() -> Inputs:
        context = jnp.zeros((1, steps, columns))
        return Inputs(jax.random.key_data(jax.random.key(0)), context, jnp.float32(1), None, None)

    return jax.eval_shape(zeros)


def round_of(inputs: Any, target: Any, draft: Any) -> int:
    """Launches of a round."""
    config = DecodeConfig(HORIZON, NUM_DRAFT, least_lanes=2, compactions=0)

    def run(inputs: Inputs, model: Model) -> jax.Array:
        forecast: jax.Array = _speculate(inputs, model, config=config)[0]
        return forecast

    model = Model(target, draft, jax.eval_shape(Mean), Fixed())
    return main_loop(compiled(Program(run, (inputs, model)), library=False)).total(1)


def row(name: str, subject: Subject) -> Row:
    """The counts of one family."""
    columns = 9 if subject.nine_paths else 1
    process, inputs = shapes_of(subject), inputs_of(subject.context, columns)

    def plain(inputs: Inputs, target: Any) -> jax.Array:
        config = DecodeConfig(HORIZON, 0, least_lanes=2, compactions=0)
        forecast: jax.Array = roll_process(inputs, target, config=config)[0]
        return forecast

    alone = main_loop(compiled(Program(plain, (inputs, process)), library=False))
    shape = (NUM_DRAFT + 1, process.patch_len, columns)
    means = jax.ShapeDtypeStruct(shape, jnp.dtype("float32"))
    free = FreeDraft(means)
    rule = round_of(inputs, FreeProcess(means), free)
    whole = round_of(inputs, process, free)
    counts: Row = {
        "family": name,
        "target_pass": alone.launches,
        "verification": whole - rule,
        "rule": rule,
    }
    for draft, make in subject.family.drafts.items():
        inner = jax.eval_shape(lambda process, make=make: as_draft(make(process)), process)
        counts |= {"draft": draft, "draft_launches": round_of(inputs, process, inner) - whole}
    return counts


def main() -> None:
    """Counts and writes a row for each family."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--family", nargs="*", choices=SUBJECTS, default=list(SUBJECTS))
    args = parser.parse_args()
    rows = []
    for name in args.family:
        # Fracast-0 maps over windows on a GPU, and loops over them on a CPU.
        backend = "gpu" if name == "fracast" else "cpu"
        with mock.patch("jax.default_backend", return_value=backend):
            rows.append(row(name, SUBJECTS[name]))
        print(json.dumps(rows[-1]), flush=True)
        write_rows(args.out, rows)


if __name__ == "__main__":
    main()
