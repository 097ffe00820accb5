"""sigma of a history: of short ones, gappy ones, constant ones, and after a change of level."""

import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.frames import Repeat
from helpers.levels import DAY, L, Level, P, cached
from scipy import stats

from stride_jax.decoding.processes import cached_process, window_process
from stride_jax.errors import InputError, InputWarning
from stride_jax.forecasting.forecast import forecast
from stride_jax.types import PatchDistribution

BAND = stats.norm.ppf(0.9)
"""Standard deviations on either side of the middle of an 80 % interval."""


def mean_of_window(window: jax.Array) -> jax.Array:
    """The same for the window process."""
    return jnp.broadcast_to(window.mean(axis=0), (P, window.shape[1]))


def last_patch(window: jax.Array) -> jax.Array:
    """The last patch again."""
    return window[-P:]


PROCESSES = {
    "cached mean": cached(Level(), context_len=L),
    "cached repeat": cached(Repeat(), context_len=L),
    "window mean": window_process(mean_of_window, P, context_len=L),
    "window repeat": window_process(last_patch, P, context_len=L),
}
each_process = pytest.mark.parametrize("name", PROCESSES)


def sigma_of(name: str, history: Any, **settings: Any) -> np.ndarray:
    """What a forecast of one patch reports."""
    given = {"num_samples": 0, **settings}
    return forecast(PROCESSES[name], history, P, **given).sigma


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """White noise of std 1."""
    return np.random.default_rng(seed).normal(size=shape)


# --- gaps ----------------------------------------------------------------------------------------


def with_gaps(kind: str, seed: int) -> np.ndarray:
    """Noise of std 1 in which some of the last eight patches, or parts of them, are missing."""
    history = noise(16 * P, seed=seed)
    patches = history.reshape(-1, P)  # a view
    if kind == "every third patch":
        patches[-8:-1:3] = np.nan
    if kind == "half of a patch":
        patches[-8::2, 1:3] = np.nan
    if kind == "three patches":
        patches[-4:-1] = np.nan
    return history


@each_process
@pytest.mark.parametrize("kind", ["every third patch", "half of a patch", "three patches"])
def test_values_that_were_filled_in_are_no_errors_of_the_model(name: str, kind: str) -> None:
    """A model repeats a straight line well: gaps would make the band narrow."""
    histories = [with_gaps(kind, seed) for seed in range(40)]
    whole = [noise(16 * P, seed=seed) for seed in range(40)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)  # a test of its own

        found = np.mean(np.square(sigma_of(name, histories)))
    expected = np.mean(np.square(sigma_of(name, whole)))
    # the repeated line of a gap is closer to the mean than noise is, so that some is lost
    assert 0.7 * expected < found < 1.35 * expected


@each_process
def test_only_observed_values_enter_sigma(name: str) -> None:
    """The exact sum: patches that are missing count nothing, not zero."""
    history = noise(16 * P)
    gappy = history.copy()
    gappy[-2 * P : -P] = np.nan
    found = sigma_of(name, gappy)
    filled = np.interp(
        np.arange(len(gappy)), np.flatnonzero(~np.isnan(gappy)), gappy[~np.isnan(gappy)]
    )
    mean = {"mean": lambda seen: seen.mean(), "repeat": lambda seen: seen[-P:]}[name.split()[1]]
    errors = []
    for n in range(8, 16):
        if n != 14:
            seen = filled[: n * P]
            # a window sees the last steps, and the cached process the context before all eight
            seen = seen[-L:] if name.startswith("window") else seen[-(L + (n - 8) * P) :]
            errors.append(np.mean((filled[n * P :][:P] - mean(seen)) ** 2))
    context = gappy[-L:]
    context = context[~np.isnan(context)]
    few = (len(context) + 1) / (len(context) - 1) * (stats.t.ppf(0.9, len(context) - 1) / BAND) ** 2
    off = np.mean(
        (mean(filled[-L:] if name.startswith("window") else filled) - context.mean()) ** 2
    )
    alone = context.var() * few + min(off, 4 * context.var() * few)
    prior = alone / 8 + context.var() / 4 * 7 / 8
    np.testing.assert_allclose(found, math.sqrt((sum(errors) + prior) / 8), rtol=1e-5)


@pytest.mark.parametrize(("lost", "share"), [(17, "53.1%"), (31, "96.9%"), (28, "87.5%")])
def test_a_forecast_from_made_up_values_is_refused(lost: int, share: str) -> None:
    """One mistyped year in the last of 1,000 rows makes up 315,000 hours, all forecast from."""
    history = noise(64)
    history[-lost - 1 : -1] = np.nan
    with pytest.raises(InputError, match=f"series 0 has no values in {share} of the steps"):
        sigma_of("cached mean", history)
    pair = [noise(64, 2), np.stack([noise(64), history], axis=1)]
    with pytest.raises(InputError, match=f"series 'b', variable 1 has no .* {share} of the steps"):
        sigma_of("cached mean", pair, ids=["a", "b"])


