"""`jax.jit` that tells registered dataclasses apart."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax


class Structure:
    """The structure of a pytree, which also knows the classes of registered dataclasses.

    jaxlib (0.10 to 0.12) compares two registered dataclasses by their fields, not by their class,
    and only its hash knows the class: once in about a hundred times the program of one class is
    run for another with the same fields. So two structures are equal only if their hashes are.
    With `jax_debug_nans` a structure is another one, as a decode then has no NaN: see
    `types.no_value`.

    Attributes:
        tree: of `jax.tree.structure`.
        number: a hash.
    """

    def __init__(self, tree: jax.tree_util.PyTreeDef) -> None:
        config: Any = jax.config
        self.tree, self.number = tree, hash((tree, config.jax_debug_nans))

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Structure):
            return NotImplemented
        return self.number == other.number and self.tree == other.tree


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`jax.jit`, with its options, over the positional arguments; those by keyword are static.

    The arguments are flattened once, and their structure is static: see `Structure`.
    """

    def program(
        leaves: list[Any], structure: Structure, static: tuple[tuple[str, Any], ...]
    ) -> Any:
        return function(*jax.tree.unflatten(structure.tree, leaves), **dict(static))

    program.__name__ = function.__name__  # what profiles and the cache on disk show
    jitted = jax.jit(program, static_argnums=(1, 2), **options)

    @functools.wraps(function)
    def call(*args: Any, **static: Any) -> Any:
        leaves, tree = jax.tree.flatten(args)
        return jitted(leaves, Structure(tree), tuple(static.items()))

    return call
