"""Tensors in files of other libraries, mapped from the disk: read when used, never all at once."""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import jax.numpy as jnp
import numpy as np

from stride_jax.checkpoints.files import read_state_dict
from stride_jax.errors import InputError

INDEX = ".safetensors.index.json"
"""End of the name of the file that says which shard each tensor is in."""
SHARD = re.compile(r"-\d{5}-of-\d{5}\.safetensors$")
"""End of the name of a shard, as Hugging Face writes it."""
SUFFIXES = (".safetensors", INDEX, ".whl", ".pth", ".ckpt")
PREFERRED = "model.safetensors"
"""Name of the weights where a directory or a wheel has several files of tensors."""
DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": np.dtype(jnp.bfloat16),
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
"""Types of the safetensors format."""
DAMAGED = ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError
"""Errors that reading a damaged header in JSON raises."""

Tensors = dict[str, np.ndarray]


def weights_in(directory: Path) -> Path | None:
    """The file of tensors, or the index of its shards, in a directory; None where there is none.

    Raises:
        InputError: several, and none is called `model.safetensors`; or shards without an index.
    """
    # Two levels down, as in an unpacked wheel; no further, as a directory may hold anything.
    nested = f"*/{PREFERRED}", f"*/*/{PREFERRED}"
    for pattern in (f"*{INDEX}", PREFERRED, "*.safetensors", *nested):
        files = sorted(directory.glob(pattern))
        if len(files) == 1:
            return files[0]
        if files and all(SHARD.search(file.name) for file in files):
            name = SHARD.sub(INDEX, files[0].name)
            raise InputError(
                f"{directory} holds shards of a model ({files[0].name} and others) without their "
                f"index; put {name} beside them, it is part of the same download."
            )
        if files:
            names = ", ".join(file.name for file in files[:3])
            raise InputError(f"{directory} holds several models: {names}; give one of them.")
    return None


def read_tensors(path: Path) -> tuple[Tensors, Mapping[str, str]]:
    """The tensors of a file, a directory or a wheel, and the metadata of a single file.

    The arrays of `.safetensors` and `.pth` are mapped from the disk; those of a wheel, which is
    compressed, are in memory.

    Raises:
        InputError: nothing there, damaged, a shard that is missing or lacks a tensor of the index,
            or a file of another kind.
    """
    if path.is_dir():
        weights = weights_in(path)
        if weights is None:
            raise InputError(f"{path} holds no file of tensors (.safetensors).")
        path = weights
    if not path.exists():
        raise InputError(f"no file {str(path)!r}.")
    if path.name.endswith(INDEX):
        return _sharded(path), {}
    if path.suffix == ".safetensors":
        return _parsed(path, np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0))
    if path.suffix == ".whl":
        return _parsed(path, _in_wheel(path))
    if path.suffix in (".pth", ".ckpt"):
        return {name: _array(tensor) for name, tensor in read_state_dict(path).items()}, {}
    raise InputError(f"cannot read {path}: give one of {', '.join(SUFFIXES)}, or a directory.")


def _parsed(path: Path, content: np.ndarray) -> tuple[Tensors, Mapping[str, str]]:
    """Views of the tensors in the bytes of a `.safetensors` file, and its metadata.

    The layout is that of the safetensors format: the size of the header in 8 bytes, the header in
    JSON, the tensors.

    Raises:
        InputError: it is cut short, or not of that format.
    """
    try:
        start = 8 + int.from_bytes(content[:8].tobytes(), "little")
        header: dict[str, Any] = json.loads(content[8:start].tobytes())
        meta = header.pop("__metadata__", {})
        if not isinstance(meta, dict):
            raise ValueError(f"its metadata is {meta!r}, expected names and texts")
        ends = [_offsets(entry)[1] for entry in header.values()]
        if start + max(ends, default=0) != len(content):
            raise ValueError(
                f"its header speaks of {start + max(ends, default=0)} bytes, it has {len(content)}"
            )
        return {name: _view(content[start:], entry) for name, entry in header.items()}, meta
    except DAMAGED as error:
        raise InputError(f"{path} is damaged or not a .safetensors file: {error}") from error


def _offsets(entry: Mapping[str, Any]) -> tuple[int, int]:
    """The first byte of a tensor, and the one after its last, counted from the end of the header.

    Raises:
        ValueError: there are not two.
    """
    offsets = entry["data_offsets"]
    if len(offsets) != 2:
        raise ValueError(f"its data_offsets {offsets} are not two numbers")
    first, end = offsets
    return first, end


def _view(content: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    """One tensor of the bytes after the header."""
    first, end = _offsets(entry)
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"its type {entry['dtype']} is none of {', '.join(DTYPES)}")
    array: np.ndarray = content[first:end].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return array


def _sharded(path: Path) -> Tensors:
    """The tensors of all shards that an index names.

    Raises:
        InputError: a damaged index, a missing shard, or one that lacks a tensor.
    """
    try:
        shard_of: dict[str, str] = json.loads(path.read_text())["weight_map"]
        strange = [
            x for x in shard_of.values() if not (isinstance(x, str) and x.endswith(".safetensors"))
        ]
        if strange:
            raise ValueError(f"the shard {strange[0]!r} is no name of a .safetensors file")
        shards = sorted(set(shard_of.values()))
    except DAMAGED as error:
        raise InputError(f"{path} is no index of shards: {error!r}") from error
    absent = [shard for shard in shards if not (path.parent / shard).is_file()]
    if absent:
        raise InputError(
            f"{path} names the shard {absent[0]}, which is not beside it ({len(absent)} of "
            f"{len(shards)} are missing); download all of them."
        )
    opened = {shard: read_tensors(path.parent / shard)[0] for shard in shards}
    lacking = [name for name, shard in shard_of.items() if name not in opened[shard]]
    if lacking:
        raise InputError(
            f"{shard_of[lacking[0]]} lacks the tensor {lacking[0]} that {path.name} says it has; "
            "download it again."
        )
    return {name: opened[shard][name] for name, shard in shard_of.items()}


def _in_wheel(path: Path) -> np.ndarray:
    """The bytes of the file of tensors in a wheel.

    Raises:
        InputError: it is damaged, or has no such file or several.
    """
    try:
        with zipfile.ZipFile(path) as wheel:
            names = [name for name in wheel.namelist() if name.endswith(".safetensors")]
            named = [name for name in names if PurePosixPath(name).name == PREFERRED] or names
            if len(named) == 1:
                return np.frombuffer(wheel.read(named[0]), np.uint8)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
        raise InputError(f"{path} is damaged or no wheel: {error}") from error
    raise InputError(f"{path} holds {len(named)} files of tensors (.safetensors), expected one.")


def _array(tensor: Any) -> np.ndarray:
    """A view of a tensor of PyTorch, in its dtype."""
    tensor = tensor.detach()
    if str(tensor.dtype) == "torch.bfloat16":  # numpy has it from jax alone
        import torch

        bits: np.ndarray = tensor.view(torch.int16).numpy()
        return bits.view(DTYPES["BF16"])
    array: np.ndarray = tensor.numpy()
    return array
