"""Hooks of a training run: log lines, checkpoints, early stopping, Ctrl-C, the progress bar."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from stride_jax.checkpoints.checkpoint import Checkpoint, host_copy
from stride_jax.checkpoints.run_store import RunStore
from stride_jax.errors import InputError
from stride_jax.sharding import first_process
from stride_jax.training.config import OptimConfig
from stride_jax.training.step import Metrics, Task, TrainState


class Step(NamedTuple):
    """A finished step, the last one of its dispatch.

    Attributes:
        number: Steps done, this one included.
        epoch: Number of its epoch, from 0.
        ends_epoch: Whether it is the last of its epoch, whose validation follows.
        state: The state after it, where a hook asked for it (`Hook.next_state`) and at the end of
            an epoch; else None, since the next dispatch has taken it over. It is donated once the
            hooks are done, so a hook must copy what it keeps.
        metrics: Of its batch, on the device.
    """

    number: int
    epoch: int
    ends_epoch: bool
    state: TrainState | None
    metrics: Metrics


class Epoch(NamedTuple):
    """A finished epoch.

    Attributes:
        number: Number of the epoch, from 0.
        step: Steps done.
        state: The state after it, with the validation error counted.
        error: Validation error.
        better: Whether it is the lowest so far.
    """

    number: int
    step: int
    state: TrainState
    error: float
    better: bool


class Hook:
    """A watcher of `fit`; every method may be left as it is.

    A hook that does not say which steps it needs sees every step with its state, and so makes each
    dispatch one step long.
    """

    def before_epoch(self, epoch: int, state: TrainState) -> bool:
        """Whether to train this epoch; False ends the training."""
        return True

    def next_state(self, done: int) -> int | None:
        """The next step whose state the hook reads, after `done` steps; None for no step."""
        return done + 1

    def next_step(self, done: int) -> int | None:
        """The next step the hook has to be called for, with its state or without; None for any."""
        return self.next_state(done)

    def on_step(self, step: Step) -> None:
        """Called after every dispatch, for its last step."""

    def on_epoch(self, epoch: Epoch) -> None:
        """Called after the validation of every epoch."""


def check_finite(loss: float, step: int) -> None:
    """Raises InputError for a diverged loss, before a save could replace a good state."""
    if not np.isfinite(loss):
        raise InputError(
            f"the loss is {loss} at step {step}; the checkpoints before it are "
            "kept. Lower optim.learning_rate or set optim.grad_clip, and start in another "
            "run.out (--init_from takes the best checkpoint)."
        )


def check_validation(error: float, name: str, last: Step) -> None:
    """Raises InputError for a validation error that is not finite, after the step `last`."""
    if not np.isfinite(error):
        check_finite(float(last.metrics["loss"]), last.number)
        raise InputError(
            f"the validation error {name} is {error} at step {last.number}, where the loss is "
            "finite; the checkpoints before it are kept. Give validation rows with observed "
            "values, or lower optim.learning_rate, and start in another run.out."
        )


class ProgressBar(Hook):
    """A bar on the terminal that counts steps."""

    def __init__(self, bar: tqdm[Any]) -> None:
        self.bar = bar

    def next_state(self, done: int) -> int | None:
        """None: no state is read."""
        return None

    def on_step(self, step: Step) -> None:
        """Moves the bar."""
        self.bar.update(step.number - self.bar.n)


class Interrupt(Hook):
    """Ctrl-C: the first one stops after the next step and its checkpoint, a second one at once.

    The next step is the one that follows the steps already dispatched.

    A context manager around `fit`; leaving it raises KeyboardInterrupt where one was asked for.
    """

    def __init__(self, save: Callable[[Step], None]) -> None:
        """Listens to nothing before it is entered.

        Args:
            save: Writes the checkpoint of a step.
        """
        self.asked = False
        self._save = save
        self._before: Any = None

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
        if self.asked and error is None:
            raise KeyboardInterrupt

    def _ask(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("stopping after the next step; once more stops at once", file=sys.stderr)

    def before_epoch(self, epoch: int, state: TrainState) -> bool:
        """False after a Ctrl-C in the last step of the epoch before, which is saved by then."""
        return not self.asked

    def next_state(self, done: int) -> int | None:
        """The next step, once there was a Ctrl-C."""
        return done + 1 if self.asked else None

    def on_step(self, step: Step) -> None:
        """Saves and stops, unless the step's epoch is validated and saved next."""
        if self.asked and step.state is not None and not step.ends_epoch:
            self._save(step)
            raise KeyboardInterrupt


