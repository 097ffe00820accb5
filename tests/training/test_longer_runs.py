"""A run resumed with other epochs is, to the bit, the run that had them from the start."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.toy_runs import steps, toy_run, toy_start
from hypothesis import given, settings
from hypothesis import strategies as st

from stride_jax.config import to_dict
from stride_jax.errors import InputError
from stride_jax.training.config import OptimConfig
from stride_jax.training.resume import goes_on
from stride_jax.training.step import learning_rate

CONSTANT = {"schedule": "constant"}
ALLOWED = {
    "constant": (CONSTANT, {**CONSTANT, "epochs": 5}),
    "type1": ({"schedule": "type1"}, {"schedule": "type1", "epochs": 5}),
    "cosine of its own length": ({"t_max": 4}, {"t_max": 4, "epochs": 6}),
    "cosine kept by t_max": ({}, {"t_max": 3, "epochs": 5}),
}
"""Settings of a run of three epochs, and of the same run resumed."""


@pytest.mark.parametrize("name", ALLOWED)
def test_more_epochs_end_where_a_long_run_ends(tmp_path: Path, name: str) -> None:
    """A good run of ten epochs could not be given ten more, or its steps would be others."""
    short, long = ({"patience": 9, **fields} for fields in ALLOWED[name])
    whole = toy_run(tmp_path / "whole", **long)
    toy_run(tmp_path / "run", **short)
    again = toy_run(tmp_path / "run", resume=True, **long)
    np.testing.assert_array_equal(again.params["w"], whole.params["w"])
    for part in ("best", "last"):
        assert steps(tmp_path / "run", part) == steps(tmp_path / "whole", part)
    toy_run(tmp_path / "run", resume=True, **long)  # the new settings are the run's now


@pytest.mark.parametrize("epochs", [2, 4, 30])
def test_epochs_that_change_the_steps_already_done_are_refused(tmp_path: Path, epochs: int) -> None:
    """The first epochs would have been those of another schedule, without a word."""
    toy_start(tmp_path)
    with pytest.raises(InputError, match=r"3 epochs.*--optim\.t_max 3.*--init_from"):
        toy_start(tmp_path, resume=True, epochs=epochs)


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "fewer than done": (CONSTANT, {**CONSTANT, "epochs": 2}, "9 steps.*2 epochs.*3 or more"),
    "less patience": ({"patience": 5}, {"patience": 4}, "patience 5.*may grow"),
    "another t_max": ({"t_max": 3}, {"t_max": 4}, "another optim"),
    "another t_max and epochs": ({"t_max": 3}, {"t_max": 4, "epochs": 4}, "another optim"),
    "another rate": (CONSTANT, {**CONSTANT, "epochs": 5, "learning_rate": 0.2}, "another optim"),
    "another schedule": ({}, {**CONSTANT, "epochs": 5}, "another optim"),
    "another batch": (CONSTANT, {**CONSTANT, "epochs": 5, "batch_size": 5}, "another optim"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_changes_are_still_refused(tmp_path: Path, case: str) -> None:
    """Two recipes in one run, or a checkpoint past the end of the run."""
    first, then, message = REFUSED[case]
    begin = toy_run if "done" in case else toy_start
    begin(tmp_path, **first)
    with pytest.raises(InputError, match=message):
        toy_start(tmp_path, resume=True, **then)


def test_a_run_that_stopped_early_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """More epochs would do nothing, without a word."""
    still = {**CONSTANT, "learning_rate": 1e-30}
    toy_run(tmp_path, patience=1, **still)
    capsys.readouterr()
    toy_run(tmp_path, resume=True, patience=1, epochs=6, **still)
    assert steps(tmp_path, "last") == ["6"]
    assert "stopped after 2 of 6 epochs" in capsys.readouterr().err
    toy_run(tmp_path, resume=True, patience=2, epochs=6, **still)
    assert steps(tmp_path, "last") == ["9"]


SCHEDULES = st.builds(
    OptimConfig,
    schedule=st.sampled_from(["constant", "cosine", "type1"]),
    t_max=st.none() | st.integers(1, 4),
    epochs=st.integers(1, 4),
)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(old=SCHEDULES, new=SCHEDULES)
def test_what_goes_on_had_the_same_rates(old: OptimConfig, new: OptimConfig) -> None:
    """A schedule that depends on the total would slip through, or a harmless one be refused."""
    shared = range(2 * min(old.epochs, new.epochs))
    rates = [[float(learning_rate(optim, 2)(step)) for step in shared] for optim in (old, new)]
    try:
        allowed = goes_on(to_dict(old), new, "run") == to_dict(new)
    except InputError:
        allowed = False
    if allowed:
        assert rates[0] == rates[1]
    if old.schedule == new.schedule != "cosine":
        assert allowed
