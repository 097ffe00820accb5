"""Where a run begins: in an empty directory, or at the last checkpoint of a run with its config.

That of a run that has ended can be taken as a model, too.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from stride_jax.checkpoints.checkpoint import Checkpoint, host_copy
from stride_jax.checkpoints.run_store import RunStore
from stride_jax.checkpoints.store import find_model
from stride_jax.config import from_dict, to_dict
from stride_jax.errors import InputError, counted
from stride_jax.models.timer_xl import Params, init_params
from stride_jax.training.config import OptimConfig, RunConfig, TrainConfig
from stride_jax.training.step import TrainState, initial_state

SERIES = "series"
"""Key of what the metadata of `last/` tell of the series, beside the config."""
TEACHER = "teacher"
"""Key of a hash of the target's parameters, in the metadata of a distillation. Runs that older
versions began have none, and another target is not noticed there."""
STRETCHES = 16
"""Parts of a series, of which each has a mean there."""
SAME = 1e-4
"""Difference of two means of a standardised series that is rounding, on another machine."""


def with_series(config: Mapping[str, Any], values: np.ndarray) -> dict[str, Any]:
    """A config to be stored, JSON-ready, with the sizes and some means of the series `[T, C]`.

    The means are of stretches of the rows, with a weight for each variable, so that the order of
    both matters.
    """
    stored: dict[str, Any] = json.loads(json.dumps(config))  # as it is read back: tuples are lists
    rows, num_vars = values.shape
    weights = np.arange(1, num_vars + 1) / num_vars
    stretches = np.array_split(np.nan_to_num(values.astype(np.float64)), min(rows, STRETCHES))
    means = [float(np.mean(stretch * weights)) for stretch in stretches]
    return {**stored, SERIES: {"rows": rows, "variables": num_vars, "means": means}}


def fingerprint(params: Params) -> str:
    """A hash of parameters: of their places, shapes, types and values."""
    state = hashlib.blake2b(digest_size=16)
    for place, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.asarray(leaf)
        state.update(f"{jax.tree_util.keystr(place)} {array.shape} {array.dtype}".encode())
        state.update(np.ascontiguousarray(array).tobytes())
    return state.hexdigest()


def _same_series(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two series are the same, but for rounding."""
    sizes = all(before[name] == now[name] for name in ("rows", "variables"))
    return sizes and np.allclose(before["means"], now["means"], rtol=0, atol=SAME)


def resume(
    store: RunStore,
    state: TrainState,
    *,
    optim: OptimConfig,
    run: RunConfig,
    config: Mapping[str, Any],
    epoch_steps: int,
) -> TrainState:
    """The state that a run begins with; nothing is written where the run is refused.

    Args:
        store: Checkpoints of the run.
        state: The state of a new run, saved as `last/` where the directory is empty, so that it
            says whose directory it is.
        optim: Optimiser settings.
        run: Directory, seed, and whether to resume.
        config: Stored in the checkpoints, see `with_series`; a resumed run must have the same, but
            for what `goes_on` allows.
        epoch_steps: Steps per epoch.

    Returns:
        `state`, or the one of the last checkpoint, in host memory.

    Raises:
        InputError: the directory holds another run, or no run to resume.
    """
    stored = store.last_config()
    if stored is None:
        _check_empty(store, run)
        store.save_last(0, host_copy(state), config)
        return state
    if not run.resume:
        raise InputError(
            f"{run.out!r} already holds a run; continue it with --resume or give another --run.out."
        )
    _check_same(stored, config, optim, run)
    last: TrainState = store.restore_last(host_copy(state))
    done = int(last.step)
    if optim.epochs * epoch_steps < done:
        raise InputError(
            f"the run in {run.out!r} has done {counted(done, 'step')}, more than the "
            f"{counted(optim.epochs, 'epoch')} of {epoch_steps} asked for; set "
            f"optim.epochs to {-(-done // epoch_steps)} or more."
        )
    return last


def _check_empty(store: RunStore, run: RunConfig) -> None:
    """Raises InputError unless a new run may begin in the directory."""
    if store.holds("best"):
        raise InputError(
            f"{run.out!r} holds the best/ of another run without its last/, so it cannot "
            "be resumed; move it away or give another --run.out."
        )
    if run.resume:
        raise InputError(f"nothing to resume in {run.out!r}; leave out --resume.")


