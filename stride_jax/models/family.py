"""The record of a model family: how its file is recognised, read, and made a process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stride_jax.decoding.base import Draft, Process
from stride_jax.models.tensors import Shapes, Tensor, missing_names, share


@dataclass(frozen=True)
class Family:
    """A family of foundation models.

    Attributes:
        name: as on the command line.
        title: as in the documentation.
        source: where its file comes from.
        licence: of the weights.
        table: the family's tensors for a file of these names and shapes, with as many layers as the
            names number; of several layouts the nearest one.
        read: config and parameters from arrays by the original's names, strictly; arrays keep
            their dtype.
        make_process: `(config, params, context_len=None)` to a process.
        drafts: drafts that are inside the weights, by name: from the target's process.
    """

    name: str
    title: str
    source: str
    licence: str
    table: Callable[[Shapes], list[Tensor]]
    read: Callable[[Mapping[str, np.ndarray]], tuple[Any, Any]]
    make_process: Callable[..., Process]
    drafts: Mapping[str, Callable[[Process], Draft]] = field(default_factory=dict)

    def recognises(self, shapes: Shapes) -> float:
        """Share of the family's tensor names that a file has, 0 to 1; 1 is this family."""
        return share(self.table(shapes), shapes)

    def missing(self, shapes: Shapes) -> list[str]:
        """Names of the family's tensors that a file has not."""
        return missing_names(self.table(shapes), shapes)
