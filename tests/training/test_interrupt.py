"""Ctrl-C in a training run: the first one stops it at the next step, and nothing is lost."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.toy_runs import steps, toy_trainer

from stride_jax.training.loop import Trainer

STEPS = 3
"""In an epoch."""


def interrupt(driver: Trainer, moment: int) -> None:
    """Runs until Ctrl-C, which comes in step number `moment`."""
    step_fn = driver.step_fn

    def step(state: Any, *rest: Any) -> Any:
        if int(state.step) + 1 == moment:
            driver.interrupt._ask()
        return step_fn(state, *rest)

    driver.step_fn = step
    with pytest.raises(KeyboardInterrupt):
        driver.fit()


@pytest.mark.parametrize(
    ("steps_per_epoch", "moment"),
    [(1, 1), (1, 2), (1, 3), (STEPS, 1), (STEPS, STEPS), (STEPS, STEPS + 1), (STEPS, 3 * STEPS)],
)
def test_the_first_one_stops_the_run_after_its_step(
    tmp_path: Path, steps_per_epoch: int, moment: int
) -> None:
    """A run would go on for hours after Ctrl-C: in the last step of an epoch nothing listened.

    The moments are first, middle and last steps of an epoch and of the run.
    """
    driver = toy_trainer(tmp_path, steps_per_epoch=steps_per_epoch)
    interrupt(driver, moment)
    assert int(driver.state.step) == moment
    assert steps(tmp_path, "last") == [str(moment)]


@pytest.mark.parametrize("moment", [2, STEPS, 3 * STEPS])
def test_what_was_stopped_goes_on_to_the_same_bits(tmp_path: Path, moment: int) -> None:
    """An epoch that was stopped before its validation would be counted twice or not at all."""
    whole = toy_trainer(tmp_path / "whole").fit()
    interrupt(toy_trainer(tmp_path / "stopped"), moment)
    again = toy_trainer(tmp_path / "stopped", resume=True).fit()
    np.testing.assert_array_equal(again.params["w"], whole.params["w"])
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("whole", "stopped")]
    assert logs[0].count("val_mse") == logs[1].count("val_mse") == 3
