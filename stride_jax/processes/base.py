"""What the decoders ask of a process."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.config import whole_number
from stride_jax.errors import InputError
from stride_jax.types import PatchLaw


def check_law(law: PatchLaw, expected: tuple[int, ...], layout: str, said: str) -> None:
    """Raises InputError unless mean and log variance have the shape of the patches they are of.

    Args:
        law: what a forecaster returned.
        expected: shape of what was asked for.
        layout: the same in letters.
        said: which call it was.
    """
    for name, value in (("mean", law.mean), ("log variance", law.logvar)):
        if value is not None and value.shape != expected:
            raise InputError(
                f"{said} returned a {name} of shape {value.shape}; expected {layout} = {expected}."
            )


class Traits(NamedTuple):
    """What `forecast` has to know of a process; these defaults hold where it does not say.

    Attributes:
        supports_padding: `prepare` takes a length, so that histories of different lengths are
            decoded together. Without it they are decoded apart, length by length.
        context_len: steps of a context it sees, the last ones; None for all.
        normalises: it moves with the level and the scale of a history, so it may be given the
            history standardised. Without it the history is given as it is.
        starts_empty: `prepare` also takes a length of 0 or less, a context of nothing but padding.
    """

    supports_padding: bool = False
    context_len: int | None = None
    normalises: bool = False
    starts_empty: bool = False


def traits_of(process: Any) -> Traits:
    """The traits of a process (or draft), with the default of each that it does not have.

    Raises:
        InputError: a trait that is no bool, or a context_len that is no whole number above 0.
    """
    said: Any = {n: getattr(process, n, default) for n, default in Traits._field_defaults.items()}
    values = Traits(**said)
    name = type(process).__name__
    for trait in ("supports_padding", "normalises", "starts_empty"):
        value = getattr(values, trait)
        if not isinstance(value, bool | np.bool_):
            raise InputError(f"{trait} of {name} must be True or False, got {value!r}.")
    if values.context_len is None:
        return values
    length = whole_number(f"context_len of {name}", values.context_len, least=1)
    return values._replace(context_len=length)


def check_process(target: Any) -> None:
    """Raises InputError for a target without the methods that the decoders call."""
    needed = ("patch_len", "prepare", "start", "verify", "commit")
    missing = [name for name in needed if not hasattr(target, name)]
    if missing:
        raise InputError(
            f"target must be a process, such as window_process(...), got {target!r}; it has no "
            f"{', '.join(missing)}."
        )


def check_parameters(process: Any) -> None:
    """Raises InputError where a number inside a process is NaN, with its place in the pytree."""
    for place, leaf in jax.tree_util.tree_leaves_with_path(process):
        kind = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
        if jnp.issubdtype(kind, jnp.inexact) and np.isnan(np.asarray(leaf)).any():
            raise InputError(
                f"the target's parameters{jax.tree_util.keystr(place)} hold NaN, so its forecasts "
                "would be NaN; load or train the model again."
            )


class Process(Protocol):
    """How a forecaster is rolled over its own output.

    A process is a pytree (parameters inside it are traced). It splits what it knows in two: the
    memory of a context, which never changes and is shared by all sample paths of it, and the state
    of one path. All methods are pure and work on one series; the decoders vmap them.

    The properties of `Traits` may be left out; `traits_of` has their defaults.
    """

    @property
    def patch_len(self) -> int:
        """P, steps in a patch."""

    @property
    def context_len(self) -> int | None:
        """Steps of a context it sees, or None for all; see `Traits`."""

    @property
    def supports_padding(self) -> bool:
        """Whether `prepare` takes a length; see `Traits`."""

    @property
    def normalises(self) -> bool:
        """Whether it moves with the level and scale of a history; see `Traits`."""

    def prepare(self, context: jax.Array, length: jax.Array | None = None) -> Any:
        """Memory of a context `[L, C]`; everything that has to be done once.

        Args:
            context: the history at its end.
            length: int32, steps of the history, a whole number of patches; those before are padding
                that must not change anything. None for all L.

        Raises:
            InputError: a length is given to a process that has no mask for padding.
        """

    def start(self, memory: Any, room: int) -> Any:
        """The state of a path before its first patch, with room for `room` patches."""

    def verify(self, memory: Any, state: Any, proposals: jax.Array) -> tuple[PatchLaw, Any]:
        """The laws after 0, 1, ..., K proposals `[K, P, C]`, each `[K + 1, P, C]`.

        The state that comes back has seen the proposals but kept none; see `commit`.
        """

    def step(self, memory: Any, state: Any, patch: jax.Array) -> tuple[PatchLaw, Any]:
        """The law `[P, C]` after one more patch `[P, C]`, without keeping it; for drafting."""

    def commit(self, state: Any, patches: jax.Array, count: jax.Array) -> Any:
        """Keeps the first `count` of `patches [K + 1, P, C]`; count may be 0.

        The first K are the proposals that `verify` or `step` have seen.
        """

    def drafting(self) -> Process:
        """The same forecaster as one that proposes: it has not seen its last proposal."""
