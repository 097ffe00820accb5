"""Histories of every form, their gaps, and the standardised contexts that are made of them."""

import array
import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stride_jax.errors import InputError
from stride_jax.forecasting.contexts import make_contexts
from stride_jax.forecasting.histories import read_histories

NAN = float("nan")
PROPERTY = settings(deadline=None, max_examples=40, derandomize=True)
ROWS = [[3.0, 1.0], [4.0, 1.0], [5.0, 9.0]]  # three steps of two variables
FLAT = {
    "list": [3, 1, 4],
    "tuple": (3.0, 1.0, 4.0),
    "range": range(3),
    "float32": np.float32([3, 1, 4]),
    "float16": np.float16([3, 1, 4]),
    "bfloat16": jnp.array([3, 1, 4], jnp.bfloat16),
    "polars": pl.Series([3, 1, 4]),
    "int64": np.array([3, 1, 4]),
    "uint8": np.uint8([3, 1, 4]),
    "big endian": np.array([3, 1, 4], ">f8"),
    "pandas": pd.Series([3, 1, 4], index=[9, 8, 7]),
    "arrays without axes": list(jnp.array([3.0, 1.0, 4.0])),
}
STEPS = {
    "array": np.array(ROWS),
    "integers": np.array(ROWS, np.int32),
    "frame": pd.DataFrame(ROWS, columns=["a", "b"]),
    "polars": pl.DataFrame(ROWS, schema=["a", "b"], orient="row"),
    "strided": np.array(ROWS).T.copy().T,
}
BATCHES = {
    "array": np.array([ROWS, ROWS]),
    "list of arrays": [np.array(ROWS), np.array(ROWS)],
    "tuple of frames": (pd.DataFrame(ROWS), np.array(ROWS, int)),
    "nested lists": [ROWS, ROWS],
    "polars frames": [pl.DataFrame(ROWS, schema=["a", "b"], orient="row")] * 2,
}


