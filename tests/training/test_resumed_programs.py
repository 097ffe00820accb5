"""What `train.py` and `distill.py` load when they go on with a run."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest
from helpers.training import MODEL, series_of

from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.checkpoints.run_store import RunStore
from stride_jax.errors import InputError
from stride_jax.models.timer_xl import init_params
from stride_jax.training import resume
from stride_jax.training.config import RunConfig

START = Checkpoint(MODEL, init_params(jax.random.key(3), MODEL), 32)
MOVED = "runs/moved"


def program(name: str) -> ModuleType:
    """`train.py` or `distill.py` as a module."""
    path = Path(__file__).parents[2] / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"program_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def flags(out: Path, *more: str) -> list[str]:
    """The arguments of a run that started from a checkpoint which is no longer there."""
    return ["--init_from", MOVED, "--run.out", str(out), *more]


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """The directory of a run with its best parameters and a last state."""
    with RunStore(tmp_path) as store:
        store.save_best(1, START)
        store.save_last(1, {"w": np.zeros(1)}, {})
    return tmp_path


def started_with(module: ModuleType, name: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Where the checkpoint that a program starts from is put, in place of a training."""
    seen: list[Any] = []
    monkeypatch.setattr(module, "load_data", lambda _: series_of())
    monkeypatch.setattr(
        module, name, lambda *args: seen.append(args[{"train": 2, "distill": 3}[name]])
    )
    return seen


def test_a_resumed_training_needs_no_checkpoint_to_start_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run could not go on where the checkpoint that it began with has been moved."""
    train = program("train")
    seen = started_with(train, "train", monkeypatch)
    train.main(flags(tmp_path, "--resume"))
    assert seen == [None]
    with pytest.raises(InputError, match=MOVED):
        train.main(flags(tmp_path))


def test_a_resumed_distillation_takes_the_sizes_of_its_own_best(
    begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run could not go on where the draft that it began with has been moved."""
    distill = program("distill")
    seen = started_with(distill, "distill", monkeypatch)
    monkeypatch.setattr(distill, "find_model", lambda _: START)  # the target
    distill.main(flags(begun, "--resume"))
    assert [init.model for init in seen] == [MODEL]
    with pytest.raises(InputError, match=MOVED):
        distill.main(flags(begun))


def test_without_a_best_the_draft_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was stopped in its first epoch would go on with a draft of other sizes."""
    monkeypatch.setattr(resume, "find_model", {MOVED: START}.__getitem__)
    run = RunConfig(out=str(tmp_path), resume=True)
    assert resume.find_start(MOVED, run) is START
    assert resume.find_start("", run) is None
