"""What both decoders share: inputs, errors, keys, batches, chunks and paths."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toys import (
    BATCH,
    CONTEXT,
    LINE,
    NUM_VARS,
    PATCH_LEN,
    SIGMA,
    TARGET_LEN,
    assert_same,
    fading,
    line,
    line_distributions,
    parameters,
    registered,
    roll,
    speculate,
    take,
)

from stride_jax.decoding.base import Outcome, Rule
from stride_jax.decoding.batching import in_chunks
from stride_jax.decoding.draft_length import Threshold
from stride_jax.decoding.naive_drafts import seasonal_draft
from stride_jax.decoding.processes import window_process
from stride_jax.decoding.rules import (
    RULES,
    AsReleased,
    Block,
    Maximal,
    Mean,
    Resample,
    Residual,
    SharedNoise,
)
from stride_jax.decoding.types import AUTOREGRESSIVE, DecodeConfig
from stride_jax.errors import InputError

DECODERS = pytest.mark.parametrize("decode", [speculate, roll])


# --- the baseline ------------------------------------------------------------------------------


def slow_roll(noises: list[np.ndarray]) -> np.ndarray:
    """The target rolled in float64, with the noise of each patch: `[N * P, C]`."""
    weight, mix = map(np.float64, parameters(TARGET_LEN))
    series = np.float64(CONTEXT)
    for noise in noises:
        mean = np.tanh(weight @ series[-TARGET_LEN:] @ mix)
        series = np.concatenate([series, mean + noise])
    return series[len(CONTEXT) :]


def test_autoregression_is_a_python_loop(key):
    """The baseline itself would not be the target's process."""
    sigma, shape = np.float32([0.3, 0.9]), (PATCH_LEN, NUM_VARS)
    forecast, info = roll(key, sigma=sigma)
    noise, _ = jax.random.split(jax.random.fold_in(key, 0))
    draws = [jax.random.normal(jax.random.fold_in(noise, n), shape) for n in range(7)]
    noises = [sigma * np.float64(z) for z in draws]
    np.testing.assert_allclose(forecast, slow_roll(noises)[:20], atol=1e-4)
    np.testing.assert_array_equal(info.origin, [AUTOREGRESSIVE] * 7)
    assert int(info.rounds) == int(info.target_passes) == 7
    assert int(info.drafted) == 0


def test_sigma_zero_is_the_mean_path(key):
    """Point forecasts of the target would carry noise."""
    expected = slow_roll([np.zeros((PATCH_LEN, NUM_VARS))] * 7)[:20]
    np.testing.assert_allclose(roll(key, sigma=0.0)[0], expected, atol=1e-5)
    np.testing.assert_allclose(roll(key, sigma=1e-6)[0], expected, atol=1e-4)


# --- batches, chunks and paths -----------------------------------------------------------------


@DECODERS
def test_a_series_does_not_depend_on_its_batch(key, decode):
    """Cutting a test set into other batches would change its results (beyond 1e-5)."""
    whole = decode(key, BATCH)
    host = jax.tree.map(np.asarray, whole)
    for i in range(5):
        alone = decode(key, BATCH[i], series_index=jnp.int32(i))
        assert_same(alone, take(host, i))
    order = np.array([2, 0, 4, 3, 1])
    shuffled = decode(key, BATCH[order], series_index=jnp.asarray(order))
    assert_same(shuffled, take(host, order))
    assert_same(decode(key, BATCH, series_index=jnp.arange(5)), whole)


@pytest.mark.parametrize("model", ["window", pytest.param("cached", marks=pytest.mark.slow)])
@DECODERS
def test_chunks_do_not_change_a_forecast(key, decode, model):
    """Bounding the memory would change the results, or shuffle series and paths."""
    options = {} if model == "window" else {"target": fading()}
    if model == "cached" and decode is speculate:
        options["draft"] = fading(0.1)
    whole = decode(key, BATCH, config=DecodeConfig(20, 3, num_paths=3), **options)
    assert whole[0].shape == (5, 3, 20, NUM_VARS)
    assert whole[1].origin.shape == (5, 3, 7)
    for size, paths in ((2, 2), (3, None), (1, 1)):
        config = DecodeConfig(20, 3, num_paths=3, batch_size=size, path_chunk=paths)
        assert_same(decode(key, BATCH, config=config, **options), whole)
        if model == "cached":
            break


@pytest.mark.slow
@DECODERS
def test_paths_of_a_batch_do_not_depend_on_their_number(key, decode):
    """Asking for more paths would change those that were there."""
    three = decode(key, BATCH[:2], config=DecodeConfig(20, 3, num_paths=3))
    one = decode(key, BATCH[:2], config=DecodeConfig(20, 3, num_paths=1))
    assert one[0].shape == (2, 1, 20, NUM_VARS)
    assert_same(one, jax.tree.map(lambda leaf: leaf[:, :1], three))
    for a, b in itertools.combinations(three[0].reshape(-1, 20, NUM_VARS), 2):
        assert not np.allclose(a, b)


