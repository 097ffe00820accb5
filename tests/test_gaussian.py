"""`gaussian` against scipy in float64 and an explicit Householder matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stride_jax import gaussian
from stride_jax.coupling import Round, RuleParams, maximal

PROPERTY = settings(deadline=None, max_examples=12, derandomize=True)
log_ratio = jax.jit(gaussian.log_ratio)
reflect = jax.jit(gaussian.reflect)
mean_gap = jax.jit(gaussian.mean_gap)

SIGMA_SHAPES = {"scalar": (), "variable": (1, 3), "value": (4, 3)}


def laws(seed: int, shape: tuple[int, int], sigma_shape: tuple[int, ...], delta: float):
    """Float32 `(x, mean_p, mean_q, sigma)`: x from N(mean_q, sigma^2), means `delta` apart."""
    rng = np.random.default_rng(seed)
    sigma = rng.uniform(0.3, 2.0, sigma_shape)
    direction = rng.normal(size=shape)
    mean_q = rng.normal(size=shape)
    mean_p = mean_q + sigma * delta * direction / np.linalg.norm(direction)
    x = mean_q + sigma * rng.normal(size=shape)
    return tuple(np.asarray(value, np.float32) for value in (x, mean_p, mean_q, sigma))


def exact_log_ratio(x, mean_p, mean_q, sigma) -> float:
    """The difference of two sums of scipy log densities, in float64."""
    x, mean_p, mean_q, sigma = (np.float64(value) for value in (x, mean_p, mean_q, sigma))
    p, q = stats.norm.logpdf(x, mean_p, sigma), stats.norm.logpdf(x, mean_q, sigma)
    return float(np.sum(p) - np.sum(q))


def exact_reflect(x, mean_p, mean_q, sigma) -> np.ndarray:
    """The mirrored point by an explicit Householder matrix, in float64."""
    x, mean_p, mean_q, sigma = (np.float64(value) for value in (x, mean_p, mean_q, sigma))
    direction = ((mean_p - mean_q) / sigma).ravel()
    direction /= np.linalg.norm(direction)
    mirror = np.eye(direction.size) - 2 * np.outer(direction, direction)
    noise = mirror @ ((x - mean_q) / sigma).ravel()
    return mean_p + sigma * noise.reshape(x.shape)


@pytest.mark.parametrize("shape", SIGMA_SHAPES.values(), ids=SIGMA_SHAPES)
@PROPERTY
@given(seed=st.integers(0, 2**31), delta=st.floats(0, 30))
def test_log_ratio_is_the_difference_of_log_densities(shape, seed, delta):
    """Proposals would be accepted with wrong probabilities for that form of sigma."""
    values = laws(seed, (4, 3), shape, delta)
    found = float(log_ratio(*values))
    np.testing.assert_allclose(found, exact_log_ratio(*values), rtol=1e-5, atol=1e-5 * (1 + delta))


def test_log_ratio_in_float32_at_dimension_10000():
    """Large patches would lose the acceptance ratio to rounding; two large squares do lose it."""
    errors, naive_errors = [], []
    for seed in range(10):
        x, mean_p, mean_q, sigma = laws(seed, (100, 100), (), 0.5)
        exact = exact_log_ratio(x, mean_p, mean_q, sigma)
        squares = [np.sum(np.square((x - mean) / sigma)) for mean in (mean_q, mean_p)]
        assert squares[0].dtype == np.float32
        errors.append(abs(float(log_ratio(x, mean_p, mean_q, sigma)) - exact))
        naive_errors.append(abs(float(squares[0] - squares[1]) / 2 - exact))
    assert max(errors) < 1e-5
    assert max(naive_errors) > 1e-4  # what the bound above keeps out


@PROPERTY
@given(seed=st.integers(0, 2**31), delta=st.floats(0, 100))
def test_mean_gap_is_the_scaled_distance(seed, delta):
    """The acceptance formula would be evaluated at a wrong distance."""
    _, mean_p, mean_q, sigma = laws(seed, (4, 3), (4, 3), delta)
    gap = float(mean_gap(mean_p, mean_q, sigma))
    np.testing.assert_allclose(gap, delta, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", SIGMA_SHAPES.values(), ids=SIGMA_SHAPES)
@PROPERTY
@given(seed=st.integers(0, 2**31), delta=st.floats(0.01, 20))
def test_reflect_is_a_householder_matrix_on_the_noise(shape, seed, delta):
    """Recovered patches would not follow the target's law."""
    values = laws(seed, (4, 3), shape, delta)
    np.testing.assert_allclose(reflect(*values), exact_reflect(*values), atol=5e-4)


