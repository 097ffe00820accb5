"""Many devices and hosts: batches are split over all of them, everything else is everywhere."""

from __future__ import annotations

import os
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from stride_jax.errors import InputError

AXIS = "data"
VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
"""Environment variables of a process outside the clusters that jax recognises."""


def connect() -> None:
    """Joins the other processes of a run; the first thing a program does with jax.

    Takes `VARIABLES` where they are set, else what jax finds out of its cluster (TPU pods, Slurm,
    Open MPI, Kubernetes).

    Raises:
        InputError: only some of the variables are set, or they are not numbers.
    """
    settings = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    if not settings:
        jax.distributed.initialize()
        return
    missing = [name for name in VARIABLES if name not in settings]
    if missing or not all(settings[name].isdecimal() for name in VARIABLES[1:]):
        raise InputError(
            f"set all of {', '.join(VARIABLES)}, the last two as numbers; got {settings}."
        )
    address, count, number = (settings[name] for name in VARIABLES)
    jax.distributed.initialize(address, int(count), int(number))


def first_process() -> bool:
    """Whether this process writes the log."""
    return bool(jax.process_index() == 0)


def make_mesh(batch_size: int) -> Mesh:
    """All devices of all processes along one axis.

    Raises:
        InputError: the batch cannot be split evenly over them.
    """
    count = jax.device_count()
    if batch_size % count:
        raise InputError(
            f"a batch of {batch_size} windows cannot be split over {count} devices; make "
            f"optim.batch_size (over optim.accumulate) a multiple of {count}."
        )
    return jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,))


def everywhere(tree: Any, mesh: Mesh) -> Any:
    """A tree of host arrays, the same in every process, as arrays that every device holds."""
    whole = NamedSharding(mesh, PartitionSpec())

    def put(x: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(np.shape(x), whole, lambda index: np.array(x[index]))

    return jax.tree.map(put, tree)


def split_batch(batch: jax.Array, mesh: Mesh) -> jax.Array:
    """Inside jit: each device takes its share of the leading axis."""
    return jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, PartitionSpec(AXIS)))


def decoding_mesh(batch_size: int) -> Mesh | None:
    """The most devices of this process that a batch splits over; None where that is one."""
    devices = jax.local_devices()
    count = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
    if count == 1:
        return None
    return jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,), devices=devices[:count])


def place(tree: Any, mesh: Mesh | None, *, split: bool) -> Any:
    """A tree of arrays on the mesh: each device with its share of the leading axis, or with all."""
    if mesh is None:
        return tree
    spec = PartitionSpec(AXIS) if split else PartitionSpec()
    return jax.device_put(tree, NamedSharding(mesh, spec))
