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
from stride_jax.forecasting import aggregation, runs
from stride_jax.forecasting.aggregation import RAMP, Rate, combined, means_of, moves, ramp
from stride_jax.forecasting.inputs import streams_of_means
from stride_jax.types import PatchDistribution

PLAIN = CAUSAL_PAIR
COMBINED = dataclasses.replace(PLAIN, aggregations=(2, 3))
LONG = 10 + 3 * np.sin(np.arange(5.0 * L) / 5) + np.random.default_rng(3).normal(size=5 * L)
HORIZON = 40
OPTIONS: dict[str, Any] = {"num_samples": 20, "quantiles": (0.5,), "non_negative": False}


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
def test_a_difference_of_levels_moves_every_step(count: int, ahead: int, blocks: int) -> None:
    """The first steps, or those after the last whole block, would stay behind."""
    horizon = blocks * count + count - 1
    paths = some_paths(1, 3, horizon, 2)
    first, start = -(-ahead // count), -ahead % count
    inside = paths[:, :, start : start + (horizon - start) // count * count]
    present = inside.reshape(1, 3, -1, count, 2).mean(axis=3)
    coarse = np.concatenate([np.zeros((1, 3, first, 2)), present + 7.0], axis=2)
    np.testing.assert_allclose(moves(paths, coarse, count, ahead), 7.0 + 0 * paths)


def test_a_move_lies_on_the_line_between_the_middles_of_blocks() -> None:
    """A trend of the means would be half a step early or late in the forecast."""
    count, blocks = 4, 30
    middles = count * np.arange(blocks) + (count - 1) / 2
    found = moves(np.zeros((1, 2, count * blocks, 1)), middles[None, None, :, None], count, 0)
    steps = np.arange(count * blocks)
    between = (steps >= middles[0]) & (steps <= middles[-1])
    np.testing.assert_allclose(found[0, 0, between, 0], steps[between])


def test_the_means_move_rank_by_rank() -> None:
    """A path would be taken to the mean of another one, and the paths cross or bunch together."""
    paths, coarse = some_paths(1, 9, 50, 1), some_paths(1, 9, 50, 1, seed=1)
    moved = paths + moves(paths, coarse, 1, 0)  # blocks of one step
    np.testing.assert_allclose(np.sort(moved, axis=1), np.sort(coarse, axis=1))
    for before, after in zip(paths[0].T[0], moved[0].T[0], strict=True):
        np.testing.assert_array_equal(np.argsort(before), np.argsort(after))


def test_the_weight_grows_from_the_end_of_the_history() -> None:
    """The first steps would jump, or the weight begin anew after a gap at the end."""
    found = ramp(2, np.array([0, 5]), 3 * RAMP)
    np.testing.assert_allclose(found[0, :3], np.array([0.5, 1.5, 2.5]) / (2 * RAMP))
    np.testing.assert_array_equal(found[1, :-5], found[0, 5:])
    np.testing.assert_array_equal(found[0, 2 * RAMP :], 1)


def rates_of(*rows: list[int]) -> list[Rate]:
    """Rates of 2, 3, ... steps for these rows."""
    every = [np.array(one) for one in rows]
    return [Rate(count, one, 0 * one) for count, one in enumerate(every, 2)]


def test_several_rates_share_the_weight() -> None:
    """Two rates that say the same would move a forecast twice, or one weaken the other."""
    paths, coarse = np.zeros((3, 4, 60, 1)), np.full((4, 4, 30, 1), 5.0)
    found = combined(paths, coarse, rates_of([0, 1, 2], [1]), np.zeros(3, int))
    expected = 5 * aggregation.WEIGHT * ramp(2, np.zeros(1, int), 60)[0]
    for row in range(3):
        np.testing.assert_allclose(found[row, 0, :, 0], expected)


def test_a_rate_has_the_share_of_its_ramp() -> None:
    """A slow rate would take weight from a fast one before it says anything."""
    paths, coarse = np.zeros((1, 4, 400, 1)), np.zeros((2, 4, 200, 1))
    coarse[1] = 5.0  # of means of three steps
    found = combined(paths, coarse, rates_of([0], [0]), np.zeros(1, int))[0, 0, :, 0]
    fast, slow = (ramp(count, np.zeros(1, int), 400)[0] for count in (2, 3))
    np.testing.assert_allclose(found, 5 * aggregation.WEIGHT * fast * slow / (fast + slow))
    assert found[-1] == pytest.approx(5 * aggregation.WEIGHT / 2)


def test_series_with_other_gaps_at_their_ends_are_moved_apart() -> None:
    """The blocks of one series would begin where those of another one do."""
    paths, coarse = some_paths(3, 4, 60, 1), some_paths(3, 4, 40, 1, seed=1)
    ahead = np.array([0, 3, 1])
    found = combined(paths, coarse, rates_of([0, 1, 2]), ahead)
    for row in range(3):
        one = slice(row, row + 1)
        alone = combined(paths[one], coarse[one], rates_of([0]), ahead[one])
        np.testing.assert_allclose(found[one], alone)


# --- forecasts -----------------------------------------------------------------------------------


def test_a_forecast_is_combined_with_those_of_its_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """The means would be of other steps or units than the docstring says."""
    monkeypatch.setattr(runs, "streams_of_means", lambda streams, rates: streams[[0, 0]])
    plain = sj.forecast(PLAIN, LONG, HORIZON, **OPTIONS)
    means = [means_of(LONG[:, None], count)[:, 0] for count in (2, 3)]
    coarse = [sj.forecast(PLAIN, one, HORIZON // 2, **OPTIONS).paths for one in means]
    fine = plain.paths[None, ..., None]
    expected = combined(fine, np.stack(coarse)[..., None], rates_of([0], [0]), np.array([0]))[
        0, ..., 0
    ]
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


def holed(history: np.ndarray) -> np.ndarray:
    """Three of four values before the context are missing."""
    steps = np.arange(len(history))
    return np.where((steps % 4 == 0) | (steps >= len(history) - L), history, np.nan)


ALONE = {
    "a short history": (LONG[-L:], HORIZON),
    "a short horizon": (LONG, 2 * aggregation.LEAST_BLOCKS - 1),
    "a level that has changed": (np.append(LONG[:-L] + 1e3, LONG[-L:]), HORIZON),
    "gaps before the context": (holed(LONG), HORIZON),
}


@pytest.mark.parametrize("name", ALONE)
def test_a_history_whose_means_say_nothing_is_forecast_alone(name: str) -> None:
    """An old level, or straight lines over gaps, would be forecast again without a word."""
    history, horizon = ALONE[name]
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


def test_an_old_level_does_not_count() -> None:
    """The forecast would be drawn to where the series was long ago."""
    recent = 10 + np.sin(np.arange(3 * L) / 3)
    old = np.append(np.full(3 * L, 1e3), recent)
    options = {**OPTIONS, "ids": ("a",)}
    found, expected = (sj.forecast(COMBINED, [x], HORIZON, **options) for x in (old, recent))
    np.testing.assert_allclose(found.paths, expected.paths, rtol=1e-4, atol=1e-3)


def test_few_paths_are_those_of_the_steps() -> None:
    """The ranks of two draws are their average: a path would vary less than it should."""
    options = {**OPTIONS, "num_samples": aggregation.LEAST_PATHS - 1}
    plain, found = (sj.forecast(pair, LONG, HORIZON, **options).paths for pair in (PLAIN, COMBINED))
    np.testing.assert_array_equal(found, plain)


def test_the_means_have_random_numbers_of_their_own() -> None:
    """A path and the forecast of its means would hang together, and otherwise with a draft."""
    rates = rates_of([0, 1], [1])
    found = streams_of_means(np.array([0, 7], np.int32), rates)
    assert len({0, 7, *found.tolist()}) == 5
    np.testing.assert_array_equal(found[1:], streams_of_means(np.array([7]), rates_of([0], [0])))


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
