"""Training: one jitted, donated step and the driver around it.

Everything random follows from one seed and the step number, so a resumed run continues bitwise.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from stride_jax import losses
from stride_jax.checkpoints import Checkpoint, RunStore, host_copy
from stride_jax.config import DataConfig, OptimConfig, RunConfig, TimerXLConfig, TrainConfig
from stride_jax.config_json import to_dict
from stride_jax.data.splits import ForecastData
from stride_jax.data.windows import Windows, batch_index, epoch_order, make_windows, padded_batches
from stride_jax.errors import InputError
from stride_jax.models.timer_xl import Params, TimerXL, init_params

Metrics = dict[str, jax.Array]
LossFn = Callable[[Params, jax.Array, jax.Array], tuple[jax.Array, Metrics]]
"""`(params, windows [B, length, C], key) -> (loss, metrics)`; consumes the key."""
ValidationFn = Callable[[Params, jax.Array], jax.Array]
"""`(params, windows [B, length, C]) -> [B]` error of each window."""


class TrainState(NamedTuple):
    """What a step changes, and all that a resumed run needs.

    Attributes:
        params: parameters.
        opt_state: optax state.
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
    """What `fit` needs to know of a training problem.

    Attributes:
        model: config of the trained forecaster.
        context_len: steps it sees.
        train: training windows.
        validation: validation windows.
        loss: the objective.
        validation_error: the early-stopping error of each validation window.
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
    period = (optim.t_max or optim.epochs) * steps_per_epoch
    return lambda step: lr * 0.5 * (1 + jnp.cos(jnp.pi * step / period))


def make_optimizer(optim: OptimConfig, steps_per_epoch: int) -> optax.GradientTransformation:
    """Adam (betas .9 and .999, eps 1e-8) with the schedule and an optional gradient limit."""
    adam = optax.adam(learning_rate(optim, steps_per_epoch))
    if optim.grad_clip is None:
        return adam
    return optax.chain(optax.clip_by_global_norm(optim.grad_clip), adam)


def next_patch_task(config: TrainConfig, data: ForecastData) -> Task:
    """The target's problem: every position's next patch; validated on the last patch only.

    The windows hold the context and one more patch: position n is scored against patch n + 1.
    """
    model_config, patch_len = config.trained_model, config.model.patch_len
    context_len = config.data.context_len
    model = TimerXL(model_config)

    def loss(params: Params, windows: jax.Array, key: jax.Array) -> tuple[jax.Array, Metrics]:
        x, y = windows[:, :context_len], windows[:, patch_len:]
        rngs = {"dropout": key}
        out = model.apply({"params": params}, x, deterministic=False, rngs=rngs)
        if isinstance(out, tuple):
            mean, logvar = out
            return losses.gaussian_nll(mean, logvar, y), {}
        return losses.mse(out, y), {}

    def validation_error(params: Params, windows: jax.Array) -> jax.Array:
        out = model.apply({"params": params}, windows[:, :context_len], last_only=True)
        mean = out[0] if isinstance(out, tuple) else out
        return jnp.mean(jnp.square(mean - windows[:, context_len:]), axis=(1, 2))

    train, validation = training_windows(config.data, data, patch_len)
    return Task(model_config, context_len, train, validation, loss, validation_error)


def training_windows(
    config: DataConfig, data: ForecastData, patch_len: int
) -> tuple[Windows, Windows]:
    """Training and validation windows of the context and one patch more."""
    separate = config.variables == "separate"
    length = config.context_len + patch_len
    num_vars = data.values.shape[1]
    return (
        make_windows(data.splits.train, length, num_vars, separate=separate),
        make_windows(data.splits.validation, length, num_vars, separate=separate),
    )


def make_step(
    task: Task, optimizer: optax.GradientTransformation, batch_size: int, steps_per_epoch: int
) -> Callable[..., tuple[TrainState, Metrics]]:
    """The jitted step `(state, values, order, key) -> (state, metrics)`; the state is donated.

    The batch and the key of step n depend on n alone; `key` is folded, not consumed.
    """

    def step(
        state: TrainState, values: jax.Array, order: jax.Array, key: jax.Array
    ) -> tuple[TrainState, Metrics]:
        index = batch_index(order, state.step % steps_per_epoch, batch_size)
        windows = task.train.gather(values, index)
        grad_fn = jax.value_and_grad(task.loss, has_aux=True)
        step_key = jax.random.fold_in(key, state.step)
        (loss, metrics), grads = grad_fn(state.params, windows, step_key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads), **metrics}
        return state._replace(params=params, opt_state=opt_state, step=state.step + 1), metrics

    return jax.jit(step, donate_argnums=0)


def make_validate(task: Task, batch_size: int) -> Callable[[Params, jax.Array], jax.Array]:
    """The jitted mean validation error over every window: `(params, values) -> scalar`."""
    index, weight = padded_batches(task.validation.count, batch_size)

    def validate(params: Params, values: jax.Array) -> jax.Array:
        def body(total: jax.Array, batch: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            windows = task.validation.gather(values, batch[0])
            return total + jnp.sum(batch[1] * task.validation_error(params, windows)), None

        total, _ = jax.lax.scan(body, jnp.zeros(()), (index, weight))
        return total / task.validation.count

    return jax.jit(validate)


class Trainer:
    """Runs the epochs of one task: logging, validation, early stopping, checkpoints."""

    def __init__(
        self,
        task: Task,
        optim: OptimConfig,
        run: RunConfig,
        params: Params,
        values: np.ndarray,
        config: dict[str, Any],
    ) -> None:
        """Builds the step and picks up the last checkpoint when resuming.

        Args:
            task: the problem.
            optim: optimiser settings.
            run: files and seed.
            params: initial parameters (not used when resuming).
            values: `[T, C]` standardised series.
            config: what is stored in the checkpoints; a resumed run must have the same.

        Raises:
            InputError: the directory holds another run, or no run to resume, or too few windows.
        """
        self.task, self.optim, self.run = task, optim, run
        self.config = json.loads(json.dumps(config))  # as it comes back: tuples are lists
        full = task.train.count // optim.batch_size
        self.steps_per_epoch = min(full, optim.steps_per_epoch or full)
        if full == 0:
            raise InputError(
                f"batch_size {optim.batch_size} exceeds the {task.train.count} training windows."
            )
        self.schedule = learning_rate(optim, self.steps_per_epoch)
        optimizer = make_optimizer(optim, self.steps_per_epoch)
        self.step_fn = make_step(task, optimizer, optim.batch_size, self.steps_per_epoch)
        self.validate = make_validate(task, optim.batch_size)
        self.values = jnp.asarray(values)
        self.order_key, self.step_key = jax.random.split(jax.random.key(run.seed))
        params = jax.tree.map(jnp.array, params)  # copies: the step donates its state
        self.state = TrainState(
            params,
            optimizer.init(params),
            step=jnp.zeros((), jnp.int32),
            best=jnp.asarray(jnp.inf, jnp.float32),
            bad_epochs=jnp.zeros((), jnp.int32),
        )
        self.store = RunStore(Path(run.out))
        try:
            self._resume_or_start()
        except BaseException:
            self.store.close()
            raise
        self.log_path = Path(run.out) / "log.jsonl"
        self._trim_log()

    def _resume_or_start(self) -> None:
        stored = self.store.last_config()
        if stored is None:
            if self.run.resume:
                raise InputError(f"nothing to resume in {self.run.out!r}; leave out --resume.")
            return
        if not self.run.resume:
            raise InputError(
                f"{self.run.out!r} already holds a run; continue it with --resume or "
                "give another --run.out."
            )
        changed = [k for k, v in self.config.items() if k != "run" and stored.get(k) != v]
        if stored.get("run", {}).get("seed") != self.run.seed:
            changed.append("run.seed")
        if changed:
            raise InputError(
                f"the run in {self.run.out!r} was started with another {', '.join(changed)}: "
                f"{ {k: stored.get(k) for k in changed} }; resume with the same."
            )
        self.state = jax.tree.map(jnp.array, self.store.restore_last(self.state))

    def _trim_log(self) -> None:
        """Drops lines of steps that were lost with a kill; they are about to be done again."""
        if self.log_path.exists():
            lines = self.log_path.read_text().splitlines(keepends=True)
            done = int(self.state.step)
            kept = [x for x in lines if x.endswith("}\n") and json.loads(x)["step"] <= done]
            self.log_path.write_text("".join(kept))

    def fit(self) -> Checkpoint:
        """Trains to the end and returns the last parameters; the best ones are on disk."""
        total = self.optim.epochs * self.steps_per_epoch
        done = int(self.state.step)
        try:
            with tqdm(total=total, initial=done, disable=None, unit="step") as bar:
                for epoch in range(done // self.steps_per_epoch, self.optim.epochs):
                    if int(self.state.bad_epochs) >= self.optim.patience:
                        break
                    self.run_steps(epoch, (epoch + 1) * self.steps_per_epoch, bar)
                    self._end_epoch(epoch)
        finally:
            self.store.close()
        return Checkpoint(self.task.model, self.state.params, self.task.context_len)

    def run_steps(self, epoch: int, stop: int, bar: tqdm[Any]) -> None:
        """Steps within one epoch until `state.step` is `stop`: log lines and saves included."""
        order = epoch_order(self.order_key, epoch, self.task.train.count)
        first = int(self.state.step)
        clock, logged = time.perf_counter(), first
        for step in range(first + 1, stop + 1):
            self.state, metrics = self.step_fn(self.state, self.values, order, self.step_key)
            bar.update()
            if step % self.run.log_every == 0 or step == first + 1:
                record = {name: float(value) for name, value in metrics.items()}
                now = time.perf_counter()
                record["learning_rate"] = float(self.schedule(step - 1))
                record["steps_per_second"] = (step - logged) / (now - clock)
                self._log({"step": step, "epoch": epoch, **record})
                shown = ("loss", "grad_norm", "learning_rate")
                bar.set_postfix({name: f"{record[name]:.3g}" for name in shown})
                clock, logged = time.perf_counter(), step
            if step % self.run.save_every == 0 and step % self.steps_per_epoch:
                self._check_finite(float(metrics["loss"]))
                self.store.save_last(step, host_copy(self.state), self.config)

    def _end_epoch(self, epoch: int) -> None:
        error = self.validate(self.state.params, self.values)
        self._check_finite(float(error))
        better = bool(error < self.state.best)
        bad = 0 if better else int(self.state.bad_epochs) + 1
        self.state = self.state._replace(
            best=jnp.minimum(error, self.state.best), bad_epochs=jnp.asarray(bad, jnp.int32)
        )
        step = int(self.state.step)
        self._log({"step": step, "epoch": epoch, "val_mse": float(error), "best": better})
        host = host_copy(self.state)
        if better:
            best = Checkpoint(self.task.model, host.params, self.task.context_len)
            self.store.save_best(step, best)
        self.store.save_last(step, host, self.config)

    def _check_finite(self, loss: float) -> None:
        """Called before every save, so that a diverged state never replaces a good one."""
        if not np.isfinite(loss):
            raise InputError(
                f"the loss is {loss} at step {int(self.state.step)}; the checkpoints before it are "
                "kept. Lower optim.learning_rate or set optim.grad_clip, and start in another "
                "run.out (--init_from takes the best checkpoint)."
            )

    def _log(self, record: dict[str, Any]) -> None:
        self._check_finite(record.get("loss", 0.0))
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("a") as file:
            file.write(json.dumps(record) + "\n")


def train(config: TrainConfig, data: ForecastData, init: Checkpoint | None = None) -> Checkpoint:
    """Trains a forecaster from scratch or from `init`.

    Args:
        config: everything static.
        data: see `data.splits.prepare`.
        init: parameters to start from; must have the config's model.

    Returns:
        The last parameters. The best ones are in `config.run.out`.

    Raises:
        InputError: `init` is another model, or see `Trainer`.
    """
    model = config.trained_model
    if init is None:
        params = init_params(jax.random.key(config.run.seed), model)
    elif dataclasses.replace(init.model, dropout=model.dropout, dtype=model.dtype) != model:
        raise InputError(f"init_from holds {init.model}, the config asks for {model}.")
    else:
        params = init.params
    task = next_patch_task(config, data)
    return Trainer(task, config.optim, config.run, params, data.values, to_dict(config)).fit()
