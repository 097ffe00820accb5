"""Orbax checkpoints: the parameters with their config, and the whole state of a training run."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.config import TimerXLConfig
from stride_jax.config_json import from_dict, to_dict
from stride_jax.errors import InputError
from stride_jax.models.timer_xl import Params, init_params

CHECKSUM = "crc32"
"""Under this name in the metadata."""


def _orbax() -> Any:
    """Imported when first used: who forecasts with a .safetensors file does not wait for it."""
    from orbax.checkpoint.experimental import v1

    return v1


class Checkpoint(NamedTuple):
    """A trained forecaster.

    Attributes:
        model: its config.
        params: its parameters.
        context_len: steps it was trained to see; None if unknown (any number of patches).
    """

    model: TimerXLConfig
    params: Params
    context_len: int | None


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """What is stored beside the parameters, JSON-ready."""
    return {"model": to_dict(checkpoint.model), "context_len": checkpoint.context_len}


def checksum(tree: Any, described: Mapping[str, Any]) -> int:
    """CRC-32 of the description and of names, dtypes, shapes and values."""
    about = {name: value for name, value in described.items() if name != CHECKSUM}
    found = zlib.crc32(json.dumps(about, sort_keys=True).encode())
    for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        array = np.asarray(leaf)
        head = f"{jax.tree_util.keystr(keys)} {array.dtype} {array.shape}"
        found = zlib.crc32(array.tobytes(), zlib.crc32(head.encode(), found))
    return found


def with_checksum(tree: Any, described: Mapping[str, Any]) -> dict[str, Any]:
    """What is stored beside `tree`: files may change on a disk without a word."""
    return {**described, CHECKSUM: checksum(tree, described)}


def verify_checksum(path: Path, tree: Any, stored: Mapping[str, Any]) -> None:
    """Raises InputError when what was read is not what was written; older files do not say."""
    if stored.get(CHECKSUM) not in (None, checksum(tree, stored)):
        raise InputError(
            f"{path} is damaged: its content is not what was written. Take another copy."
        )


def save(path: str | Path, checkpoint: Checkpoint) -> None:
    """Writes a forecaster to a new directory.

    Raises:
        InputError: the path exists.
    """
    path = Path(path).absolute()
    if path.exists():
        raise InputError(f"{path} exists; move it away or give another name.")
    tree = {"params": checkpoint.params}
    _orbax().save(path, tree, custom_metadata=with_checksum(tree, describe(checkpoint)))


def load(path: str | Path) -> Checkpoint:
    """Reads a forecaster from a run directory (its best checkpoint) or a checkpoint directory.

    Raises:
        InputError: no checkpoint there, or one that does not hold what its config says: missing,
            extra and misshapen leaves are named.
    """
    path = _resolve(Path(path).absolute())
    metadata = _stored(path)
    stored, tree = metadata.custom_metadata, metadata.metadata
    if tree is None:
        raise InputError(f"{path} is damaged: the description of its arrays cannot be read.")
    if not isinstance(stored, dict) or not {"model", "context_len"} <= set(stored):
        raise InputError(
            f"{path} is no forecaster written by stride-jax; give a run directory or its best/."
        )
    model = from_dict(TimerXLConfig, stored["model"])
    shapes = jax.eval_shape(lambda k: init_params(k, model), jax.random.key(0))
    leaves = tree.get("params", {})
    _check_leaves(path, shapes, leaves)
    # read as written, to be checked bit for bit: jax holds 64 bits only where it is told to
    like = jax.tree.map(lambda _, leaf: np.zeros(leaf.shape, leaf.dtype), shapes, leaves)
    try:
        found = _orbax().load(path, {"params": like})
    except Exception as error:
        raise InputError(f"{path} is damaged: {error}") from error
    verify_checksum(path, found, stored)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), found["params"])
    return Checkpoint(model, params, stored.get("context_len"))


def _resolve(path: Path) -> Path:
    """A run directory stands for its best checkpoint, `best` for its one step."""
    if (path / "best").is_dir():
        path = path / "best"
    if steps := _steps(path):
        return max(steps, key=_number)
    if not path.is_dir():
        raise InputError(f"no checkpoint directory {str(path)!r}.")
    return path


def _steps(path: Path) -> list[Path]:
    """The finished checkpoints in a directory, named by their steps."""
    return [p for p in path.glob("*") if p.is_dir() and p.name.isdigit()]


def _number(path: Path) -> int:
    return int(path.name)


def _stored(path: Path) -> Any:
    """What is known of a checkpoint without its arrays.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return _orbax().metadata(path)
    except Exception as error:
        raise InputError(f"{path} is not a readable checkpoint: {error}") from error


def _check_leaves(path: Path, expected: Any, found: Any) -> None:
    """Raises InputError naming every leaf that differs in presence or shape."""

    def flat(tree: Any) -> dict[str, tuple[int, ...]]:
        leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
        names = (("/".join(str(getattr(k, "key", k)) for k in keys), leaf) for keys, leaf in leaves)
        return {name: tuple(leaf.shape) for name, leaf in names}

    want, have = flat(expected), flat(found)
    problems = [f"missing {name}" for name in want if name not in have]
    problems += [f"unexpected {name}" for name in have if name not in want]
    problems += [
        f"{name} has shape {have[name]}, expected {shape}"
        for name, shape in want.items()
        if name in have and have[name] != shape
    ]
    if problems:
        raise InputError(f"{path} does not fit its config: " + "; ".join(problems) + ".")