def test_a_forecast_from_some_made_up_values_says_so() -> None:
    """Nobody would see that a third of what a forecast rests on are straight lines."""
    history = noise(64)
    history[-12:-2] = np.nan
    with pytest.warns(InputWarning, match=r"^series 1: up to 31.2% of the steps"):
        sigma_of("cached mean", [noise(64), history])
    history[-20] = np.nan
    history[-12:-6] = noise(6)
    sigma_of("cached mean", history)  # 5 of 32 are no news


# --- short histories -----------------------------------------------------------------------------


@pytest.mark.parametrize("model", [Level(), Repeat()], ids=["mean", "repeat"])
@pytest.mark.parametrize("steps", [2, 3, 6, 12, 24])
def test_the_band_of_a_short_history_is_wide_enough(model: Any, steps: int) -> None:
    """The band of a new product would be a third as wide as its past already was.

    The mean of so many values of noise +- 1.28 of their standard deviations holds 51 to 78 % of the
    next ones, by Student's t. Four standard errors of 2,000 histories are at most .035.
    """
    histories, truth = noise(2000, steps), noise(2000, DAY, seed=1)
    process = cached(model, DAY)
    found = forecast(process, list(histories), DAY, num_samples=0)
    off = np.abs(truth - found.mean) <= BAND * found.sigma[:, None]
    inside = off.mean(axis=1)
    simple = 1 - 2 * stats.t.sf(BAND / math.sqrt(1 + 1 / steps), steps - 1)
    assert inside.mean() > simple - 4 * inside.std() / math.sqrt(2000)


def test_without_errors_sigma_is_the_corrected_spread() -> None:
    """The formula of the documentation: Student's t for the next value of as many."""
    for steps in (2, 5, 24):
        history = np.sort(noise(steps))[::-1]
        found = forecast(cached(Level(), DAY, DAY), history, DAY, num_samples=0).sigma
        wide = np.std(history, ddof=1) * math.sqrt(1 + 1 / steps)
        padded = np.concatenate([np.repeat(history[:1], DAY - steps), history])
        off = (padded.mean() - history.mean()) ** 2
        wide = (wide * stats.t.ppf(0.9, steps - 1) / BAND) ** 2
        np.testing.assert_allclose(found, math.sqrt(wide + min(off, 4 * wide)), rtol=1e-4)


@pytest.mark.parametrize("value", [5.0, -3.0, 1e-9, 1e9, 0.0])
@pytest.mark.parametrize("name", ["cached mean", "cached repeat"])
def test_one_value_has_a_band_around_it_and_a_warning(name: str, value: float) -> None:
    """[5.0] would be forecast as something beside 5, certain to one in ten thousand."""
    settings = {"num_samples": 400, "non_negative": False}
    with pytest.warns(InputWarning, match="series 0: one value, or all the same") as caught:
        found = forecast(PROCESSES[name], [value], P, **settings)
    assert len(caught) == 1
    np.testing.assert_allclose(found.sigma, abs(value) or 1.0, rtol=1e-6)
    low, _, high = found.quantiles
    assert (low < value).all()
    assert (value < high).all()
    # a tenth percentile of 400 draws is off by .085 standard deviations
    np.testing.assert_allclose(high - low, 2 * BAND * found.sigma, rtol=0.25)


def test_a_few_values_that_are_the_same_are_less_certain_than_many() -> None:
    """Two sales of one piece each would be followed by one piece, for sure."""
    for steps in (2, 3):
        with pytest.warns(InputWarning, match="all the same"):
            found = forecast(PROCESSES["cached repeat"], [7.0] * steps, P, num_samples=0)
        np.testing.assert_allclose(found.sigma, 7 / steps)
    assert sigma_of("cached repeat", [7.0] * L) < 1e-5  # a machine that stands still


def test_a_warning_names_the_series_once_and_only_where_sigma_is_measured() -> None:
    """A thousand new products would give a thousand lines."""
    histories = [noise(8), *([float(i)] for i in range(1, 7))]
    with pytest.warns(InputWarning, match="series 1, series 2, series 3 and 3 more: ") as caught:
        sigma_of("cached mean", histories)
    assert len(caught) == 1
    sigma_of("cached mean", histories, sigma=1.0)


# --- what is over before the context -------------------------------------------------------------


def before(kind: str, size: float) -> np.ndarray:
    """Noise of std 1 whose last L steps are its context, after something else."""
    history = noise(L + 12 * P)
    if kind == "another level":
        history[:-L] += size
    if kind == "another spread":
        history[:-L] *= size
    if kind == "a spike":
        history[-L - P - 2] = size
    return history


@each_process
@pytest.mark.parametrize("size", [10.0, -100.0, 1e6])
@pytest.mark.parametrize("kind", ["another level", "another spread", "a spike"])
def test_what_is_over_before_the_context_leaves_sigma(name: str, kind: str, size: float) -> None:
    """A level shift that the forecast does not see would multiply the width of its band."""
    expected = sigma_of(name, noise(L + 12 * P)[-L:])
    np.testing.assert_allclose(sigma_of(name, before(kind, size)), expected, rtol=0.35)


