"""Training steps without a loop around them, on random series: what a step itself costs."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from stride_jax.checkpoints.checkpoint import host_copy
from stride_jax.data.splits import ForecastData, prepare
from stride_jax.data.windows import epoch_order
from stride_jax.sharding import everywhere, make_mesh
from stride_jax.training.config import OptimConfig, TrainConfig
from stride_jax.training.dispatch import make_steps
from stride_jax.training.step import Task, TrainState, make_optimizer, make_step, steps_per_epoch
from stride_jax.types import Series


def random_series(config: TrainConfig, num_vars: int, length: int) -> ForecastData:
    """Random walks in the place of the series of a config: speed does not depend on the values."""
    values = np.random.default_rng(0).normal(size=(length, num_vars)).cumsum(axis=0)
    return prepare(config.data, Series(values, tuple(f"var{i}" for i in range(num_vars))))


def bare_steps(
    task: Task, optim: OptimConfig, state: TrainState, values: np.ndarray, num_steps: int
) -> Callable[[], None]:
    """Runs steps of the task on a state of its own, in one dispatch, each time it is called."""
    epoch_steps = steps_per_epoch(task, optim)
    run = make_steps(make_step(task, make_optimizer(optim, epoch_steps), optim, epoch_steps))
    mesh = make_mesh(optim.batch_size // optim.accumulate)
    series = everywhere(np.asarray(values), mesh)
    order = epoch_order(jax.random.key(1), 0, task.train.count)
    held = [everywhere(host_copy(state), mesh)]

    def bare() -> None:
        held[0], metrics = run(held[0], series, order, jax.random.key(2), num_steps)
        jax.block_until_ready(metrics)

    return bare
