"""The checkpoints of a run: last and best, and the lock on its directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import jax

from stride_jax.checkpoints.checkpoint import (
    CHECKSUM,
    Checkpoint,
    _number,
    _orbax,
    _steps,
    _stored,
    describe,
    verify_checksum,
    with_checksum,
)
from stride_jax.errors import InputError


class RunStore:
    """The checkpoints of one training run, saved asynchronously: `last/` and `best/`, one each.

    `last` holds the whole state and is what `--resume` continues; `best` holds the parameters
    with the lowest validation error and is what `load` reads. A run writes `last` before its first
    step, and at the end of an epoch `best` before `last`: there is no `best` without the `last` of
    its run, and a run stopped between the two does the epoch again, to the same bits. A context
    manager, closed at its end.
    """

    def __init__(self, directory: Path) -> None:
        """Takes the directory for this process alone, until `close` or its end.

        Nothing in it is touched, and no thread of Orbax is started, before the first save.

        Raises:
            InputError: another process is writing there, or it cannot be written to.
        """
        self.directory = directory.absolute()
        self._lock = _locked(self.directory) if jax.process_index() == 0 else None
        self._writers: dict[str, Any] = {}

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

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
            if any(saved.step == step for saved in store.checkpoints):
                return  # resumed from an older step; what stands there is the same to the bit
            described = with_checksum(tree, config)
            store.save_async(step, tree, force=True, custom_metadata=described)
        except (OSError, ValueError) as error:
            raise self._unwritten(error) from error

    def _unwritten(self, error: Exception) -> Exception:
        """The error to raise for a failed save; one that is not of a file is returned unchanged."""
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
            state = _orbax().load(path, like)
        except Exception as error:
            raise InputError(f"{self.directory / 'last'} cannot be resumed: {error}") from error
        verify_checksum(self.directory / "last", state, _stored(path).custom_metadata or {})
        return state

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
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / "lock").open("w")
    except OSError as error:
        raise InputError(
            f"{directory} cannot be written to: {error.strerror}; make it a directory of yours, or "
            "give another --run.out."
        ) from error
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
