"""The record of a model family: how its file is recognised, read, and made a process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stride_jax.decoding.base import Draft, Process


@dataclass(frozen=True)
class Family:
    """A family of foundation models.

    Attributes:
        name: as on the command line.
        title: as in the documentation.
        source: where its file comes from.
        licence: of the weights.
        recognises: share of the family's tensor names that a file has, 0 to 1, from names and
            shapes alone; 1 is this family.
        missing: names of the family's tensors that a file has not.
        read: config and parameters from arrays by the original's names, strictly; arrays keep
            their dtype.
        make_process: `(config, params, context_len=None)` to a process.
        drafts: drafts that are inside the weights, by name: from the target's process.
    """

    name: str
    title: str
    source: str
    licence: str
    recognises: Callable[[Mapping[str, tuple[int, ...]]], float]
    missing: Callable[[Mapping[str, tuple[int, ...]]], list[str]]
    read: Callable[[Mapping[str, np.ndarray]], tuple[Any, Any]]
    make_process: Callable[..., Process]
    drafts: Mapping[str, Callable[[Process], Draft]] = field(default_factory=dict)
