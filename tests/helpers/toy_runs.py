"""A training run whose steps cost nothing: one weight for each variable, and a noisy gradient."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.checkpoints.run_store import RunStore
from stride_jax.config import to_dict
from stride_jax.data.windows import make_windows
from stride_jax.models.config import TimerXLConfig
from stride_jax.training.config import OptimConfig, RunConfig
from stride_jax.training.hooks import Hook
from stride_jax.training.loop import run_training
from stride_jax.training.resume import resume
from stride_jax.training.step import Task, TrainState, initial_state, steps_per_epoch

VALUES = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
MODEL = TimerXLConfig(patch_len=2, d_model=8, num_heads=2, d_ff=8)


def loss(params: Any, windows: jax.Array, key: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
    """Squared distance from the windows, with noise on the weights in place of dropout."""
    noise = jax.random.normal(key, params["w"].shape)
    return jnp.mean(jnp.square(params["w"] + 0.1 * noise - windows.mean((0, 1)))), {}


def error(params: Any, windows: jax.Array) -> jax.Array:
    """The distance of each window."""
    return jnp.mean(jnp.square(params["w"][None, None] - windows), axis=(1, 2))


def parameters() -> dict[str, jax.Array]:
    """The weights before the first step."""
    return {"w": jnp.ones(2, jnp.float32)}


def toy_task() -> Task:
    """Windows of four steps of two variables."""
    train = make_windows((0, 40), 4, 2, separate=False)
    held_out = make_windows((40, 60), 4, 2, separate=False)
    return Task(MODEL, 2, train, held_out, loss, error)


def settings(out: Path, **changed: Any) -> tuple[OptimConfig, RunConfig, dict[str, Any]]:
    """Three epochs of three steps, unless `changed` says otherwise, and the stored config.

    `changed` holds fields of both configs.
    """
    names = {field.name for field in dataclasses.fields(RunConfig)}
    run_fields = {"log_every": 1, **{k: v for k, v in changed.items() if k in names}}
    optim = {k: v for k, v in changed.items() if k not in names}
    fields = {"batch_size": 4, "epochs": 3, "steps_per_epoch": 3, "learning_rate": 0.1, **optim}
    config = OptimConfig(**fields)
    run = RunConfig(out=str(out), **run_fields)
    return config, run, {"optim": to_dict(config), "run": to_dict(run)}


def toy_run(
    out: Path,
    *,
    hooks: Sequence[Hook] = (),
    values: np.ndarray = VALUES,
    **fields: Any,
) -> Checkpoint:
    """A whole run; `fields` as for `settings`."""
    optim, run, stored = settings(out, **fields)
    return run_training(toy_task(), optim, run, parameters(), values, stored, hooks=hooks)


def toy_start(out: Path, **fields: Any) -> TrainState:
    """A run that is begun or resumed and stopped before its next step."""
    optim, run, stored = settings(out, **fields)
    epoch_steps = steps_per_epoch(toy_task(), optim)
    state = initial_state(parameters(), optim, epoch_steps)
    with RunStore(out) as store:
        return resume(store, state, optim=optim, run=run, config=stored, epoch_steps=epoch_steps)


def steps(run: Path, part: str) -> list[str]:
    """The numbers of the finished checkpoints in `last` or `best`."""
    return sorted(path.name for path in (run / part).glob("*") if path.name.isdigit())
