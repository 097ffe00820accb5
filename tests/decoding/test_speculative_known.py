"""Decodes with a known answer: no draft, a perfect one, means; finished paths; counts."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toys import (
    BATCH,
    CONTEXT,
    DRAFT,
    NUM_VARS,
    PATCH_LEN,
    TARGET,
    TARGET_LEN,
    assert_same,
    draft_steps,
    fading,
    history,
    parameters,
    process,
    recount,
    roll,
    speculate,
    take,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial

from stride_jax.decoding.processes import window_process
from stride_jax.decoding.rules import Block, Maximal, Mean, Residual, SharedNoise
from stride_jax.decoding.types import ACCEPTED, BONUS, RECOVERED, DecodeConfig

PROPERTY = settings(deadline=None, max_examples=2, derandomize=True)
PAIRS = {
    "window": (TARGET, DRAFT),
    "cached": (fading(), fading(0.1)),
}


def window_mean(length: int, gap: float):
    """`series -> mean` of the next patch in float64, of the forecaster with these parameters."""
    weight, mix = map(np.float64, parameters(length, gap))
    return lambda series: np.tanh(weight @ series[-length:] @ mix)


# --- no draft, a perfect draft -----------------------------------------------------------------


@pytest.mark.parametrize("pair", ["window", "cached"])
def test_no_draft_is_autoregression(key, pair):
    """K = 0 would not be the baseline that every speedup is quoted against."""
    target, draft = PAIRS[pair]
    forecast, info = speculate(
        key, BATCH, target=target, draft=draft, config=DecodeConfig(20, 0, num_paths=2)
    )
    expected, _ = roll(key, BATCH, target=target, config=DecodeConfig(20, num_paths=2))
    np.testing.assert_allclose(forecast, expected, atol=1e-5)
    np.testing.assert_array_equal(info.rounds, np.full((5, 2), 7))
    np.testing.assert_array_equal(info.drafted, np.zeros((5, 2)))
    assert info.accepted.shape == info.proposed.shape == (5, 2, 0)
    assert np.isnan(info.proposal).all()


def mean_path(count: int) -> np.ndarray:
    """The target rolled over its own means, in float64: `[count * P, C]`."""
    series, mean = np.float64(CONTEXT), window_mean(TARGET_LEN, 0.0)
    for _ in range(count):
        series = np.concatenate([series, mean(series)])
    return series[len(CONTEXT) :]


@pytest.mark.parametrize("tolerance", [0.0, 0.3])
def test_no_draft_with_a_rule_of_means_is_the_mean_path(key, tolerance):
    """A point forecast at K = 0 would carry noise, or depend on the tolerance."""
    forecast, _ = speculate(key, config=DecodeConfig(20, 0), rule=Mean(tolerance))
    np.testing.assert_allclose(forecast, mean_path(7)[:20], atol=1e-5)


def test_means_without_tolerance_are_the_targets_mean_path(key):
    """Point forecasts that claim no error would have one, through any poor draft."""
    forecast, info = speculate(key, rule=Mean(tolerance=0.0))
    np.testing.assert_allclose(forecast, mean_path(7)[:20], atol=1e-5)
    assert info.origin.tolist() == [RECOVERED] * 7
    exact, _ = speculate(key, config=DecodeConfig(20, 0), rule=Mean())
    np.testing.assert_allclose(forecast, exact, atol=1e-5)


def test_shared_noise_without_tolerance_is_autoregression(key):
    """Tolerance 0 would be another sample path than the baseline's with the same key."""
    forecast, info = speculate(key, rule=SharedNoise(tolerance=0.0))
    np.testing.assert_allclose(forecast, roll(key)[0], atol=1e-5)
    assert info.origin.tolist() == [RECOVERED] * 7


def test_emitted_proposals_are_those_of_the_draft(key):
    """`emit_proposal` would have no effect, or change what is accepted."""
    config = DecodeConfig(21, 3)
    own = [speculate(key, config=config, rule=Mean(0.4, emit_proposal=x)) for x in (False, True)]
    np.testing.assert_array_equal(own[0][1].origin, own[1][1].origin)
    taken = np.asarray(own[0][1].origin) == ACCEPTED
    assert 0 < taken.sum() < 7
    patches = [np.asarray(f).reshape(7, PATCH_LEN, NUM_VARS) for f, _ in own]
    np.testing.assert_array_equal(patches[1][taken], own[1][1].proposal[taken])
    assert np.all(np.max(np.abs(patches[0] - patches[1])[taken], axis=(1, 2)) > 1e-3)
    np.testing.assert_array_equal(patches[0][~taken], patches[1][~taken])