@pytest.mark.slow
@DECODERS
def test_keys_of_a_path(key, decode):
    """Nobody could repeat one path of one series alone."""
    plain = decode(key, CONTEXT)
    assert plain[0].shape == (20, NUM_VARS)
    assert plain[1].rounds.shape == ()
    assert_same(take(decode(key, CONTEXT[None]), 0), plain)
    one = decode(key, CONTEXT, config=DecodeConfig(20, 3, num_paths=1))
    assert one[0].shape == (1, 20, NUM_VARS)
    assert not np.allclose(one[0][0], plain[0])  # its key is folded once more
    noise, _ = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, 0), 0))
    sample = jax.random.normal(jax.random.fold_in(noise, 0), (PATCH_LEN, NUM_VARS))
    if decode is roll:
        mean = decode(key, sigma=0.0)[0][:PATCH_LEN]
        np.testing.assert_allclose(one[0][0, :PATCH_LEN], mean + SIGMA * sample, atol=1e-5)


@DECODERS
def test_a_thousand_paths_follow_the_target(key, decode):
    """The spread of the paths would not be the one asked for."""
    options = {"draft": line(0.5)} if decode is speculate else {}
    config = DecodeConfig(4, 2, num_paths=1_000, path_chunk=300)
    forecast, info = decode(key, LINE, target=line(), config=config, **options)
    assert forecast.shape == (1_000, 4, 1)
    assert info.rounds.shape == (1_000,)
    patches = np.asarray(forecast).reshape(1_000, 2, 2)
    for patch, (mean, std) in enumerate(line_distributions(SIGMA, 2)):
        error = (patches[:, patch].mean(0) - mean) / (std / np.sqrt(1_000))
        assert np.max(np.abs(error)) < 4.5
        np.testing.assert_allclose(patches[:, patch].std(0), std, rtol=4.5 / np.sqrt(2_000))


@pytest.mark.parametrize(("total", "size"), [(5, 2), (5, 5), (5, 9), (4, 1), (6, 3), (5, None)])
def test_in_chunks_is_the_function_itself(total, size):
    """The last chunk, filled up, would leave copies or drop what it holds."""
    items = jnp.arange(total), jnp.arange(2.0 * total).reshape(total, 2)
    found = in_chunks(lambda part: (part[0] * 2, part[1].sum(1)), items, size)
    np.testing.assert_array_equal(found[0], 2 * np.arange(total))
    np.testing.assert_array_equal(found[1], np.asarray(items[1]).sum(1))


# --- keys --------------------------------------------------------------------------------------


@DECODERS
def test_raw_key_data_is_a_key(key, decode):
    """Exported programs, which carry raw key data, would draw other numbers."""
    one = {"context": BATCH[0], "series_index": jnp.int32(0)}  # compiled for a test above
    assert_same(decode(jax.random.key_data(key), **one), decode(key, **one), atol=0)


@pytest.mark.parametrize(
    ("decode", "rule"), [(roll, Maximal()), (speculate, Block()), (speculate, Residual())]
)
def test_no_key_is_used_twice(key, decode, rule):
    """Draws that must be independent would be the same numbers."""
    with jax.debug_key_reuse(True):
        decode(key, rule=rule)
        decode(key, rule=rule, sigma=0.7)  # folded, not consumed


@registered
class Reusing(Rule):
    """Wrong on purpose: takes two draws from one key."""

    def decide(self, key, current):
        shape = current.target_mean[0].shape
        noise = jax.random.normal(key, shape) + jax.random.normal(key, shape)
        return Outcome(jnp.int32(0), current.target_mean[0] + noise)


def test_key_reuse_would_be_seen(key):
    """The test above would pass whatever the decoder does with its keys."""
    with jax.debug_key_reuse(True), pytest.raises(jax.errors.KeyReuseError):
        speculate(key, rule=Reusing())


# --- errors before anything is compiled --------------------------------------------------------


def never(window):
    """A forecaster that must not be reached."""
    raise AssertionError("predict was called")


def bad_context(value: float, *place: int) -> np.ndarray:
    """A context with one bad value."""
    context = (CONTEXT if len(place) == 2 else BATCH).copy()
    context[place] = value
    return context


