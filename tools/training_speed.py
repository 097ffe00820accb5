"""Steps per second of the full-size target, and the share of time spent outside the jitted step.

`python tools/training_speed.py --out docs/results/training_speed.json`: batch 32, context
1536, 7 variables, on random numbers of that shape (speed does not depend on the values).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from stride_jax.config import to_dict
from stride_jax.data.config import DataConfig
from stride_jax.data.splits import prepare
from stride_jax.data.windows import epoch_order
from stride_jax.evaluation.results import write_rows
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import init_params
from stride_jax.training.config import OptimConfig, RunConfig, TrainConfig
from stride_jax.training.loop import Trainer
from stride_jax.training.step import next_patch_task
from stride_jax.types import Series


def measure(config: TrainConfig, num_steps: int, num_vars: int = 7) -> dict[str, Any]:
    """Times the driver and the bare step, alternating, after a warm-up.

    Args:
        config: what to train; its series is replaced by random numbers.
        num_steps: steps of one timed stretch; three stretches of each kind, the medians count.
        num_vars: C.

    Returns:
        A row: steps per second of the driver (log lines and progress bar included) and of the bare
        step, and the share of the driver's time that is not the step's.
    """
    rng = np.random.default_rng(0)
    values = rng.normal(size=(14400, num_vars)).cumsum(axis=0)
    data = prepare(config.data, Series(values, tuple(f"var{i}" for i in range(num_vars))))
    task = next_patch_task(config, data)
    params = init_params(jax.random.key(0), config.trained_model)
    trainer = Trainer(task, config.optim, config.run, params, data.values, to_dict(config))
    order = epoch_order(trainer.order_key, 0, task.train.count)
    driver, bare = [], []
    with tqdm(disable=None, unit="step") as bar:
        trainer.run_steps(0, 2, bar)
        for _ in range(3):
            start = time.perf_counter()
            trainer.run_steps(0, int(trainer.state.step) + num_steps, bar)
            jax.block_until_ready(trainer.state)
            driver.append(time.perf_counter() - start)
            start = time.perf_counter()
            for _ in range(num_steps):
                trainer.state, _ = trainer.step_fn(
                    trainer.state, trainer.values, order, trainer.step_key
                )
            jax.block_until_ready(trainer.state)
            bare.append(time.perf_counter() - start)
    trainer.store.close()
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