@pytest.mark.parametrize("pair", ["window", "cached"])
def test_means_of_an_identical_draft_take_the_fewest_rounds(key, pair):
    """A perfect draft would cost target passes, or move the point forecast."""
    target, _ = PAIRS[pair]
    # the two distributions come from different programs, so the gap is a rounding error and not 0
    rule, config = Mean(tolerance=1e-5), DecodeConfig(20, 2)
    forecast, info = speculate(key, target=target, draft=target, config=config, rule=rule)
    assert int(info.rounds) == math.ceil(7 / 3)
    expected, _ = roll(key, target=target, sigma=0.0)
    np.testing.assert_allclose(forecast, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("pair", "rule"),
    [
        ("window", Block()),
        ("window", Residual()),
        ("cached", Maximal()),
        ("cached", SharedNoise(tolerance=1e-5)),
    ],
)
def test_an_identical_draft_is_accepted_and_shown(key, pair, rule):
    """A draft equal to the target would cost rounds; equal ones would not be recognised."""
    target, _ = PAIRS[pair]
    config = DecodeConfig(21, 3)
    forecast, info = speculate(key, target=target, draft=target, config=config, rule=rule)
    assert int(info.rounds) == 2
    assert info.origin.tolist() == [
        ACCEPTED,
        ACCEPTED,
        ACCEPTED,
        BONUS,
        ACCEPTED,
        ACCEPTED,
        ACCEPTED,
    ]
    patches = np.asarray(forecast).reshape(7, PATCH_LEN, NUM_VARS)
    taken = np.asarray(info.origin) == ACCEPTED
    # shared noise shows mu_p + s z and proposes mu_q + s z: the same up to rounding
    np.testing.assert_allclose(patches[taken], info.proposal[taken], atol=1e-5)


def identity(window):
    """Repeats the last patch: the same arithmetic for a draft as for a target."""
    return window[-PATCH_LEN:]


@pytest.mark.parametrize("rule", [Mean(tolerance=0), SharedNoise(tolerance=0)])
def test_tolerance_zero_accepts_equal_means(key, rule):
    """A gap of exactly 0 would be rejected at tolerance 0."""
    same = window_process(identity, PATCH_LEN)
    _, info = speculate(key, target=same, draft=same, config=DecodeConfig(21, 3), rule=rule)
    assert int(info.rounds) == 2


def test_tiny_sigma_with_a_perfect_draft_is_the_mean_path(key):
    """Small scales would be rejected or amplified by rounding."""
    forecast, _ = speculate(key, draft=TARGET, sigma=1e-6)
    np.testing.assert_allclose(forecast, mean_path(7)[:20], atol=1e-3)


@PROPERTY
@given(horizon=st.integers(1, 25), num_draft=st.integers(1, 5), seed=st.integers(0, 99))
def test_a_perfect_draft_is_always_accepted(horizon, num_draft, seed):
    """Horizons that do not divide by the round would cost a round too many."""
    config = DecodeConfig(horizon, num_draft)
    _, info = speculate(jax.random.key(seed), draft=TARGET, config=config)
    count = math.ceil(horizon / PATCH_LEN)
    assert int(info.rounds) == math.ceil(count / (num_draft + 1))
    pattern = itertools.cycle([ACCEPTED] * num_draft + [BONUS])
    assert info.origin.tolist() == list(itertools.islice(pattern, count))


# --- finished paths ----------------------------------------------------------------------------


def walk(error, window):
    """The last patch again; `error` is added while the series is below zero."""
    return window[-PATCH_LEN:] + error * (window[-1, 0] < 0)


def test_finished_paths_do_not_change(key):
    """A series would be damaged by rounds that only its slower neighbours need."""
    target = window_process(Partial(walk, jnp.float32(0)), PATCH_LEN)
    draft = window_process(Partial(walk, jnp.float32(30)), PATCH_LEN)
    batch = np.stack([CONTEXT + 50, CONTEXT - 50, CONTEXT + 60])
    whole = speculate(key, batch, target, draft)
    assert whole[1].rounds.tolist() == [2, 7, 2]
    for i in range(3):
        alone = speculate(key, batch[i], target, draft, series_index=jnp.int32(i))
        assert_same(take(whole, i), alone, atol=1e-4)


@PROPERTY
@given(
    horizon=st.integers(1, 20),
    num_draft=st.integers(1, 4),
    patch_len=st.integers(1, 4),
    num_vars=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_counts_add_up(horizon, num_draft, patch_len, num_vars, seed):
    """Acceptance rates and passes in every table would be wrong."""
    sizes = {"patch_len": patch_len, "num_vars": num_vars}
    pair = {"target": process(6, **sizes), "draft": process(5, 0.1, **sizes)}
    config, context = DecodeConfig(horizon, num_draft), history(6, num_vars)
    forecast, info = speculate(jax.random.key(seed), context, config=config, **pair)
    assert forecast.shape == (horizon, num_vars)
    origins = info.origin.tolist()
    assert len(origins) == math.ceil(horizon / patch_len)
    assert int(info.accepted.sum()) + origins.count(RECOVERED) + origins.count(BONUS) == len(
        origins
    )
    assert int(info.proposed[0]) <= int(info.rounds) == int(info.target_passes)
    assert int(info.drafted) == draft_steps(origins, num_draft)
    found = (info.accepted.tolist(), info.proposed.tolist(), int(info.rounds))
    assert found == recount(origins, num_draft)
