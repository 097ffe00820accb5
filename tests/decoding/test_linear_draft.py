"""The linear draft equals its step-by-step loop, keeps exact rules exact, and refuses bad maps."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toys import one_loop

from stride_jax.decoding.drafts import propose
from stride_jax.decoding.linear_draft import (
    Gate,
    LinearDraft,
    gate_weights,
    linear_draft,
    num_features,
    window_features,
)
from stride_jax.decoding.naive_drafts import seasonal_draft
from stride_jax.decoding.rules import Block, Maximal
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError
from stride_jax.testing import check_draft, exactness
from stride_jax.testing.analytic import make_problem, processes

L, P, C, K, SIGMA = 20, 3, 2, 4, 0.3
RNG = np.random.default_rng(0)
CONTEXT = RNG.normal(size=(24, C)).cumsum(axis=0).astype(np.float32)
NOISE = RNG.normal(size=(K, P, C)).astype(np.float32)
SHAPES = {"one": (L, P), "per variable": (C, L, P), "mixture": (3, L, P)}
NUM_FEATURES = num_features(L)
PROBLEM = make_problem(num_vars=1, patch_len=3, delta=1.0)


def random_maps(maps: str) -> np.ndarray:
    """Maps that neither die out nor explode within K steps."""
    return 0.1 * np.random.default_rng(1).normal(size=SHAPES[maps])


def make_draft(maps: str, level: Any = "last", **options: Any) -> LinearDraft:
    """A draft of random maps, with a random gate where it is a mixture."""
    kernel = jnp.asarray(np.random.default_rng(2).normal(size=(NUM_FEATURES, 3)), jnp.float32)
    gate = Gate(kernel, jnp.zeros(3)) if maps == "mixture" else None
    return linear_draft(random_maps(maps), level=level, gate=gate, **options)


def proposals(draft: Any, context: Any, noise: Any = NOISE) -> Any:
    """The first round after a context."""
    memory = draft.prepare(jnp.asarray(context))
    state, sigma = draft.start(memory, 9), jnp.full(noise.shape[1:], SIGMA)
    return propose(draft, memory, state, jnp.asarray(noise), sigma, len(noise), learned=False)[0]


def step_by_step(maps: str, level: str, weights: np.ndarray, context: np.ndarray) -> np.ndarray:
    """The K means by a loop over patches, in float64: one path a map, all with the same errors."""
    arrays = random_maps(maps)
    paths = [context[-L:].astype(np.float64) for _ in range(weights.shape[1])]
    means = []
    for noise in NOISE:
        patches = []
        for number, path in enumerate(paths):
            window = path[-L:]
            origin = window.mean(axis=0) if level == "mean" else window[-1]
            columns = []
            for c in range(C):
                map_ = {"one": arrays, "per variable": arrays[c], "mixture": arrays[number]}[maps]
                columns.append(origin[c] + (window[:, c] - origin[c]) @ map_)
            patches.append(np.stack(columns, axis=1))
        means.append(sum(w[None] * x for w, x in zip(weights.T, patches, strict=True)))
        paths = [
            np.concatenate([path, patch + SIGMA * noise])
            for path, patch in zip(paths, patches, strict=True)
        ]
    return np.stack(means)


@pytest.mark.parametrize("level", ["last", "mean"])
@pytest.mark.parametrize("maps", SHAPES)
def test_k_proposals_equal_the_step_by_step_model(maps: Any, level: Any) -> None:
    """A proposal would be drawn given other patches than the proposals before it."""
    draft = make_draft(maps, level)
    found = proposals(draft, CONTEXT)
    weights = np.asarray(draft.prepare(jnp.asarray(CONTEXT)).weights)
    if maps == "mixture":
        assert weights.max() < 0.99  # more than one map has a say
    expected = step_by_step(maps, level, weights, CONTEXT)
    np.testing.assert_allclose(found.mean, expected, atol=1e-5)
    np.testing.assert_allclose(found.patches, expected + SIGMA * NOISE, atol=1e-5)


@pytest.mark.parametrize("maps", SHAPES)
def test_it_moves_with_level_and_scale(maps: Any) -> None:
    """A series in other units would get other proposals."""
    draft = make_draft(maps)
    usual = proposals(draft, CONTEXT, 0 * NOISE).mean
    moved = proposals(draft, 8 * CONTEXT + 100, 0 * NOISE).mean
    np.testing.assert_allclose(moved, 8 * usual + 100, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("maps", SHAPES)
def test_it_keeps_the_contract_of_a_draft(maps: Any) -> None:
    """A mean would know its own noise, or a rejected proposal be remembered."""
    check_draft(make_draft(maps), jnp.asarray(CONTEXT))


def test_check_draft_takes_other_drafts() -> None:
    """The check would be of linear drafts alone."""
    check_draft(seasonal_draft(P, 5), jnp.asarray(CONTEXT))
    check_draft(processes(PROBLEM, "window")[1], jnp.asarray(CONTEXT[:, :1]))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Foreseeing(LinearDraft):
    """A wrong draft: each mean moves with the error of its own proposal."""

    def respond(self, memory: Any, state: Any, errors: jax.Array) -> jax.Array:
        """Not strictly lower triangular."""
        return super().respond(memory, state, errors) + 0.4 * errors


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Forgetful(LinearDraft):
    """A wrong draft: it keeps one patch fewer than it is told."""

    def commit(self, state: Any, patches: jax.Array, count: jax.Array) -> jax.Array:
        """Not all of them."""
        return super().commit(state, patches, jnp.maximum(count - 1, 0))


@pytest.mark.parametrize(
    ("wrong", "claim"),
    [(Foreseeing, "noise of proposal 1"), (Forgetful, "2 patches kept at once")],
)
def test_wrong_drafts_are_found(wrong: Any, claim: str) -> None:
    """The check would pass whatever a draft does."""
    draft = wrong(**vars(make_draft("one")))
    with pytest.raises(AssertionError, match=claim):
        check_draft(draft, jnp.asarray(CONTEXT))


def analytic_draft(cls: type = LinearDraft) -> LinearDraft:
    """A linear draft for the analytic target, of which it knows the two last patches."""
    made = linear_draft(0.8 * PROBLEM.draft_weight.T + 0.05, num_draft=3)
    return cls(**vars(made))


@pytest.mark.parametrize(("rule", "kind"), [(Maximal(), "cached"), (Block(), "window")])
def test_exact_rules_stay_exact(rule: Any, kind: Any) -> None:
    """Forecasts would follow the draft: its means depend on the noise of earlier proposals."""
    options = {"num_series": 30_000, "decoder": one_loop}
    result = exactness.check(PROBLEM, rule, kind=kind, draft=analytic_draft(), **options)
    assert result["p"] > exactness.PASS_ABOVE
    assert 0.1 < result["acceptance"] < 0.9


def test_a_draft_that_foresees_its_noise_is_not_exact() -> None:
    """The test above would pass without the triangular response."""
    draft = analytic_draft(Foreseeing)
    options = {"num_series": 20_000, "decoder": one_loop}
    result = exactness.check(PROBLEM, Maximal(), draft=draft, **options)
    assert result["p"] < exactness.FAIL_BELOW


def test_padding_is_the_first_value_of_the_history() -> None:
    """A short history would be drafted from whatever stands before it."""
    draft, length = make_draft("mixture"), 9
    padded = np.concatenate([np.full((15, C), 1e3, np.float32), CONTEXT[-length:]])
    found = draft.prepare(jnp.asarray(padded), jnp.int32(length))
    edge = np.repeat(CONTEXT[-length][None], 15, axis=0)
    expected = draft.prepare(jnp.asarray(np.concatenate([edge, CONTEXT[-length:]])))
    shorter = draft.prepare(jnp.asarray(CONTEXT[-length:]))  # a context shorter than the window
    for one in (found, shorter):
        jax.tree.map(np.testing.assert_array_equal, one, expected)


def test_a_batch_of_histories_of_different_lengths_decodes() -> None:
    """Padding would reach a forecast: each series of a batch would depend on the longest."""
    target = processes(PROBLEM, "cached")[0]
    series = np.stack([CONTEXT[:, :1], CONTEXT[:, 1:]])
    models = {"target": target, "draft": analytic_draft(), "sigma": 0.7}
    config = DecodeConfig(9, 3)
    options = {"config": config, "lengths": jnp.asarray([24, 9]), **models}
    both, _ = decode(jax.random.key(0), jnp.asarray(series), **options)
    series[1, :15] = 77.0
    again, info = decode(jax.random.key(0), jnp.asarray(series), **options)
    np.testing.assert_array_equal(both, again)
    assert np.asarray(info.drafted).min() >= 2


def test_a_smaller_round_is_the_beginning_of_a_larger_one() -> None:
    """The matrices of the largest K would be wrong for every other K."""
    draft = make_draft("per variable")
    found = proposals(draft, CONTEXT, NOISE[:2])
    np.testing.assert_allclose(found.mean, proposals(draft, CONTEXT).mean[:2], atol=1e-6)
    smaller = make_draft("per variable", num_draft=2)
    np.testing.assert_allclose(found.mean, proposals(smaller, CONTEXT, NOISE[:2]).mean, atol=1e-6)
    with pytest.raises(InputError, match=r"up to 2 patches.*num_draft 4"):
        proposals(smaller, CONTEXT)


def test_the_gate_sees_no_level_and_no_scale() -> None:
    """A mixture would choose its maps by the units of a series."""
    usual, moved = (window_features(jnp.asarray(x[-L:])) for x in (CONTEXT, 3 * CONTEXT - 40))
    assert usual.shape == (C, NUM_FEATURES)
    np.testing.assert_allclose(moved, usual, atol=1e-3)
    constant = window_features(jnp.full((L, C), 5.0))
    assert np.isfinite(constant).all()


def test_a_map_per_variable_refuses_other_variables() -> None:
    """A variable would be drafted by the map of another one."""
    with pytest.raises(InputError, match=r"each of 2 variables.*has 3"):
        make_draft("per variable").prepare(jnp.zeros((L, 3)))


@pytest.mark.parametrize(
    ("maps", "options", "message"),
    [
        (np.zeros((L,)), {}, r"\[L, P\].*got shape \(20,\)"),
        (np.zeros((2, 3)), {}, r"L of at least P, got shape \(2, 3\)"),
        (np.zeros((0, 4, 2)), {}, "got shape"),
        (np.full((L, P), np.nan), {}, "not finite"),
        (np.zeros((L, P)), {"level": "first"}, "'mean' or 'last', got 'first'"),
        (np.zeros((L, P)), {"num_draft": 0}, "num_draft.*got 0"),
        (
            np.zeros((2, L, P)),
            {"gate": Gate(np.zeros((4, 2)), np.zeros(2))},
            r"gate of 2 maps.*got \(\(4, 2\), \(2,\)\)",
        ),
        (np.zeros((L, P)), {"gate": Gate(np.zeros((NUM_FEATURES, L)), np.zeros(L))}, "a gate of"),
    ],
)
def test_bad_maps_are_refused(maps: Any, options: Any, message: str) -> None:
    """A draft of the wrong shape would be found out inside a compiled program, if at all."""
    with pytest.raises(InputError, match=message):
        linear_draft(maps, **options)


def test_a_response_of_another_shape_is_refused() -> None:
    """Numbers would be broadcast into the means of a draft."""

    @jax.tree_util.register_dataclass
    @dataclass(frozen=True)
    class Summed(LinearDraft):
        def respond(self, memory: Any, state: Any, errors: jax.Array) -> jax.Array:
            return super().respond(memory, state, errors).sum(axis=0)

    with pytest.raises(InputError, match=r"respond of the draft Summed.*\[K, P, C\]"):
        proposals(Summed(**vars(make_draft("one"))), CONTEXT)


def test_the_bias_of_a_gate_weighs_the_maps():
    """A mixture would weigh its maps otherwise than it was fitted to."""
    length, window = 8, jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)), jnp.float32)
    bias = jnp.asarray([0.0, 1.0, -2.0])
    found = gate_weights(Gate(jnp.zeros((num_features(length), 3)), bias), window)
    np.testing.assert_allclose(found, np.tile(jax.nn.softmax(bias), (3, 1)), rtol=1e-5)
