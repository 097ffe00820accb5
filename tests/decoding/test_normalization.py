"""Normalisation and cache against numpy in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stride_jax.decoding.normalization import (
    EPS,
    Moments,
    merge,
    patch_moments,
    std,
    window_stats,
)
from stride_jax.decoding.normalization import running_moments as _running_moments

PROPERTY = settings(deadline=None, max_examples=8, derandomize=True)
running_moments = jax.jit(_running_moments, compiler_options={"xla_backend_optimization_level": 0})
"""Compiled; one by one its small operations take seconds for every new shape."""


def values(*shape: int, seed: int = 0) -> np.ndarray:
    """Random numbers, every variable with another level and spread."""
    rng = np.random.default_rng(seed)
    spread = 3.0 ** np.arange(shape[-1])
    return (spread * (rng.normal(size=shape) + 2)).astype(np.float32)


def prefix_moments(patches: np.ndarray) -> list[np.ndarray]:
    """Count, mean and m2 of each prefix of `[N, P, C]`, in float64."""
    rows = patches.astype(np.float64)
    parts = [rows[: n + 1].reshape(-1, rows.shape[-1]) for n in range(len(rows))]
    means = [p.mean(axis=0) for p in parts]
    m2 = [((p - m) ** 2).sum(axis=0) for p, m in zip(parts, means, strict=True)]
    return [np.array([len(p) for p in parts]), np.array(means), np.array(m2)]


def assert_moments(found: Moments, expected, rtol: float = 2e-5) -> None:
    """Equal up to the rounding of float32 sums."""
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-5)


@pytest.mark.parametrize(
    ("count", "patch_len", "num_vars"), [(1, 1, 1), (2, 4, 3), (6, 1, 2), (9, 3, 2)]
)
def test_running_moments_are_those_of_each_prefix(count, patch_len, num_vars):
    """A causal model would be normalised by other values than everything up to the patch."""
    patches = values(count, patch_len, num_vars, seed=count)
    assert_moments(running_moments(jnp.asarray(patches)), prefix_moments(patches))


def test_running_moments_keep_series_apart():
    """A forecast would be normalised by the other series of its batch."""
    patches = values(2, 3, 5, 4, 2)
    found = running_moments(jnp.asarray(patches))
    assert found.total.shape == (2, 3, 5)
    assert found.mean.shape == found.m2.shape == (2, 3, 5, 2)
    for i in range(2):
        for j in range(3):
            one = jax.tree.map(lambda x, i=i, j=j: x[i, j], found)
            assert_moments(one, prefix_moments(patches[i, j]))


@PROPERTY
@given(cuts=st.lists(st.integers(0, 6), max_size=3))
def test_moments_do_not_depend_on_where_the_series_was_cut(cuts):
    """The caches of one round would hold other statistics than one pass over everything."""
    patches = values(6, 3, 2)
    edges = [0, *sorted(cuts), 6]
    before, pieces = None, []
    for start, stop in itertools.pairwise(edges):
        if stop == start:
            continue
        piece = running_moments(jnp.asarray(patches[start:stop]), before)
        pieces.append(piece)
        before = jax.tree.map(lambda x: x[-1], piece)
    joined = jax.tree.map(lambda *x: jnp.concatenate(x), *pieces)
    assert_moments(joined, prefix_moments(patches))


@PROPERTY
@given(sizes=st.tuples(*[st.sampled_from([1, 2, 20])] * 3))
def test_merging_is_associative(sizes):
    """The parallel scan, which merges in any grouping, would give other statistics."""
    parts = [jnp.asarray(values(n, 2, seed=i)) for i, n in enumerate(sizes)]
    a, b, c = (patch_moments(p) for p in parts)
    whole = patch_moments(jnp.concatenate(parts))
    assert_moments(merge(merge(a, b), c), whole)
    assert_moments(merge(a, merge(b, c)), whole)
    nothing = Moments(jnp.zeros(()), jnp.zeros(2), jnp.zeros(2))
    assert_moments(merge(nothing, a), a, rtol=0)
    assert_moments(merge(a, nothing), a, rtol=0)


def test_moments_far_from_zero_do_not_cancel():
    """A series at a high level would get a spread of zero or of garbage."""
    rng = np.random.default_rng(0)
    patches = (1e5 + np.round(16 * rng.normal(size=(50, 4, 1))) / 16).astype(np.float32)
    found = running_moments(jnp.asarray(patches))
    np.testing.assert_allclose(
        std(found)[-1], np.sqrt(patches.astype(np.float64).var() + EPS)[None], rtol=2e-3
    )


def test_statistics_of_low_precision_values_are_float32():
    """The level of a bfloat16 series would be rounded to 8 bits, and a mean would drift."""
    patches = jnp.asarray(values(6, 4, 2), jnp.bfloat16)
    found = running_moments(patches)
    assert_moments(found, prefix_moments(np.asarray(patches, np.float32)))
    mean, spread = window_stats(patches.reshape(-1, 2))
    assert mean.dtype == spread.dtype == jnp.float32


def test_std_is_that_of_the_window():
    """The causal scale after the last patch would not be the scale of the whole window."""
    patches = jnp.asarray(values(6, 4, 3))
    mean, spread = window_stats(patches.reshape(-1, 3))
    last = jax.tree.map(lambda x: x[-1], running_moments(patches))
    np.testing.assert_allclose(last.mean, mean[0], rtol=1e-5)
    np.testing.assert_allclose(std(last), spread[0], rtol=1e-5)
    rows = np.asarray(patches, np.float64).reshape(-1, 3)
    np.testing.assert_allclose(spread[0], np.sqrt(rows.var(axis=0) + 1e-5), rtol=1e-5)


def test_constant_values_have_the_least_std():
    """A flat stretch of a sensor would be divided by zero."""
    patches = jnp.full((5, 4, 2), 7.0)
    np.testing.assert_allclose(std(running_moments(patches)), np.full((5, 2), 1e-5**0.5), rtol=1e-6)
    np.testing.assert_allclose(window_stats(patches[0])[1], np.full((1, 2), 1e-5**0.5), rtol=1e-6)
