"""`gaussian` against scipy in float64 and an explicit Householder matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from stride_jax.decoding import gaussian

PROPERTY = settings(deadline=None, max_examples=15, derandomize=True)
mirror = jax.jit(gaussian.mirror)


def noise_and_gap(seed: int, delta: float) -> tuple[np.ndarray, np.ndarray]:
    """Float32 noise `[4, 3]` and a gap of norm `delta` in a random direction."""
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=(4, 3))
    gap = delta * direction / np.linalg.norm(direction)
    return rng.normal(size=(4, 3)).astype(np.float32), gap.astype(np.float32)


@PROPERTY
@given(seed=st.integers(0, 2**31), delta=st.floats(1e-10, 1e10))
def test_mirror_is_a_householder_matrix(seed, delta):
    """Recovered patches would not follow the target's distribution."""
    noise, gap = noise_and_gap(seed, delta)
    e = gap.astype(np.float64).ravel()
    e /= np.linalg.norm(e)
    expected = (np.eye(12) - 2 * np.outer(e, e)) @ noise.astype(np.float64).ravel()
    np.testing.assert_allclose(np.ravel(mirror(noise, gap)), expected, atol=1e-5)


@PROPERTY
@given(seed=st.integers(0, 2**31), delta=st.floats(1e-3, 20))
def test_mirror_is_its_own_inverse_and_keeps_the_norm(seed, delta):
    """Mass would be lost or doubled; recovered patches would be too wide or too narrow."""
    noise, gap = noise_and_gap(seed, delta)
    there = mirror(noise, gap)
    assert float(jnp.max(jnp.abs(there - noise))) > 1e-5  # the mirror moves the point at all
    np.testing.assert_allclose(mirror(there, gap), noise, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(there), np.linalg.norm(noise), rtol=1e-5)


@PROPERTY
@given(seed=st.integers(0, 2**31), delta=st.floats(1e-3, 10))
def test_mirror_maps_one_density_ratio_to_the_other(seed, delta):
    """The excess of q over p would not land on the excess of p over q: not a coupling."""
    noise, gap = noise_and_gap(seed, delta)
    there = np.asarray(mirror(noise, gap), np.float64)
    z, d = noise.astype(np.float64), gap.astype(np.float64)
    # x = mu_q + s z has log p / q = d . z - |d|^2 / 2; y = mu_p + s z' has it at z' + d.
    straight = np.sum(d * z) - np.sum(d * d) / 2
    swapped = np.sum(d * (there + d)) - np.sum(d * d) / 2
    np.testing.assert_allclose(-swapped, straight, atol=1e-4 * (1 + delta))


@PROPERTY
@given(seed=st.integers(0, 2**31))
def test_mirror_without_a_gap_moves_nothing(seed):
    """Equal means would divide by zero, or mirror along a direction that does not exist."""
    noise, _ = noise_and_gap(seed, 0.0)
    np.testing.assert_array_equal(mirror(noise, np.zeros_like(noise)), noise)


@PROPERTY
@given(delta=st.floats(0, 12))
def test_acceptance_is_twice_a_normal_tail(delta):
    """Predicted acceptance rates would be wrong."""
    exact = 2 * stats.norm.cdf(-delta / 2)
    np.testing.assert_allclose(gaussian.acceptance(jnp.float32(delta)), exact, rtol=1e-4)


@pytest.mark.parametrize("delta", [0.1, 1.0, 4.0])
def test_acceptance_is_the_overlap_of_the_distributions(delta):
    """The formula quoted for every speedup would not be the most that can be accepted."""

    def smaller(s: float) -> float:
        return min(stats.norm.pdf(s), stats.norm.pdf(s, delta))

    overlap, _ = integrate.quad(smaller, -15, 15 + delta, points=[delta / 2], limit=200)
    np.testing.assert_allclose(gaussian.acceptance(jnp.float32(delta)), overlap, rtol=1e-5)