SHARED_ERRORS = [
    ({"context": bad_context(np.nan, 5, 1)}, r"1 values.*\(5, 1\)"),
    ({"context": bad_context(-np.inf, 2, 3, 0)}, r"1 values.*\(2, 3, 0\)"),
    ({"context": np.zeros((0, 2))}, r"\(0, 2\)"),
    ({"context": np.zeros((12, 0))}, r"\(12, 0\)"),
    ({"context": np.zeros((0, 12, 2))}, r"\(0, 12, 2\)"),
    ({"context": np.zeros(12)}, r"\(12,\)"),
    ({"context": np.zeros((1, 1, 12, 2))}, r"\(1, 1, 12, 2\)"),
    ({"context": np.zeros((2, 2))}, r"2 steps.*3"),
    ({"sigma": -0.25}, r"-0\.25"),
    ({"sigma": np.nan}, "nan"),
    ({"sigma": np.inf}, "inf"),
    ({"sigma": np.float32([0.5, -0.25])}, r"-0\.25"),
    ({"sigma": np.ones(3)}, r"\(3,\)"),
    ({"sigma": np.ones((2, 2))}, r"\(2, 2\)"),
    ({"sigma": np.ones((5, 3, 2))}, r"\(5, 3, 2\)"),
    ({"series_index": np.arange(2)}, r"\(\).*\(2,\)"),
    ({"context": BATCH, "series_index": np.arange(4)}, r"\(5,\).*\(4,\)"),
    ({"context": BATCH, "series_index": np.linspace(0, 1, 5)}, "whole numbers"),
    ({"series_index": 2**31}, "series_index must be.* 2147483647, got 2147483648"),
    ({"series_index": -(2**31) - 1}, "series_index must be from -2147483648.*got -2147483649"),
    ({"series_index": 2**70}, "series_index"),
    ({"context": BATCH, "series_index": [0, 1, 2, 3, 2**32]}, "series_index.*got 4294967296"),
    ({"context": BATCH, "series_index": np.arange(5) + 2**40}, "series_index.*got 1099511627776"),
    ({"context": BATCH, "series_index": np.uint64([0, 1, 2, 3, 2**63])}, "series_index"),
    ({"context": BATCH, "series_index": np.uint32([0, 1, 2, 3, 2**31])}, "series_index"),
    ({"rule": "maximal"}, "rule must be.*'maximal'"),
    ({"rule": Maximal}, "rule must be.*Maximal"),
    ({"rule": lambda key, current: None}, "rule must be.*lambda"),
    ({"draft_length": "gain"}, "draft_length must be.*'gain'"),
    ({"rule": Resample(bias=0.5)}, r"bias.*0\.5"),
    ({"rule": Resample(bias=math.nan)}, "bias.*nan"),
    ({"rule": AsReleased(bias=0.5)}, r"bias.*0\.5"),
    ({"rule": Resample(mse_tolerance=-0.125)}, r"mse_tolerance.*-0\.125"),
    ({"rule": AsReleased(mse_tolerance=-0.125)}, r"mse_tolerance.*-0\.125"),
    ({"rule": Mean(tolerance=-0.125)}, r"^tolerance.*-0\.125"),
    ({"rule": SharedNoise(tolerance=-0.125)}, r"^tolerance.*-0\.125"),
    ({"rule": Mean(temperature=-1.0)}, r"temperature.*-1"),
    ({"rule": AsReleased(adaptive_sigma=-2.0)}, r"adaptive_sigma.*-2"),
    ({"rule": Mean(tolerance=np.ones(2))}, r"tolerance.*\(2,\)"),
    ({"draft_length": Threshold(lower=-0.125)}, r"lower.*-0\.125"),
]
SPECULATIVE_ERRORS = [
    *SHARED_ERRORS,
    ({"sigma": 0.0}, "sigma.* 0"),
    ({"sigma": np.float32([0.5, 0.0])}, "sigma.* 0"),
    ({"draft": window_process(never, 4)}, "3 and 4"),
    ({"draft": seasonal_draft(4, 2)}, "3 and 4"),
    ({"target": None, "draft": None}, "neither"),
    *[
        (
            {"config": DecodeConfig(20, 3, learned_scale=True), "rule": rule()},
            rf"'{name}'.*Residual\(\)",
        )
        for name, rule in RULES.items()
        if rule.scales == "tied"
    ],
]


@pytest.mark.parametrize(("bad", "message"), SPECULATIVE_ERRORS)
def test_bad_input_of_the_speculative_decoder(key, bad, message):
    """Bad input would be found after minutes of compilation, or never."""
    silent = window_process(never, PATCH_LEN)
    with pytest.raises(InputError, match=message):
        speculate(key, **{"target": silent, "draft": silent, **bad})


@pytest.mark.parametrize(("bad", "message"), SHARED_ERRORS)
@pytest.mark.parametrize("who", ["target", "draft"])
def test_bad_input_of_a_decode_of_one_model(key, who, bad, message):
    """Bad input would be found after minutes of compilation, or never."""
    alone = {"target": None, who: window_process(never, PATCH_LEN)}
    with pytest.raises(InputError, match=message):
        roll(key, **{**alone, **bad})


@DECODERS
def test_context_shorter_than_the_forecaster_needs(key, decode):
    """A forecaster would be run on windows it was not made for."""
    needy = window_process(never, PATCH_LEN, context_len=13)
    with pytest.raises(InputError, match=r"12 steps.*13"):
        decode(key, target=needy)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"horizon": 0}, "horizon.*0"),
        ({"horizon": 2.5}, "horizon.*2.5"),
        ({"horizon": 5, "num_draft": -2}, "num_draft.*-2"),
        ({"horizon": 5, "num_paths": 0}, "num_paths.*0"),
        ({"horizon": 5, "batch_size": 0}, "batch_size.*0"),
        ({"horizon": 5, "path_chunk": 0}, "path_chunk.*0"),
        ({"horizon": 5, "num_paths": True}, "num_paths.*True"),
    ],
)
def test_bad_sizes_are_refused_by_the_config(values, message):
    """Impossible sizes would give empty or negative shapes inside the loop."""
    with pytest.raises(InputError, match=message):
        DecodeConfig(**values)
