"""Traits: what a process tells of itself, beside its contract, and the checks of a process."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.config import whole_number
from stride_jax.errors import InputError
from stride_jax.types import Density, PatchDistribution


def check_predictions(
    prediction: PatchDistribution, expected: tuple[int, ...], layout: str, call: str
) -> None:
    """Raises InputError unless every part of a prediction has the shape of its patches.

    What is reported has one axis more, of the Q outputs.

    Args:
        prediction: what a forecaster returned.
        expected: shape of what was asked for.
        layout: the same in letters.
        call: words for the call that returned it.
    """
    for name, value in (("mean", prediction.mean), ("log variance", prediction.logvar)):
        if value is not None and value.shape != expected:
            raise InputError(
                f"{call} returned a {name} of shape {value.shape}; expected {layout} = {expected}."
            )
    reported = prediction.reported
    if reported is not None and reported.shape[:-1] != expected:
        raise InputError(
            f"{call} reported outputs of shape {reported.shape}; expected {layout} with an axis "
            f"of the outputs behind it, {(*expected, 'Q')}."
        )
    for part in jax.tree.leaves(prediction.density):
        if part.shape[: len(expected)] != expected:
            raise InputError(
                f"{call} returned a density with an array of shape {part.shape}; expected {layout} "
                f"= {expected} in front."
            )


class Traits(NamedTuple):
    """Facts about a process that `forecast` needs; a process without them has these defaults.

    Attributes:
        supports_padding: `prepare` takes a length, so that histories of different lengths are
            decoded together. Without it they are decoded apart, length by length.
        context_len: steps of a context it sees, the last ones; None for all.
        normalises: it moves with the level and the scale of a history, so it may be given the
            history standardised. Without it the history is given as it is.
        starts_empty: `prepare` also takes a length of 0 or less, a context of nothing but padding.
        masks_steps: padding is masked step by step, so that a length may be any number of steps.
            Without it a length is a whole number of patches.
        reports: what each of the Q values of `PatchDistribution.reported` is: a number is the level
            of a quantile, a word such as `mean` names anything else. Each is a value at the level
            of the series, which `forecast` scales, moves and cuts off at 0 like a path; so a spread
            cannot be reported. What is not named here is not kept by the decoders.
        predicts_density: its predictions have a `PatchDistribution.density`, from which sample
            paths are drawn in place of a Gaussian with sigma. A density of a process that does not
            say so is not used.
    """

    supports_padding: bool = False
    context_len: int | None = None
    normalises: bool = False
    starts_empty: bool = False
    reports: tuple[float | str, ...] = ()
    masks_steps: bool = False
    predicts_density: bool = False


def traits_of(process: Any) -> Traits:
    """The traits of a process (or draft), with the default of each that it does not have.

    Raises:
        InputError: a trait that is no bool, a context_len that is no whole number above 0, or
            reports that are no tuple of levels inside (0, 1) and words.
    """
    call: Any = {n: getattr(process, n, default) for n, default in Traits._field_defaults.items()}
    values = Traits(**call)
    name = type(process).__name__
    bools = ("supports_padding", "normalises", "starts_empty", "masks_steps", "predicts_density")
    for trait in bools:
        value = getattr(values, trait)
        if not isinstance(value, bool | np.bool_):
            raise InputError(f"{trait} of {name} must be True or False, got {value!r}.")
    if not (isinstance(values.reports, tuple) and all(map(_names_output, values.reports))):
        raise InputError(
            f"reports of {name} must be a tuple of levels inside (0, 1) and words, got "
            f"{values.reports!r}."
        )
    if values.context_len is None:
        return values
    length = whole_number(f"context_len of {name}", values.context_len, least=1)
    return values._replace(context_len=length)


def length_unit(process: Any) -> int:
    """Steps that a length of a context is a whole number of: 1, or those of a patch."""
    return 1 if traits_of(process).masks_steps else int(process.patch_len)


def _names_output(name: Any) -> bool:
    """Whether `name` can stand in `Traits.reports`."""
    return isinstance(name, str) or (isinstance(name, float) and 0 < name < 1)


def check_process(target: Any) -> None:
    """Raises InputError for a target without the methods that the decoders call."""
    needed = ("patch_len", "prepare", "start", "verify", "commit")
    missing = [name for name in needed if not hasattr(target, name)]
    if missing:
        raise InputError(
            f"target must be a process, such as window_process(...), got {target!r}; it has no "
            f"{', '.join(missing)}."
        )
    check_pytree("target", target)


def check_pytree(role: str, value: Any) -> None:
    """Raises InputError for an object that a decode cannot take apart into arrays.

    Args:
        role: what it is used as.
        value: a process, a draft or a rule.
    """
    leaves, name = jax.tree.leaves(value), type(value).__name__
    if any(leaf is value for leaf in leaves):
        raise InputError(
            f"the {role} {name} is no pytree; put @jax.tree_util.register_dataclass above "
            "@dataclass(frozen=True) on its class."
        )
    for leaf in leaves:
        if not (hasattr(leaf, "dtype") or isinstance(leaf, int | float | complex)):
            _name_leaf(role, value, leaf)


def _name_leaf(role: str, value: Any, wrong: Any) -> None:
    """Raises InputError that names the place of a leaf which is no number."""
    for place, leaf in jax.tree_util.tree_leaves_with_path(value):
        if leaf is wrong:
            raise InputError(
                f"the {role} {type(value).__name__} holds {leaf!r} in "
                f"{jax.tree_util.keystr(place)}, which is no array; declare that field with "
                'metadata={"static": True}.'
            )


def density_of(process: Any, prediction: PatchDistribution) -> Density | None:
    """The density of a prediction that sample paths are drawn from; None for a Gaussian.

    Raises:
        InputError: the process says that it predicts densities, and did not.
    """
    if not traits_of(process).predicts_density:
        return None
    if prediction.density is None:
        raise InputError(
            f"{type(process).__name__} says that it predicts densities, and its prediction has "
            "none; set PatchDistribution.density, or leave out the trait predicts_density."
        )
    return prediction.density


def density_at(density: Density, place: Any) -> Density:
    """The densities at one place, or at several, of a stack of patches."""
    out: Density = jax.tree.map(lambda x: x[place], density)
    return out


def for_paths(process: Any, paths: int) -> Any:
    """A process or draft in the form for so many paths of a series at a time.

    What `prepare` returns is shared by the paths of a series. A process that has a faster form
    where there is one path returns it from a method `for_paths(paths)`.
    """
    return process.for_paths(paths) if hasattr(process, "for_paths") else process


def prepare_draft(
    draft: Any, target: Any, memory: Any, context: jax.Array, length: jax.Array | None
) -> Any:
    """The draft's memory of a context.

    A draft that lies inside its target's weights reads the target's memory of that context, by a
    method `prepare_beside(target, memory)`, so that the target's prefill runs once for both.
    Without a target it is prepared as any other draft.
    """
    if target is not None and hasattr(draft, "prepare_beside"):
        return draft.prepare_beside(target, memory)
    return draft.prepare(context, length)


def check_parameters(process: Any) -> None:
    """Raises InputError where a number inside a process is NaN, with its place in the pytree."""
    for place, leaf in jax.tree_util.tree_leaves_with_path(process):
        kind = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
        if jnp.issubdtype(kind, jnp.inexact) and np.isnan(np.asarray(leaf)).any():
            raise InputError(
                f"the target's parameters{jax.tree_util.keystr(place)} hold NaN, so its forecasts "
                "would be NaN; load or train the model again."
            )
