"""Building blocks of synthetic series, against closed forms and slow implementations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
import scipy.stats

from stride_jax.data import synthetic_effects as effects
from stride_jax.data import synthetic_parts as parts

KEY = jax.random.key(3)
SEASON = jax.jit(parts.season, static_argnums=1)
U = np.random.default_rng(0).uniform(size=parts.SEASON)


def test_scalars_cover_their_ranges() -> None:
    """A wrong bound draws periods or scales that nobody asked for."""
    ends = np.asarray([0.0, 0.5, 1.0], np.float32)
    np.testing.assert_allclose(parts.log_uniform(ends, 0.1, 10.0), [0.1, 1.0, 10.0], rtol=1e-5)
    np.testing.assert_allclose(parts.between(ends, -1.0, 3.0), [-1, 1, 3])
    quantiles = np.asarray([0.025, 0.5, 0.9], np.float32)
    np.testing.assert_allclose(parts.normal(quantiles), scipy.stats.norm.ppf(quantiles), atol=1e-4)
    u, keys = parts.draws(KEY, 5000, 3)
    assert len(keys) == 3
    assert np.all(u > 0)
    assert np.all(u < 1)
    assert scipy.stats.kstest(np.asarray(u), "uniform").pvalue > 1e-3
    assert np.isfinite(parts.normal(jnp.asarray([0.0, 1.0]))).all()


@pytest.mark.parametrize("shares", [(1.0,), (1, 1, 1), (0.6, 0.25, 0.15), (5, 0, 1)])
def test_picks_follow_their_shares(shares: tuple[float, ...]) -> None:
    """A cumulative sum that is one off never takes the last family."""
    u = (jnp.arange(6000) + 0.5) / 6000
    picks = np.asarray(jax.vmap(lambda v: parts.pick(v, shares))(u))
    got = np.bincount(picks, minlength=len(shares)) / 6000
    np.testing.assert_allclose(got, np.asarray(shares) / np.sum(shares), atol=1e-3)


@pytest.mark.parametrize("heaviness", [0.0, 0.1, 0.2])
def test_heavy_normal_has_variance_one_and_its_tail(heaviness: float) -> None:
    """Without the correction the scale of a walk would depend on its tails."""
    x = np.asarray(parts.heavy_normal(KEY, 200_000, heaviness), np.float64)
    np.testing.assert_allclose(x.var(), 1, rtol=0.05)
    z = 3.0  # P(|x| > the value that z = 3 is sent to) is that of the normal
    limit = z * np.exp(heaviness * z**2 / 2) * (1 - 2 * heaviness) ** 0.75
    np.testing.assert_allclose(np.mean(np.abs(x) > limit), 2 * scipy.stats.norm.sf(z), rtol=0.2)


def test_recurrence_is_the_loop() -> None:
    """A scan that joins in the wrong order is another process."""
    rng = np.random.default_rng(0)
    keep, add = rng.uniform(-1, 1, 50), rng.normal(size=50)
    expected, x = [], 0.0
    for c, u in zip(keep, add, strict=True):
        x = c * x + u
        expected.append(x)
    got = parts.recurrence(jnp.asarray(keep, jnp.float32), jnp.asarray(add, jnp.float32))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_filter_is_the_difference_equation() -> None:
    """A sign or a root that is off gives another autoregression."""
    roots, angles = np.asarray([0.9, 0.5]), np.asarray([0.7, 2.0])
    noise = np.asarray(jax.random.normal(KEY, (600,)))
    denominator = np.asarray([1.0])
    for r, a in zip(roots, angles, strict=True):
        denominator = np.convolve(denominator, [1, -2 * r * np.cos(a), r**2])
    expected = scipy.signal.lfilter([1.0], denominator, noise)[300:]
    got = parts.filtered(jnp.asarray(noise), jnp.asarray(roots), jnp.asarray(angles))
    np.testing.assert_allclose(got, expected, atol=2e-3)  # the start has died away


def test_spectral_noise_has_its_spectrum() -> None:
    """Power at other frequencies is another kernel."""
    density = jnp.exp(-jnp.square((parts.frequencies(256) - 0.1) / 0.02))
    keys = jax.random.split(KEY, 200)
    x = np.asarray(jax.vmap(lambda k: parts.spectral_noise(k, 256, density))(keys))
    np.testing.assert_allclose(x.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(1), 1, atol=1e-4)
    frequency, power = scipy.signal.periodogram(x)
    power = power.mean(axis=0)
    near = np.abs(frequency - 0.1) < 0.05
    assert power[near].sum() > 0.97 * power.sum()
    np.testing.assert_allclose(np.sum(power * frequency) / power.sum(), 0.1, atol=0.005)


@pytest.mark.parametrize("rate", [0.05, 0.7, 3.0, 7.9])
def test_small_counts_are_poisson(rate: float) -> None:
    """A distribution function that is one off shifts every count."""
    x = np.asarray(parts.counts(KEY, jnp.full((20_000,), rate))).astype(int)
    edge = int(scipy.stats.poisson.ppf(0.995, rate)) + 1
    observed = np.bincount(np.minimum(x, edge), minlength=edge + 1)
    expected = scipy.stats.poisson.pmf(np.arange(edge), rate)
    expected = np.append(expected, 1 - expected.sum()) * len(x)
    assert scipy.stats.chisquare(observed, expected).pvalue > 1e-3


def test_large_counts_have_the_moments_of_poisson() -> None:
    """Counts of shops are overdispersed or integers only when a family says so."""
    x = np.asarray(parts.counts(KEY, jnp.full((50_000,), 40.0)))
    np.testing.assert_array_equal(x, np.round(x))
    np.testing.assert_allclose([x.mean(), x.var()], [40, 40], rtol=0.03)
    assert np.all(np.asarray(parts.counts(KEY, jnp.full((9,), 0.0))) == 0)


@pytest.mark.parametrize("kind", [0.1, 0.7, 0.95])
def test_waveforms_repeat_and_have_unit_size(kind: float) -> None:
    """A waveform that drifts is no season; one of another size drowns in the noise or drowns it."""
    u = jnp.asarray(U[: parts.WAVEFORM], jnp.float32).at[-3].set(kind)
    phase = (jnp.arange(480) + 0.5) / 480  # no edge of a stair
    waveform = jax.jit(parts.waveform)
    one = np.asarray(waveform(u, phase))
    np.testing.assert_allclose(waveform(u, phase + 1), one, atol=2e-3)
    np.testing.assert_allclose(one.mean(), 0, atol=0.05)
    np.testing.assert_allclose(one.std(), 1, atol=0.1)


@pytest.mark.parametrize("period", [7.0, 24.0, 52.18])
def test_a_season_without_drift_has_its_period(period: float) -> None:
    """A phase in other units is a season of another length."""
    u = jnp.asarray(U, jnp.float32).at[0].set(0.0).at[3].set(0.0).at[-3].set(0.1)
    x = np.asarray(SEASON(u, 1024, period))
    power = np.abs(np.fft.rfft(x))[1:] ** 2
    frequency = np.fft.rfftfreq(1024)[1:]
    nearest = np.abs(frequency * period - np.round(frequency * period))  # of the next harmonic
    assert power[nearest < 2.5 * period / 1024].sum() > 0.9 * power.sum()


def test_slow_is_slow_and_volatility_is_clustered() -> None:
    """A modulation as quick as the season would hide it."""
    us = jax.random.uniform(KEY, (100, parts.SLOW), minval=1e-6)
    x = np.asarray(jax.vmap(lambda u: parts.slow(u, 600))(us))
    np.testing.assert_allclose(np.sqrt(np.mean(x**2)), 1, rtol=0.15)
    assert np.abs(np.diff(x)).max() < 4 * 2 * np.pi * 6 / 600 * np.abs(x).max()
    make = jax.jit(parts.volatility, static_argnums=2)
    v = np.asarray(make(jnp.asarray([0.2, 1.0]), KEY, 2000))
    assert np.all(v > 0)
    assert np.corrcoef(np.log(v[1:]), np.log(v[:-1]))[0, 1] > 0.9


def test_segments_hold_and_change_at_their_rate() -> None:
    """Levels that change at every step are noise."""
    ids = np.asarray(parts.segment_ids(KEY, 20_000, 0.01))
    assert set(np.unique(np.diff(ids))) == {0, 1}
    np.testing.assert_allclose(ids[-1], 200, rtol=0.25)
    u = jax.random.uniform(KEY, (parts.SEGMENTS,), minval=1e-6)
    held = np.asarray(parts.levels(u, jnp.asarray(ids)))
    np.testing.assert_array_equal(np.diff(held) != 0, np.diff(ids) != 0)


def test_trends_are_straight_between_bends() -> None:
    """A trend that is not piecewise linear would be a walk."""
    u = jnp.asarray(U[: parts.TREND], jnp.float32)
    x = np.asarray(parts.trend(u, KEY, 512, 50.0), np.float64)
    bends = np.abs(np.diff(x, 2)) > 1e-4
    assert 0 < bends.sum() < 25


def test_noise_is_white_or_of_one_root_with_variance_one() -> None:
    """The share of noise in a series is set by its size."""
    keys = jax.random.split(KEY, 64)
    make = jax.jit(jax.vmap(lambda u, key: parts.noise(u, key, 600), (None, 0)))
    for first, keep in ((0.2, 0.0), (0.8, 1 - 0.02 * 50**0.4)):
        x = np.asarray(make(jnp.asarray([first, 0.4, 0.5]), keys))
        np.testing.assert_allclose(x[:, 100:].var(), 1, rtol=0.1)
        lagged = np.corrcoef(x[:, 101:].ravel(), x[:, 100:-1].ravel())[0, 1]
        np.testing.assert_allclose(lagged, keep, atol=0.03)


def test_gaps_are_filled_as_numpy_does() -> None:
    """A history with gaps is interpolated in use; training must see the same."""
    rng = np.random.default_rng(0)
    for share in (0.1, 0.5, 0.97):
        x, gaps = rng.normal(size=60), rng.random(60) < share
        gaps[rng.integers(60)] = False
        time = np.arange(60)
        expected = np.interp(time, time[~gaps], x[~gaps])
        got = effects.interpolated(jnp.asarray(x, jnp.float32), jnp.asarray(gaps))
        np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("u", [0.1, 0.5, 0.9])
def test_missing_stretches_have_their_length_and_share(u: float) -> None:
    """Gaps of one step only, or half of the series, are not what sensors do."""
    gaps = np.asarray(effects.missing(jnp.asarray(u), KEY, 200_000))
    edges = np.flatnonzero(np.diff(np.concatenate([[0], gaps, [0]])))
    lengths = edges[1::2] - edges[::2]
    np.testing.assert_allclose(lengths.mean(), 40.0**u, rtol=0.15)
    np.testing.assert_allclose(gaps.mean(), 0.05, atol=0.01)


def test_effects_do_what_their_names_say() -> None:
    """An effect that changes everything would teach the model another series."""
    x = jax.random.normal(KEY, (4000,))
    u = jnp.asarray([0.6, 0.5, 0.4])
    hit = np.asarray(effects.outliers(u, jax.random.key(9), x) != x)
    np.testing.assert_allclose(hit.mean(), 0.001 * 20**0.5, rtol=0.6)
    after = np.asarray(effects.shifted(u, x))
    np.testing.assert_array_equal(after[:2400], x[:2400])
    fit = np.polyfit(np.asarray(x[2400:]), after[2400:], 1, full=True)
    assert fit[1] < 1e-4  # a gain and a level
    low = np.asarray(effects.censored(u, x))
    assert (low == low.min()).mean() > 0.2
    np.testing.assert_array_equal(low[low > low.min()], x[low > low.min()])
    steps = np.asarray(effects.rounded(jnp.asarray(0.5), x)) / 0.02**0.5
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)


def test_volatility_is_as_wide_at_the_start_as_later() -> None:
    """Every walk would begin as calm as the mean, and a model learn that it does."""
    u, keys = jnp.asarray([0.1, 1.0]), jax.random.split(jax.random.key(0), 2000)
    logs = np.log(jax.vmap(lambda key: parts.volatility(u, key, 8))(keys)) / 0.8
    np.testing.assert_allclose(logs.std(axis=0), 1, rtol=5 / np.sqrt(4000))