def _check_same(
    stored: dict[str, Any], config: Mapping[str, Any], optim: OptimConfig, run: RunConfig
) -> None:
    """Raises InputError unless a run of this config would have done the stored one's steps."""
    settings = stored.get("optim")
    if settings is not None:
        stored = {**stored, "optim": goes_on(settings, optim, run.out)}
    apart = ("run", SERIES, TEACHER)
    changed = [k for k, v in config.items() if k not in apart and stored.get(k) != v]
    if stored.get("run", {}).get("seed") != run.seed:
        changed.append("run.seed")
    if changed:
        raise InputError(
            f"the run in {run.out!r} was started with another {', '.join(changed)}: "
            f"{ {k: stored.get(k) for k in changed} }; resume with the same."
        )
    before, now = stored.get(SERIES), config.get(SERIES)
    if before and now and not _same_series(before, now):  # runs of older versions tell none
        sizes = [f"{one['rows']} rows of {one['variables']} variables" for one in (before, now)]
        raise InputError(
            f"the run in {run.out!r} was started with another series ({sizes[0]}, now {sizes[1]}): "
            "the file of data.source has changed. Resume with the file as it was, or start another "
            "run from its best with --init_from."
        )
    teachers = stored.get(TEACHER), config.get(TEACHER)
    if all(teachers) and teachers[0] != teachers[1]:
        raise InputError(
            f"the run in {run.out!r} was started with another target: the parameters in "
            f"{config.get('target')!r} have changed. Resume with the target as it was, or start "
            "another run from its best with --init_from."
        )


def goes_on(before: dict[str, Any], optim: OptimConfig, out: str) -> dict[str, Any]:
    """The stored optimiser settings with what a resumed run may change taken from `optim`.

    Epochs may change and patience may grow, as long as the learning rates of the steps already
    done stay: always with constant and type1, and with cosine where t_max stands for the epochs
    that the run was started with. So a resumed run is, to the bit, the run that had its settings
    from the start.

    Args:
        before: Settings stored with the last checkpoint.
        optim: Settings of the resumed run.
        out: Directory of the run, for the message.

    Raises:
        InputError: other epochs would have changed the learning rates, or a lower patience.
    """
    old = from_dict(OptimConfig, before)
    if optim.patience < old.patience:
        raise InputError(
            f"the run in {out!r} was started with optim.patience {old.patience}; it may grow, but "
            f"{optim.patience} might have stopped the run before."
        )
    moved = dataclasses.replace(old, epochs=optim.epochs, patience=optim.patience)
    if optim.period == old.period:
        return to_dict(dataclasses.replace(moved, t_max=optim.t_max))
    if (optim.schedule, optim.t_max) == (old.schedule, old.t_max):
        raise InputError(
            f"the run in {out!r} was started with {old.epochs} epochs, and its cosine reaches from "
            f"the first to the last of them: with {optim.epochs} the steps already done would have "
            f"had other learning rates. Go on with --optim.t_max {old.period}, past which the rate "
            "rises again, or start another run from its best with --init_from."
        )
    return to_dict(moved)


def find_start(init_from: str, run: RunConfig) -> Checkpoint | None:
    """The checkpoint whose sizes and parameters a run begins with; None for new ones.

    A resumed run reads its own best, if it has one: its parameters are those of its last state, so
    that only the sizes count, and `init_from` may have been moved.

    Raises:
        InputError: no such model.
    """
    out = Path(run.out)
    if init_from and run.resume and (out / "best").is_dir() and (out / "last").is_dir():
        return find_model(run.out)
    return find_model(init_from) if init_from else None


def find_trained(name_or_path: str) -> Checkpoint:
    """A forecaster as `find_model` finds it; `RUN/last` is that of the last step of a training.

    `find_model` takes the parameters of the lowest validation error. Where a loss is not what is
    validated, or where the rate has fallen to zero, those of the end may be wanted.

    Raises:
        InputError: no such model, a run of `distill.py`, or one that is not finished.
    """
    path = Path(name_or_path)
    if path.name != "last" or not path.is_dir():
        return find_model(name_or_path)
    with RunStore(path.parent) as store:
        stored = store.last_config() or {}
        if not {"data", "model", "optim"} <= set(stored):
            raise InputError(f"{path} is not the last state of a run of train.py.")
        config = from_dict(TrainConfig, {k: v for k, v in stored.items() if k != SERIES})
        model = config.trained_model
        state = initial_state(init_params(jax.random.key(0), model), config.optim, 1)
        last: TrainState = store.restore_last(host_copy(state))
    return Checkpoint(model, last.params, config.data.context_len)
