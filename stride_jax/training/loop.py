"""The loop of a training run: epochs of steps, each followed by a validation."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from stride_jax.checkpoints.checkpoint import Checkpoint, host_copy
from stride_jax.checkpoints.run_store import RunStore
from stride_jax.config import to_dict
from stride_jax.data.gaps import with_gaps
from stride_jax.data.splits import ForecastData
from stride_jax.data.windows import epoch_order
from stride_jax.decoding.keys import as_key
from stride_jax.decoding.scale import PatchCovariance
from stride_jax.errors import InputError
from stride_jax.models.timer_xl import Params, init_params
from stride_jax.sharding import everywhere, first_process, make_mesh
from stride_jax.training.config import OptimConfig, RunConfig, TrainConfig
from stride_jax.training.dispatch import Dispatcher, make_steps
from stride_jax.training.hooks import (
    EarlyStopping,
    Epoch,
    Hook,
    Interrupt,
    Log,
    ProgressBar,
    Saves,
    check_validation,
    trim_log,
)
from stride_jax.training.path_loss import path_task
from stride_jax.training.resume import resume, with_series
from stride_jax.training.step import (
    Task,
    TrainState,
    initial_state,
    make_optimizer,
    make_step,
    make_validate,
    next_patch_task,
    steps_per_epoch,
)


def fit(
    task: Task,
    optim: OptimConfig,
    state: TrainState,
    values: np.ndarray,
    *,
    seed: int,
    hooks: Sequence[Hook] = (),
    steps_per_dispatch: int | None = None,
) -> TrainState:
    """Trains from a state to the last epoch, or until a hook ends it.

    The order of the windows and the key of each step follow from the seed and the step number
    alone, so a run that goes on from a saved state is, to the bit, the one that was not stopped.
    Several steps run in one dispatch, which never crosses a step that a hook asks for; how many
    changes no bit.

    Args:
        task: The problem.
        optim: Optimiser settings.
        state: Where to begin; copied, not donated.
        values: `[T, C]` standardised series, NaN where nothing was observed.
        seed: Of the order of the windows and the keys of the steps.
        hooks: Called in this order, before each epoch, after each dispatch and after each epoch.
        steps_per_dispatch: At most; None for as many as take about half a second.

    Returns:
        The last state, on every device.

    Raises:
        InputError: too few windows, a batch that the devices cannot share, a seed outside 0 to
            2**32 - 1, a number of steps per dispatch below 1, a hook that asks for a step already
            done, or a validation error that is not finite.
    """
    epoch_steps = steps_per_epoch(task, optim)
    step = make_step(task, make_optimizer(optim, epoch_steps), optim, epoch_steps)
    dispatcher = Dispatcher(make_steps(step), steps_per_dispatch)
    validate = make_validate(task, optim.batch_size)
    mesh = make_mesh(optim.batch_size // optim.accumulate)
    on_all = NamedSharding(mesh, PartitionSpec())
    order_key, step_key = jax.jit(_keys, static_argnums=0, out_shardings=on_all)(seed)
    order_of = jax.jit(epoch_order, static_argnames="count", out_shardings=on_all)
    series = everywhere(with_gaps(np.asarray(values)), mesh)
    state = everywhere(host_copy(state), mesh)  # copies: the step donates its state
    done = int(state.step)
    for epoch in range(done // epoch_steps, optim.epochs):
        if not all(hook.before_epoch(epoch, state) for hook in hooks):
            break

        # the steps of the epoch, from where the run stands
        arrays = (series, order_of(order_key, epoch, count=task.train.count), step_key)
        span = (done, (epoch + 1) * epoch_steps)
        for seen in dispatcher.epoch(state, arrays, span, epoch, hooks):
            for hook in hooks:
                hook.on_step(seen)
        assert seen.state is not None
        state, done = seen.state, seen.number

        # validation, which decides about the best parameters
        error = np.asarray(validate(state.params, series), np.float32)
        check_validation(float(error), task.validation_name, seen)
        better = bool(error < state.best)
        state = _counted(state, error, mesh)
        for hook in hooks:
            hook.on_epoch(Epoch(epoch, done, state, float(error), better))
    return state


def _keys(seed: int) -> jax.Array:
    """Keys of the order of the windows and of the steps."""
    return jax.random.split(as_key(seed))


def _counted(state: TrainState, error: np.ndarray, mesh: Mesh) -> TrainState:
    """The state with the lowest validation error and the epochs since then brought up to date."""
    bad = 0 if error < state.best else int(state.bad_epochs) + 1
    lowest = np.minimum(error, np.asarray(state.best))
    best, bad_epochs = everywhere((lowest, np.asarray(bad, np.int32)), mesh)
    return state._replace(best=best, bad_epochs=bad_epochs)


@contextlib.contextmanager
def standard_hooks(
    store: RunStore,
    task: Task,
    optim: OptimConfig,
    run: RunConfig,
    config: Mapping[str, Any],
    step: int,
) -> Iterator[tuple[Hook, ...]]:
    """Progress bar, Ctrl-C, early stopping, log lines and checkpoints of a run.

    Args:
        store: Checkpoints of the run.
        task: The problem.
        optim: Optimiser settings.
        run: Files, and how often they are written.
        config: Stored in the checkpoints, JSON-ready.
        step: Steps done; log lines of later ones are dropped.

    Raises:
        KeyboardInterrupt: on leaving, after a Ctrl-C.
    """
    epoch_steps = steps_per_epoch(task, optim)
    log_path = Path(run.out) / "log.jsonl"
    trim_log(log_path, step)
    total, quiet = optim.epochs * epoch_steps, None if first_process() else True
    saves = Saves(store, task, run.save_every, config)
    with (
        Interrupt(saves.save) as interrupt,
        tqdm(total=total, initial=step, disable=quiet, unit="step") as bar,
    ):
        show = functools.partial(bar.set_postfix, refresh=False)  # shown when the bar moves
        log = Log(log_path, run.log_every, show, task.validation_name)
        yield ProgressBar(bar), interrupt, EarlyStopping(optim), log, saves


def run_training(
    task: Task,
    optim: OptimConfig,
    run: RunConfig,
    params: Params,
    values: np.ndarray,
    config: Mapping[str, Any],
    *,
    hooks: Sequence[Hook] = (),
) -> Checkpoint:
    """Begins or resumes a run in its directory and trains to the end.

    Args:
        task: The problem.
        optim: Optimiser settings.
        run: Files and seed.
        params: Initial parameters (not used when resuming).
        values: `[T, C]` standardised series, NaN where nothing was observed.
        config: Stored in the checkpoints beside sizes and means of the series; a resumed run must
            have the same, but for what `goes_on` allows.
        hooks: Called before the standard ones.

    Returns:
        The last parameters; the best ones are on disk.

    Raises:
        InputError: the directory holds another run, or no run to resume, or too few windows.
        KeyboardInterrupt: Ctrl-C, after the step it came in and its checkpoint.
    """
    config = with_series(config, values)
    epoch_steps = steps_per_epoch(task, optim)
    state = initial_state(params, optim, epoch_steps)
    with RunStore(Path(run.out)) as store:
        state = resume(store, state, optim=optim, run=run, config=config, epoch_steps=epoch_steps)
        with standard_hooks(store, task, optim, run, config, int(state.step)) as standard:
            state = fit(
                task,
                optim,
                state,
                values,
                seed=run.seed,
                hooks=(*hooks, *standard),
                steps_per_dispatch=run.steps_per_dispatch,
            )
    return Checkpoint(task.model, state.params, task.context_len)


def train(
    config: TrainConfig,
    data: ForecastData,
    init: Checkpoint | None = None,
    covariance: PatchCovariance | None = None,
) -> Checkpoint:
    """Trains a forecaster from scratch or from `init`.

    Args:
        config: Everything static.
        data: The series, see `data.splits.prepare`.
        init: Parameters to start from; must have the config's model.
        covariance: Of the loss `paths`, see `path_loss.path_task`.

    Returns:
        The last parameters. The best ones are in `config.run.out`.

    Raises:
        InputError: `init` is another model, or see `run_training`.
    """
    model = config.trained_model
    if init is None:
        params = init_params(jax.random.key(config.run.seed), model)
    elif model != dataclasses.replace(
        init.model, dropout=model.dropout, dtype=model.dtype, remat=model.remat
    ):
        raise InputError(f"init_from holds {init.model}, the config asks for {model}.")
    else:
        params = init.params
    task = (
        path_task(config, data, covariance)
        if config.loss == "paths"
        else next_patch_task(config, data)
    )
    return run_training(task, config.optim, config.run, params, data.values, to_dict(config))
