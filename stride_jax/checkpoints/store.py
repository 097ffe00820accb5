"""Trained models on disk: directories, `.safetensors`, `.npz` and `.pth` files, assets."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np

from stride_jax.checkpoints import checkpoint as checkpoints
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.checkpoints.files import METADATA, SUFFIXES, read_arrays, stored_model
from stride_jax.checkpoints.pytorch import (
    ONLY_OURS,
    arrays_by_name,
    from_arrays,
    inexpressible,
    load_pytorch,
    only_weights,
)
from stride_jax.errors import InputError
from stride_jax.models.config import TimerXLConfig

READ_OFF_ARRAYS = {"patch_len", "d_model", "num_heads", "d_ff", "num_layers", "head"}
"""Fields of the config that the arrays themselves tell."""


def save_pytorch(path: str | Path, checkpoint: Checkpoint, *, half: bool = False) -> None:
    """Writes `.safetensors` or `.npz` with the original's names; our config goes beside them.

    `half` stores float16, half the size; it is read back as float32. For each field that the
    original cannot express there is an empty array `only_stride_jax.FIELD=VALUE`, so that its
    strict load fails and says why.

    In `.safetensors` it is metadata; in `.npz` an extra uint8 array `stride_jax` (JSON), to be
    dropped before the original loads the rest strictly.

    Raises:
        InputError: another suffix, or a file that already exists.
    """
    path = Path(path)
    if path.exists():
        raise InputError(f"{path} exists; move it away or give another name.")
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = arrays_by_name(checkpoint.model, checkpoint.params)
    if half:
        arrays = {name: _halved(path, name, array) for name, array in arrays.items()}
    fields = inexpressible(checkpoint.model)
    arrays |= {ONLY_OURS + field: np.zeros(0, np.float32) for field in fields}
    meta = checkpoints.with_checksum(arrays, checkpoints.describe(checkpoint))
    if path.suffix == ".safetensors":
        from safetensors.numpy import save_file

        save_file(arrays, path, metadata={METADATA: json.dumps(meta)})
    elif path.suffix == ".npz":
        content: dict[str, Any] = {
            **arrays,
            METADATA: np.frombuffer(json.dumps(meta).encode(), np.uint8),
        }
        np.savez(path, **content)
    else:
        raise InputError(f"cannot write {path}: give .safetensors or .npz.")


def _halved(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    if np.abs(array).max(initial=0.0) > np.finfo(np.float16).max:
        raise InputError(f"{name} does not fit in float16; write {path} without half.")
    return array.astype(np.float16)


def load_model(path: str | Path) -> Checkpoint:
    """Any trained model: a run or checkpoint directory, or a `.safetensors`, `.npz`, `.pth` file.

    A file written by `save_pytorch` knows its whole config; any other one is read with the
    defaults of `load_pytorch`.

    Raises:
        InputError: nothing there, damaged, or not a Timer-XL.
    """
    path = Path(path)
    if path.is_dir():
        return checkpoints.load(path)
    arrays, meta = read_arrays(path)
    if not meta:
        return Checkpoint(*from_arrays(arrays, {}), context_len=None)
    model = stored_model(path, meta)
    checkpoints.verify_checksum(path, arrays, meta)
    names = {field.name for field in dataclasses.fields(TimerXLConfig)} - READ_OFF_ARRAYS
    config, params = from_arrays(
        only_weights(arrays), {name: getattr(model, name) for name in names}
    )
    if config != model:
        raise InputError(f"{path}: its arrays are of {config}, its metadata says {model}.")
    return Checkpoint(config, params, meta["context_len"])


def find_model(name_or_path: str) -> Checkpoint:
    """`load_model` of a path, or of a file shipped in `stride_jax/assets`.

    Raises:
        InputError: neither exists, or see `load_model`.
    """
    if Path(name_or_path).exists():
        return load_model(name_or_path)
    asset = files("stride_jax") / "assets" / name_or_path
    if not asset.is_file():
        raise InputError(
            f"no checkpoint {name_or_path!r}; train one with train.py or give another path."
        )
    with as_file(asset) as path:
        return load_model(path)


def main(argv: list[str] | None = None) -> int:
    """The command `python -m stride_jax.checkpoints.pytorch`."""
    parser = argparse.ArgumentParser(
        prog="python -m stride_jax.checkpoints.pytorch", description=__doc__
    )
    parser.add_argument("input", type=Path, help="file or checkpoint directory to read")
    parser.add_argument("output", type=Path, help="directory, .safetensors or .npz to write")
    said = "what a state dict of the original cannot say; our own files know it"
    parser.add_argument("--activation", choices=("relu", "gelu"), help=said)
    parser.add_argument("--no-instance-norm", action="store_true", help=said)
    parser.add_argument("--covariate", action="store_true", help=said)
    parser.add_argument("--half", action="store_true", help="store float16 in the output file")
    args = parser.parse_args(argv)
    try:
        if args.activation or args.no_instance_norm or args.covariate:
            config, params = load_pytorch(
                args.input,
                activation=args.activation or "relu",
                instance_norm=None if args.no_instance_norm else "window",
                covariate=args.covariate,
            )
            checkpoint = Checkpoint(config, params, None)
        else:
            checkpoint = load_model(args.input)
        if args.output.suffix in SUFFIXES:
            save_pytorch(args.output, checkpoint, half=args.half)
        else:
            checkpoints.save(args.output, checkpoint)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.input} -> {args.output}: {checkpoint.model}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
