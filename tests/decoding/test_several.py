"""`Several` against quadrature in float64, the target's distribution, a wrong lambda and a loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.rounds import check_rate, distribution_p_value, random_rounds
from helpers.toys import (
    BATCH,
    CONTEXT,
    DRAFT_LEN,
    NUM_VARS,
    PATCH_LEN,
    TARGET_LEN,
    assert_same,
    forecast_tanh,
    parameters,
    speculate,
    take,
)
from jax.tree_util import Partial
from scipy import stats

from stride_jax.decoding.base import Round
from stride_jax.decoding.batching import normals, patch_keys, path_keys
from stride_jax.decoding.processes import window_process
from stride_jax.decoding.rules import (
    Block,
    Maximal,
    Mean,
    Residual,
    Several,
    exact,
    several,
)
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError
from stride_jax.testing import check_exact

DRAWS, PLACES, SHAPE, SIGMA = 20_000, 2, (2, 2), 0.8
DIRECTION = np.float32([[0.5, -0.5], [0.1, 0.7]])
DIRECTION /= np.linalg.norm(DIRECTION)


def mass_left(delta: float, chains: int) -> list[float]:
    """G_1 ... G_{n+1} by sums over a fine grid of `(p - lam q)_+`, in float64."""
    grid = np.linspace(-12, 12 + delta, 400_001)
    p, q = stats.norm.pdf(grid - delta), stats.norm.pdf(grid)
    lam, left = 0.0, [1.0]
    for _ in range(chains):
        lam += left[-1]
        left.append(float(np.sum(np.maximum(p - lam * q, 0)) * (grid[1] - grid[0])))
    return left


@pytest.mark.parametrize("delta", [0.01, 0.5, 1.0, 3.0, 9.0])
def test_what_is_left_is_the_mass_of_the_residual(delta):
    """Proposals after the first would be kept too often or too rarely."""
    _, left = several.left_over(jnp.float32(delta), 8)
    np.testing.assert_allclose(left, mass_left(delta, 8), rtol=1e-4, atol=2e-7)
    single = 2 * stats.norm.cdf(-delta / 2)
    np.testing.assert_allclose(1 - left[1], single, atol=2e-7)


def played(rule: Several, delta: float, draws: int = DRAWS):
    """Rounds of two places where each mean depends on the patch before it.

    Returns:
        The innovations of the emitted patches under the target's distributions
        `[draws, K + 1, P * C]`, those left open filled with fresh ones; accepted proposals.
    """

    def chain(key: jax.Array, fresh: jax.Array) -> Round:
        noise = jax.random.normal(key, (PLACES, *SHAPE))
        before, proposals, means, drawn_from = jnp.zeros(SHAPE), [], [], []
        for z in noise:
            means.append(0.6 * before)
            drawn_from.append(0.6 * before - delta * SIGMA * DIRECTION)
            before = drawn_from[-1] + SIGMA * z
            proposals.append(before)
        means.append(0.6 * before)
        sigma = jnp.full((PLACES + 1, *SHAPE), SIGMA)
        arrays = jnp.stack(proposals), noise, jnp.stack(drawn_from), sigma[1:], jnp.stack(means)
        return Round(*arrays, sigma, None, fresh, jnp.asarray(PLACES, jnp.int32))

    def one(key: jax.Array):
        draft_key, fresh_key, rule_key = jax.random.split(key, 3)
        fresh = jax.random.normal(fresh_key, (PLACES + 1, *SHAPE))
        keys = jax.random.split(draft_key, rule.chains)
        rounds = jax.vmap(lambda k: chain(k, fresh))(keys)
        number, outcome = rule.choose(rule_key, rounds)
        count, place = outcome.num_accepted, jnp.arange(PLACES + 1)[:, None, None]
        grown = jnp.concatenate([rounds.proposals[number], outcome.patch[None]])
        emitted = jnp.where(place < count, grown, outcome.patch[None])
        before = jnp.concatenate([jnp.zeros((1, *SHAPE)), emitted[:-1]])
        innovations = (emitted - 0.6 * before) / SIGMA
        return jnp.where(place <= count, innovations, fresh), count

    keys = jax.random.split(jax.random.key(3), draws)
    noise, count = jax.jit(jax.vmap(one))(keys)
    # [draws, K + 1, P, C] -> [draws, K + 1, P * C]
    return np.asarray(noise, np.float64).reshape(draws, PLACES + 1, -1), np.asarray(count)


def p_value(noise: np.ndarray) -> float:
    """The smallest p-value of the places, and of the sum of the first two."""
    parts = [*np.moveaxis(noise, 1, 0), (noise[:, 0] + noise[:, 1]) / np.sqrt(2)]
    return min(distribution_p_value(part, DIRECTION.ravel().astype(np.float64)) for part in parts)


def test_a_round_follows_the_target_and_keeps_as_many_as_it_can():
    """Sample paths would not be those of the target, or good proposals would be lost."""
    noise, count = played(Several(Block(), chains=3), 1.2)
    assert p_value(noise) > 1e-3
    check_rate(count > 0, 1 - mass_left(1.2, 3)[-1])
    assert set(count) == {0, 1, 2}


def test_one_chain_is_as_good_as_maximal():
    """A single proposal would be rejected more often than it has to be."""
    noise, count = played(Several(chains=1), 1.2)
    assert p_value(noise) > 1e-3
    check_rate(count > 0, 2 * stats.norm.cdf(-0.6))
    check_rate(count == PLACES, (2 * stats.norm.cdf(-0.6)) ** 2)


def test_a_lambda_that_is_not_accumulated_fails(monkeypatch):
    """The test of the distribution would be blind to what the recursion is about."""
    right = several.left_over

    def wrong(delta, chains):
        lam, left = right(delta, chains)
        return jnp.minimum(lam, 1.0), left

    monkeypatch.setattr(several, "left_over", wrong)
    noise, _ = played(Several(chains=3), 1.2)
    assert p_value(noise) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.0, 0.8])
@pytest.mark.parametrize("rest", [Maximal(), Block()])
def test_whole_paths_are_exact(rest, correlation):
    """The chosen chain's cache would not be kept, or a covariance not be whitened."""
    check_exact(Several(rest, chains=3), correlation=correlation)


