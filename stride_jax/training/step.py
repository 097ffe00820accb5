"""Training: the problem, the schedule, and one jitted, donated step.

Everything random follows from one seed and the step number, so a resumed run continues bitwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stride_jax import metrics
from stride_jax.data.config import DataConfig
from stride_jax.data.gaps import Gaps
from stride_jax.data.splits import ForecastData
from stride_jax.data.windows import Windows, batch_index, make_windows, padded_batches
from stride_jax.errors import InputError
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import Params, TimerXL
from stride_jax.sharding import make_mesh, split_batch
from stride_jax.training import losses
from stride_jax.training.config import OptimConfig, TrainConfig

Metrics = dict[str, jax.Array]
LossFn = Callable[[Params, jax.Array, jax.Array], tuple[jax.Array, Metrics]]
"""`(params, windows [B, length, C], key) -> (loss, metrics)`; consumes the key."""
ValidationFn = Callable[[Params, jax.Array], jax.Array]
"""`(params, windows [B, length, C]) -> [B]` error of each window."""


class TrainState(NamedTuple):
    """The state that a step changes; all that a resumed run needs.

    Attributes:
        params: Parameters.
        opt_state: Optax state.
        step: int32, steps done.
        best: float32, lowest validation error so far.
        bad_epochs: int32, epochs since then.
    """

    params: Params
    opt_state: Any
    step: jax.Array
    best: jax.Array
    bad_epochs: jax.Array


class Task(NamedTuple):
    """A training problem, as `fit` takes it.

    Attributes:
        model: Config of the trained forecaster.
        context_len: Steps it sees.
        train: Training windows.
        validation: Validation windows.
        loss: The objective.
        validation_error: The early-stopping error of each validation window.
    """

    model: TimerXLConfig
    context_len: int
    train: Windows
    validation: Windows
    loss: LossFn
    validation_error: ValidationFn


def learning_rate(optim: OptimConfig, steps_per_epoch: int) -> optax.Schedule:
    """The schedule as a function of the step.

    cosine: `lr (1 + cos(pi epoch / t_max)) / 2` with a fractional epoch (after t_max it rises
    again, as the original's PyTorch schedule does). type1: `lr 0.1^epoch` with the whole epoch.
    """
    lr = optim.learning_rate
    if optim.schedule == "constant":
        return optax.constant_schedule(lr)
    if optim.schedule == "type1":
        return optax.exponential_decay(lr, steps_per_epoch, 0.1, staircase=True)
    assert optim.period is not None
    period = optim.period * steps_per_epoch
    return lambda step: lr * 0.5 * (1 + jnp.cos(jnp.pi * step / period))


def make_optimizer(optim: OptimConfig, steps_per_epoch: int) -> optax.GradientTransformation:
    """Adam (betas .9 and .999, eps 1e-8) with the schedule and an optional gradient limit."""
    adam = optax.adam(learning_rate(optim, steps_per_epoch))
    if optim.grad_clip is None:
        return adam
    return optax.chain(optax.clip_by_global_norm(optim.grad_clip), adam)


def steps_per_epoch(task: Task, optim: OptimConfig) -> int:
    """Steps per epoch: all full batches, or the fewer that `optim` asks for.

    Raises:
        InputError: there is no full batch, or see `sharding.make_mesh`.
    """
    make_mesh(optim.batch_size // optim.accumulate)
    full = task.train.count // optim.batch_size
    if full == 0:
        raise InputError(
            f"batch_size {optim.batch_size} exceeds the {task.train.count} training windows."
        )
    return min(full, optim.steps_per_epoch or full)


def initial_state(params: Params, optim: OptimConfig, epoch_steps: int) -> TrainState:
    """The state before the first step."""
    return TrainState(
        params,
        make_optimizer(optim, epoch_steps).init(params),
        step=jnp.zeros((), jnp.int32),
        best=jnp.asarray(jnp.inf, jnp.float32),
        bad_epochs=jnp.zeros((), jnp.int32),
    )


def next_patch_task(config: TrainConfig, data: ForecastData) -> Task:
    """The task of a target: the next patch at every position; validated on the last patch only.

    The windows hold the context and one more patch: position n is scored against patch n + 1.
    """
    model_config, patch_len = config.trained_model, config.model.patch_len
    context_len = config.data.context_len
    model, gaps = TimerXL(model_config), bool(np.isnan(data.values).any())

    def loss(params: Params, windows: jax.Array, key: jax.Array) -> tuple[jax.Array, Metrics]:
        x, y = windows[:, :context_len], windows[:, patch_len:]
        rngs = {"dropout": key}
        out = model.apply({"params": params}, x, deterministic=False, rngs=rngs)
        if isinstance(out, tuple):
            mean, logvar = out
            return jnp.mean(losses.gaussian_nll(mean, logvar, y)), {}
        return metrics.mse(out, y), {}

    def validation_error(params: Params, windows: jax.Array) -> jax.Array:
        out = model.apply({"params": params}, windows[:, :context_len], last_only=True)
        mean = out[0] if isinstance(out, tuple) else out
        truth = windows[:, context_len:]
        if not gaps:
            return jnp.mean(jnp.square(mean - truth), axis=(1, 2))
        return jax.vmap(metrics.mse)(mean, truth, ~jnp.isnan(truth))

    train, validation = training_windows(config.data, data, patch_len)
    return Task(model_config, context_len, train, validation, loss, validation_error)


def training_windows(config: DataConfig, data: ForecastData, ahead: int) -> tuple[Windows, Windows]:
    """Training and validation windows of the context and `ahead` steps more.

    Where the series has gaps, those of a training window are filled within it; missing truths of
    a validation window are NaN.
    """
    separate = config.variables == "separate"
    length = config.context_len + ahead
    num_vars = data.values.shape[1]
    return (
        make_windows(
            data.splits.train, length, num_vars, separate=separate, ahead=ahead, fill_ahead=True
        ),
        make_windows(
            data.splits.validation,
            length,
            num_vars,
            separate=separate,
            stride=config.validation_stride,
            ahead=ahead,
        ),
    )


def make_step(
    task: Task,
    optimizer: optax.GradientTransformation,
    optim: OptimConfig,
    steps_per_epoch: int,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """The jitted step `(state, values, order, key) -> (state, metrics)`; the state is donated.

    The batch and the key of step n depend on n alone; `key` is folded, not consumed. Each device
    takes its share of the batch, or with `optim.accumulate` of each part of it.

    Raises:
        InputError: see `sharding.make_mesh`.
    """
    mesh = make_mesh(optim.batch_size // optim.accumulate)
    grad_fn = jax.value_and_grad(task.loss, has_aux=True)

    def gradient(
        params: Params, windows: jax.Array, key: jax.Array
    ) -> tuple[tuple[jax.Array, Metrics], Params]:
        if optim.accumulate == 1:
            return grad_fn(params, split_batch(windows, mesh), key)
        # [B, T, C] -> [A, B / A, T, C]
        parts = windows.reshape(optim.accumulate, -1, *windows.shape[1:])

        def one(part: tuple[jax.Array, jax.Array]) -> Any:
            return grad_fn(params, split_batch(part[0], mesh), part[1])

        def body(total: Any, part: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, one(part)), None

        keys = jax.random.split(key, optim.accumulate)
        first = one((parts[0], keys[0]))
        total, _ = jax.lax.scan(body, first, (parts[1:], keys[1:]))
        mean: tuple[tuple[jax.Array, Metrics], Params]
        mean = jax.tree.map(lambda x: x / optim.accumulate, total)
        return mean

    def step(
        state: TrainState, values: jax.Array, order: jax.Array, key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        index = batch_index(order, state.step % steps_per_epoch, optim.batch_size)
        windows = task.train.gather(values, index)
        step_key = jax.random.fold_in(key, state.step)
        (loss, metrics), grads = gradient(state.params, windows, step_key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads), **metrics}
        return state._replace(params=params, opt_state=opt_state, step=state.step + 1), metrics

    return jax.jit(step, donate_argnums=0)


def make_validate(task: Task, batch_size: int) -> Callable[[Params, jax.Array], jax.Array]:
    """The jitted mean validation error over every window: `(params, values) -> scalar`.

    Windows of which no truth was observed do not count.
    """
    mesh = make_mesh(batch_size)
    index, weight = padded_batches(task.validation.count, batch_size)

    def validate(params: Params, values: jax.Array | Gaps) -> jax.Array:
        if isinstance(values, Gaps):
            return with_missing(params, values)

        def body(total: jax.Array, batch: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            windows = split_batch(task.validation.gather(values, batch[0]), mesh)
            return total + jnp.sum(batch[1] * task.validation_error(params, windows)), None

        total, _ = jax.lax.scan(body, jnp.zeros(()), (index, weight))
        return total / task.validation.count

    def with_missing(params: Params, values: Gaps) -> jax.Array:
        def body(sums: jax.Array, batch: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            windows = split_batch(task.validation.gather(values, batch[0]), mesh)
            truth = windows[:, windows.shape[1] - task.validation.ahead :]
            counts = batch[1] * ~jnp.isnan(truth).all(axis=(1, 2))
            errors = task.validation_error(params, windows)
            return sums + jnp.stack([jnp.sum(counts * errors), jnp.sum(counts)]), None

        sums, _ = jax.lax.scan(body, jnp.zeros(2), (index, weight))
        return sums[0] / sums[1]

    return jax.jit(validate)
