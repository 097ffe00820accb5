"""The directory of a training run: whose it is from the first step on, whatever stops the run."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from helpers.toy_runs import VALUES, steps, toy_run, toy_start
from helpers.training import series_of, train_config

from stride_jax.checkpoints.checkpoint import Checkpoint, host_copy
from stride_jax.checkpoints.run_store import RunStore
from stride_jax.config import to_dict
from stride_jax.errors import InputError
from stride_jax.models.timer_xl import init_params
from stride_jax.training.resume import find_trained, with_series
from stride_jax.training.step import initial_state

UNFINISHED = ("last/7.orbax-checkpoint-tmp", "best/7.orbax-checkpoint-tmp")
"""Empty folders that a kill leaves behind."""


class KilledError(Exception):
    """Stands for a kill at a chosen moment."""


def killed(out: Path, monkeypatch: pytest.MonkeyPatch, part: str, before: int) -> None:
    """A run that dies before it writes step number `before` of `last` or `best`."""
    save = RunStore._save

    def dying(self: RunStore, name: str, step: int, *rest: Any) -> None:
        if (name, step) == (part, before):
            raise KilledError
        save(self, name, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "_save", dying)
        with pytest.raises(KilledError):
            toy_run(out)


def contents(out: Path) -> dict[str, bytes]:
    """Every file but the lock, which is opened by whoever looks."""
    files = [path for path in out.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


@pytest.mark.parametrize("moment", [("last", 3), ("best", 6)])
def test_a_kill_between_two_writes_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: tuple[str, int]
) -> None:
    """A run could neither be resumed nor begun again, or would end with another best."""
    whole = toy_run(tmp_path / "whole")
    out = tmp_path / "killed"
    killed(out, monkeypatch, *moment)
    assert steps(out, "last") == [str(moment[1] - 3)]
    before = contents(out)
    with pytest.raises(InputError, match="already holds a run; continue it with --resume"):
        toy_run(out)
    assert contents(out) == before
    again = toy_run(out, resume=True)
    np.testing.assert_array_equal(again.params["w"], whole.params["w"])
    for part in ("best", "last"):
        assert steps(out, part) == steps(tmp_path / "whole", part)


@pytest.mark.parametrize("resume", [False, True])
def test_a_best_without_its_last_is_left_alone(tmp_path: Path, resume: bool) -> None:
    """Another run would begin there, and the old model be loaded as the best of the new one."""
    toy_run(tmp_path)
    shutil.rmtree(tmp_path / "last")
    before = contents(tmp_path)
    with pytest.raises(InputError, match="best/ of another run without its last/"):
        toy_run(tmp_path, resume=resume, learning_rate=0.5)
    assert contents(tmp_path) == before


def test_a_run_has_its_last_before_its_first_step(tmp_path: Path) -> None:
    """A second run would begin in a directory that is in use but has no checkpoint yet."""
    toy_start(tmp_path)
    assert steps(tmp_path, "last") == ["0"]
    with pytest.raises(InputError, match="already holds a run"):
        toy_run(tmp_path, learning_rate=0.5)


@pytest.mark.parametrize("case", ["nothing to resume", "a run there", "another config"])
def test_a_refused_run_opens_no_writer_and_cleans_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """A clean-up in the background would meet the end of the program: pages of tracebacks."""
    for name in UNFINISHED:
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    if case != "nothing to resume":
        toy_start(tmp_path)  # cleans up
        for name in UNFINISHED:
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
    opened = []
    monkeypatch.setattr(RunStore, "_writer", lambda _, name: opened.append(name))
    changed = {"learning_rate": 0.5} if case == "another config" else {}
    with pytest.raises(InputError):
        toy_run(tmp_path, resume=case != "a run there", **changed)
    assert all((tmp_path / name).is_dir() for name in UNFINISHED)
    assert opened == []


def test_a_resumed_run_has_the_series_that_it_began_with(tmp_path: Path) -> None:
    """A longer or rewritten file would be taken for the one of the steps already done."""
    toy_run(tmp_path, epochs=1, schedule="constant")
    before = contents(tmp_path)
    longer = np.concatenate([VALUES, VALUES[:1]])
    for values in (longer, VALUES + np.float32(1e-3), VALUES[:, ::-1], VALUES[::-1]):
        with pytest.raises(InputError, match=r"started with another series.*data\.source"):
            toy_run(tmp_path, values=values, resume=True, schedule="constant")
    assert contents(tmp_path) == before
    toy_run(tmp_path, resume=True, schedule="constant")


def test_a_run_that_knows_no_series_is_resumed(tmp_path: Path) -> None:
    """The runs of the versions before could not go on."""
    toy_start(tmp_path)  # stores nothing of it, as they did
    toy_run(tmp_path, resume=True)


def test_series_may_differ_in_their_last_bits(tmp_path: Path) -> None:
    """A run could not go on on another machine, which rounds the means and stds otherwise."""
    toy_run(tmp_path, epochs=1, schedule="constant")
    toy_run(tmp_path, values=VALUES * np.float32(1 + 1e-6), resume=True, schedule="constant")


REFUSED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from helpers.toy_runs import toy_run
from stride_jax.cli import flags
flags.run(lambda _: toy_run(Path({out!r}), resume=True))
"""


@pytest.mark.parametrize("tries", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_a_refused_resume_ends_with_one_line(tmp_path: Path, tries: int) -> None:
    """The one line that says what to do would be followed by pages of a library's traceback."""
    for _ in range(tries):
        for name in UNFINISHED:
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
        code = REFUSED.format(tests=str(Path(__file__).parents[1]), out=str(tmp_path))
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert run.returncode == 2
        assert run.stderr.startswith("error: nothing to resume")
        assert run.stderr.count("\n") == 1, run.stderr


@pytest.mark.parametrize("name", ["afile", "afile/x"])
def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path, name: str) -> None:
    """A wrong --run.out would end in a traceback that does not say which flag to change."""
    (tmp_path / "afile").write_text("mine\n")
    with pytest.raises(InputError, match=rf"/{name} cannot be written to: .*another --run\.out"):
        toy_run(tmp_path / name)
    assert (tmp_path / "afile").read_text() == "mine\n"


# --- the last state as a model -------------------------------------------------------------------


def test_the_last_state_of_a_training_is_a_model(tmp_path: Path) -> None:
    """An average would be made of other parameters than those that the training ended with."""
    config = train_config(tmp_path)
    params = init_params(jax.random.key(3), config.trained_model)
    state = host_copy(initial_state(params, config.optim, 5))
    with RunStore(tmp_path) as store:
        best = jax.tree.map(np.zeros_like, params)
        store.save_best(3, Checkpoint(config.trained_model, best, config.data.context_len))
        store.save_last(5, state, with_series(to_dict(config), series_of().values))
    found = find_trained(str(tmp_path / "last"))
    assert (found.model, found.context_len) == (config.trained_model, config.data.context_len)
    jax.tree.map(np.testing.assert_array_equal, found.params, state.params)
    jax.tree.map(np.testing.assert_array_equal, find_trained(str(tmp_path)).params, best)


def test_a_last_state_that_is_no_model_is_refused(tmp_path: Path) -> None:
    """A missing key of the config would be all that is said."""
    toy_start(tmp_path)
    with pytest.raises(InputError, match=r"last is not the last state of a run of train\.py"):
        find_trained(str(tmp_path / "last"))
    with pytest.raises(InputError, match="no checkpoint"):
        find_trained(str(tmp_path / "other" / "last"))
