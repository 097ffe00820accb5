"""The covariance of a patch's errors: fitted, shrunk, stored, and given to `forecast`."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from stride_jax.checkpoints.covariances import load_covariance
from stride_jax.checkpoints.pair import Pair
from stride_jax.data.gaps import with_gaps
from stride_jax.data.windows import make_windows
from stride_jax.decoding.processes import window_process
from stride_jax.decoding.scale import PatchCovariance
from stride_jax.errors import InputError
from stride_jax.forecasting.covariance import (
    calibrate_covariance,
    history_covariance,
    one_patch_errors,
    shrunk_factor,
    unit_factor,
)
from stride_jax.forecasting.forecast import forecast

P = 4


def nothing(window):
    """The mean of the window, for every step of the next patch."""
    return jnp.broadcast_to(jnp.mean(window, axis=0)[None], (P, window.shape[1]))


TARGET = window_process(Partial(nothing), P, context_len=3 * P, normalises=True)


def powers(correlation: float, size: int = P) -> np.ndarray:
    """Correlations `correlation^|i - j|`."""
    return correlation ** np.abs(np.subtract.outer(np.arange(size), np.arange(size)))


def errors_of(covariance: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Draws `[count, P]` of that covariance."""
    noise = np.random.default_rng(seed).normal(size=(count, len(covariance)))
    return noise @ np.linalg.cholesky(covariance).T


# ---------------------------------------------------------------- shrinkage


def test_the_shrinkage_is_that_of_the_formula():
    """The covariance would be shrunk by something nobody can look up."""
    errors, size = errors_of(powers(0.6), 15), P
    std = np.sqrt(np.mean(errors**2, axis=0))
    z, n = errors / std, len(errors)
    top = bottom = 0.0
    for i in range(size):
        for j in range(size):
            if i != j:
                products = z[:, i] * z[:, j]
                r = products.mean()
                top += np.sum((products - r) ** 2) / (n * (n - 1))
                bottom += r**2
    expected = (1 - top / bottom) * (errors.T @ errors / n)
    expected[np.diag_indices(size)] = std**2
    factor = shrunk_factor(errors)
    np.testing.assert_allclose(factor @ factor.T, expected, rtol=1e-10)


def test_few_errors_are_shrunk_and_many_are_not():
    """A week of data would give correlations of chance, or a year of them would lose the real."""
    covariance = powers(0.8, 24)
    many = shrunk_factor(errors_of(covariance, 20_000))
    np.testing.assert_allclose(many @ many.T, covariance, atol=0.04)
    few = errors_of(covariance, 12)  # fewer than steps: the sample has no inverse
    factor = shrunk_factor(few)
    assert (np.diag(factor) > 0).all()
    sample = few.T @ few / len(few)
    assert np.linalg.norm(factor @ factor.T - covariance) < np.linalg.norm(sample - covariance)


def test_overlapping_windows_count_as_fewer():
    """Windows every step would look like P times as much data, and be shrunk too little."""
    errors = errors_of(powers(0.5), 40)
    off = [abs((f @ f.T)[0, 1]) for f in (shrunk_factor(errors), shrunk_factor(errors, 0.1))]
    assert off[1] < 0.9 * off[0]


def test_errors_without_information_are_refused():
    """NaN would go into every path."""
    with pytest.raises(InputError, match="at least two patches"):
        shrunk_factor(np.ones((3, P)), share=0.2)
    with pytest.raises(InputError, match="errors of step 0 are 0"):
        shrunk_factor(np.zeros((9, P)))


# ---------------------------------------------------------------- calibration


def series_of(num_patches: int) -> np.ndarray:
    """Two variables whose patches are independent draws of different correlations, `[T, 2]`."""
    columns = [errors_of(powers(c), num_patches, seed=i).ravel() for i, c in enumerate((0.8, -0.5))]
    return np.stack(columns, axis=1).astype(np.float32) * np.float32([1, 100])


@pytest.mark.parametrize("separate", [True, False])
def test_calibration_recovers_the_covariance_of_each_variable(separate):
    """Variables, steps or windows would be mixed up, or the scale be that of something else."""
    values = series_of(1500)
    windows = make_windows((0, len(values)), 4 * P, 2, separate=separate, stride=P, ahead=P)
    fitted = calibrate_covariance(TARGET, jnp.asarray(values), windows, 512, each_variable=True)
    for factor, correlation, scale in zip(fitted.factor, (0.8, -0.5), (1, 100), strict=True):
        # the mean of the context is an error too, the same for all steps of a patch
        level = np.mean(powers(correlation)) / 3
        expected = scale**2 * (powers(correlation) + level)
        np.testing.assert_allclose(factor @ factor.T, expected, atol=0.12 * scale**2)


def test_a_relative_covariance_does_not_know_the_units():
    """The correlation would not be a property of the model, and a large series decide it."""
    values = series_of(400)
    windows = make_windows((0, len(values)), 4 * P, 2, separate=True, stride=P, ahead=P)
    both = [
        calibrate_covariance(TARGET, jnp.asarray(values * k), windows, 512, relative=True).factor
        for k in np.float32([[1, 1], [1000, 10]])
    ]
    np.testing.assert_allclose(both[0], both[1], atol=1e-3)
    assert np.mean(np.sum(both[0] ** 2, axis=1)) == pytest.approx(1, abs=1e-5)


