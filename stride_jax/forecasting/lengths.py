"""The steps of each history that a model is shown, and the histories decoded together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stride_jax.decoding.base import Draft, Process
from stride_jax.decoding.traits import traits_of
from stride_jax.errors import InputError


class View(NamedTuple):
    """The steps of the histories that a target and its draft are shown.

    Attributes:
        length: L, steps of a history that count, at most.
        room: steps of the contexts that the target is given, L or more.
        shared: steps of the contexts that target and draft are given, `room` or more.
        masked: padding is masked, so that all histories are decoded together.
    """

    length: int
    room: int
    shared: int
    masked: bool


def make_view(target: Process, draft: Draft | Process | None, series: Sequence[np.ndarray]) -> View:
    """The view of histories that are cut to their `visible_steps`.

    Args:
        target: its traits decide.
        draft: may see more steps than the target.
        series: `[T, C]` each.

    Raises:
        InputError: a target with a mask that sees less than a patch.
    """
    traits, patch_len = traits_of(target), target.patch_len
    fixed = traits.context_len
    length = fixed or longest(series, patch_len)
    drafted = traits_of(draft).context_len or 0
    if traits.supports_padding and traits.masks_steps:
        length = fixed or max(len(one) for one in series)
        room = _whole(length, patch_len)
        return View(length, room, max(room, _whole(drafted, patch_len)), masked=True)
    if traits.supports_padding:
        if length < patch_len:
            raise InputError(f"context_len {length} is less than one patch of {patch_len} steps.")
        room = _whole(length, patch_len)
        length = length // patch_len * patch_len
        return View(length, room, max(room, _whole(drafted, patch_len)), masked=True)
    return View(length, length, length if fixed is None else max(length, drafted), masked=False)


def longest(series: Sequence[np.ndarray], patch_len: int) -> int:
    """Whole patches of the longest history, at least one."""
    return max(1, max(len(one) for one in series) // patch_len) * patch_len


def _whole(steps: int, patch_len: int) -> int:
    """Steps, filled up to whole patches."""
    return -(-steps // patch_len) * patch_len


def visible_steps(target: Process, series: Sequence[np.ndarray]) -> list[int]:
    """The last steps of each history that count: few lengths, where each would be compiled anew.

    A target without a mask that sees all it is given is shown the last `few_patches` of a history.
    The cut depends on nothing but the length of that history.

    Args:
        target: its traits decide.
        series: `[T, C]` each.
    """
    traits, size = traits_of(target), target.patch_len
    if traits.supports_padding or traits.context_len is not None:
        return [len(one) for one in series]
    return [len(one) if len(one) < size else few_patches(len(one) // size) * size for one in series]


def few_patches(count: int) -> int:
    """The largest of 1, 2, ..., 8, 10, 12, 14, 16, 20, ... that is at most `count`.

    Its first three binary digits count: four sizes between a power of two and the next, and
    less than a fifth is cut off.
    """
    step = 1 << max(0, count.bit_length() - 3)
    return count // step * step


def groups(masked: bool, lengths: np.ndarray, patches: np.ndarray) -> list[np.ndarray]:
    """Indices of the series that are decoded together: equal numbers of patches, and lengths.

    Args:
        masked: padding is masked, so that the lengths may differ.
        lengths: `[B]`, steps of each history.
        patches: `[B]`, patches that are decoded of each.
    """
    keys = np.stack([np.zeros_like(lengths) if masked else lengths, patches], axis=1)
    return [np.flatnonzero((keys == key).all(axis=1)) for key in np.unique(keys, axis=0)]
