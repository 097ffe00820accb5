"""A decode, its errors and a compiled process for the tests of the foundation models."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from stride_jax.decoding.compiled import compiled
from stride_jax.errors import InputError
from stride_jax.models.family import Family
from stride_jax.testing.parity import relative, rolled

__all__ = ["Jitted", "check_refused", "prepare", "relative", "rolled"]

Arrays = dict[str, np.ndarray]


def check_refused(family: Family, arrays: Arrays, spoil: Callable[[Arrays], Any], message: str):
    """Asserts that a state dict is refused with a message, once it is spoilt."""
    spoil(arrays)
    with pytest.raises(InputError, match=message):
        family.read(arrays)


prepare = compiled(lambda process, context, length: process.prepare(context, length))
_verify = compiled(lambda process, *args: process.verify(*args))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Jitted:
    """A process whose methods are compiled, where a check calls them one by one."""

    process: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "process"), name)

    def prepare(self, context, length=None):
        return prepare(self.process, context, length)

    def verify(self, memory, state, proposals):
        return _verify(self.process, memory, state, proposals)

    def drafting(self):
        return Jitted(self.process.drafting())