def check_trained_context(target: Checkpoint, context_len: int) -> None:
    """Raises InputError when a target would see another context than it was trained on."""
    if target.context_len not in (None, context_len):
        raise InputError(
            f"the target was trained on a context of {target.context_len} steps, data.context_len "
            f"is {context_len}; set --data.context_len {target.context_len}."
        )


class RunStore:
    """The checkpoints of one training run, saved asynchronously: `last/` and `best/`, one each.

    `last` holds the whole state and is what `--resume` continues; `best` holds the parameters
    with the lowest validation error and is what `load` reads. A run writes `last` before its first
    step, and at the end of an epoch `best` before `last`: there is no `best` without the `last` of
    its run, and a run stopped between the two does the epoch again, to the same bits.
    """

    def __init__(self, directory: Path) -> None:
        """Takes the directory for this process alone, until `close` or its end.

        Nothing in it is touched, and no thread of Orbax is started, before the first save.

        Raises:
            InputError: another process is writing there.
        """
        self.directory = directory.absolute()
        self._lock = _locked(self.directory) if jax.process_index() == 0 else None
        self._writers: dict[str, Any] = {}

    def save_last(self, step: int, state: Any, config: Mapping[str, Any]) -> None:
        """Saves the state in the background; it is copied to the host before this returns."""
        self._save("last", step, state, config)

    def save_best(self, step: int, checkpoint: Checkpoint) -> None:
        """Saves the best parameters in the background."""
        self._save("best", step, {"params": checkpoint.params}, describe(checkpoint))

    def _writer(self, name: str) -> Any:
        """Opened by the first save, which waits until temporary directories are cleaned up."""
        if name not in self._writers:
            training = _orbax().training
            self._writers[name] = training.Checkpointer(
                self.directory / name,
                preservation_policy=training.preservation_policies.LatestN(1),
                cleanup_tmp_directories=True,
            )
        return self._writers[name]

    def _save(self, name: str, step: int, tree: Any, config: Mapping[str, Any]) -> None:
        try:
            store = self._writer(name)
            store.wait()  # one save at a time: the next one must not disturb what is being written
            if any(found.step == step for found in store.checkpoints):
                return  # resumed from an older step; what stands there is the same to the bit
            described = with_checksum(tree, config)
            store.save_async(step, tree, force=True, custom_metadata=described)
        except (OSError, ValueError) as error:
            raise self._unwritten(error) from error

    def _unwritten(self, error: Exception) -> Exception:
        """What to raise for a failed save; an error that is not of a file comes back as it is."""
        text = " ".join(str(error).split())
        if isinstance(error, ValueError) and "os_error_code" not in text:  # as tensorstore puts it
            return error
        return InputError(
            f"a checkpoint could not be written to {self.directory}: {text[:300]}; the one before "
            "it stands. Make room, or mend what it says, and go on with --resume."
        )

    def holds(self, name: str) -> bool:
        """Whether there is a finished checkpoint in `last` or `best`."""
        return bool(_steps(self.directory / name))

    def last_config(self) -> dict[str, Any] | None:
        """The config stored with the last checkpoint; None when there is none.

        Raises:
            InputError: it cannot be read.
        """
        if not self.holds("last"):
            return None
        stored = _stored(max(_steps(self.directory / "last"), key=_number)).custom_metadata
        return {name: value for name, value in dict(stored or {}).items() if name != CHECKSUM}

    def restore_last(self, like: Any) -> Any:
        """The last state, in the structure, shapes and dtypes of `like`.

        Raises:
            InputError: the stored state does not fit or is damaged.
        """
        path = max(_steps(self.directory / "last"), key=_number)
        try:
            found = _orbax().load(path, like)
        except Exception as error:
            raise InputError(f"{self.directory / 'last'} cannot be resumed: {error}") from error
        verify_checksum(self.directory / "last", found, _stored(path).custom_metadata or {})
        return found

    def close(self) -> None:
        """Waits until everything is on disk.

        Raises:
            InputError: it could not be written.
        """
        failed: Exception | None = None
        try:
            for store in self._writers.values():
                try:
                    store.close()
                except (OSError, ValueError) as error:
                    failed = failed or error
        finally:
            if self._lock is not None:
                self._lock.close()
        if failed is not None:
            raise self._unwritten(failed) from failed


def _locked(directory: Path) -> IO[str]:
    """An open file whose lock goes with the process, however it ends."""
    directory.mkdir(parents=True, exist_ok=True)
    file = (directory / "lock").open("w")
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # not on Windows, where nothing else is lost than this check
        pass
    except OSError as error:
        file.close()
        raise InputError(
            f"another run is writing to {directory}; wait for it or give another --run.out."
        ) from error
    return file


def host_copy(tree: Any) -> Any:
    """A copy of a tree of arrays in host memory, safe from donation."""
    return jax.tree.map(lambda x: np.array(x), tree)
