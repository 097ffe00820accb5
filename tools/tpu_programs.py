"""Compiles the decoders and a training step for TPUs without one: operations, bytes and memory.

It needs jax for TPU in a virtual environment of its own, on any machine:

    python -m venv venv_tpu && venv_tpu/bin/pip install ".[tpu]"
    PYTHONPATH=. venv_tpu/bin/python tools/tpu_programs.py --out docs/results/tpu_programs.json

Every program is compiled for one device of a TPU v5e, or for four of them (`v5e:2x2`): decoders
with the batch split over the devices and the models on each, as `evaluate.py` places them, and the
step of `train.py`. A row is written as it comes, and rows that the file has are not compiled again.

- `gflop`, `gbyte`: operations and bytes accessed, as the compiler estimates them for one device. A
  loop counts once, so a decode is its prefill and one pass of the target, or its prefill and one
  round with one later draft step;
- `peak_mib`: peak memory of a device, with arguments and results;
- `collectives`: communications between devices in the text of the program.
"""

from __future__ import annotations

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # no TPU, so no server to ask about it

import argparse
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from stride_jax.data.config import DataConfig
from stride_jax.data.splits import prepare
from stride_jax.decoding.checks import Inputs
from stride_jax.evaluation.launches import parse
from stride_jax.evaluation.programs import (
    CONTEXT,
    PATCH_LEN,
    Program,
    Setting,
    plain_decode,
    speculative_decode,
)
from stride_jax.evaluation.results import Row, read_results, write_rows
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import init_params
from stride_jax.sharding import AXIS
from stride_jax.training import step as training
from stride_jax.training.config import OptimConfig, TrainConfig
from stride_jax.types import Series

TOPOLOGY = "v5e:2x2"
DECODERS = {"plain decode": plain_decode, "speculative decode": speculative_decode}


def grid() -> Iterator[tuple[str, Setting, int]]:
    """Program, sizes and number of devices of every row."""
    for sizes in (Setting(batch=8), Setting(layers=1, num_vars=7, batch=8)):
        yield from ((name, sizes, 1) for name in DECODERS)
    yield from ((name, Setting(batch=64), 4) for name in DECODERS)
    yield "training step", Setting(batch=64), 4


def mesh_of(count: int) -> Mesh:
    """The first devices of the topology along one axis."""
    topology = topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGY)
    return Mesh(np.array(topology.devices[:count]), (AXIS,), axis_types=(AxisType.Auto,))


# --- the programs --------------------------------------------------------------------------------


def compile_decoder(name: str, setting: Setting, mesh: Mesh) -> Any:
    """A decoder whose batch is split over the mesh."""
    whole = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec(AXIS))
    return DECODERS[name](setting).compile(Inputs(whole, split, whole, None, None), whole)


def compile_step(setting: Setting, mesh: Mesh) -> Any:
    """The training step of a target, whose batch is split over the mesh."""
    config = TrainConfig(
        data=DataConfig(source="random", context_len=CONTEXT * PATCH_LEN),
        model=TimerXLConfig(d_model=setting.d_model, num_layers=setting.layers),
        optim=OptimConfig(batch_size=setting.batch),
    )
    names = tuple(f"var{i}" for i in range(setting.num_vars))
    data = prepare(config.data, Series(np.zeros((14400, len(names))), names))
    task, optim = training.next_patch_task(config, data), config.optim
    training.make_mesh = lambda batch: mesh  # the step takes it from the devices that there are
    steps = training.steps_per_epoch(task, optim)
    step = training.make_step(task, training.make_optimizer(optim, steps), optim, steps)

    def arguments() -> tuple[Any, ...]:
        params = init_params(jax.random.key(0), config.trained_model)
        state = training.initial_state(params, optim, steps)
        key = jax.random.key_data(jax.random.key(0))
        return state, jnp.asarray(data.values), jnp.arange(task.train.count), key

    def function(state: Any, values: Any, order: Any, key: Any) -> Any:
        return step(state, values, order, jax.random.wrap_key_data(key))

    program = Program(function, jax.eval_shape(arguments))
    return program.compile(*[NamedSharding(mesh, PartitionSpec())] * 4)


def compiled_row(name: str, setting: Setting, devices: int) -> Row:
    """The row of a program."""
    mesh = mesh_of(devices)
    if name == "training step":
        program = compile_step(setting, mesh)
    else:
        program = compile_decoder(name, setting, mesh)
    cost, memory = program.cost_analysis(), program.memory_analysis()
    computations, _ = parse(program.as_text())
    opcodes = [line.opcode for lines in computations.values() for line in lines]
    return {
        **label(name, setting, devices),
        "gflop": cost["flops"] / 1e9,
        "gbyte": cost["bytes accessed"] / 1e9,
        "peak_mib": memory.peak_memory_in_bytes / 2**20,
        "collectives": sum(code.startswith(("all-", "reduce-scatter")) for code in opcodes),
        "jax": jax.__version__,
    }


def label(name: str, setting: Setting, devices: int) -> Row:
    """The fields that name a row."""
    sizes = dataclasses.asdict(setting)
    shown = {key: sizes[key] for key in ("layers", "d_model", "num_vars", "batch")}
    return {"program": name, "devices": devices, **shown}


def main() -> None:
    """Writes the rows that a result file does not have yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    rows = read_results(out)["rows"] if out.exists() else []
    for parts in grid():
        if any(label(*parts).items() <= row.items() for row in rows):
            continue
        rows.append(compiled_row(*parts))
        print(json.dumps(rows[-1]), flush=True)
        write_rows(out, rows, table="tpu_programs")


if __name__ == "__main__":
    main()
