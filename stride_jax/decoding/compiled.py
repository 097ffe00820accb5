"""`jax.jit` that tells registered dataclasses apart."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`jax.jit` over the positional arguments; those by keyword are static.

    jaxlib (0.10 to 0.12) compares two registered dataclasses by their fields, not by their class,
    and only its hash knows the class: once in about a hundred times the program of one class is
    run for another with the same fields. So the hash is an argument of its own.
    """

    def program(*args: Any, structure: int, static: tuple[tuple[str, Any], ...]) -> Any:
        return function(*args, **dict(static))

    program.__name__ = function.__name__  # what profiles and the cache on disk show
    jitted = jax.jit(program, static_argnames=("structure", "static"), **options)

    @functools.wraps(function)
    def call(*args: Any, **static: Any) -> Any:
        structure = hash(jax.tree.structure(args))
        return jitted(*args, structure=structure, static=tuple(static.items()))

    return call