@PROPERTY
@given(seed=st.integers(0, 2**31), delta=st.floats(0.01, 20))
def test_reflect_is_undone_with_the_laws_swapped(seed, delta):
    """The map would not be a bijection between the laws, so mass would be lost or doubled."""
    x, mean_p, mean_q, sigma = laws(seed, (4, 3), (4, 3), delta)
    there = reflect(x, mean_p, mean_q, sigma)
    assert float(jnp.max(jnp.abs(there - x))) > 1e-4  # the mirror moves the point at all
    np.testing.assert_allclose(reflect(there, mean_q, mean_p, sigma), x, atol=2e-4)


@PROPERTY
@given(seed=st.integers(0, 2**31), delta=st.floats(0, 20))
def test_reflect_keeps_the_norm_of_the_noise(seed, delta):
    """Recovered patches would be too wide or too narrow."""
    x, mean_p, mean_q, sigma = laws(seed, (4, 3), (4, 3), delta)
    noise = (reflect(x, mean_p, mean_q, sigma) - mean_p) / sigma
    before = np.linalg.norm((x - mean_q) / sigma)
    np.testing.assert_allclose(np.linalg.norm(noise), before, rtol=2e-4)


@PROPERTY
@given(seed=st.integers(0, 2**31), delta=st.floats(0, 10))
def test_reflect_maps_one_density_ratio_to_the_other(seed, delta):
    """The excess of q over p would not land on the excess of p over q: not a coupling."""
    x, mean_p, mean_q, sigma = laws(seed, (4, 3), (4, 3), delta)
    mirrored = reflect(x, mean_p, mean_q, sigma)
    swapped = float(log_ratio(mirrored, mean_q, mean_p, sigma))
    straight = float(log_ratio(x, mean_p, mean_q, sigma))
    np.testing.assert_allclose(swapped, straight, atol=2e-4 * (1 + delta))


@PROPERTY
@given(seed=st.integers(0, 2**31), shape=st.sampled_from(list(SIGMA_SHAPES.values())))
def test_reflect_with_equal_means_moves_nothing(seed, shape):
    """Equal means would divide by zero, or mirror along a direction that does not exist."""
    x, mean, _, sigma = laws(seed, (4, 3), shape, 0.0)
    found = reflect(x, mean, mean, sigma)
    np.testing.assert_allclose(found, mean + sigma * ((x - mean) / sigma), atol=1e-5)


@pytest.mark.parametrize("shape", SIGMA_SHAPES.values(), ids=SIGMA_SHAPES)
def test_sample_has_the_mean_and_the_scale(key, shape):
    """The draft's proposals would not come from the law that the ratio assumes."""
    _, mean, _, sigma = laws(0, (4, 3), shape, 0.0)
    draw = jax.vmap(gaussian.sample, in_axes=(0, None, None))
    draws = draw(jax.random.split(key, 5000), mean, sigma)
    noise = (np.asarray(draws, np.float64) - mean) / sigma
    worst = min(stats.kstest(column, "norm").pvalue for column in noise.reshape(5000, -1).T)
    assert worst > 1e-4


@PROPERTY
@given(delta=st.floats(0, 12))
def test_acceptance_is_twice_a_normal_tail(delta):
    """Predicted acceptance rates would be wrong."""
    exact = 2 * stats.norm.cdf(-delta / 2)
    np.testing.assert_allclose(gaussian.acceptance(jnp.float32(delta)), exact, rtol=1e-4)


@jax.jit
def accepted_by_maximal(keys: jax.Array, mean_p, mean_q, sigma) -> jax.Array:
    """Whether `maximal` accepts one fresh proposal, for each key."""

    def trial(key: jax.Array) -> jax.Array:
        draft, rule, fresh = jax.random.split(key, 3)
        proposals = gaussian.sample(draft, mean_q, sigma)[None]
        noise = jax.random.normal(fresh, mean_p.shape)
        means = jnp.stack([mean_p, mean_p])
        current = Round(proposals, mean_q[None], means, sigma, noise)
        return maximal(rule, current, RuleParams()).num_accepted

    return jax.vmap(trial)(keys)


@pytest.mark.parametrize("delta", [0.1, 0.7, 1.5, 3.0])
@pytest.mark.parametrize("shape", [(1, 1), (4, 3), (12, 5)])
def test_acceptance_is_the_frequency_of_maximal(key, delta, shape):
    """The formula quoted for every speedup would not describe the rule that runs."""
    count = 10_000
    values = laws(7, shape, shape, delta)
    rate = float(jnp.mean(accepted_by_maximal(jax.random.split(key, count), *values[1:])))
    expected = float(gaussian.acceptance(mean_gap(*values[1:])))
    assert abs(rate - expected) < 5 * np.sqrt(expected * (1 - expected) / count)
