"""Series with gaps: a context knows nothing of what comes after, a missing truth has no score."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stride_jax import metrics
from stride_jax.data import load_series
from stride_jax.data.config import DataConfig
from stride_jax.data.gaps import Gaps, with_gaps
from stride_jax.data.splits import ForecastData, load_data, prepare
from stride_jax.data.windows import make_windows, padded_batches
from stride_jax.decoding.processes import window_process
from stride_jax.decoding.types import DecodeInfo
from stride_jax.errors import InputError
from stride_jax.evaluation.bench import Batch
from stride_jax.evaluation.experiments import missing_truths, naive_scores
from stride_jax.evaluation.scoring import Tally
from stride_jax.forecasting.sigma import calibrate_scale, calibrate_sigma
from stride_jax.models import init_params
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import TimerXL
from stride_jax.training import step as training
from stride_jax.training.config import TrainConfig
from stride_jax.types import PatchDistribution, Series

PROPERTY = settings(deadline=None, max_examples=40, derandomize=True)
ROWS, LENGTH, AHEAD = 24, 9, 4
WINDOWS = {
    (separate, fill): make_windows(
        (2, ROWS), LENGTH, 2, separate=separate, stride=3, ahead=AHEAD, fill_ahead=fill
    )
    for separate in (False, True)
    for fill in (False, True)
}
GATHER = jax.jit(lambda windows, values, index: windows.gather(values, index), static_argnums=0)


def gappy(seed: int, share: float, rows: int = ROWS) -> np.ndarray:
    """Two random walks `[T, 2]` with some values missing, one by one and in runs."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, 2)).cumsum(0).astype(np.float32)
    values[rng.random(values.shape) < share] = np.nan
    for column in range(2):
        start = rng.integers(0, rows)
        values[start : start + rng.integers(0, rows // 2), column] = np.nan
    if not np.isnan(values).any():
        values[3, 0] = np.nan
    return values


def cut(values: np.ndarray, *, separate: bool = False, fill: bool = False) -> np.ndarray:
    """All windows, `[B, LENGTH, C]`."""
    windows = WINDOWS[separate, fill]
    return np.asarray(GATHER(windows, with_gaps(values), jnp.arange(windows.count)))


def slow_fill(known: np.ndarray) -> np.ndarray:
    """A column whose end is now: lines between values, the nearest at the ends, 0 for no value."""
    rows, seen = np.arange(len(known)), ~np.isnan(known)
    if not seen.any():
        return np.zeros_like(known)
    return np.where(seen, known, np.interp(rows, rows[seen], known[seen]).astype(np.float32))


SEEDS, SHARES = st.integers(0, 2**16), st.sampled_from([0.02, 0.3, 0.8, 1.0])


@PROPERTY
@given(seed=SEEDS, share=SHARES, separate=st.booleans(), fill=st.booleans())
def test_windows_are_filled_from_what_was_known(
    seed: int, share: float, separate: bool, fill: bool
) -> None:
    """A fill would reach over the end of a context, or a missing truth be scored as a value."""
    values = gappy(seed, share)
    windows = WINDOWS[separate, fill]
    found = cut(values, separate=separate, fill=fill)
    for number, window in enumerate(found):
        start = windows.start + windows.stride * (number % windows.num_starts)
        now, end = start + LENGTH - AHEAD, start + LENGTH
        columns = [number // windows.num_starts] if separate else [0, 1]
        for column, got in zip(columns, window.T, strict=True):
            expected = slow_fill(values[:now, column])[start:]
            np.testing.assert_array_equal(got[: LENGTH - AHEAD], expected)
            later = slow_fill(values[:end, column]) if fill else values[:end, column]
            np.testing.assert_array_equal(got[LENGTH - AHEAD :], later[now:])


@PROPERTY
@given(seed=SEEDS, share=SHARES, later=SEEDS, separate=st.booleans())
def test_nothing_after_a_context_changes_it(
    seed: int, share: float, later: int, separate: bool
) -> None:
    """The end of a context would hint at the truth that it is scored on."""
    values = gappy(seed, share)
    windows = WINDOWS[separate, False]
    before = cut(values, separate=separate)[:, : LENGTH - AHEAD]
    for number in range(windows.count):
        start = windows.start + windows.stride * (number % windows.num_starts)
        now = start + LENGTH - AHEAD
        changed = np.concatenate([values[:now], 100 + gappy(later, 0.3)[now:]])
        after = cut(changed, separate=separate)[number, : LENGTH - AHEAD]
        np.testing.assert_array_equal(after, before[number])


def write(path: Path, values: np.ndarray) -> str:
    """A CSV with blank cells for NaN."""
    cells = [[("" if np.isnan(v) else repr(float(v))) for v in row] for row in values]
    path.write_text("\n".join(["a,b", *(",".join(row) for row in cells)]) + "\n")
    return str(path)


def test_a_file_s_contexts_do_not_look_ahead(tmp_path: Path) -> None:
    """`--data.missing interpolate` would draw the line from the context into the truth."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(100, 2)).cumsum(0)
    values[88:94, 0] = np.nan  # the last context ends after row 90
    later = values.copy()
    later[94:] += 50
    contexts = []
    for name, series in (("one", values), ("other", later)):
        source = write(tmp_path / f"{name}.csv", series)
        data = load_data(DataConfig(source=source, context_len=8, missing="interpolate"))
        windows = make_windows(data.splits.test, 18, 2, separate=False, stride=1, ahead=10)
        found = windows.gather(data.on_device, jnp.arange(windows.count)[-1:])
        contexts.append(np.asarray(found)[0, :8])
        np.testing.assert_array_equal(np.isnan(found[0, 8:, 0]), np.arange(10) < 4)
    np.testing.assert_array_equal(*contexts)
    assert contexts[0][-1, 0] == contexts[0][-3, 0]  # the last value known


def test_missing_cells_are_kept_until_windows_are_cut(tmp_path: Path) -> None:
    """What the loader fills, no window can tell from what was observed."""
    (tmp_path / "a.csv").write_text("a,b\n1,?\n,5\n3,6\n")
    found = load_series(str(tmp_path / "a.csv"), missing="keep").values
    np.testing.assert_array_equal(found, [[1, np.nan], [np.nan, 5], [3, 6]])
    (tmp_path / "b.csv").write_text("a,b\n1,\n2,\n")
    with pytest.raises(InputError, match="'b' is wholly missing"):
        load_series(str(tmp_path / "b.csv"), missing="keep")


def test_statistics_are_of_what_was_observed() -> None:
    """The units of the series would depend on values that were made up."""
    values = np.arange(60.0)[:, None] * [1, 2]
    values[10:30, 0] = np.nan
    data = prepare(DataConfig(source="x.csv", context_len=8), Series(values, ("a", "b")))
    known = values[:42, 0][~np.isnan(values[:42, 0])]
    np.testing.assert_allclose(data.mean, [known.mean(), values[:42, 1].mean()], rtol=1e-12)
    np.testing.assert_allclose(data.std, [known.std(), values[:42, 1].std()], rtol=1e-12)
    assert isinstance(data.on_device, Gaps)
    still = values.copy()
    still[:42, 0] = [np.nan, *[5.0] * 41]
    found = prepare(DataConfig(source="x.csv", context_len=8), Series(still, ("a", "b")))
    assert (found.mean[0], found.std[0]) == (5, 1)


def test_a_variable_that_begins_after_training_is_refused() -> None:
    """Its mean would be NaN and every forecast with it."""
    values = np.arange(60.0)[:, None] * [1, 2]
    values[:42, 1] = np.nan
    with pytest.raises(InputError, match=r"'late' has no value in the 42 training rows"):
        prepare(DataConfig(source="x.csv", context_len=8), Series(values, ("a", "late")))


def test_a_series_without_gaps_stays_an_array() -> None:
    """Programs of whole series would do the work of the fill, and round differently."""
    values = np.ones((5, 2), np.float32)
    assert with_gaps(values) is values


def batches(values: np.ndarray, batch_size: int, separate: bool) -> list[Batch]:
    """The windows of a series in batches."""
    windows, series = WINDOWS[separate, False], jax.tree.map(jnp.asarray, with_gaps(values))
    parts = zip(*padded_batches(windows.count, batch_size), strict=True)
    cuts = [(GATHER(windows, series, index), index, weight) for index, weight in parts]
    key = jax.random.key(0)
    return [Batch(key, cut[:, :-AHEAD], cut[:, -AHEAD:], i, w) for cut, i, w in cuts]


def scored(values: np.ndarray, batch_size: int, separate: bool) -> tuple[dict[str, Any], Any]:
    """Scores of twelve paths, the last value with noise, and counts of nothing."""
    tally = Tally()
    for batch in batches(values, batch_size, separate):
        shape = (len(batch.context), 12, AHEAD, batch.context.shape[2])
        noise = jax.random.normal(batch.key, shape[1:])[None] * jnp.ones(shape)
        count, places = jnp.ones(shape[:2], jnp.int32), jnp.ones((*shape[:2], 1), jnp.int32)
        info = DecodeInfo(places, places, count, count, count, count, places, noise, None)
        tally.add(batch.context[:, None, -1:] + noise, info, batch.truth, batch.weight)
    return tally.scores(), tally.forecasts()


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("batch_size", [2, 64])
def test_scores_are_of_the_observed_truths_alone(separate: bool, batch_size: int) -> None:
    """A filled truth would be scored as an easy one, or count by the window it stands in."""
    values = gappy(5, 0.4)
    found, made = scored(values, batch_size, separate)
    truth = cut(values, separate=separate)[:, LENGTH - AHEAD :]
    seen = ~np.isnan(truth)
    assert 0 < seen.sum() < seen.size
    # each observed truth as a series of its own, [n, S]
    paths, truths = np.moveaxis(made, 1, -1)[seen], truth[seen]
    one = jax.vmap(lambda p, t: metrics.crps(p[:, None, None], t[None, None]))
    held = jax.vmap(lambda p, t: metrics.coverage(p[:, None, None], t[None, None]))
    error = paths - truths[:, None]
    expected = {
        "mse": np.mean(error**2),
        "mae": np.mean(np.abs(error)),
        "mse_of_mean": np.mean(error.mean(1) ** 2),
        "crps": np.mean(one(paths, truths)),
        "coverage_80": np.mean(held(paths, truths)),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-5, err_msg=name)


def test_no_observed_truth_is_an_error() -> None:
    """A score of nothing would be 0 or NaN."""
    values = gappy(5, 0.1)
    values[7:] = np.nan
    with pytest.raises(InputError, match="none of the truths"):
        scored(values, 4, False)


@pytest.mark.parametrize("separate", [False, True])
def test_missing_truths_are_counted_and_the_naive_rows_leave_them_out(separate: bool) -> None:
    """The reader would not know that the numbers are of fewer truths."""
    values = gappy(7, 0.3)
    parts = batches(values, 4, separate)
    whole = cut(values, separate=separate)
    context, truth = whole[:, : LENGTH - AHEAD], whole[:, LENGTH - AHEAD :]
    missing = int(np.isnan(truth).sum())
    assert missing_truths(parts) == {"missing": missing, "truths": truth.size}
    naive = naive_scores(parts, 3)
    error = context[:, -3:][:, [0, 1, 2, 0]] - truth
    np.testing.assert_allclose(naive["mse"], np.nanmean(error**2), rtol=1e-5)
    np.testing.assert_allclose(naive["mae"], np.nanmean(np.abs(error)), rtol=1e-5)


def last_value(window: jax.Array) -> PatchDistribution:
    """The last value, `AHEAD` times."""
    return PatchDistribution(jnp.repeat(window[-1:], AHEAD, axis=0))


@pytest.mark.parametrize("separate", [False, True])
def test_sigma_is_measured_on_observed_truths(separate: bool) -> None:
    """Lines drawn by the fill would make the target look surer than it is."""
    values, windows = gappy(5, 0.4), WINDOWS[separate, False]
    target = window_process(last_value, AHEAD)
    series = jax.tree.map(jnp.asarray, with_gaps(values))
    whole = cut(values, separate=separate)
    error = whole[:, [LENGTH - AHEAD - 1]] - whole[:, LENGTH - AHEAD :]
    found = calibrate_scale(target, series, windows, 4)
    np.testing.assert_allclose(found, np.sqrt(np.nanmean(error**2, axis=0)), rtol=1e-5)
    one = calibrate_sigma(target, series, windows, 4)  # a cell with few values counts for less
    assert one == pytest.approx(np.sqrt(np.nanmean(error**2)), rel=1e-5)
    values[7:] = np.nan
    series = jax.tree.map(jnp.asarray, with_gaps(values))
    with pytest.raises(InputError, match=r"sigma cannot be calibrated.*--sigma"):
        calibrate_scale(target, series, windows, 4)


def series_with_gaps() -> ForecastData:
    """Standardised, with a gap in validation."""
    values = gappy(3, 0.1, rows=120).astype(np.float64)
    values[86:92] = np.nan  # the whole truth of some validation windows
    return prepare(DataConfig(source="x.csv", context_len=16), Series(values, ("a", "b")))


def test_training_windows_are_whole_and_validation_knows_what_is_missing() -> None:
    """The loss would be NaN, or the best epoch the one that is best at straight lines."""
    data = series_with_gaps()
    model = TimerXLConfig(patch_len=4, d_model=8, num_heads=2, d_ff=8, dropout=0.0)
    config = TrainConfig(data=DataConfig(source="x.csv", context_len=16), model=model)
    task = training.next_patch_task(config, data)
    values = data.on_device
    rows = jnp.arange(task.train.count)
    assert np.isfinite(GATHER(task.train, values, rows)).all()
    params = init_params(jax.random.key(0), model)
    found = training.make_validate(task, 8)(params, values)
    windows = GATHER(task.validation, values, jnp.arange(task.validation.count))
    mean = jax.jit(TimerXL(model).apply)({"params": params}, windows[:, :16])[:, -4:]
    error = np.square(mean - windows[:, 16:]).reshape(len(windows), -1)
    seen = ~np.isnan(error).all(axis=1)
    assert not seen.all()
    np.testing.assert_allclose(found, np.mean(np.nanmean(error[seen], axis=1)), rtol=1e-5)