class EarlyStopping(Hook):
    """Ends the training after `patience` epochs without a better validation error."""

    def __init__(self, optim: OptimConfig) -> None:
        self.optim = optim

    def next_state(self, done: int) -> int | None:
        """None: no state is read."""
        return None

    def before_epoch(self, epoch: int, state: TrainState) -> bool:
        """False, with a line on stderr, when patience is used up."""
        if int(state.bad_epochs) < self.optim.patience:
            return True
        if first_process():
            print(
                f"stopped after {epoch} of {self.optim.epochs} epochs: {self.optim.patience} in a "
                "row without a better validation error; --resume with a greater --optim.patience "
                "goes on",
                file=sys.stderr,
            )
        return False


class Log(Hook):
    """Lines of `log.jsonl`: every `every` steps, at the first of each epoch, and per epoch."""

    def __init__(
        self,
        path: Path,
        every: int,
        show: Callable[[dict[str, str]], None],
        error_name: str = "val_mse",
    ) -> None:
        """Opens no file before the first line.

        Args:
            path: The file; lines are appended.
            every: Steps between two lines.
            show: Takes the main numbers of a line, as text, for the progress bar.
            error_name: Name of the validation error.
        """
        self.path, self.every, self.show, self.error_name = path, every, show, error_name
        self._first = self._logged = 0
        self._clock = 0.0

    def before_epoch(self, epoch: int, state: TrainState) -> bool:
        """Starts the clock."""
        self._first = self._logged = int(state.step)
        self._clock = time.perf_counter()
        return True

    def next_state(self, done: int) -> int | None:
        """None: no state is read."""
        return None

    def next_step(self, done: int) -> int | None:
        """The step of the next line."""
        return done + 1 if done == self._first else multiple_after(done, self.every)

    def on_step(self, step: Step) -> None:
        """Writes the metrics and the speed since the line before; reads nothing between lines."""
        if step.number % self.every and step.number != self._first + 1:
            return
        record = {name: float(value) for name, value in jax.device_get(step.metrics).items()}
        check_finite(record["loss"], step.number)
        now = time.perf_counter()
        record["steps_per_second"] = (step.number - self._logged) / (now - self._clock)
        self._write({"step": step.number, "epoch": step.epoch, **record})
        self.show({name: f"{record[name]:.3g}" for name in ("loss", "grad_norm", "learning_rate")})
        self._clock, self._logged = time.perf_counter(), step.number

    def on_epoch(self, epoch: Epoch) -> None:
        """Writes the validation error."""
        numbers = {"step": epoch.step, "epoch": epoch.number}
        self._write({**numbers, self.error_name: epoch.error, "best": epoch.better})

    def _write(self, record: Mapping[str, Any]) -> None:
        if not first_process():
            return
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")


def multiple_after(done: int, every: int) -> int:
    """The next multiple of `every` after `done`."""
    return (done // every + 1) * every


def trim_log(path: Path, step: int) -> None:
    """Drops log lines of steps after `step`: lost with a kill, and about to be done again."""
    if path.exists() and first_process():
        lines = path.read_text().splitlines(keepends=True)
        done = [x for x in lines if x.endswith("}\n") and json.loads(x)["step"] <= step]
        path.write_text("".join(done))


class Saves(Hook):
    """Checkpoints: the last state every `every` steps and per epoch, and the best parameters."""

    def __init__(self, store: RunStore, task: Task, every: int, config: Mapping[str, Any]) -> None:
        self.store, self.task, self.every, self.config = store, task, every, config

    def save(self, step: Step) -> None:
        """Saves the state of a step within an epoch.

        Raises:
            InputError: the loss is not finite.
        """
        assert step.state is not None
        check_finite(float(step.metrics["loss"]), step.number)
        self.store.save_last(step.number, host_copy(step.state), self.config)

    def next_state(self, done: int) -> int | None:
        """The step of the next checkpoint."""
        return multiple_after(done, self.every)

    def on_step(self, step: Step) -> None:
        """Saves at multiples of `every`; the last step of an epoch is saved with the epoch."""
        if step.number % self.every == 0 and not step.ends_epoch:
            self.save(step)

    def on_epoch(self, epoch: Epoch) -> None:
        """Saves the best before the last, see `RunStore`."""
        state = host_copy(epoch.state)
        if epoch.better:
            best = Checkpoint(self.task.model, state.params, self.task.context_len)
            self.store.save_best(epoch.step, best)
        self.store.save_last(epoch.step, state, self.config)
