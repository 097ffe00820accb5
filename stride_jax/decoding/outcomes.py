"""The decision of a rule on a round: its check, and the patches that it keeps."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.decoding.base import Outcome, Round, Rule
from stride_jax.decoding.info import one_more
from stride_jax.errors import InputError


def check_outcome(rule: Rule, outcome: Outcome, current: Round) -> None:
    """Checks the decision of a rule against the contract in `decoding.base.Outcome`.

    It reads shapes and types alone, so it costs a compiled program nothing.

    Args:
        rule: that decided.
        outcome: its decision.
        current: the round it decided on.

    Raises:
        InputError: no `Outcome`, a count that is no whole number, or an array of another shape than
            the round's; JAX would round the count, and repeat the array to fit.
    """
    name = f"{type(rule).__name__}.decide"
    if not isinstance(outcome, Outcome):
        raise InputError(f"{name} must return an Outcome, got {type(outcome).__name__}.")
    for field in ("num_accepted", "overflow", "added"):
        _check_count(name, field, getattr(outcome, field))

    proposals = current.proposals.shape
    expected = {
        "patch": ("[P, C]", proposals[1:]),
        "emitted": ("[K, P, C]", proposals),
        "log_ratio": ("[K]", proposals[:1]),
        "threshold": ("[K]", proposals[:1]),
    }
    for field, (layout, shape) in expected.items():
        value = getattr(outcome, field)
        if value is None and field != "patch":
            continue
        if value is None or np.shape(value) != shape:
            given = "None" if value is None else f"shape {np.shape(value)}"
            raise InputError(f"{name} returned {field} of {given}; expected {layout} = {shape}.")


def splice(proposals: jax.Array, outcome: Outcome) -> tuple[jax.Array, jax.Array]:
    """The patches after a round, each `[K + 1, P, C]`: those the models see, those put out.

    The accepted ones come first, then the rule's own patch; what stands after it does not count.
    """
    accepted = (jnp.arange(len(proposals) + 1) < outcome.num_accepted)[:, None, None]

    def joined(patches: jax.Array) -> jax.Array:
        return jnp.where(accepted, one_more(patches), outcome.patch[None])

    context_patches = joined(proposals)
    return context_patches, context_patches if outcome.emitted is None else joined(outcome.emitted)


def _check_count(name: str, field: str, value: Any) -> None:
    """Raises InputError for anything but one whole number (for flags, a bool too)."""
    if value is None:
        raise InputError(f"{name} returned no {field}; expected one int32.")
    kind = jax.dtypes.result_type(value)
    whole = jnp.issubdtype(kind, jnp.integer)
    if field != "num_accepted":
        whole |= jnp.issubdtype(kind, jnp.bool_)
    if np.ndim(value) != 0 or not whole:
        raise InputError(
            f"{name} returned {field} as {kind} of shape {np.shape(value)}; expected one int32."
        )
