"""A target and its draft, ready to decode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from stride_jax.config import whole_number
from stride_jax.decoding.base import Draft, Process
from stride_jax.decoding.drafts import as_draft
from stride_jax.decoding.scale import PatchCovariance, factor_shape
from stride_jax.decoding.traits import check_process, traits_of
from stride_jax.errors import InputError


@jax.tree_util.register_pytree_with_keys_class
@dataclass(frozen=True)
class Pair:
    """A target and its draft, ready to decode; a pytree.

    Attributes:
        target: the process whose distribution a forecast follows.
        draft: proposes patches; None for the target alone.
        covariance: how the errors of a patch of the target hang together, for `forecast`; None for
            independent steps.
        mirrored: whether `forecast` takes half of its sample paths from the history upside down.
        aggregations: numbers of neighbouring steps whose means `forecast` forecasts too, to combine
            both, where history and horizon are long enough; none for the series alone.

    Raises:
        InputError: a target that is no process, a draft that is none, a covariance that is none,
            different patch lengths, aggregations that are no whole numbers from 2 on or twice
            there, or either of the last two for a target that reports quantiles of its own.
    """

    target: Process
    draft: Draft | Process | None = None
    covariance: PatchCovariance | None = None
    mirrored: bool = False
    aggregations: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_process(self.target)
        if self.draft is not None:
            check_patch_lens(self.target.patch_len, self.proposer().patch_len)
        if self.covariance is not None:
            check_covariance(self.covariance, self.target)
        check_mirrored(self.mirrored, self.target)
        check_aggregations(self.aggregations, self.target)

    def proposer(self) -> Draft:
        """The draft with the methods of `Draft`, also where it is a process.

        Raises:
            InputError: this pair has no draft.
        """
        if self.draft is None:
            raise InputError("this pair has no draft; load it with one, such as 'last-value'.")
        return as_draft(self.draft)

    def tree_flatten_with_keys(self) -> tuple[tuple[tuple[Any, Any], ...], tuple[Any, ...]]:
        """Target, draft and covariance, for `jax.tree_util`; the other fields are static."""
        key = jax.tree_util.GetAttrKey
        static = tuple(getattr(self, name) for name in STATIC)
        return tuple((key(name), getattr(self, name)) for name in PARTS), static

    @classmethod
    def tree_unflatten(cls, static: tuple[Any, ...], children: tuple[Any, ...]) -> Pair:
        """Inverse of flattening; jax puts placeholders here, so nothing is checked again."""
        pair = object.__new__(cls)
        for name, value in zip(PARTS + STATIC, (*children, *static), strict=True):
            object.__setattr__(pair, name, value)
        return pair


PARTS = ("target", "draft", "covariance")
"""Fields of a pair that hold arrays."""
STATIC = ("mirrored", "aggregations")
"""The others."""


def check_patch_lens(target: int, draft: int) -> None:
    """Raises InputError unless target and draft have patches of one length."""
    if target != draft:
        raise InputError(f"target and draft must share a patch length, got {target} and {draft}.")


def check_mirrored(mirrored: Any, target: Process) -> None:
    """Raises InputError unless it is a bool, and False for a target that reports quantiles."""
    if not isinstance(mirrored, bool):
        raise InputError(f"mirrored must be True or False, got {mirrored!r}.")
    if mirrored and traits_of(target).reports:
        raise InputError(
            "a target that reports quantiles of its own cannot be mirrored: those of the mirrored "
            "history are others. Set mirrored False."
        )


def check_aggregations(aggregations: Any, target: Process) -> None:
    """Raises InputError unless they are different whole numbers from 2 on, in a tuple.

    There are none for a target that reports quantiles: those of its means are of other values.
    """
    if not isinstance(aggregations, tuple):
        raise InputError(f"aggregations must be a tuple such as (2, 8), got {aggregations!r}.")
    numbers = [whole_number("one of the aggregations", n, least=2) for n in aggregations]
    if len(set(numbers)) < len(numbers):
        raise InputError(f"aggregations must differ, got {aggregations}.")
    if aggregations and traits_of(target).reports:
        raise InputError(
            "a target that reports quantiles of its own takes no aggregations: those of the means "
            "are of other values. Set aggregations ()."
        )


def check_covariance(covariance: Any, target: Process) -> None:
    """Raises InputError unless it is a covariance of the errors of patches of this target.

    `forecast` checks the values, and that there is a factor for all variables or for each.
    """
    if not isinstance(covariance, PatchCovariance):
        raise InputError(
            f"covariance must be a PatchCovariance, such as load_covariance('beijing'), got "
            f"{covariance!r}."
        )
    if traits_of(target).predicts_density:
        raise InputError(
            f"{type(target).__name__} draws its patches from a density of its own, whose steps are "
            "independent; leave out the covariance."
        )
    shape, patch_len = factor_shape(covariance.factor), target.patch_len
    if shape[-2:] != (patch_len, patch_len):
        raise InputError(
            f"the factor of a covariance must be [P, P] or [C, P, P] with the target's patch "
            f"length {patch_len}, got shape {shape}."
        )
