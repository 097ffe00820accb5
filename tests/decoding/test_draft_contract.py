"""A draft says what it expects and nothing else: it cannot make an exact rule inexact."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toys import (
    CONTEXT,
    DRAFT,
    NUM_VARS,
    PATCH_LEN,
    SIGMA,
    assert_same,
    one_loop,
    speculate,
)

from stride_jax.decoding.base import Proposals, Rule
from stride_jax.decoding.drafts import AutoregressiveDraft, as_draft, propose
from stride_jax.decoding.naive_drafts import seasonal_draft
from stride_jax.decoding.rules import Block, Maximal
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError
from stride_jax.testing import exactness
from stride_jax.testing.analytic import make_problem, processes
from stride_jax.types import PatchDistribution

PROBLEM = make_problem(num_vars=1, patch_len=3, delta=1.0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Bounded(AutoregressiveDraft):
    """Expects no value below zero, in the first patch or in those after it."""

    def predict_next(self, memory: Any, state: Any, shape: Any) -> tuple[PatchDistribution, Any]:
        """The clipped mean of the first patch."""
        distribution, state = super().predict_next(memory, state, shape)
        return distribution._replace(mean=jnp.maximum(distribution.mean, 0)), state

    def step(self, memory: Any, state: Any, patch: jax.Array) -> tuple[PatchDistribution, Any]:
        """The clipped mean of the patch after."""
        distribution, state = super().step(memory, state, patch)
        return distribution._replace(mean=jnp.maximum(distribution.mean, 0)), state


@jax.tree_util.register_static
class BoundedPersistence:
    """Expects the last patch again and again, without what is below zero, all K at once."""

    patch_len = PROBLEM.patch_len

    def prepare(self, context: jax.Array, length: Any = None) -> jax.Array:
        """The last patch."""
        return context[-self.patch_len :]

    def start(self, memory: jax.Array, room: int) -> jax.Array:
        """The same."""
        return memory

    def predict_next(
        self, memory: jax.Array, state: jax.Array, shape: tuple[int, int, int]
    ) -> tuple[PatchDistribution, jax.Array]:
        """K times the state, clipped."""
        mean = jnp.broadcast_to(jnp.maximum(state, 0), shape)
        return PatchDistribution(mean), state

    def commit(self, state: jax.Array, patches: jax.Array, count: jax.Array) -> jax.Array:
        """The last patch that was kept."""
        return jnp.where(count > 0, patches[jnp.maximum(count - 1, 0)], state)


@pytest.mark.parametrize(
    ("rule", "draft"),
    [
        (Maximal(), Bounded(processes(PROBLEM, "cached")[1].drafting())),
        (Block(), BoundedPersistence()),
    ],
    ids=["step by step", "all at once"],
)
def test_a_draft_that_clips_stays_exact(rule: Rule, draft: Any) -> None:
    """The theorem would hold for the drafts that the package brings, and for no other."""
    options = {"kind": "cached", "num_series": 30_000, "decoder": one_loop}
    found = exactness.check(PROBLEM, rule, draft=draft, **options)
    assert found["p"] > exactness.PASS_ABOVE
    assert 0.02 < found["acceptance"] < 0.9


def test_the_check_sees_a_draft_that_changes_its_proposals(monkeypatch: Any) -> None:
    """The test above would pass whatever a draft does to its proposals."""
    module = __import__("stride_jax.decoding.rounds", fromlist=["propose"])

    def clipped(*args: Any, **options: Any) -> tuple[Proposals, Any]:
        made, state = propose(*args, **options)
        return made._replace(patches=jnp.maximum(made.patches, 0)), state

    monkeypatch.setattr(module, "propose", clipped)
    draft = BoundedPersistence()  # no compiled program knows it
    problem = make_problem(num_vars=1, patch_len=3, delta=1.0, seed=1)
    options = {"num_series": 20_000, "decoder": one_loop}
    found = exactness.check(problem, Maximal(), draft=draft, **options)
    assert found["p"] < exactness.FAIL_BELOW


@pytest.mark.parametrize("num_draft", [1, 4])
@pytest.mark.parametrize("name", ["step by step", "all at once"])
def test_proposals_are_mean_and_noise_to_the_bit(name: str, num_draft: int) -> None:
    """A rule would be told of a noise that its proposals do not hold."""
    draft = as_draft(DRAFT) if name == "step by step" else seasonal_draft(PATCH_LEN, 5)
    noise = jax.random.normal(jax.random.key(0), (num_draft, PATCH_LEN, NUM_VARS))
    memory = draft.prepare(jnp.asarray(CONTEXT))
    scale = jnp.full((PATCH_LEN, NUM_VARS), SIGMA)
    for learned in (False, True):
        made, _ = propose(
            draft, memory, draft.start(memory, 9), noise, scale, num_draft, learned=learned
        )
        assert made.patches.shape == noise.shape
        np.testing.assert_allclose(made.patches, made.mean + made.sigma * noise, atol=1e-6)
        own = learned and made.logvar is not None
        np.testing.assert_allclose(made.sigma, jnp.exp(made.logvar / 2) if own else SIGMA)


def answering(answer: Any, **methods: Any) -> Any:
    """A draft that answers `answer(state, num_draft)`."""

    def predict_next(self: Any, memory: Any, state: Any, shape: Any) -> Any:
        return answer(state, shape[0]), state

    names = {"predict_next": predict_next, "patch_len": PATCH_LEN, **methods}
    kind = type("Answering", (BoundedPersistence,), names)
    return jax.tree_util.register_static(kind)()


def shaped(*shape: int) -> Any:
    """A mean of another shape."""
    return lambda state, num_draft: PatchDistribution(jnp.zeros(shape))


WRONG: dict[str, tuple[Any, str]] = {
    "proposals": (
        lambda s, k: Proposals(*[jnp.zeros((k, *s.shape))] * 3, None),
        "PatchDistribution.*got Proposals",
    ),
    "an array": (lambda s, k: jnp.zeros((k, *s.shape)), "PatchDistribution"),
    "nothing": (lambda s, k: None, "PatchDistribution.*got NoneType"),
    "a mean of one patch without an axis": (lambda s, k: PatchDistribution(s), r"\(3, 2\)"),
    "two of three patches": (shaped(2, PATCH_LEN, NUM_VARS), r"2 of 3|\(2, 3, 2\)"),
    "another patch length": (shaped(3, 5, NUM_VARS), r"\(3, 5, 2\)"),
    "a variance of another shape": (
        lambda s, k: PatchDistribution(jnp.zeros((k, *s.shape)), jnp.zeros(s.shape)),
        r"log variance.*\(3, 2\)",
    ),
    "one patch without a step": (lambda s, k: PatchDistribution(s[None]), "step"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("alone", [False, True])
def test_what_is_no_prediction_is_refused(key: jax.Array, name: str, alone: bool) -> None:
    """A draft could hand over patches of its own, or be broadcast into some."""
    answer, said = WRONG[name]
    settings = {"draft": answering(answer), "sigma": SIGMA, "config": DecodeConfig(9, 3)}
    settings |= {"target": None} if alone else {}
    with pytest.raises(InputError, match=said):
        speculate(key, CONTEXT, **settings)


def test_a_step_of_another_shape_is_refused(key: jax.Array) -> None:
    """The second proposal would be broadcast from something else."""
    draft = answering(
        lambda s, k: PatchDistribution(s[None]),
        step=lambda self, m, s, p: (PatchDistribution(p[:1]), s),
    )
    with pytest.raises(InputError, match=r"step.*\(1, 2\).*\(3, 2\)"):
        speculate(key, draft=draft, config=DecodeConfig(9, 3))


@pytest.mark.parametrize("absent", ["prepare", "start", "commit", "patch_len"])
def test_a_draft_without_a_method_is_refused(key: jax.Array, absent: str) -> None:
    """A forgotten method would be an AttributeError from inside a trace."""
    names = {n: getattr(BoundedPersistence, n) for n in ("prepare", "start", "commit", "patch_len")}
    del names[absent]
    lacking = type("Lacking", (), {"predict_next": BoundedPersistence.predict_next, **names})
    with pytest.raises(InputError, match=f"Lacking.* lacks {absent}"):
        speculate(key, draft=jax.tree_util.register_static(lacking)())


def test_a_draft_that_makes_its_own_proposals_is_refused(key: jax.Array) -> None:
    """A draft written for another contract would decode by some other method of the same name."""
    old = type("Old", (), {"propose": lambda *a, **k: None, "patch_len": PATCH_LEN})()
    with pytest.raises(InputError, match=r"methods of drafts\.Draft, got Old"):
        speculate(key, draft=old)


def test_one_place_serves_both_kinds_of_draft(key: jax.Array) -> None:
    """A draft that gives all K at once would decode otherwise than the same one step by step."""

    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Stepwise:
        whole: Any
        patch_len: int = dataclasses.field(default=PATCH_LEN, metadata={"static": True})

        def prepare(self, context: Any, length: Any = None) -> Any:
            return self.whole.prepare(context, length)

        def start(self, memory: Any, room: int) -> Any:
            return memory, jnp.int32(0)

        def predict_next(self, memory: Any, state: Any, shape: Any) -> Any:
            distributions, kept = self.whole.predict_next(memory, state[0], shape)
            return jax.tree.map(lambda x: x[:1], distributions), (kept, jnp.int32(1))

        def step(self, memory: Any, state: Any, patch: Any) -> Any:
            distributions, kept = self.whole.predict_next(memory, state[0], (3, *patch.shape))
            return jax.tree.map(lambda x: x[state[1]], distributions), (kept, state[1] + 1)

        def commit(self, state: Any, patches: Any, count: Any) -> Any:
            return self.whole.commit(state[0], patches, count), jnp.int32(0)

    whole = seasonal_draft(PATCH_LEN, 5)
    found = speculate(key, draft=Stepwise(whole))
    assert_same(found, speculate(key, draft=whole))
