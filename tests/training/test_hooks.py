"""Hooks of `fit`: when they are called, and what they can stop."""

from pathlib import Path

import jax.numpy as jnp
import pytest
from helpers.toy_runs import VALUES, parameters, settings, steps, toy_run, toy_task

from stride_jax.errors import InputError
from stride_jax.training.hooks import Epoch, Hook, Step
from stride_jax.training.loop import fit
from stride_jax.training.step import TrainState, initial_state


class Recorder(Hook):
    """Notes every call; ends the training before epoch number `stop`."""

    def __init__(self, stop: int = 99) -> None:
        self.stop = stop
        self.calls: list[tuple[object, ...]] = []

    def before_epoch(self, epoch: int, state: TrainState) -> bool:
        """Notes the epoch and the steps done."""
        self.calls.append(("before", epoch, int(state.step)))
        return epoch < self.stop

    def on_step(self, step: Step) -> None:
        """Notes the step."""
        assert int(step.state.step) == step.number
        self.calls.append(("step", step.epoch, step.number, step.ends_epoch))

    def on_epoch(self, epoch: Epoch) -> None:
        """Notes the epoch."""
        assert epoch.better == (float(epoch.state.best) == epoch.error)
        self.calls.append(("epoch", epoch.number, epoch.step))


def test_hooks_are_called_before_and_after_every_part(tmp_path: Path) -> None:
    """A log line or a checkpoint would belong to another step, or an epoch have none."""
    recorder = Recorder()
    toy_run(tmp_path, hooks=[recorder], epochs=2, steps_per_epoch=2)
    assert recorder.calls == [
        ("before", 0, 0), ("step", 0, 1, False), ("step", 0, 2, True), ("epoch", 0, 2),
        ("before", 1, 2), ("step", 1, 3, False), ("step", 1, 4, True), ("epoch", 1, 4),
    ]  # fmt: skip


def test_a_hook_ends_the_training(tmp_path: Path) -> None:
    """Early stopping would go on to the last epoch."""
    recorder = Recorder(stop=1)
    toy_run(tmp_path, hooks=[recorder])
    assert recorder.calls[-1] == ("before", 1, 3)
    assert steps(tmp_path, "last") == ["3"]


def test_fit_alone_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who trains in memory would find files in the working directory."""
    monkeypatch.chdir(tmp_path)
    optim, _, _ = settings(tmp_path)
    state = fit(toy_task(), optim, initial_state(parameters(), optim, 3), VALUES, seed=0)
    assert int(state.step) == 9
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_fit_refuses_a_diverged_run_without_any_hook(tmp_path: Path) -> None:
    """Parameters of NaN would be returned as trained."""
    optim, _, _ = settings(tmp_path, learning_rate=1e38)
    state = initial_state(parameters(), optim, 3)
    with pytest.raises(InputError, match=r"the loss is (inf|nan) at step 3"):
        fit(toy_task(), optim, state, VALUES, seed=0)


@pytest.mark.parametrize("name", ["val_mse", "val_crps"])
def test_a_validation_error_that_is_not_finite_is_named(name: str) -> None:
    """Who reads that the loss is nan looks in vain for it in the log, where it is finite."""
    optim, _, _ = settings(Path("unused"))
    task = toy_task()._replace(
        validation_error=lambda _, windows: jnp.full(len(windows), jnp.nan), validation_name=name
    )
    state = initial_state(parameters(), optim, 3)
    with pytest.raises(InputError, match=rf"the validation error {name} is nan at step 3"):
        fit(task, optim, state, VALUES, seed=0)
