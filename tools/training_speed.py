"""Steps per second of a training run, and the share of its time that is not the steps'.

`python tools/training_speed.py --out docs/results/training_speed.json`: the original's full-size
target (batch 32, context 1536, 7 variables), and a model whose step takes about 2 ms on a CPU, as
that of the full-size target does on an H100, with one step in each dispatch and with several. On
random numbers of that shape: speed does not depend on the values. `--only small` takes a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from stride_jax.checkpoints.run_store import RunStore
from stride_jax.config import to_dict
from stride_jax.data.config import DataConfig
from stride_jax.evaluation.results import write_rows
from stride_jax.evaluation.training_steps import bare_steps, random_series
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import init_params
from stride_jax.training.config import OptimConfig, RunConfig, TrainConfig
from stride_jax.training.hooks import Hook, Step
from stride_jax.training.loop import fit, standard_hooks
from stride_jax.training.step import (
    TrainState,
    initial_state,
    next_patch_task,
    steps_per_epoch,
)

SMALL = {
    "data": DataConfig(source="random", context_len=240),
    "model": TimerXLConfig(patch_len=24, d_model=64, num_heads=4, d_ff=256),
    "optim": OptimConfig(batch_size=16),
}
"""A step of about 2 ms on one core."""
FULL = {
    "data": DataConfig(source="random", context_len=1536),
    "model": TimerXLConfig(),
    "optim": OptimConfig(batch_size=32),
}
"""The original's target."""


class Finished(Exception):  # noqa: N818 - ends the loop, is no error
    """Everything is timed."""


class Stopwatch(Hook):
    """Times stretches of a run, each followed by as many bare steps; the first pair is no count.

    Attributes:
        seconds: Of the stretches of the run, and of those of the bare steps.
    """

    def __init__(
        self, inner: Sequence[Hook], num_steps: int, num_stretches: int, bare: Callable[[], None]
    ) -> None:
        """Starts with the first epoch.

        Args:
            inner: Hooks of the run.
            num_steps: Steps of a stretch.
            num_stretches: How many are timed.
            bare: Runs as many steps without a loop around them, to their end.
        """
        self.inner, self.num_steps, self.num_stretches = inner, num_steps, num_stretches
        self.bare = bare
        self.seconds: tuple[list[float], list[float]] = ([], [])
        self._start = 0.0

    def before_epoch(self, epoch: int, state: TrainState) -> bool:
        """The answer of the hooks that are timed."""
        self._start = time.perf_counter()
        answers = [hook.before_epoch(epoch, state) for hook in self.inner]
        return all(answers)

    def next_state(self, done: int) -> int | None:
        """The end of the stretch, or what the hooks ask for before."""
        end = (done // self.num_steps + 1) * self.num_steps
        asked = [hook.next_state(done) for hook in self.inner]
        return min([end, *[step for step in asked if step is not None]])

    def next_step(self, done: int) -> int | None:
        """The first step that the hooks ask for."""
        asked = [hook.next_step(done) for hook in self.inner]
        return min([step for step in asked if step is not None], default=None)

    def on_step(self, step: Step) -> None:
        """Ends a stretch, and times the bare steps after it.

        Raises:
            Finished: after the last one.
        """
        for hook in self.inner:
            hook.on_step(step)
        if step.number % self.num_steps:
            return
        jax.block_until_ready(step.state)
        middle = time.perf_counter()
        self.bare()
        end = time.perf_counter()
        if step.number > self.num_steps:
            self.seconds[0].append(middle - self._start)
            self.seconds[1].append(end - middle)
        if step.number == (self.num_stretches + 1) * self.num_steps:
            raise Finished
        self._start = time.perf_counter()


def measure(
    config: TrainConfig, num_steps: int, num_stretches: int, num_vars: int
) -> dict[str, Any]:
    """Times a run with its hooks and the bare steps, in turns, after a pair that compiles.

    Args:
        config: What to train; its series is replaced by random numbers.
        num_steps: Steps of one timed stretch.
        num_stretches: How many stretches of both are timed; their medians count.
        num_vars: C.

    Returns:
        A row: steps per second of the run (log lines and progress bar included) and of the bare
        steps, and the share of the run's time that is not the steps'.
    """
    optim, total = config.optim, num_steps * (num_stretches + 1)
    data = random_series(config, num_vars, 14400 + 2 * total * optim.batch_size)
    task = next_patch_task(config, data)
    params = init_params(jax.random.key(0), config.trained_model)
    state = initial_state(params, optim, steps_per_epoch(task, optim))
    bare = bare_steps(task, optim, state, data.values, num_steps)
    with (
        RunStore(Path(config.run.out)) as store,
        standard_hooks(store, task, optim, config.run, to_dict(config), 0) as hooks,
        contextlib.suppress(Finished),
    ):
        watch = Stopwatch(hooks, num_steps, num_stretches, bare)
        count = config.run.steps_per_dispatch
        fit(task, optim, state, data.values, seed=0, hooks=[watch], steps_per_dispatch=count)
    run, alone = (float(np.median(each)) for each in watch.seconds)
    return {
        "context": config.data.context_len,
        "variables": num_vars,
        "batch": optim.batch_size,
        "d_model": config.model.d_model,
        "layers": config.model.num_layers,
        "steps_per_dispatch": count or "by the clock",
        "steps_per_second": num_steps / run,
        "bare_steps_per_second": num_steps / alone,
        "share_outside_the_step": 1 - alone / run,
    }


def main(argv: list[str] | None = None) -> int:
    """The command `python tools/training_speed.py`."""
    parser = argparse.ArgumentParser(prog="python tools/training_speed.py")
    parser.add_argument("--only", choices=["full", "small"], help="one of the two models")
    parser.add_argument("--num-steps", type=int, help="of a stretch; 20 full-size or 400 small")
    parser.add_argument("--num-stretches", type=int, help="3 full-size or 9 small")
    parser.add_argument("--out", type=Path, help="also write the rows as JSON")
    args = parser.parse_args(argv)
    cases = [("full", FULL, 7, None, 20, 3)]
    cases += [("small", SMALL, 1, count, 400, 9) for count in (1, None)]
    rows = []
    for name, fields, num_vars, count, steps, stretches in cases:
        if args.only not in (None, name):
            continue
        with tempfile.TemporaryDirectory() as out:
            run = RunConfig(out=out, log_every=20, save_every=10**9, steps_per_dispatch=count)
            sizes = (args.num_steps or steps, args.num_stretches or stretches, num_vars)
            rows.append(measure(TrainConfig(**fields, run=run), *sizes))
        print(json.dumps(rows[-1], indent=1))
    if args.out:
        write_rows(args.out, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
