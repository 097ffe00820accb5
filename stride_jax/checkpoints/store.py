"""Trained models on disk: directories, `.safetensors`, `.npz` and `.pth` files, assets."""

from __future__ import annotations

import dataclasses
import json
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stride_jax.checkpoints import checkpoint as checkpoints
from stride_jax.checkpoints.checkpoint import Checkpoint, LinearCheckpoint
from stride_jax.checkpoints.families import FamilyCheckpoint, is_family_file, read_family
from stride_jax.checkpoints.files import METADATA, SUFFIXES, read_arrays, stored_model
from stride_jax.checkpoints.pytorch import (
    ONLY_OURS,
    arrays_by_name,
    from_arrays,
    inexpressible,
    only_weights,
)
from stride_jax.checkpoints.tensor_files import SUFFIXES as TENSOR_FILES
from stride_jax.checkpoints.tensor_files import read_tensors, weights_in
from stride_jax.config import from_dict
from stride_jax.errors import InputError
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.linear import LinearConfig

AnyCheckpoint = Checkpoint | LinearCheckpoint | FamilyCheckpoint
READ_OFF_ARRAYS = {"patch_len", "d_model", "num_heads", "d_ff", "num_layers", "head"}
"""Fields of the config that the arrays themselves tell."""
PACKAGED = ("zero_shot", "beijing")
"""Names of the models in `stride_jax/assets`: `NAME_target.safetensors`, `NAME_draft.safetensors`
and `NAME_covariance.npy`."""
DRAFTED = ("beijing",)
"""Names of those that are loaded with their draft unless told otherwise."""
MIRRORED = ("zero_shot",)
"""Names of the models in the package that forecast from each history and its mirror image."""
AGGREGATIONS = {"zero_shot": (2, 8)}
"""Steps whose means the models in the package forecast too, by name; see `Pair.aggregations`."""


def save_model(
    path: str | Path, checkpoint: Checkpoint | LinearCheckpoint, *, half: bool = False
) -> None:
    """Writes a model to a `.safetensors` or `.npz` file, or to a new checkpoint directory.

    A file holds the arrays under the original's names, with our config beside them: as metadata in
    `.safetensors`, in `.npz` as an extra uint8 array `stride_jax` (JSON), to be dropped before the
    original loads the rest strictly. For each field of the config that the original cannot express
    there is an empty array `only_stride_jax.FIELD=VALUE`, so that its strict load fails and says
    why.

    Args:
        path: to write; a path without a suffix becomes a directory.
        checkpoint: the model.
        half: store float16, half the size; it is read back as float32. Files only.

    Raises:
        InputError: the path exists, another suffix, `half` for a directory, or a value that does
            not fit in float16.
    """
    path = Path(path)
    if path.exists():
        raise InputError(f"{path} exists; move it away or give another name.")
    if path.suffix not in ("", ".safetensors", ".npz") or (half and not path.suffix):
        raise InputError(
            f"cannot write {path}{' in float16' if half else ''}: give .safetensors or .npz, or no "
            "suffix for a directory (which holds float32)."
        )
    if not path.suffix:
        checkpoints.save(path, checkpoint)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(checkpoint, LinearCheckpoint):
        arrays, fields = {n: np.asarray(x) for n, x in checkpoint.params.items()}, []
    else:
        arrays = arrays_by_name(checkpoint.model, checkpoint.params)
        fields = inexpressible(checkpoint.model)
    if half:
        arrays = {name: _halved(path, name, array) for name, array in arrays.items()}
    arrays |= {ONLY_OURS + field: np.zeros(0, np.float32) for field in fields}
    meta = checkpoints.with_checksum(arrays, checkpoints.describe(checkpoint))
    if path.suffix == ".safetensors":
        from safetensors.numpy import save_file

        save_file(arrays, path, metadata={METADATA: json.dumps(meta)})
        return
    content: dict[str, Any] = {
        **arrays,
        METADATA: np.frombuffer(json.dumps(meta).encode(), np.uint8),
    }
    np.savez(path, **content)


