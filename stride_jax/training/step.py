"""Training: the problem, the schedule, and one step.

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
from stride_jax.config import require
from stride_jax.data.config import DataConfig
from stride_jax.data.gaps import Gaps
from stride_jax.data.splits import ForecastData
from stride_jax.data.synthetic_series import draw_windows, shares
from stride_jax.data.windows import Windows, batch_index, make_windows, padded_batches
from stride_jax.errors import InputError
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import Params, TimerXL, instance_stats
from stride_jax.sharding import make_mesh, split_batch
from stride_jax.training import losses
from stride_jax.training.config import OptimConfig, TrainConfig

SYNTHETIC = 0x53594E54
"""Folded into the key of a run for its synthetic windows; larger than any step's number."""
MIRRORED = 0x4D495252
"""Folded into the key of a run for the choice of the windows that are turned upside down."""
Metrics = dict[str, jax.Array]
StepFn = Callable[
    ["TrainState", "jax.Array | Gaps", jax.Array, jax.Array], tuple["TrainState", Metrics]
]
"""`(state, values, order, key) -> (state, metrics)`, one step, see `make_step`."""
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
        validation_name: The name of that error in the log.
        synthetic: Draws windows `[B, length, 1]` from a key and a count, in a step; None for none.
        num_synthetic: How many of a batch are drawn, in place of its last training windows.
        mirrored: Share of the windows of a step that are turned upside down.
    """

    model: TimerXLConfig
    context_len: int
    train: Windows
    validation: Windows
    loss: LossFn
    validation_error: ValidationFn
    validation_name: str = "val_mse"
    synthetic: Callable[[jax.Array, int], jax.Array] | None = None
    num_synthetic: int = 0
    mirrored: float = 0.0


def learning_rate(optim: OptimConfig, steps_per_epoch: int) -> optax.Schedule:
    """The schedule as a function of the step.

    cosine: `lr (1 + cos(pi epoch / t_max)) / 2` with a fractional epoch (after t_max it rises
    again, as the original's PyTorch schedule does). type1: `lr 0.1^epoch` with the whole epoch.
    In the warm-up the rate is that times the share of its steps begun.
    """
    after = _schedule(optim, steps_per_epoch)
    if optim.warmup_steps == 0:
        return after
    return lambda step: after(step) * jnp.minimum(1.0, (step + 1) / optim.warmup_steps)


def _schedule(optim: OptimConfig, steps_per_epoch: int) -> optax.Schedule:
    lr = optim.learning_rate
    if optim.schedule == "constant":
        return optax.constant_schedule(lr)
    if optim.schedule == "type1":
        return optax.exponential_decay(lr, steps_per_epoch, 0.1, staircase=True)
    assert optim.period is not None
    period = optim.period * steps_per_epoch
    return lambda step: lr * 0.5 * (1 + jnp.cos(jnp.pi * step / period))


def make_optimizer(optim: OptimConfig, steps_per_epoch: int) -> optax.GradientTransformation:
    """Adam (betas .9 and .999, eps 1e-8), or AdamW; with the schedule and a gradient limit."""
    rate = learning_rate(optim, steps_per_epoch)
    adam = (
        optax.adamw(rate, weight_decay=optim.weight_decay)
        if optim.weight_decay
        else optax.adam(rate)
    )
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

    The windows hold the context and one more patch: position n is scored against patch n + 1. With
    the loss crps positions count from the second patch on.

    Raises:
        InputError: an unknown family of synthetic series.
    """
    model_config, patch_len = config.trained_model, config.model.patch_len
    context_len = config.data.context_len
    model, gaps = TimerXL(model_config), bool(np.isnan(data.values).any())

    def score(out: tuple[jax.Array, jax.Array], windows: jax.Array) -> jax.Array:
        # [B, N * P, C] or [B, P, C] -> [B, N or 1, P, C], by the unit of each patch
        entries = losses.gaussian_crps(*out, windows[:, -out[0].shape[1] :])
        entries = entries.reshape(len(windows), -1, patch_len, windows.shape[2])
        return entries / _units(model_config, windows)[:, -entries.shape[1] :]

    def loss(params: Params, windows: jax.Array, key: jax.Array) -> tuple[jax.Array, Metrics]:
        x, y = windows[:, :context_len], windows[:, patch_len:]
        rngs = {"dropout": key}
        out = model.apply({"params": params}, x, deterministic=False, rngs=rngs)
        if isinstance(out, tuple):
            mean, logvar = out
            if config.loss == "crps":
                entries = score(out, windows)
                entries = entries[:, min(1, entries.shape[1] - 1) :]
                return jnp.mean(jnp.nanmean(entries, axis=(1, 2, 3))), {}
            return jnp.mean(losses.gaussian_nll(mean, logvar, y)), {}
        return metrics.mse(out, y), {}

    def validation_error(params: Params, windows: jax.Array) -> jax.Array:
        out = model.apply({"params": params}, windows[:, :context_len], last_only=True)
        mean = out[0] if isinstance(out, tuple) else out
        truth = windows[:, context_len:]
        if not gaps:
            return jnp.mean(jnp.square(mean - truth), axis=(1, 2))
        return jax.vmap(metrics.mse)(mean, truth, ~jnp.isnan(truth))

    def validation_score(params: Params, windows: jax.Array) -> jax.Array:
        out = model.apply({"params": params}, windows[:, :context_len], last_only=True)
        return jnp.nanmean(score(out, windows), axis=(1, 2, 3))

    train, validation = training_windows(config.data, data, patch_len)
    error, name = validation_error, "val_mse"
    if config.loss == "crps":
        error, name = validation_score, "val_crps"
    task = Task(model_config, context_len, train, validation, loss, error, name)
    return with_changed_windows(task, config.data, config.optim)


def _units(model: TimerXLConfig, windows: jax.Array) -> jax.Array:
    """The unit that errors of the patch after each patch of a context are counted in.

    Args:
        model: its normalisation gives the running std.
        windows: `[B, (N + 1) * P, C]`, a context and the patch after it.

    Returns:
        `[B, 1 or N, 1, C]`, see `losses.running_unit`.
    """
    context = windows[:, : -model.patch_len]
    patches = context.reshape(len(windows), -1, model.patch_len, windows.shape[2])
    running = instance_stats(model, patches)[1]
    return losses.running_unit(running, windows, losses.UNIT_FLOOR)


def with_changed_windows(task: Task, data: DataConfig, optim: OptimConfig) -> Task:
    """The task with a share of each batch generated anew at every step, and a share mirrored.

    Raises:
        InputError: an unknown family of synthetic series, or a share that is no window of a batch.
    """
    task = task._replace(mirrored=data.mirrored_share)
    share, without = data.synthetic_share, data.synthetic_without
    if share == 0:
        return task
    shares(without)  # raises for an unknown family

    def synthetic(key: jax.Array, count: int) -> jax.Array:
        return draw_windows(key, count, task.train.length, without)

    batch = optim.batch_size
    count = round(share * batch)
    require(
        count > 0,
        f"data.synthetic_share {share} of a batch of {batch} is {share * batch:.2g} windows, "
        f"rounded to none; set it to at least {1 / batch:.3g} (1 window), or to 0.",
    )
    require(
        count < batch or share == 1,
        f"data.synthetic_share {share} of a batch of {batch} leaves {(1 - share) * batch:.2g} "
        f"windows of the series, rounded to none; set it to at most {1 - 1 / batch:.3g}, or to 1.",
    )
    return task._replace(synthetic=synthetic, num_synthetic=count)


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
) -> StepFn:
    """One step `(state, values, order, key) -> (state, metrics)`, a pure function to be jitted.

    The batch and the key of step n depend on n alone; `key` is folded, not consumed. Each device
    takes its share of the batch, or with `optim.accumulate` of each part of it. The metrics are
    scalars: the loss, the norm of its gradient, the learning rate, and what the loss adds.

    Raises:
        InputError: see `sharding.make_mesh`.
    """
    mesh = make_mesh(optim.batch_size // optim.accumulate)
    grad_fn = jax.value_and_grad(task.loss, has_aux=True)
    rate = learning_rate(optim, steps_per_epoch)

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
        state: TrainState, values: jax.Array | Gaps, order: jax.Array, key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        index = batch_index(order, state.step % steps_per_epoch, optim.batch_size)
        windows = task.train.gather(values, index[: optim.batch_size - task.num_synthetic])
        if task.synthetic is not None:
            draw_key = jax.random.fold_in(jax.random.fold_in(key, SYNTHETIC), state.step)
            drawn = task.synthetic(draw_key, task.num_synthetic)
            windows = jnp.concatenate([windows, drawn])
        if task.mirrored > 0:
            mirror_key = jax.random.fold_in(jax.random.fold_in(key, MIRRORED), state.step)
            down = jax.random.bernoulli(mirror_key, task.mirrored, (len(windows), 1, 1))
            windows = jnp.where(down, -windows, windows)
        step_key = jax.random.fold_in(key, state.step)
        (loss, metrics), grads = gradient(state.params, windows, step_key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {
            "loss": loss,
            "grad_norm": optax.tree.norm(grads),
            "learning_rate": jnp.asarray(rate(state.step), jnp.float32),
            **metrics,
        }
        return state._replace(params=params, opt_state=opt_state, step=state.step + 1), metrics

    return step


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
            errors = jnp.where(counts > 0, task.validation_error(params, windows), 0)
            return sums + jnp.stack([jnp.sum(counts * errors), jnp.sum(counts)]), None

        sums, _ = jax.lax.scan(body, jnp.zeros(2), (index, weight))
        return sums[0] / sums[1]

    return jax.jit(validate)
