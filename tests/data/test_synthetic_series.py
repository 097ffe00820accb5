"""Families of synthetic series: moments and properties, and the windows drawn from them."""

import functools

import jax
import numpy as np
import pytest
import scipy.signal
import scipy.stats

from stride_jax.data import synthetic_families
from stride_jax.data import synthetic_families as families
from stride_jax.data import synthetic_series as synthetic
from stride_jax.data.synthetic_series import FAMILIES, draw_windows, shares
from stride_jax.errors import InputError

LENGTH = 384
COUNT = 60


@functools.cache
def drawn(name: str, seed: int = 0) -> np.ndarray:
    """`[COUNT, LENGTH]` of a family."""
    keys = jax.random.split(jax.random.key(seed), COUNT)
    return np.asarray(program(name)(keys), np.float64)


@functools.cache
def program(name: str):
    """One compilation for each family."""
    family = FAMILIES[name][0]
    return jax.jit(jax.vmap(lambda key: family(key, LENGTH)))


def correlation(x: np.ndarray, lag: int = 1) -> np.ndarray:
    """Autocorrelation of each row."""
    a, b = x[:, :-lag], x[:, lag:]
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    return (a * b).mean(1) / np.sqrt((a**2).mean(1) * (b**2).mean(1) + 1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_finite_and_follows_its_key(name: str) -> None:
    """A NaN ends a training of days; a series that does not follow its key cannot be made again."""
    x = drawn(name)
    assert x.shape == (COUNT, LENGTH)
    assert np.isfinite(x).all()
    keys = jax.random.split(jax.random.key(0), COUNT)
    np.testing.assert_array_equal(program(name)(keys), x)
    assert len(np.unique(x[:, -1])) > (3 if name in ("counted", "intermittent") else COUNT // 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_finite_whatever_its_key(name: str) -> None:
    """A NaN that one series in thousands has ends a training of days."""
    for seed in range(1, 100):
        assert np.isfinite(program(name)(jax.random.split(jax.random.key(seed), COUNT))).all()


def test_one_series_is_the_same_alone_and_in_a_batch() -> None:
    """What is drawn must not depend on what else is."""
    key = jax.random.split(jax.random.key(0), COUNT)[7]
    alone = jax.jit(lambda key: synthetic_families.walk(key, LENGTH))(key)
    np.testing.assert_allclose(alone, drawn("walk")[7], rtol=1e-4, atol=1e-3)


def test_seasonal_and_calendar_series_have_spectral_lines() -> None:
    """A season whose power is not at its period and harmonics teaches nothing."""
    for name, least in (("seasonal", 0.45), ("calendar", 0.3), ("waves", 0.8)):
        x = drawn(name)
        x = scipy.signal.detrend(x)
        power = np.abs(np.fft.rfft(x * np.hanning(LENGTH))) ** 2
        top = np.sort(power, axis=1)[:, -25:].sum(1) / power.sum(1)
        noise = np.abs(np.fft.rfft(np.random.default_rng(0).normal(size=(COUNT, LENGTH)))) ** 2
        of_noise = np.sort(noise, axis=1)[:, -25:].sum(1) / noise.sum(1)
        assert np.mean(top > of_noise.max()) > least, name


def test_calendar_series_know_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hourly clock must have days of 24 steps."""
    hours = [float(i == 0) for i in range(len(synthetic_families.CLOCKS))]
    monkeypatch.setattr(synthetic_families, "CLOCK_SHARES", hours)
    keys = jax.random.split(jax.random.key(1), COUNT)
    make = jax.jit(jax.vmap(lambda key: synthetic_families.calendar(key, 24 * 14)))
    x = np.asarray(make(keys))
    days = x.reshape(COUNT, 14, 24)
    by_hour = days.mean(1).var(1) / x.var(1)
    by_other = x[:, : 14 * 23].reshape(COUNT, 14, 23).mean(1).var(1) / x.var(1)
    assert np.median(by_hour) > 3 * np.median(by_other)


def test_gaussian_processes_are_centred_and_most_are_smooth() -> None:
    """A spectrum taken for its root changes how rough they are."""
    x = drawn("gaussian_process")
    np.testing.assert_allclose(x.mean(1), 0, atol=0.3)
    assert np.median(correlation(x)) > 0.9
    z = x[:, ::48].ravel()
    assert abs(scipy.stats.skew(z)) < 0.5
    assert abs(scipy.stats.kurtosis(z)) < 1.0


def test_autoregressions_are_standardised_and_stationary() -> None:
    """A root outside the unit circle explodes."""
    x = drawn("autoregression")
    np.testing.assert_allclose(x.mean(1), 0, atol=1e-4)
    np.testing.assert_allclose(x.std(1), 1, atol=1e-3)
    halves = np.log(x[:, : LENGTH // 2].std(1) / x[:, LENGTH // 2 :].std(1))
    assert abs(halves.mean()) < 0.2
    assert np.std(correlation(x)) > 0.1  # of many kinds


def test_steps_of_a_walk_are_uncorrelated_and_its_spread_grows() -> None:
    """The best forecast of a walk is its last value; steps that correlate have another one."""
    x = drawn("walk")
    steps = np.diff(x, axis=1)
    signs = np.sign(steps)
    assert abs(correlation(signs).mean()) < 0.03
    spread = [np.mean(np.square(x[:, n:] - x[:, :-n]), 1) for n in (4, 64)]
    np.testing.assert_allclose(np.median(spread[1] / spread[0]), 16, rtol=0.5)
    assert np.mean(scipy.stats.kurtosis(steps, axis=1) > 0.5) > 0.5  # heavy tails, clusters


def test_reverting_series_do_not_wander_off() -> None:
    """A regime that does not pull back is a walk."""
    x = drawn("reverting")
    first, second = np.abs(x[:, : LENGTH // 2]).mean(), np.abs(x[:, LENGTH // 2 :]).mean()
    np.testing.assert_allclose(first / second, 1, rtol=0.35)
    assert np.abs(x).max() < 60


def test_counts_are_whole_and_spread_like_their_mean() -> None:
    """Counts that are not whole or below zero are no counts."""
    x = drawn("counted")
    np.testing.assert_array_equal(x, np.round(x))
    assert x.min() >= 0
    ratio = x.var(1) / np.maximum(x.mean(1), 0.05)
    assert np.quantile(ratio, 0.02) > 0.5  # at least about that of Poisson


def test_intermittent_demand_is_mostly_nothing() -> None:
    """Demand at every step is another family."""
    x = drawn("intermittent")
    assert x.min() >= 0
    assert np.median((x == 0).mean(1)) > 0.5
    assert (x > 0).any(1).mean() > 0.9


def test_peaks_rise_over_a_floor() -> None:
    """Peaks upside down, or below zero, are what no illness and no sun does."""
    x = drawn("peaks")
    assert x.min() >= 0
    assert np.median(scipy.stats.skew(x, axis=1)) > 0.3


def test_bursts_are_skewed_and_rest_at_a_level() -> None:
    """Rain is zero most of the time."""
    x = drawn("bursts")
    quiet = np.ptp(x, axis=1) == 0  # nothing happened at all
    assert quiet.mean() < 0.2
    x = x[~quiet]
    assert np.median(scipy.stats.skew(x, axis=1)) > 1
    low = np.quantile(x, 0.1, axis=1)[:, None]
    assert np.median((x - low < 0.1 * np.ptp(x, axis=1)[:, None]).mean(1)) > 0.4


def test_stepped_series_hold_their_levels() -> None:
    """Most steps change little, a few a lot."""
    steps = np.abs(np.diff(drawn("stepped"), axis=1))
    few = np.sort(steps, axis=1)[:, -LENGTH // 8 :].sum(1) / steps.sum(1)
    assert np.median(few) > 0.4


def test_growing_series_go_somewhere() -> None:
    """A trend whose ends are equal is none."""
    x = drawn("growing")
    assert np.median(correlation(x, 8)) > 0.8
    moved = np.abs(x[:, -20:].mean(1) - x[:, :20].mean(1)) / x.std(1)
    assert np.median(moved) > 1


def test_shares_sum_to_one_and_leave_families_out() -> None:
    """A family that cannot be left out has no ablation; an unknown one must not pass in silence."""
    np.testing.assert_allclose(sum(shares().values()), 1)
    assert set(shares()) == set(FAMILIES)
    assert "walk" not in shares(("walk",))
    with pytest.raises(InputError, match="no family 'wolk'; the families are"):
        shares(("wolk",))
    with pytest.raises(InputError, match="no family of synthetic series is left"):
        shares(tuple(FAMILIES))


CHEAP = tuple(name for name in FAMILIES if name not in ("walk", "waves", "autoregression"))


def test_windows_are_standardised_and_follow_the_key() -> None:
    """Level and scale must not tell families apart, and a resumed run must see the same windows."""
    make = jax.jit(lambda key: draw_windows(key, 48, 128, CHEAP))
    x = np.asarray(make(jax.random.key(5)))
    assert x.shape == (48, 128, 1)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x.mean(1), 0, atol=1e-4)
    np.testing.assert_allclose(x.std(1), 1, atol=1e-3)
    np.testing.assert_array_equal(make(jax.random.key(5)), x)
    assert not np.isclose(make(jax.random.key(6)), x).all(axis=1).any()


@pytest.mark.slow
def test_windows_are_the_same_where_series_are_drawn_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On an accelerator a switch under vmap takes the place of the loop; the series must not."""
    looped = jax.jit(lambda key: draw_windows(key, 12, 64, CHEAP))(jax.random.key(2))

    def elsewhere(*args, cpu, default):
        return default(*args)

    monkeypatch.setattr(jax.lax, "platform_dependent", elsewhere)
    together = jax.jit(lambda key: draw_windows(key, 12, 64, CHEAP))(jax.random.key(2))
    np.testing.assert_allclose(together, looped, atol=2e-3)


@pytest.mark.slow
def test_windows_of_all_families_are_finite() -> None:
    """One NaN in a million windows ends the training."""
    make = jax.jit(lambda key: draw_windows(key, 256, 256))
    for seed in range(40):
        assert np.isfinite(make(jax.random.key(seed))).all()


def test_effects_do_not_depend_on_the_units_of_a_family(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outliers, limits and rounding would be too small to see in a family of large numbers."""

    def drawn(scale: float) -> jax.Array:
        family = (lambda key, length: scale * jax.random.normal(key, (length,)), 1.0)
        monkeypatch.setattr(synthetic, "FAMILIES", {"noise": family})
        return jax.vmap(lambda key: synthetic.draw(key, 64))(
            jax.random.split(jax.random.key(0), 64)
        )

    np.testing.assert_allclose(drawn(1e3), drawn(1.0), atol=2e-3)


def test_a_reverting_series_begins_at_its_level() -> None:
    """Every series would begin at zero, and a model learn to come back there."""
    keys = jax.random.split(jax.random.key(0), 1000)
    drawn = np.abs(jax.vmap(lambda key: families.reverting(key, 64))(keys))
    print(np.median(drawn[:, 0]), np.median(drawn[:, 1:], axis=0))
    assert np.median(drawn[:, 0]) > 0.5 * np.median(drawn[:, 1:])
