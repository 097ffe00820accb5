"""Ctrl-C in a training run: the first one stops it at the next step, and nothing is lost."""

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.toy_runs import steps, toy_run

from stride_jax.training.hooks import Hook, Step

STEPS = 3
"""In an epoch."""


class CtrlC(Hook):
    """Ctrl-C in step number `moment`."""

    def __init__(self, moment: int) -> None:
        self.moment = moment

    def on_step(self, step: Step) -> None:
        """Sends the signal of the keyboard."""
        if step.number == self.moment:
            signal.raise_signal(signal.SIGINT)


def interrupt(out: Path, moment: int, **fields: Any) -> None:
    """Runs until Ctrl-C, which comes in step number `moment`."""
    with pytest.raises(KeyboardInterrupt):
        toy_run(out, hooks=[CtrlC(moment)], **fields)


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
    before = signal.getsignal(signal.SIGINT)
    interrupt(tmp_path, moment, steps_per_epoch=steps_per_epoch)
    assert steps(tmp_path, "last") == [str(moment)]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("moment", [2, STEPS, 3 * STEPS])
def test_what_was_stopped_goes_on_to_the_same_bits(tmp_path: Path, moment: int) -> None:
    """An epoch that was stopped before its validation would be counted twice or not at all."""
    whole = toy_run(tmp_path / "whole")
    interrupt(tmp_path / "stopped", moment)
    again = toy_run(tmp_path / "stopped", resume=True)
    np.testing.assert_array_equal(again.params["w"], whole.params["w"])
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("whole", "stopped")]
    assert logs[0].count("val_mse") == logs[1].count("val_mse") == 3


def test_the_second_one_stops_at_once(tmp_path: Path) -> None:
    """A save that hangs could only be ended by killing the process."""
    with pytest.raises(KeyboardInterrupt):
        toy_run(tmp_path, hooks=[CtrlC(2), CtrlC(2)])
    assert steps(tmp_path, "last") == ["0"]