@each_process
def test_a_trend_is_measured_on_what_came_before(name: str) -> None:
    """A history that always rose would lose the errors that tell its sigma."""
    history = np.arange(24.0 * P) + noise(24 * P)
    lost = sigma_of(name, history[-L:])
    found = sigma_of(name, history)
    assert found != lost
    if name == "window repeat":  # off by P a step, and by two draws of noise
        np.testing.assert_allclose(found, math.sqrt(P**2 + 2), rtol=0.3)


STDS = jnp.linspace(0.1, 0.9, P)[:, None]
"""A std for each step of a patch, in the units of the series."""


def with_stds(window: jax.Array) -> PatchDistribution:
    """The last patch again, with stds of its own."""
    return PatchDistribution(window[-P:], jnp.broadcast_to(2 * jnp.log(STDS), window[-P:].shape))


def test_a_predicted_std_is_the_sigma_of_the_steps() -> None:
    """A model that knows how sure it is of every step would be given one width for all of them."""
    target = window_process(with_stds, P, context_len=L)
    history = np.random.default_rng(0).normal(size=L + 2 * P)
    result = forecast(target, history, P, num_samples=4000)
    np.testing.assert_allclose(result.sigma, np.sqrt(np.mean(np.square(STDS))), rtol=1e-6)
    assert result.paths is not None
    # the std of 4,000 draws is within 5 standard errors of 1 / sqrt(8000)
    np.testing.assert_allclose(result.paths.std(axis=0), STDS[:, 0], rtol=5 / np.sqrt(8000))


class Sure(Level):
    """A level with a std of a millionth of that of the series."""

    def extend(self, *args: Any) -> Any:
        """See `CachedModel`."""
        prediction, cache = super().extend(*args)
        return prediction._replace(logvar=jnp.full_like(prediction.mean, -12 * np.log(10))), cache


def test_a_predicted_std_waits_for_two_patches_of_history() -> None:
    """The first patch tells a model nothing of its own errors; two values would be sure of all."""
    target = cached(Sure(), P, 4 * P)
    assert forecast(target, np.array([3.0, 4.0]), P, num_samples=0).sigma > 0.5
    long = np.random.default_rng(0).normal(size=4 * P)
    assert forecast(target, long, P, num_samples=0).sigma < 1e-3


def test_a_predicted_std_does_not_wait_for_measured_errors() -> None:
    """A target without padding would give its std only after a patch more than it sees."""
    predicted = np.sqrt(np.mean(np.square(STDS)))
    for length, steps in ((L, L), (L, L + 3), (3 * P + 1, 3 * P + 1), (None, 2 * P)):
        target = window_process(with_stds, P, context_len=length)
        found = forecast(target, 100 * noise(steps), P, num_samples=0).sigma
        np.testing.assert_allclose(found, predicted, rtol=1e-6)
    assert forecast(target, 100 * noise(P), P, num_samples=0).sigma > 10  # one patch


@each_process
def test_a_level_whose_values_still_fit_leaves_sigma(name: str) -> None:
    """A shift within the range of the values would widen the band: patches have a mean too."""
    history = noise(L + 12 * P)
    context = history[-L:].copy()
    history[:-L] += np.ptp(context)
    np.testing.assert_allclose(sigma_of(name, history), sigma_of(name, context), rtol=0.35)


def test_a_target_that_cannot_start_empty_is_not_measured_from_nothing() -> None:
    """Eight patches of history leave none before them: forecasts of padding would be its errors."""
    history = noise(8 * P)
    target = cached_process(Level(), {}, P, norm="frozen", context_len=len(history))
    found = forecast(target, history, P, num_samples=0).sigma
    wide = np.std(history, ddof=1) * math.sqrt(1 + 1 / len(history))
    student = stats.t.ppf(0.9, len(history) - 1) / stats.norm.ppf(0.9)
    np.testing.assert_allclose(found, wide * student, rtol=1e-4)


def with_last_std(window):
    """The last patch again, with the last value as its std."""
    logvar = 2 * jnp.log(jnp.broadcast_to(window[-1:], (P, window.shape[1])))
    return PatchDistribution(window[-P:], logvar)


def test_a_predicted_std_is_that_after_the_history() -> None:
    """A std that was predicted eight patches earlier would be too small for a series that grows."""
    history = np.exp(0.05 * np.arange(L + 12.0 * P))
    target = window_process(with_last_std, P, context_len=L)
    found = forecast(target, history, P, num_samples=0).sigma
    np.testing.assert_allclose(found, history[-1], rtol=1e-5)


def test_a_predicted_std_of_a_constant_history_needs_no_warning() -> None:
    """The warning would say that sigma is the value over the number of values, which it is not."""
    target = window_process(with_last_std, P, context_len=L)
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputWarning)
        found = forecast(target, np.full(L, 3.0), P, num_samples=0).sigma
    np.testing.assert_allclose(found, 3.0, rtol=1e-5)
