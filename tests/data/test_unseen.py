"""Series of a pre-training: the matrix that is trained on, and windows of rows that are not."""

import numpy as np
import pytest
from helpers.tools import load_tool

from stride_jax.data.splits import split_rows
from stride_jax.data.unseen import unseen_windows
from stride_jax.errors import InputError


def test_unseen_windows_are_of_rows_that_no_training_reads() -> None:
    """What was remembered would be taken for what was learned."""
    rows = 500
    splits = split_rows(rows, 16, "ratio")
    place = np.arange(rows, dtype=np.float32)[:, None] + np.asarray([0, 1000])
    windows = unseen_windows(place, 300, 32, np.random.default_rng(0))
    assert windows.shape == (300, 32)
    np.testing.assert_array_equal(np.diff(windows, axis=1), 1)
    first = windows[:, 0] % 1000
    assert (first.min(), first.max() + 32) == (splits.validation[1], rows)  # every place occurs
    assert 0.4 < np.mean(windows[:, 0] >= 1000) < 0.6  # and every column


def test_constant_windows_are_left_out() -> None:
    """A window without a scale would make its relative errors NaN."""
    values = np.stack([np.arange(100.0), np.ones(100)], axis=1)
    windows = unseen_windows(values, 200, 10, np.random.default_rng(0))
    assert 60 < len(windows) < 140
    assert (windows.std(axis=1) > 0).all()


def test_too_few_rows_are_refused() -> None:
    """NumPy would only say that low is not below high."""
    with pytest.raises(InputError, match="last 20 of 100 rows hold no window of 21 steps"):
        unseen_windows(np.zeros((100, 1)), 1, 21, np.random.default_rng(0))
    assert len(unseen_windows(np.arange(100.0)[:, None], 3, 20, np.random.default_rng(0))) == 3


@pytest.mark.parametrize("length", [2_000, 11_200, 50_000])
def test_a_column_has_no_seam_that_its_series_does_not_need(length: int) -> None:
    """Most windows would begin in one stretch and end in another, in spite of a long series."""
    script = load_tool("make_pretraining")
    slope = np.arange(length, dtype=np.float64)
    column = script.stretches(slope, np.random.default_rng(0), script.TRAINING_ROWS)
    assert column.shape == (script.TRAINING_ROWS,)
    seams = np.flatnonzero(np.diff(column) < 0) + 1
    np.testing.assert_array_equal(seams, np.arange(length, script.TRAINING_ROWS, length))


def test_a_short_series_is_run_through_to_and_fro() -> None:
    """A jump in its middle would look like an event of the series."""
    script = load_tool("make_pretraining")
    column = script.stretches(np.arange(900.0), np.random.default_rng(0), 1_800)
    steps = np.abs(np.diff(column))
    assert steps.max() < 1.01 * np.median(steps)
