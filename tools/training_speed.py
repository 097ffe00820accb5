"""Steps per second of the full-size target, and the share of time spent outside the jitted step.

`python tools/training_speed.py --out docs/results/training_speed.json`: batch 32, context
1536, 7 variables, on random numbers of that shape (speed does not depend on the values).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from stride_jax.checkpoints.run_store import RunStore
from stride_jax.config import to_dict
from stride_jax.data.config import DataConfig
from stride_jax.data.splits import prepare
from stride_jax.evaluation.results import write_rows
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import init_params
from stride_jax.training.config import OptimConfig, RunConfig, TrainConfig
from stride_jax.training.hooks import Hook, Step
from stride_jax.training.loop import fit, standard_hooks
from stride_jax.training.step import TrainState, initial_state, next_patch_task, steps_per_epoch
from stride_jax.types import Series

STRETCHES = 3
WARM_UP = 2
"""Steps before the first stretch, which compile."""


class Finished(Exception):  # noqa: N818 - ends the loop, is no error
    """Everything is timed."""


class Stopwatch(Hook):
    """Times stretches of steps, with the hooks of a run in every second one.

    Attributes:
        seconds: Of the stretches with hooks, and of those without.
    """

    def __init__(self, inner: Sequence[Hook], num_steps: int) -> None:
        self.inner, self.num_steps = inner, num_steps
        self.seconds: tuple[list[float], list[float]] = ([], [])
        self._start = 0.0

    def before_epoch(self, epoch: int, state: TrainState) -> bool:
        """The answer of the hooks that are timed."""
        return all(hook.before_epoch(epoch, state) for hook in self.inner)

    def on_step(self, step: Step) -> None:
        """Ends a stretch after every `num_steps` steps.

        Raises:
            Finished: after the last one.
        """
        stretch, place = divmod(step.number - WARM_UP - 1, self.num_steps)
        if stretch < 0 or stretch % 2 == 0:
            for hook in self.inner:
                hook.on_step(step)
        if place != self.num_steps - 1:
            return
        jax.block_until_ready(step.state)
        now = time.perf_counter()
        if stretch >= 0:
            self.seconds[stretch % 2].append(now - self._start)
        if stretch == 2 * STRETCHES - 1:
            raise Finished
        self._start = time.perf_counter()


def measure(config: TrainConfig, num_steps: int, num_vars: int = 7) -> dict[str, Any]:
    """Times a run with its hooks and the bare steps, alternating, after a warm-up.

    Args:
        config: What to train; its series is replaced by random numbers.
        num_steps: Steps of one timed stretch; the median of three stretches counts.
        num_vars: C.

    Returns:
        A row: steps per second of the run (log lines and progress bar included) and of the bare
        steps, and the share of the run's time that is not the step's.
    """
    rng = np.random.default_rng(0)
    values = rng.normal(size=(14400, num_vars)).cumsum(axis=0)
    data = prepare(config.data, Series(values, tuple(f"var{i}" for i in range(num_vars))))
    task, optim = next_patch_task(config, data), config.optim
    params = init_params(jax.random.key(0), config.trained_model)
    state = initial_state(params, optim, steps_per_epoch(task, optim))
    with (
        RunStore(Path(config.run.out)) as store,
        standard_hooks(store, task, optim, config.run, to_dict(config), 0) as hooks,
        contextlib.suppress(Finished),
    ):
        watch = Stopwatch(hooks, num_steps)
        fit(task, optim, state, data.values, seed=config.run.seed, hooks=[watch])
    driver, bare = watch.seconds
    return {
        "context": config.data.context_len,
        "variables": num_vars,
        "batch": config.optim.batch_size,
        "d_model": config.model.d_model,
        "layers": config.model.num_layers,
        "steps_per_second": num_steps / float(np.median(driver)),
        "bare_steps_per_second": num_steps / float(np.median(bare)),
        "share_outside_the_step": 1 - float(np.median(bare)) / float(np.median(driver)),
    }


def main(argv: list[str] | None = None) -> int:
    """The command `python tools/training_speed.py`."""
    parser = argparse.ArgumentParser(prog="python tools/training_speed.py")
    parser.add_argument("--num-steps", type=int, default=20)
    parser.add_argument("--context-len", type=int, default=1536)
    parser.add_argument("--out", type=Path, help="also write the row as JSON")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as directory:
        config = TrainConfig(
            data=DataConfig(source="random", context_len=args.context_len),
            model=TimerXLConfig(),
            optim=OptimConfig(batch_size=32),
            run=RunConfig(out=directory, log_every=20, save_every=10**9),
        )
        row = measure(config, args.num_steps)
    print(json.dumps(row, indent=1))
    if args.out:
        write_rows(args.out, [row])
    return 0


if __name__ == "__main__":
    sys.exit(main())
