"""Tables of tensor names: a state dict of another library into nested parameters, strictly."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from stride_jax.errors import InputError

Params = dict[str, Any]
Shapes = Mapping[str, tuple[int, ...]]
SHOWN = 4
"""Names, or problems of a kind, that a message lists."""


class Tensor(NamedTuple):
    """One of our parameters in the original's file.

    Attributes:
        path: ours, `/` between the levels; one that ends in `kernel` is the original's transposed.
        shape: of each of the original's arrays.
        names: the original's; several are stacked along their first axis.
    """

    path: str
    shape: tuple[int, ...]
    names: tuple[str, ...]


def affine(ours: str, theirs: str | tuple[str, ...], shape: tuple[int, int]) -> list[Tensor]:
    """Kernel and bias of a layer, which may be several of the original's of this shape."""
    names = (theirs,) if isinstance(theirs, str) else theirs
    return [
        Tensor(f"{ours}/kernel", shape, tuple(f"{name}.weight" for name in names)),
        Tensor(f"{ours}/bias", shape[:1], tuple(f"{name}.bias" for name in names)),
    ]


def layer_norm(ours: str, theirs: str, width: int) -> list[Tensor]:
    """Scale and bias of a norm."""
    return [
        Tensor(f"{ours}/scale", (width,), (f"{theirs}.weight",)),
        Tensor(f"{ours}/bias", (width,), (f"{theirs}.bias",)),
    ]


def tensor_names(tensors: Iterable[Tensor]) -> list[str]:
    """All names of the original, in the order of the table."""
    return [name for tensor in tensors for name in tensor.names]


def missing_names(tensors: Iterable[Tensor], shapes: Shapes) -> list[str]:
    """Names of the table that a file has not."""
    return [name for name in tensor_names(tensors) if name not in shapes]


def share(tensors: Sequence[Tensor], shapes: Shapes) -> float:
    """Share of the names of the table that a file has, 0 to 1."""
    names = tensor_names(tensors)
    return 1 - len(missing_names(tensors, shapes)) / len(names)


def num_layers(shapes: Shapes, prefix: str) -> int:
    """Layers of a file whose names begin with `prefix` and a number; at least 1."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    numbers = [int(m[1]) for m in map(pattern.match, shapes) if m]
    # No further than the names go, so that a wrong number does not make an endless table.
    return min(max(numbers, default=0), len(numbers)) + 1


def sizes(title: str, shapes: Shapes, ranks: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays that a config is read off.

    Args:
        title: of the family, for the message.
        shapes: of the file.
        ranks: name -> number of axes.

    Raises:
        InputError: one is missing, or has another number of axes.
    """
    problems = [f"{name} is missing" for name in ranks if name not in shapes]
    problems += [
        f"{name} has shape {shapes[name]}, expected {rank} axes"
        for name, rank in ranks.items()
        if name in shapes and len(shapes[name]) != rank
    ]
    if problems:
        raise InputError(f"not a file of {title}: {'; '.join(problems)}.")
    return {name: shapes[name] for name in ranks}


def read_tensors(title: str, tensors: Sequence[Tensor], arrays: Mapping[str, np.ndarray]) -> Params:
    """Nested parameters; every array of the file is used, and none is copied but stacked ones.

    Args:
        title: of the family, for the message.
        tensors: the table.
        arrays: of the file, by the original's names; they keep their dtype.

    Raises:
        InputError: arrays that are missing, too many, of another shape, that hold whole numbers, or
            values that are not finite in float32; all named.
    """
    expected = {name: tensor.shape for tensor in tensors for name in tensor.names}
    wrong = [
        f"{name} has shape {np.shape(arrays[name])}, expected {shape}"
        for name, shape in expected.items()
        if name in arrays and np.shape(arrays[name]) != shape
    ]
    problems = [
        *_listed("is missing", [name for name in expected if name not in arrays]),
        *_listed("is unknown", [name for name in arrays if name not in expected]),
        *some(wrong),
    ]
    if not problems:
        whole = [x for x in expected if not jnp.issubdtype(arrays[x].dtype, jnp.floating)]
        bad = [name for name in expected if name not in whole and not _finite(arrays[name])]
        problems = [
            *some([f"{x} holds {arrays[x].dtype}, expected floating point" for x in whole]),
            *_listed("holds NaN or infinite values in float32", bad),
        ]
    if problems:
        raise InputError(f"not a whole file of {title}: {'; '.join(problems)}.")
    params: Params = {}
    for tensor in tensors:
        parts = [arrays[name] for name in tensor.names]
        array = parts[0] if len(parts) == 1 else np.concatenate(parts)
        *levels, leaf = tensor.path.split("/")
        place = params
        for level in levels:
            place = place.setdefault(level, {})
        place[leaf] = array.T if leaf == "kernel" else array
    return params


def _listed(problem: str, names: list[str]) -> list[str]:
    return some([f"{name} {problem}" for name in names])


def some(texts: list[str]) -> list[str]:
    """The first few texts of a message, and the number of the others."""
    more = [f"and {len(texts) - SHOWN} more"] if len(texts) > SHOWN else []
    return texts[:SHOWN] + more


def _finite(array: np.ndarray) -> bool:
    """Whether all values of an array are finite in float32, or in its own smaller dtype."""
    if array.dtype.itemsize > 4:
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
    return bool(np.isfinite(array).all())