LISTS = {
    "polars": lambda *series: [pl.Series(one) for one in series],
    "pandas": lambda *series: [pd.Series(one) for one in series],
    "arrays of jax": lambda *series: [jnp.array(one) for one in series],
    "arrays of Python": lambda *series: [array.array("d", one) for one in series],
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("second", [[1.0, 5.0, 9.0], [1.0, 5.0]])
def test_a_list_of_series_is_a_batch(name: str, second: list[float]) -> None:
    """Those of one length would be taken for the steps of one series with many variables."""
    found = read_histories(LISTS[name]([3.0, 1.0, 4.0], second))
    assert (found.batched, found.flat) == (True, True)
    assert [one[:, 0].tolist() for one in found.series] == [[3.0, 1.0, 4.0], second]


@pytest.mark.parametrize("name", FLAT)
def test_numbers_in_a_row_are_one_series(name: str) -> None:
    """A user's list, column or integer array would be refused, or rounded, or turned around."""
    found = read_histories(FLAT[name])
    assert (found.batched, found.flat, len(found.series)) == (False, True, 1)
    assert found.series[0].dtype == np.float64
    np.testing.assert_array_equal(found.series[0], np.array(list(FLAT[name]), float)[:, None])


@pytest.mark.parametrize("name", STEPS)
def test_a_table_is_one_series_of_several_variables(name: str) -> None:
    """Steps and variables would change places, or a frame be taken for a batch."""
    found = read_histories(STEPS[name])
    assert (found.batched, found.flat, len(found.series)) == (False, False, 1)
    np.testing.assert_array_equal(found.series[0], ROWS)
    assert found.series[0].dtype == np.float64


@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_is_taken_apart(name: str) -> None:
    """A batch would be read as one series, or come back without its leading axis."""
    found = read_histories(BATCHES[name])
    assert (found.batched, found.flat, len(found.series)) == (True, False, 2)
    for series in found.series:
        np.testing.assert_array_equal(series, ROWS)


def test_series_of_different_lengths_keep_their_own() -> None:
    """Short histories would be cut or filled up, which changes their forecasts."""
    lengths = (1, 7, 3)
    for flat in (True, False):
        batch = [np.arange(n, dtype=float) for n in lengths]
        found = read_histories(batch if flat else [np.stack([x, -x], 1) for x in batch])
        assert (found.batched, found.flat) == (True, flat)
        for series, one in zip(found.series, batch, strict=True):
            expected = one[:, None] if flat else np.stack([one, -one], 1)
            np.testing.assert_array_equal(series, expected)


def test_a_list_of_one_series_is_a_batch_of_one() -> None:
    """Code that loops over a list would lose an axis when the list happens to hold one series."""
    assert read_histories([[1.0, 2.0]]).batched
    assert read_histories(np.ones((1, 4, 2))).batched
    assert not read_histories([1.0, 2.0]).batched


# --- missing values ------------------------------------------------------------------------------


def filled_by_hand(series: np.ndarray) -> np.ndarray:
    """Straight lines between the known values, step by step, where each variable has begun."""
    known = ~np.isnan(series)
    first = max(int(np.flatnonzero(column)[0]) for column in known.T)
    last = min(int(np.flatnonzero(column)[-1]) for column in known.T)
    out = np.empty_like(series)
    for c, column in enumerate(series.T):
        places = np.flatnonzero(known[:, c])
        for t in range(len(series)):
            before, after = places[places <= t], places[places >= t]
            if len(after) == 0 or len(before) == 0:
                continue
            if before[-1] == after[0]:
                out[t, c] = column[t]
            else:
                share = (t - before[-1]) / (after[0] - before[-1])
                out[t, c] = (1 - share) * column[before[-1]] + share * column[after[0]]
    return out[first : last + 1]


@PROPERTY
@given(
    steps=st.integers(1, 12),
    num_vars=st.integers(1, 3),
    share=st.sampled_from([0.0, 0.3, 0.8]),
    seed=st.integers(0, 999),
)
def test_gaps_are_filled_by_straight_lines(
    steps: int, num_vars: int, share: float, seed: int
) -> None:
    """Gaps would be filled with something else, or measured values be changed on the way."""
    rng = np.random.default_rng(seed)
    series = rng.normal(size=(steps, num_vars)) * 100
    gaps = rng.uniform(size=series.shape) < share
    gaps[rng.integers(steps, size=num_vars), np.arange(num_vars)] = False
    series[gaps] = NAN
    before = series.copy()
    expected = filled_by_hand(series)
    if len(expected) == 0:
        with pytest.raises(InputError, match="ends before another one begins"):
            read_histories(series)
        return
    histories = read_histories(series)
    found, seen, ahead = histories.series[0], histories.observed[0], histories.ahead[0]
    np.testing.assert_array_equal(series, before)  # the user's array is theirs
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    rest = slice(steps - ahead - len(found), steps - ahead)
    np.testing.assert_array_equal(seen, ~gaps[rest])
    np.testing.assert_array_equal(found[seen], series[rest][seen])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([NAN, NAN, 1.0, 2.0], [1.0, 2.0]),
        ([1.0, NAN, NAN, 4.0], [1.0, 2.0, 3.0, 4.0]),
        ([1.0, 3.0, NAN, NAN], [1.0, 3.0]),
        ([NAN, 1.0, NAN, 0.0, NAN], [1.0, 0.5, 0.0]),
        ([NAN, NAN, 5.0], [5.0]),
    ],
)
def test_gaps_in_front_inside_and_at_the_end(values: list[float], expected: list[float]) -> None:
    """What a forecast starts from would be invented: zeros, or a line drawn beyond the data."""
    np.testing.assert_array_equal(read_histories(values).series[0][:, 0], expected)


def test_a_cut_keeps_what_a_line_was_drawn_from() -> None:
    """A value before the first complete step is known, and must still carry the line after it."""
    series = np.array([[0.0, NAN], [NAN, NAN], [NAN, 7.0], [NAN, NAN], [8.0, 7.0]])
    found = read_histories(series).series[0]
    np.testing.assert_array_equal(found, [[4.0, 7.0], [6.0, 7.0], [8.0, 7.0]])


def test_each_series_of_a_batch_is_filled_for_itself() -> None:
    """A gap in one series would cut off or change another."""
    found = read_histories([[NAN, 1.0, 2.0], [5.0, NAN, 7.0], [1.0]])
    assert [one[:, 0].tolist() for one in found.series] == [[1.0, 2.0], [5.0, 6.0, 7.0], [1.0]]