def test_patches_with_missing_values_do_not_count():
    """One missing value would make the covariance NaN."""
    values = series_of(300)
    values[50 * P + 1, 0] = np.nan
    windows = make_windows((0, len(values)), 4 * P, 2, separate=True, stride=P, ahead=P)
    gaps = with_gaps(values)
    fitted = calibrate_covariance(TARGET, gaps, windows, 512, relative=True)
    assert np.isfinite(fitted.factor).all()


# ---------------------------------------------------------------- forecasts

HISTORY = np.random.default_rng(0).normal(size=(60, 2)) + 10


def test_a_forecast_has_the_covariance_at_the_scale_of_its_history():
    """Sums of a path, and how long it stays above a threshold, would be those of white noise."""
    covariance = PatchCovariance(np.linalg.cholesky(powers(0.9)), 37.0)  # its scale is of no matter
    found = forecast(Pair(TARGET, covariance=covariance), HISTORY, P, num_samples=4000)
    errors = (found.paths - found.paths.mean(axis=0)) / found.sigma
    for c in range(2):
        np.testing.assert_allclose(np.cov(errors[:, :, c].T), powers(0.9), atol=0.1)
    plain = forecast(TARGET, HISTORY, P, num_samples=4000)
    np.testing.assert_allclose(plain.sigma, found.sigma)
    wide, narrow = (one.paths.sum(axis=1).std(axis=0) for one in (found, plain))
    assert (wide > 1.7 * narrow).all()


@pytest.mark.parametrize("variables", ["separate", "joint"])
def test_each_variable_has_its_own_factor(variables):
    """A variable would be drawn with the factor of another one."""
    factor = np.stack([np.linalg.cholesky(powers(c)) for c in (0.9, -0.7)])
    found = forecast(
        Pair(TARGET, covariance=PatchCovariance(factor)),
        np.stack([HISTORY, HISTORY + 3]),
        P,
        num_samples=2000,
        variables=variables,
    )
    for series in found.paths:
        for c, correlation in enumerate((0.9, -0.7)):
            first = np.corrcoef(series[:, 0, c], series[:, 1, c])[0, 1]
            assert first == pytest.approx(correlation, abs=0.08)


def test_what_is_no_covariance_is_refused_before_anything_is_compiled():
    """A number would be taken for a factor, or the wrong patch length be found out late."""
    with pytest.raises(InputError, match="covariance must be a PatchCovariance"):
        forecast(Pair(TARGET, covariance=np.eye(P)), HISTORY, P)
    with pytest.raises(InputError, match=r"\[P, P\].*\(3, 3\)"):
        forecast(Pair(TARGET, covariance=PatchCovariance(np.eye(3))), HISTORY, P)
    with pytest.raises(InputError, match="sigma of a PatchCovariance must be > 0"):
        unit_factor(PatchCovariance(np.eye(P), -1.0), (P, 2))
    with pytest.raises(InputError, match="must broadcast"):
        unit_factor(PatchCovariance(np.eye(P), np.ones(3)), (P, 2))


def test_histories_take_the_factors_of_their_variables_in_turn():
    """The second series would be drawn with the factors in another order."""
    factor = np.arange(2.0)[:, None, None] + np.eye(P)
    found = history_covariance(factor, np.ones((6, 1, 1)))
    np.testing.assert_array_equal(found.factor[:, 0], factor[[0, 1, 0, 1, 0, 1]])


# ---------------------------------------------------------------- files


def test_the_package_holds_the_covariance_of_its_pair(tmp_path):
    """The line in the documentation would fail; a covariance of one's own could not be kept."""
    packaged = load_covariance("beijing")
    assert packaged.factor.shape == (24, 24)
    assert np.mean(np.sum(np.square(packaged.factor), axis=1)) == pytest.approx(1, abs=1e-5)
    path = tmp_path / "own.npy"
    np.save(path, packaged.factor)
    np.testing.assert_array_equal(load_covariance(path).factor, packaged.factor)


def test_a_file_that_holds_no_covariance_is_refused(tmp_path):
    """A traceback of numpy, or a forecast from the wrong array."""
    with pytest.raises(InputError, match=r"is no covariance.*beijing"):
        load_covariance(tmp_path / "missing.npy")
    for array, message in ((np.ones(3), "shape"), (np.ones((3, 3)), "lower triangular")):
        np.save(tmp_path / "bad.npy", array)
        with pytest.raises(InputError, match=message):
            load_covariance(tmp_path / "bad.npy")


def test_an_archive_is_no_covariance(tmp_path):
    """An attribute that an archive of numpy does not have would be the answer."""
    np.savez(tmp_path / "several.npz", factor=np.eye(3))
    with pytest.raises(InputError, match=r"several\.npz is no covariance"):
        load_covariance(tmp_path / "several.npz")


def test_errors_of_one_shape_are_refused():
    """An error of the linear algebra would not say which data are at fault."""
    errors = np.outer([1, -1, 1, -1, 1, 1], [1.0, 1, 2, 2])
    with pytest.raises(InputError, match="no inverse"):
        shrunk_factor(errors)


def test_windows_with_rows_between_them_count_once_each():
    """Fewer windows would be taken for more, and their chance correlations for the model's."""
    values = jnp.asarray(np.random.default_rng(0).normal(size=(40 * P, 1)), jnp.float32)
    windows = make_windows((0, len(values)), 4 * P, 1, separate=False, stride=3 * P, ahead=P)
    fitted = calibrate_covariance(TARGET, values, windows, 8).factor
    errors = one_patch_errors(TARGET, values, windows, 8).values[0]
    np.testing.assert_allclose(fitted, shrunk_factor(errors), rtol=1e-5, atol=1e-6)
