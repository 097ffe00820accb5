"""Parts of a user's own that break their contract: refused in words while the program is traced."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from helpers.toys import CONTEXT, DRAFT, PATCH_LEN, SIGMA, TARGET

from stride_jax.decoding.base import Outcome, Round, Rule
from stride_jax.decoding.draft_length import Fixed
from stride_jax.decoding.rules import Maximal
from stride_jax.decoding.rules.common import target_draw
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError

KEY = jax.random.key(0)


def run(**changes: Any) -> Any:
    """A speculative decode of the toys with some parts replaced."""
    parts = {"target": TARGET, "draft": DRAFT, **changes}
    return decode(KEY, CONTEXT, sigma=SIGMA, config=DecodeConfig(6, 2), **parts)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Returns(Rule):
    """Accepts everything, and returns that with one field changed."""

    change: Any = dataclasses.field(metadata={"static": True})

    def decide(self, key: jax.Array, current: Round) -> Any:
        return self.change(Outcome(current.length, target_draw(current, current.length)))


WRONG = {
    "patch as a number": (lambda o: o._replace(patch=o.patch[0, 0]), r"patch of shape \(\)"),
    "patch of one variable": (
        lambda o: o._replace(patch=o.patch[:, :1]),
        r"patch of shape \(3, 1\)",
    ),
    "all patches": (lambda o: o._replace(patch=o.patch[None]), r"patch of shape \(1, 3, 2\)"),
    "emitted and the bonus": (
        lambda o: o._replace(emitted=jnp.zeros((3, *o.patch.shape))),
        r"emitted of shape \(3, 3, 2\); expected \[K, P, C\] = \(2, 3, 2\)",
    ),
    "one ratio": (lambda o: o._replace(log_ratio=jnp.zeros(())), r"log_ratio of shape \(\)"),
    "a count of floats": (
        lambda o: o._replace(num_accepted=0.5 * o.num_accepted),
        "num_accepted as float32",
    ),
    "a count of every place": (
        lambda o: o._replace(num_accepted=jnp.ones(2, bool)),
        r"num_accepted as bool of shape \(2,\)",
    ),
    "no patch": (lambda o: o._replace(patch=None), r"patch of None; expected \[P, C\]"),
    "no count": (lambda o: o._replace(num_accepted=None), "no num_accepted; expected one int32"),
    "no Outcome": (lambda o: tuple(o[:2]), "must return an Outcome, got tuple"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_decision_of_another_shape_is_refused(name: str) -> None:
    """A number would be repeated over the patch, and half a proposal would be kept."""
    change, said = WRONG[name]
    with pytest.raises(InputError, match=f"Returns.decide .*{said}"):
        run(rule=Returns(change))


def test_numbers_of_python_are_counts() -> None:
    """A rule that never accepts would have to write jnp.int32(0)."""
    forecast, info = run(rule=Returns(lambda o: o._replace(num_accepted=0, added=True)))
    assert forecast.shape == CONTEXT[:6].shape
    assert int(info.accepted.sum()) == 0


class PlainRule(Maximal):
    """A subclass that is no pytree."""


class PlainLength(Fixed):
    """Likewise."""


class PlainProcess:
    """Has all methods, and is no pytree."""

    patch_len = PATCH_LEN

    def __getattr__(self, name: str) -> Any:
        if name in ("prepare", "start", "verify", "commit", "step", "drafting"):
            return getattr(TARGET, name)
        raise AttributeError(name)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Named(Maximal):
    """A rule with a text among its traced settings."""

    mode: str = "half"


PARTS = {
    "rule": PlainRule(),
    "draft_length": PlainLength(),
    "target": PlainProcess(),
    "draft": PlainProcess(),
}


@pytest.mark.parametrize("role", PARTS)
def test_a_part_that_is_no_pytree_is_refused(role: str) -> None:
    """The answer would be a TypeError of JAX about an abstract array."""
    with pytest.raises(InputError, match=f"the {role} Plain.* is no pytree; .*register_dataclass"):
        run(**{role: PARTS[role]})


def test_text_among_the_traced_settings_is_refused() -> None:
    """The answer would not say which field has to be static."""
    with pytest.raises(InputError, match=r"the rule Named holds 'half' in \.mode, .*static"):
        run(rule=Named())