def test_whole_series_pass_either_policy_unchanged() -> None:
    """A series without gaps would be refused, or touched."""
    values = np.random.default_rng(0).normal(size=(2, 9, 2))
    for missing in ("interpolate", "error"):
        found = read_histories(values, missing)
        np.testing.assert_array_equal(np.stack(found.series), values)


# --- what is no history --------------------------------------------------------------------------

BAD: dict[str, tuple[Any, str, str]] = {
    "empty list": ([], "interpolate", "no series in the list"),
    "empty tuple": ((), "interpolate", "no series in the list"),
    "no steps": (np.zeros(0), "interpolate", "series 0 is empty, shape (0, 1)"),
    "no rows": (np.zeros((0, 2)), "interpolate", "shape (0, 2)"),
    "no variables": (np.zeros((5, 0)), "interpolate", "shape (5, 0)"),
    "empty batch": (np.zeros((0, 5, 1)), "interpolate", "(0, 5, 1)"),
    "batch of nothing": (np.zeros((2, 0, 1)), "interpolate", "series 0 is empty, shape (0, 1)"),
    "an empty one": ([np.zeros(3), np.zeros(0)], "interpolate", "series 1 is empty"),
    "a number": (5.0, "interpolate", "shapes [()]"),
    "four axes": (np.zeros((1, 2, 3, 4)), "interpolate", "(1, 2, 3, 4)"),
    "list of batches": ([np.zeros((2, 3, 1))], "interpolate", "(2, 3, 1)"),
    "mixed axes": ([np.zeros(3), np.zeros((3, 1))], "interpolate", "[(3,), (3, 1)]"),
    "a scalar among series": ([np.zeros(3), 5.0], "interpolate", "[(3,), ()]"),
    "other variables": ([np.zeros((3, 1)), np.zeros((3, 2))], "interpolate", "[1, 2]"),
    "text": ("abc", "interpolate", "<U3"),
    "words": (["abc", "de"], "interpolate", "<U3"),
    "a word among series": ([[1.0, 2.0], [1.0, "x"]], "interpolate", "series 1"),
    "nothing": (None, "interpolate", "object"),
    "none in a list": ([1.0, None], "interpolate", "object"),
    "complex": ([1 + 2j], "interpolate", "complex128"),
    "truth values": ([True, False], "interpolate", "bool"),
    "dates": (np.array(["2020-01-01"], "datetime64[D]"), "interpolate", "datetime64[D]"),
    "durations": (np.array([1, 2], "timedelta64[h]"), "interpolate", "timedelta64[h]"),
    "dict": ({"a": [1.0]}, "interpolate", "object"),
    "generator": ((x for x in (1.0, 2.0)), "interpolate", "object"),
    "ragged": ([1.0, [2.0, 3.0]], "interpolate", "the history is not an array of numbers"),
    "ragged inside": ([[1.0, 2.0], [[1.0], [1.0, 2.0]]], "interpolate", "series 1 is not an array"),
    "ragged first": ([[[1.0], [1.0, 2.0]], [1.0]], "interpolate", "series 0 is not an array"),
    "infinite": ([1.0, np.inf], "interpolate", "series 0 is infinite at step 1, variable 0"),
    "infinite in a table": (
        [[[1.0, 2.0]], [[1.0, 2.0], [3.0, -np.inf]]],
        "interpolate",
        "series 1 is infinite at step 1, variable 1",
    ),
    "infinite with gaps": ([NAN, np.inf], "error", "infinite at step 1"),
    "nothing known": ([NAN, NAN], "interpolate", "series 0, variable 0 has no value at all"),
    "nothing known of one": (
        [[[1.0, 2.0]], [[1.0, NAN], [2.0, NAN]]],
        "interpolate",
        "series 1, variable 1 has no value at all",
    ),
    "a gap": ([1.0, NAN], "error", "series 0 has 1 missing value, the first at step 1"),
    "gaps": (
        [[[1.0, 2.0]], [[1.0, 2.0], [NAN, NAN], [NAN, 1.0]]],
        "error",
        "series 1 has 3 missing values, the first at step 1, variable 0",
    ),
    "unknown policy": ([1.0], "drop", "'drop'"),
    "no policy": ([1.0], None, "None"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_history_is_refused_by_name(name: str) -> None:
    """A user would get a traceback from deep inside, or a forecast of nonsense."""
    values, missing, said = BAD[name]
    with pytest.raises(InputError, match=re.escape(said)):
        read_histories(values, missing)


# --- contexts ------------------------------------------------------------------------------------


def walk(*shape: int, seed: int = 0) -> np.ndarray:
    """A random walk along the first axis."""
    return np.random.default_rng(seed).normal(size=shape).cumsum(axis=0)


def rounding(series: np.ndarray, values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Two float32 roundings of a standardised value, and four of the level in float64."""
    return 2.0**-23 * np.abs(values) * scale + 4 * np.finfo(float).eps * np.abs(series).max()


@PROPERTY
@given(
    lengths=st.lists(st.integers(1, 25), min_size=1, max_size=3),
    patch_len=st.integers(1, 5),
    patches=st.integers(1, 4),
    num_vars=st.integers(1, 2),
    level=st.sampled_from([0.0, -3.0, 1e6]),
    spread=st.sampled_from([1e-2, 1.0, 1e6]),
    seed=st.integers(0, 99),
)
def test_contexts_give_the_history_back(
    lengths: list[int],
    patch_len: int,
    patches: int,
    num_vars: int,
    level: float,
    spread: float,
    seed: int,
) -> None:
    """A forecast would start from other values than the user's, or come back in other units."""
    series = [level + spread * walk(n, num_vars, seed=seed + i) for i, n in enumerate(lengths)]
    size = patch_len * patches
    made = make_contexts(series, size, patch_len)
    assert made.values.shape == (len(series), size, num_vars)
    assert (made.values.dtype, made.lengths.dtype) == (np.float32, np.int32)
    assert made.mean.shape == made.scale.shape == (len(series), 1, num_vars)
    assert made.mean.dtype == made.scale.dtype == np.float64
    for i, one in enumerate(series):
        if len(one) < patch_len:
            one = np.concatenate([np.repeat(one[:1], patch_len - len(one), axis=0), one])
        length = int(made.lengths[i])
        assert length == min(size, len(one) - len(one) % patch_len)
        assert not made.values[i, : size - length].any()
        values = made.values[i, size - length :].astype(float)
        back = values * made.scale[i] + made.mean[i]
        assert (np.abs(back - one[-length:]) <= rounding(one, values, made.scale[i])).all()


def test_contexts_are_standardised_step_by_step() -> None:
    """Models would see inputs of any size, and sigma would not be in units of the spread."""
    series = [50 + 7 * walk(20, 2), walk(9, 2, seed=1) - 3]
    made = make_contexts(series, 12, 3)
    assert made.lengths.tolist() == [12, 9]
    for i, length in enumerate(made.lengths):
        last = series[i][-length:]
        np.testing.assert_allclose(made.mean[i, 0], last.sum(axis=0) / length)
        spread = np.sqrt(((last - made.mean[i]) ** 2).sum(axis=0) / length)
        np.testing.assert_allclose(made.scale[i, 0], spread)
        expected = (last - made.mean[i]) / spread
        np.testing.assert_allclose(made.values[i, 12 - length :], expected, rtol=1e-6, atol=1e-7)


def test_a_small_spread_around_a_large_level_survives() -> None:
    """A meter reading of 1,000,000 that moves by 1 would be forecast in steps of .06."""
    noise = np.random.default_rng(0).normal(size=(64, 1))
    made = make_contexts([1e6 + noise], 64, 8)
    back = made.values[0] * made.scale[0] + made.mean[0]
    assert np.abs(back - 1e6 - noise).max() < 1e-6
    early = (1e6 + noise).astype(np.float32)  # rounded before the level is taken off
    assert np.abs(early.astype(float) - 1e6 - noise).max() > 0.02


@pytest.mark.parametrize("spread", [1.0, 1e3])
def test_a_real_spread_is_never_taken_for_rounding(spread: float) -> None:
    """A counter around 1e12 that moves by a thousand would pass for a constant."""
    level = 1e10 * spread / 5  # float64 resolves some 1e-16 of it
    noise = np.random.default_rng(0).normal(size=(40, 1))
    made = make_contexts([level + spread * noise], 40, 4)
    np.testing.assert_allclose(made.scale[0, 0], spread * noise.std(), rtol=1e-4)
    np.testing.assert_allclose(made.values[0].std(), 1, rtol=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.0, 1e6, 1e-6, 1e12 + 0.1])
def test_a_constant_series_is_zeros_around_its_value(value: float) -> None:
    """The rounding of a mean would be blown up to a series of its own, or divided by zero."""
    made = make_contexts([np.full((30, 1), value)], 12, 4)
    assert made.mean[0, 0] == value
    assert made.spread[0, 0] == 0
    np.testing.assert_allclose(made.scale[0, 0], 1e-6 * (abs(value) or 1))
    assert not made.values.any()


def test_a_constant_variable_leaves_the_others_alone() -> None:
    """One dead sensor would take the scale of all."""
    series = np.column_stack([np.full(12, 4.0), walk(12)])
    made = make_contexts([series], 12, 4)
    alone = make_contexts([series[:, 1:]], 12, 4)
    # sums are taken in another order
    np.testing.assert_allclose(made.values[..., 1:], alone.values, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(made.scale[..., 1:], alone.scale, rtol=1e-14)
    assert not made.values[..., 0].any()


@pytest.mark.parametrize("length", [1, 2, 3])
def test_less_than_a_patch_is_filled_up_in_front(length: int) -> None:
    """A new product with two sales could not be forecast, or its zeros would count as sales."""
    short = walk(length, 2) + 40
    whole = np.concatenate([np.repeat(short[:1], 4 - length, axis=0), short])
    found, expected = make_contexts([short], 12, 4), make_contexts([whole], 12, 4)
    for name in ("values", "lengths", "mean", "scale"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.observed.sum() == short.size  # and nothing was measured before it
    np.testing.assert_allclose(found.spread * found.scale, short.std(axis=0)[None, None])


def test_only_the_last_whole_patches_count() -> None:
    """Steps outside of the context would shift its mean, or a cut patch its phase."""
    series, other = walk(23, 1), walk(23, 1)
    other[:11] += 100
    for size, steps in ((12, 12), (24, 20)):
        made = make_contexts([series], size, 4)
        np.testing.assert_array_equal(made.lengths, [steps])
        cut = make_contexts([series[-steps:]], size, 4)
        for found, expected in zip(made, cut, strict=True):
            np.testing.assert_array_equal(found, expected)
    for found, expected in zip(
        make_contexts([series], 12, 4), make_contexts([other], 12, 4), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_a_context_does_not_depend_on_its_neighbours() -> None:
    """A forecast would change with what else is in the batch."""
    series = [walk(n, 2, seed=n) * 10**n for n in (3, 8, 14)]
    whole = make_contexts(series, 12, 4)
    for i, one in enumerate(series):
        for found, expected in zip(whole, make_contexts([one], 12, 4), strict=True):
            np.testing.assert_array_equal(found[i], expected[0])


@PROPERTY
@given(
    factor=st.sampled_from([-2.0, 1e-3, 0.3, 1.0, 1e6]),
    offset=st.sampled_from([0.0, -1.0, 10.0, 1e4]),
    seed=st.integers(0, 99),
)
def test_units_and_level_do_not_reach_the_model(factor: float, offset: float, seed: int) -> None:
    """The same temperatures in Celsius and in Fahrenheit would be forecast differently."""
    series = walk(16, 2, seed=seed)
    plain = make_contexts([series], 12, 4)
    moved = make_contexts([factor * series + offset], 12, 4)
    close = {"rtol": 1e-6, "atol": 1e-6}  # 1e4 over a spread of 1e-3 leaves nine digits
    np.testing.assert_allclose(moved.values, np.sign(factor) * plain.values, **close)
    np.testing.assert_allclose(moved.scale, abs(factor) * plain.scale, rtol=1e-6)
    np.testing.assert_allclose(
        moved.mean, factor * plain.mean + offset, rtol=1e-9, atol=1e-9 * abs(factor)
    )
