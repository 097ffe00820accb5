"""Forecasts of a series and of the means of its neighbouring steps, combined."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from helpers.forecasts import CAUSAL_PAIR, WINDOW, L, pair_of, walk
from hypothesis import given, settings
from hypothesis import strategies as st

import stride_jax as sj
from stride_jax.errors import InputError
from stride_jax.forecasting import aggregation
from stride_jax.forecasting.aggregation import RAMP, Rate, combined, means_of, moves
from stride_jax.types import PatchDistribution

PLAIN = CAUSAL_PAIR
COMBINED = dataclasses.replace(PLAIN, aggregations=(2, 3))
LONG = 10 + walk(5 * L)
HORIZON = 40
OPTIONS: dict[str, Any] = {"num_samples": 6, "quantiles": (0.5,), "non_negative": False}


def some_paths(*shape: int, seed: int = 0) -> np.ndarray:
    """Sample paths, `[b, S, H, C]`."""
    return np.random.default_rng(seed).normal(size=shape)


# --- the arithmetic ------------------------------------------------------------------------------


def test_means_end_with_the_last_step() -> None:
    """The forecast of the means would begin some steps before the end of the history."""
    found = means_of(np.arange(11.0)[:, None], 3)
    np.testing.assert_array_equal(found[:, 0], [3, 6, 9])  # of 2, 3, 4; 5, 6, 7; 8, 9, 10


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(0, 7), st.integers(2, 30))
def test_paths_that_agree_with_their_means_stay(count: int, ahead: int, horizon: int) -> None:
    """A forecast would be moved though both say the same, by a block that begins elsewhere."""
    paths = some_paths(2, 4, ahead + horizon, 1)
    whole = (ahead + horizon) // count
    blocks = paths[:, :, : whole * count].reshape(2, 4, whole, count, 1).mean(axis=3)
    found = moves(paths[:, :, ahead:], blocks, count, ahead)
    np.testing.assert_allclose(found, 0, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 4), st.integers(0, 5), st.integers(1, 20))
def test_a_difference_of_levels_moves_every_step_by_its_weight(
    count: int, ahead: int, blocks: int
) -> None:
    """The first steps would jump, or the weight begin anew after a gap at the end."""
    horizon = blocks * count + count - 1
    paths = some_paths(1, 3, horizon, 2)
    first, start = -(-ahead // count), -ahead % count
    inside = paths[:, :, start : start + (horizon - start) // count * count]
    own = inside.reshape(1, 3, -1, count, 2).mean(axis=3)
    coarse = np.concatenate([np.zeros((1, 3, first, 2)), own + 7.0], axis=2)
    weight = np.minimum(1, (ahead + np.arange(horizon) + 0.5) / (RAMP * count))
    found = moves(paths, coarse, count, ahead)
    np.testing.assert_allclose(found, 7.0 * weight[None, None, :, None] + 0 * paths)


def test_a_move_lies_on_the_line_between_the_middles_of_blocks() -> None:
    """A trend of the means would be half a step early or late in the forecast."""
    count, blocks = 4, 3 * RAMP
    middles = count * np.arange(blocks) + (count - 1) / 2
    found = moves(np.zeros((1, 2, count * blocks, 1)), middles[None, None, :, None], count, 0)
    steps = np.arange(count * blocks)
    full = (steps >= count * RAMP) & (steps <= middles[-1])
    np.testing.assert_allclose(found[0, :, full, 0], np.stack([steps[full]] * 2, axis=1))


def test_series_with_other_gaps_at_their_ends_are_moved_apart() -> None:
    """The blocks of one series would begin where those of another one do."""
    paths, coarse = some_paths(3, 4, 60, 1), some_paths(3, 4, 40, 1, seed=1)
    ahead, rate = np.array([0, 3, 1]), [Rate(2, np.arange(3))]
    found = combined(paths, coarse, rate, ahead)
    for row in range(3):
        one = slice(row, row + 1)
        alone = combined(paths[one], coarse[one], [Rate(2, np.array([0]))], ahead[one])
        np.testing.assert_allclose(found[one], alone)


def test_the_means_move_rank_by_rank() -> None:
    """A path would be taken to the mean of another one, and the paths cross or bunch together."""
    count, blocks = 2, 3 * RAMP
    paths, coarse = some_paths(1, 9, count * blocks, 1), some_paths(1, 9, blocks, 1, seed=1)
    moved = moves(np.repeat(paths[:, :, ::count], count, axis=2), coarse, count, 0)[0, ..., 0]
    late = count * (2 * RAMP) + count // 2  # the centers of blocks are half a step away
    centers = (moved[:, late - 1] + moved[:, late]) / 2
    own = paths[0, :, late // count * count, 0]
    expected = np.sort(coarse[0, :, late // count, 0])[np.argsort(np.argsort(own))] - own
    np.testing.assert_allclose(centers, expected, atol=0.5 * np.ptp(coarse))
    assert np.corrcoef(centers, expected)[0, 1] > 0.9


def test_several_rates_share_the_weight() -> None:
    """Two rates that say the same would move a forecast twice."""
    paths = np.zeros((3, 4, 60, 1))
    higher = {m: np.full((3, 4, 60 // m, 1), 5.0) for m in (2, 3)}
    rates = [Rate(2, np.arange(3)), Rate(3, np.array([1]))]
    coarse = np.zeros((4, 4, 30, 1))
    coarse[:3], coarse[3, :, :20] = higher[2], higher[3][1]
    found = combined(paths, coarse, rates, np.zeros(3, int))

    def weight_of(count: int) -> float:
        return min(1.0, 59.5 / (count * RAMP))

    assert found[0, 0, -1, 0] == pytest.approx(5 * aggregation.WEIGHT * weight_of(2))
    both = (weight_of(2) + weight_of(3)) / 2
    assert found[1, 0, -1, 0] == pytest.approx(5 * aggregation.WEIGHT * both)
    np.testing.assert_array_equal(found[0], found[2])


# --- forecasts -----------------------------------------------------------------------------------


def test_a_forecast_is_combined_with_those_of_its_means() -> None:
    """The means would be of other steps, units or random numbers than the docstring says."""
    plain = sj.forecast(PLAIN, LONG, HORIZON, **OPTIONS)
    means = [means_of(LONG[:, None], count)[:, 0] for count in (2, 3)]
    coarse = [sj.forecast(PLAIN, one, HORIZON // 2, **OPTIONS).paths for one in means]
    rates = [Rate(2, np.array([0])), Rate(3, np.array([0]))]
    fine = plain.paths[None, ..., None]
    expected = combined(fine, np.stack(coarse)[..., None], rates, np.array([0]))[0, ..., 0]
    found = sj.forecast(COMBINED, LONG, HORIZON, **OPTIONS)
    assert np.abs(expected - plain.paths).max() > 0.01
    np.testing.assert_allclose(found.paths, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.mean, found.paths.mean(axis=0))
    np.testing.assert_array_equal(found.sigma, plain.sigma)


def test_a_mean_path_is_combined_too() -> None:
    """`num_samples` 0 would give another forecast than the paths lead one to expect."""
    plain, found = (
        sj.forecast(pair, LONG, HORIZON, num_samples=0).mean for pair in (PLAIN, COMBINED)
    )
    assert np.abs(found - plain).max() > 0.01


@pytest.mark.parametrize(
    ("history", "horizon"), [(LONG[-L:], HORIZON), (LONG, 2 * aggregation.LEAST_BLOCKS - 1)]
)
def test_a_short_history_or_horizon_is_forecast_alone(history: np.ndarray, horizon: int) -> None:
    """A second program would be compiled for means that add nothing."""
    plain, found = (sj.forecast(pair, history, horizon, **OPTIONS) for pair in (PLAIN, COMBINED))
    np.testing.assert_array_equal(found.paths, plain.paths)


def test_series_of_a_batch_do_not_depend_on_each_other() -> None:
    """The means of one series would move another, or the random numbers be those of its row."""
    batch = [LONG[-L:], LONG, -50 + walk(3 * L, seed=1), np.full(4 * L, 7.0)]
    names = ("short", "long", "other", "flat")
    together = sj.forecast(COMBINED, batch, HORIZON, ids=names, **OPTIONS).paths
    for row in (0, 1, 2):
        alone = sj.forecast(COMBINED, [batch[row]], HORIZON, ids=(names[row],), **OPTIONS).paths
        np.testing.assert_allclose(together[row], alone[0], rtol=1e-4, atol=1e-3)


def test_variables_that_are_apart_are_series_of_their_own() -> None:
    """The means of a variable would move another one."""
    two = np.stack([LONG, 100 - 2 * LONG], axis=1)
    found = sj.forecast(COMBINED, two, HORIZON, ids=("a",), **OPTIONS).paths
    alone = sj.forecast(COMBINED, LONG[:, None], HORIZON, ids=("a",), **OPTIONS).paths
    np.testing.assert_allclose(found[..., :1], alone, rtol=1e-4, atol=1e-3)


def test_a_given_sigma_is_that_of_the_steps() -> None:
    """The spread of the means would be taken to be that of a step, and the intervals with it."""
    plain, found = (
        sj.forecast(pair, LONG, HORIZON, sigma=0.5, **OPTIONS).paths for pair in (PLAIN, COMBINED)
    )
    np.testing.assert_array_equal(found, plain)


def test_joint_variables_are_aggregated_together() -> None:
    """A pair for several variables at once would be given one."""
    pair = sj.Pair(sj.window_process(jax.tree_util.Partial(halved), 4, context_len=8))
    two = np.stack([LONG, 100 - 2 * LONG], axis=1)
    options = {**OPTIONS, "variables": "joint"}
    plain = sj.forecast(pair, two, HORIZON, **options).paths
    found = sj.forecast(dataclasses.replace(pair, aggregations=(2,)), two, HORIZON, **options).paths
    assert (np.abs(found - plain).max(axis=(0, 1)) > 0.01).all()


def halved(window: jax.Array) -> PatchDistribution:
    """Half of the last patch."""
    return PatchDistribution(0.5 * window[-4:])


def test_a_gap_at_the_end_is_part_of_the_horizon() -> None:
    """The means ahead would begin after the gap, and the forecast be moved by those of later."""
    gap = np.full(5, np.nan)
    found = sj.forecast(COMBINED, np.concatenate([LONG, gap]), HORIZON, **OPTIONS).paths
    whole = sj.forecast(COMBINED, LONG, HORIZON + 5, **OPTIONS).paths
    # blocks that are cut by the end of the gap count in `whole` alone
    np.testing.assert_allclose(found[:, 6:], whole[:, 11:], rtol=1e-4, atol=1e-3)


def test_a_target_that_takes_no_padding_needs_as_many_means_as_it_sees() -> None:
    """A history of 1.5 contexts would end in an error about the length of its means."""
    pair = dataclasses.replace(pair_of(WINDOW), aggregations=(2, 3))
    for steps in (2 * L - 1, 3 * L):
        history = LONG[-steps:]
        plain = sj.forecast(dataclasses.replace(pair, aggregations=()), history, HORIZON, **OPTIONS)
        found = sj.forecast(pair, history, HORIZON, **OPTIONS)
        assert np.array_equal(found.paths, plain.paths) == (steps < 2 * L)


def test_what_is_never_below_0_is_cut_off_after_it_is_moved() -> None:
    """A move could take a path below 0 that was cut before."""
    history = np.abs(walk(4 * L))
    found = sj.forecast(COMBINED, history, HORIZON, num_samples=40)
    assert found.non_negative
    assert found.paths.min() == 0


# --- the pair ------------------------------------------------------------------------------------


def test_a_pair_keeps_its_aggregations_through_jax() -> None:
    """A pair that went through a transformation would forecast another distribution."""
    assert jax.tree.map(lambda x: x, COMBINED).aggregations == (2, 3)
    assert jax.tree.map(lambda x: x, PLAIN).aggregations == ()
    assert sj.load_pair("zero_shot", None).aggregations
    assert not sj.load_pair("beijing").aggregations


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([2], "must be a tuple"),
        (2, "must be a tuple"),
        ((1,), "whole number from 2 on, got 1"),
        ((2.0,), "whole number from 2 on, got 2.0"),
        ((2, 4, 2), "must differ"),
    ],
)
def test_aggregations_are_different_whole_numbers(value: Any, said: str) -> None:
    """A rate of 1 would forecast the series twice, and text end in a TypeError."""
    with pytest.raises(InputError, match=f"aggregations.* {said}"):
        dataclasses.replace(PLAIN, aggregations=value)


def test_a_compiled_decoder_refuses_aggregations() -> None:
    """A server would answer with other paths than `forecast` of the same pair."""
    with pytest.raises(InputError, match="has aggregations"):
        sj.build_decoder(COMBINED, sj.DecodeConfig(4, 0), sj.Mean(), context_shape=(16, 1))
