"""The families of foundation models that are read, and which of them a file is of."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping

from stride_jax.errors import InputError
from stride_jax.models.family import Family
from stride_jax.models.tensors import some

MODULES = {
    "fracast": "stride_jax.models.fracast",
    "timesfm": "stride_jax.models.timesfm",
    "timer": "stride_jax.models.timer",
    "patchfm": "stride_jax.models.patchfm",
    "toto": "stride_jax.models.toto",
}
"""Where the `FAMILY` of each name lies: one row per family."""


class Families(Mapping[str, Family]):
    """Families by name, each imported when it is first asked for."""

    def __init__(self, modules: Mapping[str, str]) -> None:
        self._modules = modules

    def __getitem__(self, name: str) -> Family:
        family = importlib.import_module(self._modules[name]).FAMILY
        if not isinstance(family, Family):
            raise TypeError(f"{self._modules[name]}.FAMILY is no Family.")
        return family

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


FAMILIES: Mapping[str, Family] = Families(MODULES)


def recognise(
    shapes: Mapping[str, tuple[int, ...]], families: Mapping[str, Family] = FAMILIES
) -> Family:
    """The family of a file, from the names and shapes of its tensors.

    A file is of the family all of whose tensors it has; what it has beside them, and their sizes,
    `Family.read` judges.

    Raises:
        InputError: of none; the message names the nearest family and what the file lacks of it.
    """
    near = max(families.values(), key=lambda family: family.recognises(shapes))
    share = near.recognises(shapes)
    if share == 1:
        return near
    titles = ", ".join(family.title for family in families.values())
    holds = f"it holds {_named(sorted(shapes))}"
    if share == 0:
        raise InputError(f"no known model: no tensor has a name of {titles} or Timer-XL; {holds}.")
    lacks = near.missing(shapes)
    raise InputError(
        f"no known model: the nearest family is {near.title}, with {share:.0%} of its tensors; "
        f"missing {_named(lacks)}; {holds}."
    )


def _named(names: list[str]) -> str:
    """The first few names, or that there is none."""
    return ", ".join(some(names)) or "nothing"
