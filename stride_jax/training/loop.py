"""The driver of a training run: epochs, log lines, early stopping, checkpoints."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from tqdm import tqdm

from stride_jax.checkpoints.checkpoint import Checkpoint, host_copy
from stride_jax.checkpoints.run_store import RunStore
from stride_jax.config import from_dict, to_dict
from stride_jax.data.gaps import with_gaps
from stride_jax.data.splits import ForecastData
from stride_jax.data.windows import epoch_order
from stride_jax.errors import InputError
from stride_jax.models.timer_xl import Params, init_params
from stride_jax.sharding import everywhere, first_process, make_mesh
from stride_jax.training.config import OptimConfig, RunConfig, TrainConfig
from stride_jax.training.step import (
    Task,
    TrainState,
    learning_rate,
    make_optimizer,
    make_step,
    make_validate,
    next_patch_task,
)


class Interrupt:
    """Inside, a first Ctrl-C only asks to stop after the step; a second one stops at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _ask(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("stopping after this step; once more stops at once", file=sys.stderr)


def goes_on(before: dict[str, Any], optim: OptimConfig, out: str) -> dict[str, Any]:
    """The stored optimiser settings with what a resumed run may change taken from `optim`.

    Epochs may change and patience may grow, as long as the learning rates of the steps already
    done stay: always with constant and type1, and with cosine where t_max stands for the epochs
    that the run was started with. So a resumed run is, to the bit, the run that had its settings
    from the start.

    Args:
        before: as stored with the last checkpoint.
        optim: what the resumed run asks for.
        out: directory of the run, for the message.

    Raises:
        InputError: other epochs would have changed the learning rates, or a lower patience.
    """
    old = from_dict(OptimConfig, before)
    if optim.patience < old.patience:
        raise InputError(
            f"the run in {out!r} was started with optim.patience {old.patience}; it may grow, but "
            f"{optim.patience} might have stopped the run before."
        )
    moved = dataclasses.replace(old, epochs=optim.epochs, patience=optim.patience)
    if optim.period == old.period:
        return to_dict(dataclasses.replace(moved, t_max=optim.t_max))
    if (optim.schedule, optim.t_max) == (old.schedule, old.t_max):
        raise InputError(
            f"the run in {out!r} was started with {old.epochs} epochs, and its cosine reaches from "
            f"the first to the last of them: with {optim.epochs} the steps already done would have "
            f"had other learning rates. Go on with --optim.t_max {old.period}, past which the rate "
            "rises again, or start another run from its best with --init_from."
        )
    return to_dict(moved)


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
            values: `[T, C]` standardised series, NaN where nothing was observed.
            config: what is stored in the checkpoints; a resumed run must have the same, but for
                what `goes_on` allows.

        Raises:
            InputError: the directory holds another run, or no run to resume, or too few windows.
        """
        self.task, self.optim, self.run = task, optim, run
        self.config = json.loads(json.dumps(config))  # as it comes back: tuples are lists
        full = task.train.count // optim.batch_size
        self.steps_per_epoch = min(full, optim.steps_per_epoch or full)
        self.mesh = make_mesh(optim.batch_size // optim.accumulate)
        whole = NamedSharding(self.mesh, PartitionSpec())
        if full == 0:
            raise InputError(
                f"batch_size {optim.batch_size} exceeds the {task.train.count} training windows."
            )
        self.schedule = learning_rate(optim, self.steps_per_epoch)
        optimizer = make_optimizer(optim, self.steps_per_epoch)
        self.step_fn = make_step(task, optimizer, optim, self.steps_per_epoch)
        self.validate = make_validate(task, optim.batch_size)
        self.values = everywhere(with_gaps(np.asarray(values)), self.mesh)
        keys = jax.jit(lambda: jax.random.split(jax.random.key(run.seed)), out_shardings=whole)()
        self.order_key, self.step_key = keys
        self.order_of = jax.jit(epoch_order, static_argnames="count", out_shardings=whole)
        state = TrainState(
            params,
            optimizer.init(params),
            step=jnp.zeros((), jnp.int32),
            best=jnp.asarray(jnp.inf, jnp.float32),
            bad_epochs=jnp.zeros((), jnp.int32),
        )
        self.state = everywhere(host_copy(state), self.mesh)  # copies: the step donates its state
        self.interrupt = Interrupt()
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
            self._start()
            return
        if not self.run.resume:
            raise InputError(
                f"{self.run.out!r} already holds a run; continue it with --resume or "
                "give another --run.out."
            )
        self._check_same(stored)
        self.state = everywhere(self.store.restore_last(host_copy(self.state)), self.mesh)
        done = int(self.state.step)
        if self.optim.epochs * self.steps_per_epoch < done:
            raise InputError(
                f"the run in {self.run.out!r} has done {done} steps, more than the "
                f"{self.optim.epochs} epochs of {self.steps_per_epoch} asked for; set "
                f"optim.epochs to {-(-done // self.steps_per_epoch)} or more."
            )

    def _check_same(self, stored: dict[str, Any]) -> None:
        """Raises InputError unless a run of this config would have done the stored one's steps."""
        before = stored.get("optim")
        if before is not None:
            stored = {**stored, "optim": goes_on(before, self.optim, self.run.out)}
        changed = [k for k, v in self.config.items() if k != "run" and stored.get(k) != v]
        if stored.get("run", {}).get("seed") != self.run.seed:
            changed.append("run.seed")
        if changed:
            raise InputError(
                f"the run in {self.run.out!r} was started with another {', '.join(changed)}: "
                f"{ {k: stored.get(k) for k in changed} }; resume with the same."
            )

    def _start(self) -> None:
        """Begins a run in an empty directory; its first checkpoint says whose directory it is."""
        if self.store.holds("best"):
            raise InputError(
                f"{self.run.out!r} holds the best/ of another run without its last/, so it cannot "
                "be resumed; move it away or give another --run.out."
            )
        if self.run.resume:
            raise InputError(f"nothing to resume in {self.run.out!r}; leave out --resume.")
        self.store.save_last(0, host_copy(self.state), self.config)

    def _trim_log(self) -> None:
        """Drops lines of steps that were lost with a kill; they are about to be done again."""
        if self.log_path.exists() and first_process():
            lines = self.log_path.read_text().splitlines(keepends=True)
            done = int(self.state.step)
            kept = [x for x in lines if x.endswith("}\n") and json.loads(x)["step"] <= done]
            self.log_path.write_text("".join(kept))

    def fit(self) -> Checkpoint:
        """Trains to the end and returns the last parameters; the best ones are on disk.

        Raises:
            KeyboardInterrupt: Ctrl-C, after the step it came in and its checkpoint.
        """
        total = self.optim.epochs * self.steps_per_epoch
        done = int(self.state.step)
        try:
            quiet = None if first_process() else True
            with self.interrupt, tqdm(total=total, initial=done, disable=quiet, unit="step") as bar:
                for epoch in range(done // self.steps_per_epoch, self.optim.epochs):
                    if int(self.state.bad_epochs) >= self.optim.patience:
                        self._say_early(epoch)
                        break
                    self.run_steps(epoch, (epoch + 1) * self.steps_per_epoch, bar)
                    self._end_epoch(epoch)
                    if self.interrupt.asked:
                        raise KeyboardInterrupt
        finally:
            self.store.close()
        return Checkpoint(self.task.model, self.state.params, self.task.context_len)

    def _say_early(self, epoch: int) -> None:
        if first_process():
            print(
                f"stopped after {epoch} of {self.optim.epochs} epochs: {self.optim.patience} in a "
                "row without a better validation error; --resume with a greater --optim.patience "
                "goes on",
                file=sys.stderr,
            )

    def run_steps(self, epoch: int, stop: int, bar: tqdm[Any]) -> None:
        """Steps within one epoch until `state.step` is `stop`: log lines and saves included."""
        order = self.order_of(self.order_key, epoch, count=self.task.train.count)
        first = int(self.state.step)
        clock, logged = time.perf_counter(), first
        for step in range(first + 1, stop + 1):
            self.state, metrics = self.step_fn(self.state, self.values, order, self.step_key)
            bar.update()
            if self.interrupt.asked and step % self.steps_per_epoch:  # else once the epoch is ended
                self._check_finite(float(metrics["loss"]))
                self.store.save_last(step, host_copy(self.state), self.config)
                raise KeyboardInterrupt
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
        error = np.asarray(self.validate(self.state.params, self.values), np.float32)
        self._check_finite(float(error))
        better = bool(error < self.state.best)
        bad = 0 if better else int(self.state.bad_epochs) + 1
        lowest = np.minimum(error, np.asarray(self.state.best))
        counted = everywhere((lowest, np.asarray(bad, np.int32)), self.mesh)
        self.state = self.state._replace(best=counted[0], bad_epochs=counted[1])
        step = int(self.state.step)
        self._log(
            {"step": step, "epoch": epoch, self.task.validation_name: float(error), "best": better}
        )
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
        if not first_process():
            return
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
    elif model != dataclasses.replace(
        init.model, dropout=model.dropout, dtype=model.dtype, remat=model.remat
    ):
        raise InputError(f"init_from holds {init.model}, the config asks for {model}.")
    else:
        params = init.params
    task = next_patch_task(config, data)
    return Trainer(task, config.optim, config.run, params, data.values, to_dict(config)).fit()
