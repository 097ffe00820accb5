"""Arrays and metadata in `.safetensors`, `.npz` and `.pth` files."""

from __future__ import annotations

import json
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
        return _read_pth(path), {}
    raise InputError(f"cannot read {path}: give one of {', '.join(SUFFIXES)}, or a checkpoint.")


def _read_pth(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise InputError("reading .pth needs PyTorch: pip install 'stride-jax[torch]'.") from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{path} is not a state dict that loads safely: {error}") from error
    if not isinstance(state, dict) or not all(hasattr(v, "float") for v in state.values()):
        raise InputError(f"{path} holds no state dict; save model.state_dict() with torch.save.")
    return {name: tensor.float().numpy() for name, tensor in state.items()}


def stored_model(path: Path, meta: Any) -> TimerXLConfig:
    """The config in the metadata of a file of ours."""
    if not isinstance(meta, dict) or not {"model", "context_len"} <= set(meta):
        raise InputError(f"{path}: its stride-jax metadata is damaged: {meta!r}.")
    return from_dict(TimerXLConfig, meta["model"])
