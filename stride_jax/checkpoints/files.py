"""Arrays and metadata in `.safetensors`, `.npz` and `.pth` files."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from stride_jax.config import from_dict
from stride_jax.errors import InputError
from stride_jax.models.config import TimerXLConfig

SUFFIXES = (".pth", ".safetensors", ".npz")


METADATA = "stride_jax"


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays of a file, and the metadata that our own export put beside them."""
    if not path.exists():
        raise InputError(f"no file {str(path)!r}.")
    try:
        if path.suffix == ".npz":
            with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
                return {k: file[k] for k in file.files if k != METADATA}, (
                    json.loads(bytes(file[METADATA])) if METADATA in file.files else {}
                )
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="np") as tensors:
                meta = json.loads((tensors.metadata() or {}).get(METADATA, "{}"))
                return {k: tensors.get_tensor(k) for k in tensors.keys()}, meta  # noqa: SIM118
    except Exception as error:
        raise InputError(f"{path} is damaged or not a {path.suffix} file: {error}") from error
    if path.suffix == ".pth":
        return {name: x.float().numpy() for name, x in read_state_dict(path).items()}, {}
    raise InputError(f"cannot read {path}: give one of {', '.join(SUFFIXES)}, or a checkpoint.")


def read_state_dict(path: Path) -> dict[str, Any]:
    """The tensors of a state dict that PyTorch wrote, mapped from the disk; nothing of it is run.

    Raises:
        InputError: PyTorch is not installed, or the file holds something else.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"reading {path.suffix} needs PyTorch: pip install 'stride-jax[torch]'."
        ) from error
    mapped = zipfile.is_zipfile(path)  # older files are not, and cannot be mapped
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        raise InputError(f"{path} is not a state dict that loads safely: {error}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]  # of a training framework
    if not isinstance(state, dict) or not all(hasattr(v, "float") for v in state.values()):
        raise InputError(f"{path} holds no state dict; save model.state_dict() with torch.save.")
    return state


def stored_model(path: Path, meta: Any) -> TimerXLConfig:
    """The config in the metadata of a file of ours."""
    if not isinstance(meta, dict) or not {"model", "context_len"} <= set(meta):
        raise InputError(f"{path}: its stride-jax metadata is damaged: {meta!r}.")
    return from_dict(TimerXLConfig, meta["model"])