def _halved(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    if np.abs(array).max(initial=0.0) > np.finfo(np.float16).max:
        raise InputError(f"{name} does not fit in float16; write {path} without half.")
    return array.astype(np.float16)


def load_model(path: str | Path) -> Checkpoint:
    """A forecaster; see `load_any`, which also reads linear drafts and other families.

    Raises:
        InputError: one of these, or see `load_any`.
    """
    return checkpoints.only_forecaster(path, load_any(path))


def load_any(path: str | Path) -> AnyCheckpoint:
    """Any trained model: of a run or checkpoint directory, or of a file of tensors.

    Files are `.safetensors`, the index of its shards, `.npz`, `.pth`, `.ckpt` and wheels. Any other
    directory stands for the one file of tensors in it.

    A file written by `save_model` knows its whole config; a state dict of Timer-XL is read with the
    defaults of `load_pytorch`, any other one as a foundation model, see `families.read_family`.

    Raises:
        InputError: nothing there, damaged, or no known model.
    """
    path = _weights_of(Path(path))
    if path.is_dir():
        return checkpoints.load(path)
    if is_family_file(path):
        return read_family(path)
    arrays, meta = _arrays_in(path)
    if not meta:
        return Checkpoint(*from_arrays(arrays, {}), context_len=None)
    if isinstance(meta, dict) and checkpoints.LINEAR in meta:
        linear = from_dict(LinearConfig, meta[checkpoints.LINEAR])
        checkpoints.verify_checksum(path, arrays, meta)
        return LinearCheckpoint(linear, checkpoints.linear_params(path, linear, arrays))
    model = stored_model(path, meta)
    checkpoints.verify_checksum(path, arrays, meta)
    names = {field.name for field in dataclasses.fields(TimerXLConfig)} - READ_OFF_ARRAYS
    config, params = from_arrays(
        only_weights(arrays), {name: getattr(model, name) for name in names}
    )
    if config != model:
        raise InputError(f"{path}: its arrays are of {config}, its metadata says {model}.")
    return Checkpoint(config, params, meta["context_len"])


def _weights_of(path: Path) -> Path:
    """The file of tensors in a directory that is neither of a run nor of a checkpoint."""
    if not path.is_dir() or _is_checkpoint(path):
        return path
    return weights_in(path) or path


def _is_checkpoint(path: Path) -> bool:
    """Whether a directory is that of a run, of finished checkpoints by their steps, or of one."""
    steps = any(part.name.isdigit() and part.is_dir() for part in path.iterdir())
    return steps or (path / "best").is_dir() or (path / "_METADATA").is_file()


def _arrays_in(path: Path) -> tuple[dict[str, np.ndarray], Any]:
    """The arrays of a Timer-XL in any kind of file, and the metadata of one of ours."""
    if path.suffix in SUFFIXES or not path.name.endswith(TENSOR_FILES):
        return read_arrays(path)
    return read_tensors(path)[0], {}


def find_model(name_or_path: str, part: Literal["target", "draft"] = "target") -> Checkpoint:
    """Loads a forecaster; see `find_any`, which also finds linear drafts and other families.

    Raises:
        InputError: one of these, or see `find_any`.
    """
    return checkpoints.only_forecaster(name_or_path, find_any(name_or_path, part))


def find_any(name_or_path: str, part: Literal["target", "draft"] = "target") -> AnyCheckpoint:
    """Loads a model by the name of a packaged pair, by a path, or by a file name in the package.

    Args:
        name_or_path: `beijing`, a path, or a file in `stride_jax/assets`.
        part: the model of a packaged pair to load.

    Raises:
        InputError: neither exists, or see `load_any`.
    """
    packaged = name_or_path in PACKAGED
    if not packaged and Path(name_or_path).exists():
        return load_any(name_or_path)
    file = f"{name_or_path}_{part}.safetensors" if packaged else name_or_path
    asset = files("stride_jax") / "assets" / file
    if not asset.is_file():
        raise InputError(
            f"no checkpoint {name_or_path!r}: neither a path nor a model in the package "
            f"({', '.join(PACKAGED)}); train one with train.py or give another path."
        )
    with as_file(asset) as path:
        return load_any(path)