WEIGHTS = parameters(TARGET_LEN), parameters(DRAFT_LEN, 0.1)
HORIZON, NUM_DRAFT = 20, 2


def counted(calls: list, length: int, weights):
    """A window process that counts its traces."""

    def predict(weight, mix, window):
        calls.append(window)
        return forecast_tanh(weight, mix, window)

    return window_process(
        Partial(predict, *map(jnp.asarray, weights)), PATCH_LEN, context_len=length
    )


def by_a_loop(key: jax.Array, rule: Several, sigma: float, choose) -> np.ndarray:
    """One path, a round at a time, both models in numpy: `[N * P, C]`."""
    count, room = -(-HORIZON // PATCH_LEN), NUM_DRAFT + 1
    keys = path_keys(jax.random.fold_in(key, 0))
    round_keys = jax.random.split(keys.rounds, 3)
    shape, path, start = (PATCH_LEN, NUM_VARS), CONTEXT, len(CONTEXT)
    spread = jnp.full((room, *shape), sigma)

    def predict(model: int, window: np.ndarray) -> np.ndarray:
        weight, mix = WEIGHTS[model]
        return np.tanh(weight @ window[-weight.shape[1] :] @ mix)

    while (filled := (len(path) - start) // PATCH_LEN) < count:
        next_key, draft_key, rule_key = round_keys
        fresh = normals(patch_keys(keys.noise, filled, room), shape)
        length = jnp.asarray(min(NUM_DRAFT, count - filled), jnp.int32)
        rounds = []
        for chain_key in jax.random.split(draft_key, rule.chains):
            noise = jax.random.normal(chain_key, (NUM_DRAFT, *shape))
            grown, means, drawn_from, proposals = path, [predict(0, path)], [], []
            for z in np.asarray(noise):
                drawn_from.append(predict(1, grown))
                proposals.append(drawn_from[-1] + np.float32(sigma) * z)
                grown = np.concatenate([grown, proposals[-1]])
                means.append(predict(0, grown))
            arrays = (np.stack(x) for x in (proposals, noise, drawn_from))
            values = (*arrays, spread[1:], np.stack(means), spread, None, fresh, length)
            rounds.append(Round(*values))
        number, outcome = choose(rule_key, jax.tree.map(lambda *x: jnp.stack(x), *rounds))
        kept = rounds[int(number)].proposals[: int(outcome.num_accepted)]
        path = np.concatenate([path, *kept, np.asarray(outcome.patch)])
        round_keys = jax.random.split(next_key, 3)
    return path[start:][:HORIZON]


def test_decode_is_a_loop_over_rounds_and_compiles_once():
    """The path would go on from another chain, or each sigma would compile a program."""
    calls, rule = [], Several(Block(), chains=3)
    target, draft = (
        counted(calls, length, weights)
        for length, weights in zip((TARGET_LEN, DRAFT_LEN), WEIGHTS, strict=True)
    )
    choose = jax.jit(functools.partial(rule.choose))
    config, traced = DecodeConfig(HORIZON, NUM_DRAFT), []
    for number, sigma in enumerate((0.6, 0.3)):
        key = jax.random.key(number)
        options = {"target": target, "draft": draft, "config": config, "rule": rule}
        forecast, info = speculate(key, sigma=sigma, **options)
        traced.append(len(calls))
        expected = by_a_loop(key, rule, sigma, choose)
        np.testing.assert_allclose(forecast, expected, atol=1e-4)
        assert int(info.rounds) < -(-HORIZON // PATCH_LEN)
    assert traced[0] == traced[1] > 0


def test_a_path_does_not_depend_on_the_series_beside_it():
    """A part of a batch would be another forecast than in the whole."""
    options = {"rule": Several(chains=2), "config": DecodeConfig(9, 2, num_paths=2)}
    whole = speculate(jax.random.key(0), BATCH[:3], **options)
    part = speculate(jax.random.key(0), BATCH[1:3], series_index=jnp.arange(1, 3), **options)
    assert_same(take(whole, slice(1, 3)), part)


def test_a_draft_that_is_not_finite_is_replaced():
    """NaN of a broken draft would reach the forecast."""
    broken = window_process(lambda window: window[-PATCH_LEN:] * jnp.nan, PATCH_LEN)
    options = {"rule": Several(chains=2), "config": DecodeConfig(6, 1)}
    forecast, info = speculate(jax.random.key(0), draft=broken, **options)
    assert np.isfinite(forecast).all()
    assert int(info.accepted.sum()) == 0


@pytest.mark.parametrize("rule", [Several(chains=0), Several(Mean()), Several(Several())])
def test_settings_that_are_not_exact_are_refused(rule):
    """A rest without the guarantee would pass for exact."""
    with pytest.raises(InputError, match=r"chains|rest"):
        speculate(jax.random.key(0), rule=rule)


def chosen(rest, key, chains=3):
    """200 rounds of `chains` chains of two proposals, and how `Several` decides them."""
    rounds = random_rounds(200 * chains, 2, 0.7)
    rounds = jax.tree.map(lambda x: x.reshape(200, chains, *x.shape[1:]), rounds)
    first = jax.tree.map(lambda x: jnp.broadcast_to(x[:, :1], x.shape), rounds)
    same = rounds._replace(  # the distributions are those of the first chain
        draft_mean=first.draft_mean,
        draft_sigma=first.draft_sigma,
        target_mean=first.target_mean,
        target_sigma=first.target_sigma,
        proposals=first.draft_mean + first.draft_sigma * rounds.noise,
    )
    rule = Several(rest, chains)
    return jax.vmap(rule.choose)(jax.random.split(key, 200), same)


def test_the_traced_numbers_of_the_first_place_are_those_of_the_chosen_chain(key):
    """A trace would show a proposal as accepted whose ratio is below its threshold."""
    chain, out = chosen(Maximal(), key)
    assert set(np.asarray(chain).tolist()) == {0, 1, 2}
    passed = np.asarray(out.log_ratio[:, 0] >= out.threshold[:, 0])
    np.testing.assert_array_equal(passed, np.asarray(out.num_accepted) > 0)
    later = np.asarray(chain) > 0  # compared with what is left of the target: lam_1 = 1
    assert (np.asarray(out.threshold[:, 0])[later] >= 0).all()


def test_a_loop_that_nobody_waited_for_is_no_overflow(key, monkeypatch):
    """Chains that were not chosen would count as run-outs of the rejection sampler."""
    monkeypatch.setattr(exact, "TRIES", 0)  # every redraw runs out
    _, out = chosen(Residual(), key)
    kept = np.asarray(out.num_accepted)
    np.testing.assert_array_equal(out.overflow, kept == 1)  # rejected at the second place
    assert {0, 1, 2} == set(kept.tolist())
