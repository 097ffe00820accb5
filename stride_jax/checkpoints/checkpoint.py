"""Orbax checkpoints: the parameters with their config, and the whole state of a training run."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from stride_jax.config import from_dict, to_dict
from stride_jax.errors import InputError
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.linear import LinearConfig
from stride_jax.models.timer_xl import Params, init_params

CHECKSUM = "crc32"
"""Key of the checksum in the metadata."""


def _orbax() -> Any:
    """Orbax, imported when first used: forecasts with a .safetensors file do not wait for it."""
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


class LinearCheckpoint(NamedTuple):
    """A fitted linear draft.

    Attributes:
        model: its config.
        params: its maps, and the gate of a mixture; names and shapes are `model.shapes`.
    """

    model: LinearConfig
    params: Params

    @property
    def context_len(self) -> int:
        """Steps it sees."""
        return self.model.context_len


LINEAR = "linear"
"""Key of a linear draft's config in the metadata; a forecaster's is `model`."""


def describe(checkpoint: Checkpoint | LinearCheckpoint) -> dict[str, Any]:
    """Metadata stored beside the parameters, JSON-ready."""
    if isinstance(checkpoint, LinearCheckpoint):
        return {LINEAR: to_dict(checkpoint.model)}
    return {"model": to_dict(checkpoint.model), "context_len": checkpoint.context_len}


def only_forecaster(source: str | Path, model: Any) -> Checkpoint:
    """The checkpoint of a Timer-XL.

    Raises:
        InputError: it is a linear draft, or a foundation model of another family.
    """
    if isinstance(model, LinearCheckpoint):
        raise InputError(
            f"{source} is a linear draft, no target: give it as the draft, as in "
            f"load_pair(target, {str(source)!r})."
        )
    if not isinstance(model, Checkpoint):
        raise InputError(
            f"{source} is a foundation model of another kind than Timer-XL; forecast with it, as "
            f"in load_pair({str(source)!r}) or stride-jax forecast --model {source}."
        )
    return model


def linear_params(path: Path, model: LinearConfig, arrays: Mapping[str, Any]) -> Params:
    """The arrays of a linear draft in float32, checked against its config.

    Raises:
        InputError: a missing, extra or misshapen array; each is named.
    """
    shapes = {name: jax.ShapeDtypeStruct(shape, "f4") for name, shape in model.shapes.items()}
    _check_leaves(path, shapes, arrays)
    return jax.device_put({name: np.asarray(arrays[name], np.float32) for name in shapes})


def checksum(tree: Any, described: Mapping[str, Any]) -> int:
    """CRC-32 of the description and of names, dtypes, shapes and values."""
    about = {name: value for name, value in described.items() if name != CHECKSUM}
    crc = zlib.crc32(json.dumps(about, sort_keys=True).encode())
    for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        array = np.asarray(leaf)
        head = f"{jax.tree_util.keystr(keys)} {array.dtype} {array.shape}"
        crc = zlib.crc32(array.tobytes(), zlib.crc32(head.encode(), crc))
    return crc


def with_checksum(tree: Any, described: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata with the checksum of `tree`: files may change on a disk without a word."""
    return {**described, CHECKSUM: checksum(tree, described)}


def verify_checksum(path: Path, tree: Any, stored: Mapping[str, Any]) -> None:
    """Raises InputError for content other than was written; older files hold no checksum."""
    if stored.get(CHECKSUM) not in (None, checksum(tree, stored)):
        raise InputError(
            f"{path} is damaged: its content is not what was written. Take another copy."
        )


def save(path: str | Path, checkpoint: Checkpoint | LinearCheckpoint) -> None:
    """Writes a forecaster or a linear draft to a new directory.

    Raises:
        InputError: the path exists.
    """
    path = Path(path).absolute()
    if path.exists():
        raise InputError(f"{path} exists; move it away or give another name.")
    tree = {"params": checkpoint.params}
    _orbax().save(path, tree, custom_metadata=with_checksum(tree, describe(checkpoint)))


def load(path: str | Path) -> Checkpoint | LinearCheckpoint:
    """Reads a model from a run directory (its best checkpoint) or a checkpoint directory.

    Raises:
        InputError: no checkpoint there, or one that does not hold what its config says: missing,
            extra and misshapen leaves are named.
    """
    path = _resolve(Path(path).absolute())
    metadata = _stored(path)
    stored, tree = metadata.custom_metadata, metadata.metadata
    if tree is None:
        raise InputError(f"{path} is damaged: the description of its arrays cannot be read.")
    linear = isinstance(stored, dict) and LINEAR in stored
    if not linear and not (isinstance(stored, dict) and {"model", "context_len"} <= set(stored)):
        raise InputError(
            f"{path} is no forecaster written by stride-jax; give a run directory or its best/."
        )
    leaves = tree.get("params", {})
    if linear:
        config = from_dict(LinearConfig, stored[LINEAR])
        return LinearCheckpoint(config, linear_params(path, config, _read(path, leaves, stored)))
    model = from_dict(TimerXLConfig, stored["model"])
    shapes = jax.eval_shape(lambda k: init_params(k, model), jax.random.key(0))
    _check_leaves(path, shapes, leaves)
    arrays = _read(path, leaves, stored)
    params = jax.device_put(jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), arrays))
    return Checkpoint(model, params, stored.get("context_len"))


def _read(path: Path, leaves: Any, stored: Mapping[str, Any]) -> Any:
    """The parameters of a checkpoint directory, as written and checked bit for bit.

    Raises:
        InputError: they cannot be read, or are not what was written.
    """
    # jax holds 64 bits only where it is told to
    like = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), leaves)
    try:
        tree = _orbax().load(path, {"params": like})
    except Exception as error:
        raise InputError(f"{path} is damaged: {error}") from error
    verify_checksum(path, tree, stored)
    return tree["params"]


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
    """Metadata of a checkpoint, without its arrays.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return _orbax().metadata(path)
    except Exception as error:
        raise InputError(f"{path} is not a readable checkpoint: {error}") from error


def _check_leaves(path: Path, expected: Any, actual: Any) -> None:
    """Raises InputError naming every leaf that differs in presence or shape."""

    def flat(tree: Any) -> dict[str, tuple[int, ...]]:
        leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
        names = (("/".join(str(getattr(k, "key", k)) for k in keys), leaf) for keys, leaf in leaves)
        return {name: tuple(leaf.shape) for name, leaf in names}

    want, have = flat(expected), flat(actual)
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


def host_copy(tree: Any) -> Any:
    """A copy of a tree of arrays in host memory, safe from donation."""
    return jax.tree.map(lambda x: np.array(x), tree)
