"""Configs as JSON-ready dictionaries, and back with every field checked."""

from __future__ import annotations

import dataclasses
import types
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from stride_jax.errors import InputError, nearest

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
    found = {name: _convert(name, hints[name], value) for name, value in values.items()}
    try:
        return cls(**found)
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
