"""Training objectives against the original's recorded values and float64 integrals."""

import jax
import numpy as np
import pytest
from golden import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st

from stride_jax import metrics
from stride_jax.training import losses

PROPERTY = settings(deadline=None, max_examples=20, derandomize=True)


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    """Inputs and values of the original's losses."""
    with np.load(GOLDEN / "losses.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def test_losses_match_the_original(recorded):
    """Distillation would minimise something else than the original did."""
    mean, logvar, teacher = (recorded[name] for name in ("mean", "logvar", "teacher"))
    nll = losses.gaussian_nll(mean, logvar, teacher).mean()
    np.testing.assert_allclose(nll, recorded["nll"], rtol=1e-6)
    penalty = losses.variance_regulariser(logvar).mean()
    regularised = nll + 0.01 * penalty
    np.testing.assert_allclose(regularised, recorded["nll_with_var_reg_0_01"], rtol=1e-6)
    # the regulariser is small there: compare the difference itself, in float64
    share = 0.01 * np.maximum(-logvar.astype(np.float64) - 5, 0).mean()
    assert share > 0
    np.testing.assert_allclose(0.01 * penalty, share, rtol=1e-5)
    np.testing.assert_allclose(metrics.mse(mean, recorded["truth"]), recorded["mse"], rtol=1e-6)


@pytest.mark.parametrize(("logvar", "value"), [(-4.0, 0.0), (-5.0, 0.0), (-7.5, 2.5)])
def test_the_variance_regulariser_starts_below_minus_five(logvar, value):
    """Ordinary variances would be punished, or collapsing ones would not."""
    penalty = losses.variance_regulariser(np.full((2, 3), logvar, np.float32))
    np.testing.assert_array_equal(penalty, np.full((2, 3), value, np.float32))


def test_the_likelihood_prefers_the_true_scale():
    """A draft would learn too large or too small a variance."""
    truth = np.random.default_rng(0).normal(scale=0.7, size=4000).astype(np.float32)
    still = np.zeros_like(truth)
    slope = jax.grad(lambda logvar: losses.gaussian_nll(still, logvar + still, truth).mean())
    # stationary exactly at the logarithm of the mean square
    best = float(np.log(np.mean(truth.astype(np.float64) ** 2)))
    assert float(slope(best)) == pytest.approx(0, abs=1e-5)
    assert float(slope(best - 0.1)) < -0.01 < 0.01 < float(slope(best + 0.1))


@PROPERTY
@given(
    sigma=st.floats(0.1, 3),
    gap=st.floats(-3, 3),
    logvar=st.floats(-3, 3),
    logvar2=st.floats(-3, 3),
)
def test_kl_is_the_mean_log_ratio(sigma, gap, logvar, logvar2):
    """The distance to the target's distribution and its minimum would be wrong.

    E_p[log p - log q] by Gauss-Hermite quadrature, exact for these quadratics, in float64.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(5)
    weights = weights / weights.sum()
    expected = []
    for mean_q, lv in ((0.2, logvar), (-0.4, logvar2)):
        x = (mean_q + gap) + sigma * nodes
        log_p = -0.5 * nodes**2 - np.log(sigma)
        log_q = -0.5 * (x - mean_q) ** 2 / np.exp(lv) - 0.5 * lv
        expected.append(weights @ (log_p - log_q))
    mean_q = np.array([[0.2, -0.4]], np.float32)
    divergence = losses.gaussian_kl(
        mean_q + np.float32(gap), sigma, mean_q, np.array([[logvar, logvar2]], np.float32)
    )
    np.testing.assert_allclose(divergence, [expected], rtol=1e-4, atol=1e-5)


def test_kl_of_equal_distributions_is_zero():
    """A perfect draft would still be pushed away."""
    mean = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    logvar = np.full((3, 4), 2 * np.log(0.3), np.float32)
    np.testing.assert_allclose(losses.gaussian_kl(mean, 0.3, mean, logvar), 0, atol=1e-6)
