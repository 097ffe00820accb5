"""Forecasts from a history and from the same upside down."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.forecasts import CAUSAL_PAIR, walk

import stride_jax as sj
from stride_jax.errors import InputError, InputWarning
from stride_jax.types import PatchDistribution

UPRIGHT = CAUSAL_PAIR
MIRRORED = dataclasses.replace(UPRIGHT, mirrored=True)
HISTORY = 10 + walk(40)
MEDIAN = (0.5,)


def test_a_mirrored_mean_path_is_the_mean_of_both():
    """A path would be turned back with a wrong sign, level or scale."""
    both = sj.forecast(MIRRORED, HISTORY, 7, num_samples=0)
    up = sj.forecast(UPRIGHT, HISTORY, 7, num_samples=0)
    down = sj.forecast(UPRIGHT, -HISTORY, 7, num_samples=0)
    assert np.abs(up.mean + down.mean).max() > 1e-3  # the model itself is not symmetric
    np.testing.assert_allclose(both.mean, (up.mean - down.mean) / 2, atol=1e-5)
    assert both.paths is None
    assert both.info.rounds.shape == (1, 2)


def test_a_mirrored_mean_path_is_cut_off_once():
    """Each of the two would lose what is below 0, and their mean come out too high."""
    predict = jax.tree_util.Partial(of_the_sign)
    pair = sj.Pair(sj.window_process(predict, patch_len=4), mirrored=True)
    history = np.full(16, 2.0)
    cut = sj.forecast(pair, history, 4, num_samples=0, sigma=1.0)
    uncut = sj.forecast(pair, history, 4, num_samples=0, sigma=1.0, non_negative=False)
    np.testing.assert_allclose(uncut.mean, -1)  # of +2 and of -(+4)
    np.testing.assert_allclose(cut.mean, 0)


def of_the_sign(window: jax.Array) -> PatchDistribution:
    """+2 after a history of positive values, +4 after one of negative values."""
    return PatchDistribution(jnp.where(window[-4:] > 0, 2.0, 4.0))


@pytest.mark.parametrize("count", [5, 6])
def test_half_of_the_sample_paths_are_mirrored(count):
    """Paths would be lost or doubled, or come from the history as it is."""
    both = sj.forecast(MIRRORED, HISTORY, 7, num_samples=count, quantiles=MEDIAN)
    half = -(-count // 2)
    up = sj.forecast(UPRIGHT, HISTORY, 7, num_samples=half, quantiles=MEDIAN)
    assert both.paths.shape == (count, 7)
    assert both.info.rounds.shape == (1, count)
    np.testing.assert_allclose(both.paths[:half], up.paths, atol=1e-4)
    down = sj.forecast(UPRIGHT, -HISTORY, 7, num_samples=half, quantiles=MEDIAN)
    np.testing.assert_allclose(both.paths[half:], -down.paths[: count - half], atol=1e-4)


def test_paths_of_a_symmetric_target_are_antithetic():
    """The mixture of a distribution with itself would have another mean or spread."""
    predict = jax.tree_util.Partial(lambda window: PatchDistribution(0.5 * window[-4:]))
    pair = sj.Pair(sj.window_process(predict, patch_len=4))
    settings = {"num_samples": 400, "sigma": 1.0, "non_negative": False}
    paths = sj.forecast(pair, HISTORY, 8, **settings).paths
    mixed = sj.forecast(dataclasses.replace(pair, mirrored=True), HISTORY, 8, **settings).paths
    exact = np.concatenate([0.5 * HISTORY[-4:], 0.25 * HISTORY[-4:]])
    np.testing.assert_allclose((mixed[:200] + mixed[200:]) / 2, 0 * mixed[:200] + exact, atol=1e-4)
    assert 0.85 < paths.std(axis=0).mean() / mixed.std(axis=0).mean() < 1.15


def test_series_of_a_batch_keep_their_rows():
    """A mirrored path would be given to another series of the batch."""
    series = [10 + walk(40), -50 + walk(33, seed=1), 200 + 5 * walk(21, seed=2)]
    settings = {"num_samples": 6, "quantiles": MEDIAN}
    together = sj.forecast(MIRRORED, series, 6, ids=("a", "b", "c"), **settings)
    for row, (name, one) in enumerate(zip("abc", series, strict=True)):
        alone = sj.forecast(MIRRORED, [one], 6, ids=(name,), **settings)
        np.testing.assert_allclose(together.paths[row], alone.paths[0], rtol=1e-4, atol=1e-3)
    small = sj.forecast(MIRRORED, series, 6, ids=("a", "b", "c"), batch_size=1, **settings)
    np.testing.assert_allclose(small.paths, together.paths, rtol=1e-4, atol=1e-3)


def test_a_pair_stays_mirrored_through_jax():
    """A pair that went through a transformation would forecast another distribution."""
    assert jax.tree.map(lambda x: x, MIRRORED).mirrored
    assert not jax.tree.map(lambda x: x, UPRIGHT).mirrored
    assert sj.load_pair("zero_shot", None).mirrored
    assert not sj.load_pair("beijing").mirrored


@pytest.mark.parametrize("value", [1, "yes", None])
def test_mirrored_is_true_or_false(value):
    """Anything else would be taken for one of the two."""
    with pytest.raises(InputError, match="mirrored must be True or False"):
        dataclasses.replace(UPRIGHT, mirrored=value)


def test_a_compiled_decoder_refuses_a_mirrored_pair():
    """A server would answer with other paths than `forecast` of the same pair."""
    config = sj.DecodeConfig(4, 0)
    with pytest.raises(InputError, match="the pair is mirrored"):
        sj.build_decoder(MIRRORED, config, sj.Mean(), context_shape=(16, 1))


def test_series_of_a_mirrored_batch_keep_their_ends():
    """The steps over which a series is forecast first would be those of another one."""
    known, gappy = 10 + walk(40), np.append(-50 + walk(33, seed=1), [np.nan] * 5)
    settings = {"num_samples": 6, "quantiles": (0.5,)}
    together = sj.forecast(MIRRORED, [known, gappy], 6, ids=("a", "b"), **settings)
    for row, (name, one) in enumerate((("a", known), ("b", gappy))):
        alone = sj.forecast(MIRRORED, [one], 6, ids=(name,), **settings)
        np.testing.assert_allclose(together.paths[row], alone.paths[0], rtol=1e-4, atol=1e-3)


def test_a_mirrored_history_without_variation_is_named_once():
    """The mirror image has no name: the warning would end in an IndexError."""
    with pytest.warns(InputWarning, match=r"^series 1: one value, or all the same") as caught:
        sj.forecast(MIRRORED, [walk(40), np.array([5.0])], 4, num_samples=0)
    assert len(caught) == 1
    assert caught[0].filename == __file__  # of the caller, not of a module of the library


def test_a_mirror_image_without_a_finite_forecast_is_named():
    """The row of a mirror image is past the names: an IndexError would hide the reason."""
    predict = jax.tree_util.Partial(lambda window: PatchDistribution(jnp.sqrt(window[-4:])))
    pair = sj.Pair(sj.window_process(predict, patch_len=4), mirrored=True)
    with pytest.raises(InputError, match=r"^series 0 has the "):
        sj.forecast(pair, [np.full(16, 2.0), np.full(16, 3.0)], 4, num_samples=0, sigma=1.0)
