"""Unfinished paths in smaller batches: the same paths, with less played for those that finished."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.models import params_of
from helpers.toys import BATCH, history, speculate
from hypothesis import given, settings
from hypothesis import strategies as st

from stride_jax.checkpoints.build import make_target
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.decoding.batching import over_lanes
from stride_jax.decoding.draft_length import Threshold
from stride_jax.decoding.lanes import (
    lane_sizes,
    lanes_played,
    play_until_finished,
    put,
    take,
    unfinished_first,
)
from stride_jax.decoding.naive_drafts import last_value_draft
from stride_jax.decoding.rules import RULES, Maximal, Mean, SharedNoise
from stride_jax.decoding.types import DecodeConfig
from stride_jax.models.config import TimerXLConfig

NUMBERS = np.random.default_rng(0)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.booleans(), min_size=6, max_size=6), st.data())
def test_lanes_are_taken_and_put_back_as_a_permutation(finished, data):
    """An unfinished path would be left behind, or two of them written to one place."""
    flags = np.array(finished)
    size = data.draw(st.integers(int((~flags).sum()), len(flags)))
    order = np.asarray(unfinished_first(jnp.asarray(flags), size))
    assert len(set(order.tolist())) == size
    assert set(np.flatnonzero(~flags)) <= set(order.tolist())
    lanes = {"a": jnp.arange(2 * len(flags)).reshape(-1, 2), "b": jnp.arange(len(flags))}
    taken = take(lanes, jnp.asarray(order))
    np.testing.assert_array_equal(taken["b"], order)
    back = put(jax.tree.map(jnp.zeros_like, lanes), jnp.asarray(order), taken)
    kept = np.isin(np.arange(len(flags)), order)
    np.testing.assert_array_equal(back["b"], np.where(kept, lanes["b"], 0))
    np.testing.assert_array_equal(back["a"], np.where(kept[:, None], lanes["a"], 0))


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (64, 1), (512, 1), (1, 100), (20, 100)])
def test_sizes_start_with_all_lanes_and_become_smaller(shape):
    """A path would have no place, or a size be compiled that is never smaller."""
    lanes = shape[1] if shape[1] > 1 else shape[0]
    for compactions in range(6):
        sizes = lane_sizes(shape, 7, compactions)
        assert sizes[0] == lanes
        assert len(sizes) <= compactions + 1
        assert all(1 <= small < large for large, small in itertools.pairwise(sizes))
    assert len(lane_sizes(shape, 7)) == (3 if lanes >= 64 else 1)
    assert len(lane_sizes(shape, 3)) == 1  # a forecast of so few rounds does not pay for it


@pytest.mark.parametrize("shape", [(23, 1), (3, 17), (1, 11)])
@pytest.mark.parametrize("compactions", [0, 1, 4])
def test_every_lane_plays_its_rounds_beside_its_own_memory(shape, compactions):
    """A path would go on with the memory of another series, or stop too early."""
    needed = NUMBERS.integers(0, 9, size=shape)
    memory = jnp.arange(shape[0]) + 1  # [B]
    state = {
        "left": jnp.asarray(needed),
        "sum": jnp.zeros(shape, jnp.int32),
        "played": jnp.zeros(shape, jnp.int32),
    }

    def play(memory, path):
        more = path["left"] > 0
        return {
            "left": path["left"] - more,
            "sum": path["sum"] + memory * more,
            "played": path["played"] + 1,
        }

    def step(memory, state):
        return over_lanes(play, state["left"].shape)(memory, state)

    sizes = lane_sizes(shape, 9, compactions)
    out = play_until_finished(
        step, lambda state: state["left"] == 0, lambda state: state, memory, state, sizes
    )
    np.testing.assert_array_equal(out["left"], 0)
    np.testing.assert_array_equal(out["sum"], needed * np.asarray(memory)[:, None])
    assert int(out["played"].sum()) == lanes_played(needed, sizes)  # what a tool reports


RULE_OF = {"mean": Mean(tolerance=0.5), "shared_noise": SharedNoise(tolerance=0.5)}


def both(rule, num_paths, compactions, **rest):
    """The decode without compaction and with it."""
    config = DecodeConfig(20, 3, num_paths=num_paths, trace=True, compactions=0)
    smaller = dataclasses.replace(config, compactions=compactions)
    key = jax.random.key(3)
    return [speculate(key, config=c, rule=rule, **rest) for c in (config, smaller)]


def check_same(whole, compact):
    """Asserts equal counts, and paths equal up to the rounding of another batch size."""
    (paths, info), (others, other_info) = whole, compact
    assert np.asarray(info.rounds).min() < np.asarray(info.rounds).max()  # there is a slowest lane
    np.testing.assert_allclose(others, paths, rtol=1e-5, atol=2e-6)
    for name in ("accepted", "proposed", "rounds", "drafted", "overflow", "origin"):
        np.testing.assert_array_equal(getattr(info, name), getattr(other_info, name))
    np.testing.assert_allclose(other_info.proposal, info.proposal, rtol=1e-5, atol=2e-6)
    np.testing.assert_array_equal(info.trace.start, other_info.trace.start)


QUICK = {"block", "mean", "shared_noise"}
"""One of each way to propose and to emit; the other rules are a slow test."""


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in sorted(RULES)]
)
def test_paths_do_not_depend_on_the_sizes(name):
    """A draw, a count or a forecast would change with the batch, for a rule of any kind."""
    context = np.tile(BATCH, (2, 1, 1)) + np.linspace(0, 1, 10, dtype=np.float32)[:, None, None]
    check_same(*both(RULE_OF.get(name, RULES[name]()), None, 1, context=context))


def test_paths_of_a_series_share_its_memory_in_every_size():
    """The paths of a series would go on with another series' context, or another draft length."""
    rest = {"context": BATCH[:3], "draft_length": Threshold()}
    check_same(*both(Maximal(), 9, 1, **rest))


MODEL = TimerXLConfig(
    patch_len=3, d_model=8, num_heads=2, d_ff=8, instance_norm="causal", dropout=0.0
)


def check_cached(draft, num_paths):
    """Compares the sizes for a target with caches and histories of different lengths."""
    target = make_target(Checkpoint(MODEL, params_of(MODEL), 12), "cached", 12, 1)
    lengths = np.array([6, 12, 9, 12, 6, 3], np.int32)
    options = {"target": target, "draft": draft, "lengths": lengths, "sigma": 3.0}
    check_same(*both(Maximal(), num_paths, 1, context=history(6, 12, 1), **options))


def test_caches_and_padding_stay_with_their_series():
    """A compacted lane would read the caches, or mask the padding, of another series."""
    check_cached(last_value_draft(3), None)


@pytest.mark.slow
@pytest.mark.parametrize("num_paths", [None, 6])
def test_caches_of_both_models_stay_with_their_series(num_paths):
    """The same for a draft with caches, and for paths that share those of their series."""
    model = dataclasses.replace(MODEL, d_ff=12)
    check_cached(make_target(Checkpoint(model, params_of(model), 12), "cached", 12, 1), num_paths)
