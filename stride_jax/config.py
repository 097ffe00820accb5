"""Configuration: frozen dataclasses, checked when built, stored as JSON inside every checkpoint.

The `Attributes:` sections are the one place where a field is explained; the `--help` of the
command-line programs prints them.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import types
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt, MinLen

from stride_jax.errors import InputError, nearest


def require(condition: bool, message: str) -> None:
    """Raises InputError with the message unless the condition holds."""
    if not condition:
        raise InputError(message)


LARGEST_INDEX = 2**31 - 1
"""The largest number of anything that a device counts by int32."""
LARGEST_SEED = 2**32 - 1
"""The largest seed: JAX takes 32 bits of it, so a larger one would be the same as a smaller one."""


def whole_number(name: str, value: Any, *, least: int, most: int = LARGEST_INDEX) -> int:
    """A whole number of any type (int, numpy, a JAX scalar) as int.

    Raises:
        InputError: anything else, a bool too; outside `least` to `most`.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise InputError(f"{name} must be a whole number from {least} on, got {value!r}.")
    require(number <= most, f"{name} must be at most {most}, got {value!r}.")
    return number


BOUNDS = {
    Ge: ("ge", operator.ge, "at least", "["),
    Gt: ("gt", operator.gt, ">", "("),
    Le: ("le", operator.le, "at most", "]"),
    Lt: ("lt", operator.lt, "<", ")"),
}
"""Name, test, words and bracket of a bound, by the class that states it in the type of a field."""

Count = Annotated[int, Ge(1)]
Seed = Annotated[int, Ge(0), Le(LARGEST_SEED)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]


def check_fields(config: Any) -> None:
    """Raises InputError for a field outside the bounds in its type: `Annotated[int, Ge(1)]`.

    A bound around the item type of a tuple holds for every item. None is within every bound; a
    number that is not finite is outside of all.
    """
    for name, hint in get_type_hints(type(config), include_extras=True).items():
        _check_bounds(name, getattr(config, name), hint)


def _check_bounds(name: str, value: Any, hint: Any) -> None:
    """Checks one field, or one item of a tuple, against its annotated type."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is tuple:
        for item in value:
            _check_bounds(name, item, args[0])
    elif origin in (Union, types.UnionType) and not _is_allowed(value, args):
        _check_bounds(name, value, args[0])
    elif origin is Annotated:
        _check_bounds(name, value, args[0])
        if any(isinstance(bound, MinLen) for bound in args[1:]):
            require(len(value) > 0, f"{name} must not be empty.")
        _check_range(name, value, [bound for bound in args[1:] if type(bound) in BOUNDS])


def _is_allowed(value: Any, members: tuple[Any, ...]) -> bool:
    """Whether a value is None or a word that one member of a union names."""
    words = [get_args(member) for member in members if get_origin(member) is Literal]
    return value is None or any(value in one for one in words)


def _check_range(name: str, value: Any, bounds: list[Any]) -> None:
    """Checks a number against one bound, or against the lower and the upper end of an interval."""
    words, brackets, within = [], [], True
    for bound in bounds:
        field, holds, word, bracket = BOUNDS[type(bound)]
        limit = getattr(bound, field)
        words.append(f"{word} {limit}")
        brackets.append((limit, bracket))
        within = within and math.isfinite(value) and holds(value, limit)
    if len(bounds) == 2:
        (low, opens), (high, closes) = brackets
        words = [f"in {opens}{low}, {high}{closes}"]
    require(within, f"{name} must be {' '.join(words)}, got {value}.")


def check_factor(factor: float) -> None:
    """Raises InputError for a draft's factor outside (0, 1]."""
    require(0 < factor <= 1, f"the draft's factor must be in (0, 1], got {factor}.")


def check_context(context_len: int, patch_len: int) -> None:
    """Raises InputError unless the context is a whole number of patches."""
    require(
        context_len >= patch_len and context_len % patch_len == 0,
        f"context_len {context_len} must be a positive multiple of patch_len {patch_len}.",
    )


T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """A config as JSON-ready dictionaries."""
    return dataclasses.asdict(config)


def from_dict(cls: type[T], values: Any) -> T:
    """The inverse of `to_dict`.

    Raises:
        InputError: not a dictionary, an unknown field (the nearest name is suggested), a missing
            one without a default, a wrong type, or a value that the config itself refuses.
    """
    if not isinstance(values, dict):
        raise InputError(f"{cls.__name__} needs a dictionary of its fields, got {values!r}.")
    hints = get_type_hints(cls)
    for name in values:
        if name not in hints:
            raise InputError(f"{cls.__name__} has no field {name!r}. {nearest(name, list(hints))}")
    fields = {name: _convert(name, hints[name], value) for name, value in values.items()}
    try:
        return cls(**fields)
    except TypeError as error:  # a field without a default
        raise InputError(f"{cls.__name__}: {error}.") from error


def _convert(name: str, hint: Any, value: Any) -> Any:
    """`value` (from JSON) as the annotated type of the field `name`."""
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise InputError(f"field {name!r} must be a dictionary of fields, got {value!r}.")
        return from_dict(hint, value)
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        allowed = value in args
    elif origin in (Union, types.UnionType):
        return value if value is None else _convert(name, args[0], value)
    elif origin is tuple:
        if isinstance(value, (list, tuple)):
            return tuple(_convert(name, args[0], item) for item in value)
        allowed = False
    elif hint is float:
        allowed = isinstance(value, (int, float)) and not isinstance(value, bool)
    else:
        allowed = type(value) is hint
    if not allowed:
        raise InputError(f"field {name!r} must be {hint}, got {value!r}.")
    return value
