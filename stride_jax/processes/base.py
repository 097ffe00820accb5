"""What the decoders ask of a process."""

from __future__ import annotations

from typing import Any, Protocol

import jax

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


class Process(Protocol):
    """How a forecaster is rolled over its own output.

    A process is a pytree (parameters inside it are traced). It splits what it knows in two: the
    memory of a context, which never changes and is shared by all sample paths of it, and the state
    of one path. All methods are pure and work on one series; the decoders vmap them.
    """

    @property
    def patch_len(self) -> int:
        """P, steps in a patch."""

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
