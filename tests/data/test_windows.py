"""Splits, standardisation and windows against a slow reading of the benchmark protocol."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st

from stride_jax.data.config import DataConfig
from stride_jax.data.splits import load_data, prepare, split_rows, split_scheme
from stride_jax.data.windows import batch_index, epoch_order, make_windows, padded_batches
from stride_jax.errors import InputError
from stride_jax.types import Series

PROPERTY = settings(deadline=None, max_examples=12, derandomize=True)
RECORDED = json.loads((GOLDEN / "data_windows.json").read_text())
ROWS = {"ETTh1.csv": 17420, "exchange_rate.csv": 7588}


def slow_split(num_rows: int, scheme: str, context: int) -> dict[str, tuple[int, int]]:
    """Row ranges, as the published protocol says it: months of 30 days, or 70/10/20 percent."""
    if scheme == "ratio":
        train = math.floor(0.7 * num_rows)
        test = math.floor(0.2 * num_rows)
        ends = (train, num_rows - test, num_rows)
    else:
        per_month = 30 * 24 * (4 if scheme == "ett_minute" else 1)
        ends = (12 * per_month, 16 * per_month, 20 * per_month)
    return {
        "train": (0, ends[0]),
        "val": (ends[0] - context, ends[1]),
        "test": (ends[1] - context, ends[2]),
    }


def slow_windows(values, rows, context: int, ahead: int, separate: bool):
    """All (x, y) of a split: y is x moved on by one patch; one variable after the other."""
    groups = [[c] for c in range(values.shape[1])] if separate else [list(range(values.shape[1]))]
    for columns in groups:
        for start in range(rows[0], rows[1] - context - ahead + 1):
            block = values[start : start + context + ahead, columns]
            yield block[:context], block[ahead:]


def series_of(num_rows: int, num_vars: int, seed: int = 0) -> Series:
    """A random walk in awkward units."""
    rng = np.random.default_rng(seed)
    values = 50 + 7 * rng.normal(size=(num_rows, num_vars)).cumsum(axis=0)
    return Series(values, tuple(f"v{i}" for i in range(num_vars)))


@functools.cache
def gather():
    """`Windows.gather` inside jit, the windows static."""
    return jax.jit(lambda windows, values, index: windows.gather(values, index), static_argnums=0)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize(
    ("source", "num_rows", "num_vars", "context"),
    [("ETTh9.csv", 14700, 2, 48), ("ETTm9.csv", 57700, 2, 24), ("other.csv", 333, 3, 24)],
)
def test_windows_follow_the_protocol(source, num_rows, num_vars, context, separate):
    """Scores would be of other windows than the published tables'."""
    ahead, series = 8, series_of(num_rows, num_vars)
    scheme = {"ETTh": "ett_hour", "ETTm": "ett_minute"}.get(source[:4], "ratio")
    config = DataConfig(source=source, context_len=context)
    data = prepare(config, series)
    ranges = slow_split(num_rows, scheme, context)
    train = series.values[: ranges["train"][1]]
    mean = np.array([math.fsum(column) / len(column) for column in train.T])
    var = [
        math.fsum((column - m) ** 2) / len(column) for column, m in zip(train.T, mean, strict=True)
    ]
    np.testing.assert_allclose(data.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(data.std, np.sqrt(var), rtol=1e-12)
    standard = (series.values - mean) / np.sqrt(var)
    assert data.values.dtype == np.float32
    np.testing.assert_allclose(data.values, standard, rtol=2e-7, atol=1e-9)
    for name, rows in zip(("train", "val", "test"), data.splits, strict=True):
        assert rows == ranges[name]
        windows = make_windows(rows, context + ahead, num_vars, separate=separate)
        assert windows.count == (num_vars if separate else 1) * (
            ranges[name][1] - ranges[name][0] - context - ahead + 1
        )
        pairs = list(slow_windows(standard, ranges[name], context, ahead, separate))
        assert len(pairs) == windows.count
        picked = np.unique(np.linspace(0, len(pairs) - 1, 23).astype(int))
        found = np.asarray(gather()(windows, jnp.asarray(data.values), jnp.asarray(picked)))
        x, y = (np.stack([pairs[i][side] for i in picked]) for side in (0, 1))
        np.testing.assert_allclose(found[:, :context], x, rtol=2e-7, atol=1e-9)
        np.testing.assert_allclose(found[:, ahead:], y, rtol=2e-7, atol=1e-9)


@pytest.mark.parametrize("name", sorted(RECORDED["splits"]))
def test_recorded_counts_follow_from_the_row_numbers(name):
    """The benchmark tables would be over more or fewer windows than the original's."""
    recorded = RECORDED["splits"][name]
    file, kind, split = name.split("/")
    context, length = RECORDED["seq_len"], RECORDED["seq_len"] + RECORDED["token_len"]
    splits = split_rows(ROWS[file], context, split_scheme(file, "auto"))
    rows = dict(zip(("train", "val", "test"), splits, strict=True))[split]
    separate = kind == "univariate"
    windows = make_windows(rows, length, recorded["n_var"], separate=separate)
    assert windows.count == recorded["windows"]
    assert recorded["picked"][-1] == windows.count - 1


def check_recorded(name: str) -> None:
    """Every recorded number of one split, from the real file."""
    recorded = RECORDED["splits"][name]
    file, kind, split = name.split("/")
    context, ahead = RECORDED["seq_len"], RECORDED["token_len"]
    data = load_data(DataConfig(source=file.removesuffix(".csv"), context_len=context))
    np.testing.assert_allclose(data.mean, recorded["scaler_mean"], rtol=1e-10)
    np.testing.assert_allclose(data.std, recorded["scaler_std"], rtol=1e-10)
    num_vars = data.values.shape[1]
    assert num_vars == recorded["n_var"]
    rows = dict(zip(("train", "val", "test"), data.splits, strict=True))[split]
    separate = kind == "univariate"
    windows = make_windows(rows, context + ahead, num_vars, separate=separate)
    assert windows.count == recorded["windows"]
    picked = jnp.asarray(recorded["picked"])
    found = np.asarray(gather()(windows, jnp.asarray(data.values), picked), np.float64)
    x, y = found[:, :context], found[:, ahead:]
    assert list(y.shape[1:]) == recorded["y_shape"]
    # ours are rounded to float32, by at most 2^-24 of each value
    for part, values in (("x", x), ("y", y)):
        room = 2.0**-24 * np.abs(values).sum(axis=(1, 2)) + 1e-9
        assert np.all(np.abs(values.sum(axis=(1, 2)) - recorded[f"{part}_sum"]) <= room)
        last = np.array(recorded[f"{part}_last"])
        np.testing.assert_allclose(values[:, -1], last, rtol=1e-7, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(RECORDED["splits"]))
def test_recorded_windows_of_the_real_files(name):
    """Scores on ETTh1 and exchange_rate would not be comparable with the published ones.

    Needs the two files in `STRIDE_JAX_DATA` (or the user's cache), or the network to fetch them.
    """
    check_recorded(name)


@pytest.mark.parametrize(
    ("source", "split", "scheme"),
    [
        ("ETTh1", "auto", "ett_hour"),
        ("some/dir/ETTh2.csv", "auto", "ett_hour"),
        ("ETTm1", "auto", "ett_minute"),
        ("weather", "auto", "ratio"),
        ("ETT-small/other.csv", "auto", "ratio"),
        ("ETTh1", "ratio", "ratio"),
        ("weather", "ett_minute", "ett_minute"),
    ],
)
def test_split_schemes_by_name(source, split, scheme):
    """A benchmark would be split as another one."""
    assert split_scheme(source, split) == scheme


@PROPERTY
@given(num_rows=st.integers(40, 3000), context=st.integers(1, 28))
def test_ratio_splits(num_rows, context):
    """Rounding would give the split before or after one row too many."""
    expected = slow_split(num_rows, "ratio", context)
    assert tuple(split_rows(num_rows, context, "ratio")) == tuple(expected.values())


@PROPERTY
@given(
    start=st.integers(0, 5),
    length=st.integers(1, 6),
    stride=st.integers(1, 4),
    extra=st.integers(0, 12),
    separate=st.booleans(),
)
def test_gather_is_slicing(start, length, stride, extra, separate):
    """Windows would hold the wrong rows, or the last ones would be missed or run over the end."""
    stop, num_vars = start + length + extra, 2
    values = np.arange(2.0 * (stop + 3), dtype=np.float32).reshape(-1, num_vars)
    windows = make_windows((start, stop), length, num_vars, separate=separate, stride=stride)
    starts = [s for s in range(start, stop) if (s - start) % stride == 0 and s + length <= stop]
    expected = [
        values[s : s + length, columns]
        for columns in ([[0], [1]] if separate else [[0, 1]])
        for s in starts
    ]
    assert windows.count == len(expected)
    index = np.arange(windows.count, dtype=np.int32)
    found = gather()(windows, values, index)
    np.testing.assert_array_equal(found, np.stack(expected))
    back = gather()(windows, values, index[::-1].copy())
    np.testing.assert_array_equal(back, np.stack(expected[::-1]))


@PROPERTY
@given(count=st.sampled_from([1, 2, 37]), epoch=st.integers(0, 9), seed=st.integers(0, 5))
def test_epoch_order_is_a_repeatable_permutation(count, epoch, seed):
    """Windows would be left out, or a resumed run would see another order."""
    order = epoch_order(jax.random.key(seed), epoch, count)
    np.testing.assert_array_equal(np.sort(order), np.arange(count))
    np.testing.assert_array_equal(order, epoch_order(jax.random.key(seed), epoch, count))
    traced = jax.jit(epoch_order, static_argnums=2)(jax.random.key(seed), epoch, count)
    np.testing.assert_array_equal(order, traced)


def test_epoch_order_differs_by_epoch_and_key():
    """Every epoch would see the windows in the same order."""
    orders = [epoch_order(jax.random.key(s), e, 100) for s in range(2) for e in range(3)]
    assert len({tuple(np.asarray(order)) for order in orders}) == 6
    assert all(not np.array_equal(order, np.arange(100)) for order in orders)


@PROPERTY
@given(count=st.sampled_from([4, 37]), batch_size=st.sampled_from([1, 4]))
def test_batches_of_an_epoch_do_not_overlap(count, batch_size):
    """A window would be trained on twice in an epoch."""
    order = epoch_order(jax.random.key(0), 0, count)
    steps = count // batch_size
    batches = [np.asarray(batch_index(order, jnp.int32(i), batch_size)) for i in range(steps)]
    np.testing.assert_array_equal(np.concatenate(batches), order[: steps * batch_size])


@PROPERTY
@given(count=st.integers(1, 40), batch_size=st.integers(1, 12))
def test_padded_batches_count_every_window_once(count, batch_size):
    """Averages over a test set would weigh some windows twice or drop the last ones."""
    index, weight = map(np.asarray, padded_batches(count, batch_size))
    assert index.shape == weight.shape == (math.ceil(count / batch_size), batch_size)
    totals = np.zeros(count)
    np.add.at(totals, index.ravel(), weight.ravel())
    np.testing.assert_array_equal(totals, np.ones(count))
    kept = index[weight == 1]
    np.testing.assert_array_equal(kept, np.arange(count))
    assert index[weight == 0].tolist() == [0] * (weight.size - count)


@pytest.mark.parametrize(
    ("num_rows", "context", "scheme", "message"),
    [
        (14399, 96, "ett_hour", "14400 rows.*14399"),
        (57599, 96, "ett_minute", "57600 rows.*57599"),
        (100, 71, "ratio", "70 rows.*71"),
        (20000, 8641, "ett_hour", "8640 rows.*8641"),
    ],
)
def test_short_series_are_refused(num_rows, context, scheme, message):
    """A slice would run over the end or start before the first row, silently."""
    with pytest.raises(InputError, match=message):
        split_rows(num_rows, context, scheme)


def test_the_shortest_series_that_fit():
    """The checks would refuse a series that is long enough."""
    assert split_rows(14400, 96, "ett_hour").test == (11520 - 96, 14400)
    assert split_rows(100, 70, "ratio").validation == (0, 80)


def test_short_splits_are_refused():
    """An empty split would give an average over nothing."""
    assert make_windows((10, 20), 10, 2, separate=False).count == 1
    with pytest.raises(InputError, match=r"11 rows.*10 rows"):
        make_windows((10, 20), 11, 2, separate=False)


@pytest.mark.parametrize("level", [0.0, 5.0, 0.1, -7.3, 1 / 3, 1e9 + 0.1])
@pytest.mark.parametrize("num_vars", [1, 3])
def test_a_constant_column_becomes_zeros(level, num_vars):
    """A sensor that stands still in training would divide by zero, or by a rounding error.

    The mean of equal numbers is off by rounding, so their computed std is tiny and not zero.
    """
    series = series_of(1000, num_vars)
    series.values[:, 0] = level
    series.values[900:, 0] = level + 2
    data = prepare(DataConfig(source="x.csv", context_len=24), series)
    assert data.std[0] == 1
    np.testing.assert_allclose(data.values[:900, 0], 0, atol=1e-6)
    np.testing.assert_allclose(data.values[900:, 0], 2, rtol=1e-6)
    assert np.isfinite(data.values).all()


def test_statistics_are_of_the_training_rows_alone():
    """The test set would leak into the input."""
    series = series_of(200, 2)
    config = DataConfig(source="x.csv", context_len=24)
    before = prepare(config, series)
    changed = series._replace(values=series.values.copy())
    changed.values[140:] += 1000
    after = prepare(config, changed)
    np.testing.assert_array_equal(after.mean, before.mean)
    np.testing.assert_array_equal(after.std, before.std)
    np.testing.assert_array_equal(after.values[:140], before.values[:140])
