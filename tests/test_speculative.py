"""Both decoders: against Python loops, closed forms and each other; edges and errors."""

import functools
import itertools
import math
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial
from scipy import stats

from stride_jax.autoregressive import decode_autoregressive
from stride_jax.config import DecodeConfig
from stride_jax.coupling import Outcome, RuleParams
from stride_jax.decoding import ACCEPTED, AUTOREGRESSIVE, BONUS, RECOVERED, split_keys
from stride_jax.errors import InputError
from stride_jax.processes import window_process
from stride_jax.speculative import decode_round, decode_speculative, initial_state

PROPERTY = settings(deadline=None, max_examples=4, derandomize=True)
PATCH_LEN, NUM_VARS, CONTEXT_LEN = 3, 2, 12
TARGET_LEN, DRAFT_LEN = 10, 7  # both shorter than the context, and different


def forecast_tanh(weight, mix, window):
    """A bounded forecaster that depends on the place and the variable of every value."""
    return jnp.tanh(weight @ window @ mix)


def parameters(length: int, gap: float = 0.0, patch_len: int = PATCH_LEN, num_vars: int = NUM_VARS):
    """`(weight, mix)` of `forecast_tanh`; `gap` is added to the weights of the latest steps."""
    rng = np.random.default_rng(2)
    weight = rng.normal(size=(patch_len, 40))[:, -length:] / 3
    weight[:, -3:] += gap
    mix = rng.normal(size=(num_vars, num_vars)) / np.sqrt(num_vars)
    return weight.astype(np.float32), mix.astype(np.float32)


def process(length: int, gap: float = 0.0, **sizes: int):
    """A window process of `forecast_tanh` that sees `length` steps."""
    predict = Partial(forecast_tanh, *map(jnp.asarray, parameters(length, gap, **sizes)))
    return window_process(predict, sizes.get("patch_len", PATCH_LEN), context_len=length)


def history(*shape: int) -> np.ndarray:
    """A random context."""
    return np.random.default_rng(4).normal(size=shape).astype(np.float32)


TARGET, DRAFT = process(TARGET_LEN), process(DRAFT_LEN, 0.1)
CONTEXT = history(CONTEXT_LEN, NUM_VARS)
BATCH = history(4, CONTEXT_LEN, NUM_VARS)
CONFIG = DecodeConfig(horizon=20, num_draft=3)  # N = 7, the last patch is cut
SIGMA = 0.6


def speculate(key, context=CONTEXT, target=TARGET, draft=DRAFT, sigma=SIGMA, config=CONFIG, **rest):
    """`decode_speculative` with defaults."""
    return decode_speculative(
        key, context, target=target, draft=draft, sigma=sigma, config=config, **rest
    )


def roll(key, context=CONTEXT, target=TARGET, sigma=SIGMA, config=CONFIG, **rest):
    """`decode_autoregressive` with defaults."""
    return decode_autoregressive(key, context, target=target, sigma=sigma, config=config, **rest)


DECODERS = pytest.mark.parametrize("decode", [speculate, roll])


def assert_same(found, expected, atol: float = 1e-5) -> None:
    """Two decodes are the same: integers exactly, values to `atol`."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, atol=atol if a.dtype == jnp.float32 else 0)


def mean_path(weight, mix, context, length: int, count: int) -> np.ndarray:
    """The target rolled over its own means, in float64: `[count * P, C]`."""
    series = np.float64(context)
    for _ in range(count):
        series = np.concatenate([series, np.tanh(weight @ series[-length:] @ mix)])
    return series[len(context) :]


# --- the loop ------------------------------------------------------------------------------------


def test_while_loop_equals_a_python_loop(key):
    """The compiled loop would stop too early or late, or carry something it should not."""
    forecast, info = speculate(key)
    folded = jax.random.fold_in(key, 0)
    state = initial_state(folded, jnp.asarray(CONTEXT), TARGET, DRAFT, CONFIG, count=7)
    sigma = jnp.full((PATCH_LEN, NUM_VARS), SIGMA)
    sizes = {"target": TARGET, "draft": DRAFT, "config": CONFIG, "count": 7}
    while int(state.filled) < 7:
        state = decode_round(state, sigma=sigma, params=RuleParams(), **sizes)
    np.testing.assert_allclose(forecast, state.patches.reshape(-1, NUM_VARS)[:20], atol=1e-5)
    np.testing.assert_allclose(info.proposal, state.proposal[:7], atol=1e-5)
    np.testing.assert_array_equal(info.kind, state.kind[:7])
    for name in ("accepted", "proposed", "rounds"):
        np.testing.assert_array_equal(getattr(info, name), getattr(state, name))


def slow_round(keys, series, sigma, num_draft: int, target, draft):
    """One round of `maximal` in float64: `(patches, kinds, proposals)`, lists of equal length."""
    shape = (PATCH_LEN, NUM_VARS)
    grown, proposals, means = [series], [], []
    for key in jax.random.split(keys.draft, num_draft):
        means.append(draft(np.concatenate(grown)))
        proposals.append(means[-1] + sigma * np.float64(jax.random.normal(key, shape)))
        grown.append(proposals[-1])
    uniform = np.float64(jax.random.uniform(keys.rule, (num_draft,)))
    for i, u in enumerate(uniform):
        mean_p = target(np.concatenate(grown[: i + 1]))
        gap, z = (mean_p - means[i]) / sigma, (proposals[i] - means[i]) / sigma
        if np.log(u) > (np.sum(z**2) - np.sum((z - gap) ** 2)) / 2:
            mirrored = z - 2 * gap * np.sum(gap * z) / np.sum(gap**2)
            kinds = [ACCEPTED] * i + [RECOVERED]
            return [*proposals[:i], mean_p + sigma * mirrored], kinds, proposals[: i + 1]
    fresh = sigma * np.float64(jax.random.normal(keys.fresh, shape))
    bonus = target(np.concatenate(grown)) + fresh
    kinds = [ACCEPTED] * num_draft + [BONUS]
    return [*proposals, bonus], kinds, [*proposals, np.full(shape, np.nan)]


def slow_speculative(key, sigma, num_draft: int, count: int):
    """The whole decode in float64: `(patches, kinds, proposals, rounds)`, cut to `count`."""
    target = window_mean(TARGET_LEN, 0.0)
    draft = window_mean(DRAFT_LEN, 0.1)
    series, key = np.float64(CONTEXT), jax.random.fold_in(key, 0)
    patches, kinds, proposals, rounds = [], [], [], 0
    while len(kinds) < count:
        keys = split_keys(key)
        new = slow_round(keys, series, sigma, num_draft, target, draft)
        for total, part in zip((patches, kinds, proposals), new, strict=True):
            total.extend(part)
        series, key, rounds = np.concatenate([series, *new[0]]), keys.next, rounds + 1
    return np.concatenate(patches[:count]), kinds[:count], np.stack(proposals[:count]), rounds


def window_mean(length: int, gap: float):
    """`series -> mean` of the next patch in float64, of the forecaster with these parameters."""
    weight, mix = map(np.float64, parameters(length, gap))
    return lambda series: np.tanh(weight @ series[-length:] @ mix)


@pytest.mark.parametrize("shape", [(NUM_VARS,), (PATCH_LEN, NUM_VARS)])
def test_decoder_equals_a_float64_python_loop(shape):
    """Drafting, verifying, coupling or committing would differ from the algorithm on paper."""
    sigma = np.random.default_rng(6).uniform(0.4, 0.8, shape).astype(np.float32)
    config, kinds = DecodeConfig(horizon=27, num_draft=2), []
    for seed in range(3):
        forecast, info = speculate(jax.random.key(seed), sigma=sigma, config=config)
        slow = slow_speculative(jax.random.key(seed), np.float64(sigma), 2, 9)
        np.testing.assert_allclose(forecast, slow[0], atol=1e-4)
        assert info.kind.tolist() == slow[1]
        np.testing.assert_allclose(info.proposal, slow[2], atol=1e-4)
        assert int(info.rounds) == slow[3]
        kinds += slow[1]
    assert set(kinds) == {ACCEPTED, RECOVERED, BONUS}  # nothing above was vacuous


def innovations(rule: str) -> tuple[np.ndarray, np.ndarray]:
    """Of 8,000 decodes: the target's noise along the draft's error, and its squared norm."""
    count = 8_000
    batch = np.broadcast_to(CONTEXT, (count, *CONTEXT.shape))
    forecast, _ = speculate(jax.random.key(9), batch, config=DecodeConfig(9, 2, rule))
    weight, mix = map(np.float64, parameters(TARGET_LEN))
    draft_weight, _ = map(np.float64, parameters(DRAFT_LEN, 0.1))
    series, along, norms = np.concatenate([batch, forecast], axis=1).astype(np.float64), [], []
    for end in (12, 15, 18):
        mean = np.tanh(weight @ series[:, end - TARGET_LEN : end] @ mix)
        gap = (mean - np.tanh(draft_weight @ series[:, end - DRAFT_LEN : end] @ mix)) / SIGMA
        noise = (series[:, end : end + 3] - mean) / SIGMA
        along.append(np.sum(noise * gap, (1, 2)) / np.sqrt(np.sum(gap**2, (1, 2))))
        norms.append(np.sum(noise**2, (1, 2)))
    return np.stack(along), np.stack(norms)


def test_forecasts_follow_the_target_process():
    """The decode as a whole would not be exact: noise of the target, every patch, every prefix."""
    along, norms = innovations("maximal")
    assert min(stats.kstest(patch, "norm").pvalue for patch in along) > 1e-4
    assert min(stats.kstest(patch, stats.chi2(6).cdf).pvalue for patch in norms) > 1e-4
    correlation = np.corrcoef(along)[np.triu_indices(3, 1)]
    assert np.max(np.abs(correlation)) < 5 / np.sqrt(along.shape[1])


def test_resample_does_not_follow_the_target_process():
    """The test above could not tell an exact rule from one that is not."""
    along, _ = innovations("resample")
    assert max(stats.kstest(patch, "norm").pvalue for patch in along) < 1e-6


# --- against plain autoregression ----------------------------------------------------------------


def test_no_draft_is_autoregression(key):
    """K = 0 would not be the baseline that every speedup is quoted against."""
    forecast, info = speculate(key, BATCH, config=DecodeConfig(20, 0))
    expected, _ = roll(key, BATCH)
    np.testing.assert_allclose(forecast, expected, atol=1e-5)
    np.testing.assert_array_equal(info.rounds, [7] * 4)
    assert info.accepted.shape == info.proposed.shape == (4, 0)
    assert np.isnan(info.proposal).all()


def test_autoregression_is_a_python_loop(key):
    """The baseline itself would not be the target's process."""
    sigma = np.float32([0.3, 0.9])
    forecast, info = roll(key, sigma=sigma)
    series, state = np.float64(CONTEXT), jax.random.fold_in(key, 0)
    for _ in range(7):
        keys = split_keys(state)
        noise = sigma * np.float64(jax.random.normal(keys.fresh, (PATCH_LEN, NUM_VARS)))
        series = np.concatenate([series, window_mean(TARGET_LEN, 0.0)(series) + noise])
        state = keys.next
    np.testing.assert_allclose(forecast, series[12:32], atol=1e-4)
    np.testing.assert_array_equal(info.kind, [AUTOREGRESSIVE] * 7)
    assert int(info.rounds) == int(info.target_passes) == 7


def test_sigma_zero_is_the_mean_path(key):
    """Point forecasts of the target would carry noise."""
    expected = mean_path(*parameters(TARGET_LEN), CONTEXT, TARGET_LEN, 7)[:20]
    np.testing.assert_allclose(roll(key, sigma=0.0)[0], expected, atol=1e-5)
    np.testing.assert_allclose(roll(key, sigma=1e-6)[0], expected, atol=1e-4)


def test_tiny_sigma_with_a_perfect_draft_is_the_mean_path(key):
    """Small scales would be rejected or amplified by rounding."""
    forecast, _ = speculate(key, draft=TARGET, sigma=1e-6)
    expected = mean_path(*parameters(TARGET_LEN), CONTEXT, TARGET_LEN, 7)[:20]
    np.testing.assert_allclose(forecast, expected, atol=1e-3)


# --- counts --------------------------------------------------------------------------------------


@PROPERTY
@given(horizon=st.integers(1, 25), num_draft=st.integers(1, 5), seed=st.integers(0, 99))
def test_a_perfect_draft_is_always_accepted(horizon, num_draft, seed):
    """A draft equal to the target would cost rounds; equal laws would not be recognised."""
    config = DecodeConfig(horizon, num_draft)
    _, info = speculate(jax.random.key(seed), draft=TARGET, config=config)
    count = math.ceil(horizon / PATCH_LEN)
    assert int(info.rounds) == math.ceil(count / (num_draft + 1))
    pattern = itertools.cycle([ACCEPTED] * num_draft + [BONUS])
    assert info.kind.tolist() == list(itertools.islice(pattern, count))


def recount(kinds: list[int], num_draft: int) -> tuple[list[int], list[int], int]:
    """`(accepted, proposed, rounds)` read off the kinds of the patches."""
    accepted, proposed, rounds, place = [0] * num_draft, [0] * num_draft, 0, 0
    for kind in kinds:
        rounds += place == 0
        if kind == BONUS:
            assert place == num_draft
        else:
            proposed[place] += 1
            accepted[place] += kind == ACCEPTED
        place = place + 1 if kind == ACCEPTED else 0
    return accepted, proposed, rounds


@PROPERTY
@given(
    horizon=st.integers(1, 20),
    num_draft=st.integers(1, 4),
    patch_len=st.integers(1, 4),
    num_vars=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_counts_add_up(horizon, num_draft, patch_len, num_vars, seed):
    """Acceptance rates and passes in every table would be wrong."""
    sizes = {"patch_len": patch_len, "num_vars": num_vars}
    pair = {"target": process(6, **sizes), "draft": process(5, 0.1, **sizes)}
    config, context = DecodeConfig(horizon, num_draft), history(6, num_vars)
    forecast, info = speculate(jax.random.key(seed), context, config=config, **pair)
    assert forecast.shape == (horizon, num_vars)
    kinds = info.kind.tolist()
    assert len(kinds) == math.ceil(horizon / patch_len)
    assert int(info.accepted.sum()) + kinds.count(RECOVERED) + kinds.count(BONUS) == len(kinds)
    assert int(info.proposed[0]) <= int(info.rounds) == int(info.target_passes)
    assert np.all(info.accepted <= info.proposed)
    assert np.all(info.proposed[1:] <= info.accepted[:-1])
    found = (info.accepted.tolist(), info.proposed.tolist(), int(info.rounds))
    assert found == recount(kinds, num_draft)


def test_proposals_are_reported_where_they_belong():
    """Diagnostics of the draft would compare proposals with the wrong patches."""
    seen = set()
    for seed in range(6):
        forecast, info = speculate(jax.random.key(seed), config=DecodeConfig(21, 3))
        patches = np.asarray(forecast).reshape(7, PATCH_LEN, NUM_VARS)
        for kind, proposal, patch in zip(info.kind.tolist(), info.proposal, patches, strict=True):
            seen.add(kind)
            assert np.array_equal(proposal, patch) == (kind == ACCEPTED)
            assert bool(np.isnan(proposal).all()) == (kind == BONUS)
            assert bool(np.isnan(proposal).any()) == (kind == BONUS)
    assert seen == {ACCEPTED, RECOVERED, BONUS}


# --- batches and keys ----------------------------------------------------------------------------


@DECODERS
def test_a_series_does_not_depend_on_its_batch(key, decode):
    """A forecast would change with the company it is computed in."""
    whole = decode(key, BATCH)
    for i in range(4):
        alone = decode(key, BATCH[i], series_index=jnp.int32(i))
        assert_same(alone, jax.tree.map(lambda leaf, i=i: leaf[i], whole))
    assert not np.allclose(decode(key, CONTEXT, series_index=jnp.int32(1))[0], whole[0][0])


@DECODERS
def test_chunks_and_permutations_of_a_batch(key, decode):
    """Cutting a test set into other batches would change its results."""
    whole = decode(key, BATCH)
    chunk = decode(key, BATCH[2:4], series_index=jnp.array([2, 3]))
    assert_same(chunk, jax.tree.map(lambda leaf: leaf[2:4], whole))
    order = np.array([2, 0, 3, 1])
    shuffled = decode(key, BATCH[order], series_index=jnp.asarray(order))
    assert_same(shuffled, jax.tree.map(lambda leaf: leaf[order], whole))


@DECODERS
def test_default_series_index_counts_from_zero(key, decode):
    """A single series, a batch of one and explicit indices would be different forecasts."""
    whole = decode(key, BATCH)
    assert_same(decode(key, BATCH, series_index=jnp.arange(4)), whole)
    first = jax.tree.map(lambda leaf: leaf[0], decode(key, BATCH[:1]))
    assert_same(decode(key, BATCH[0]), first)


@DECODERS
def test_series_of_a_batch_have_noise_of_their_own(key, decode):
    """Sample paths of one series would all be the same path."""
    forecast, _ = decode(key, np.broadcast_to(CONTEXT, (4, *CONTEXT.shape)))
    for i, j in itertools.combinations(range(4), 2):
        assert not np.allclose(forecast[i], forecast[j])


@DECODERS
def test_raw_key_data_is_a_key(key, decode):
    """Exported programs, which carry raw key data, would draw other numbers."""
    assert_same(decode(jax.random.key_data(key)), decode(key), atol=0)


@DECODERS
def test_no_key_is_used_twice(key, decode):
    """Draws that must be independent would be the same numbers."""
    with jax.debug_key_reuse(True):
        decode(key)
        decode(key, sigma=0.7)  # the key is folded, not consumed


def test_key_reuse_would_be_seen(key):
    """The test above would pass whatever the decoder does with its keys."""

    def reusing(key, current, params):
        noise = jax.random.normal(key, current.sigma.shape) + jax.random.normal(key, (3, 2))
        return Outcome(jnp.int32(0), current.target_mean[0] + noise)

    with jax.debug_key_reuse(True), pytest.raises(jax.errors.KeyReuseError):
        speculate(key, config=DecodeConfig(20, 3, reusing))


# --- wild drafts and other rules -----------------------------------------------------------------


def oscillating(window):
    """Answers every patch with -1000 times it."""
    return -1e3 * window[-PATCH_LEN:]


def shifted(offset, window):
    """The target's forecast plus a constant."""
    return forecast_tanh(*parameters(TARGET_LEN), window[-TARGET_LEN:]) + offset


@pytest.mark.parametrize("offset", [1e6, -1e6, 1e-30, 1e18, 1e30])
def test_offset_drafts_leave_the_forecast_finite(key, offset):
    """A bad draft would break the forecast instead of only slowing it down."""
    forecast, info = speculate(key, draft=window_process(Partial(shifted, offset), PATCH_LEN))
    assert np.isfinite(forecast).all()
    assert np.max(np.abs(forecast)) < 1 + 8 * SIGMA  # tanh plus noise
    assert int(info.rounds) == (7 if abs(offset) > 1 else 2)


def test_an_oscillating_draft_leaves_the_forecast_finite(key):
    """A draft that diverges on its own proposals would break the forecast."""
    forecast, _ = speculate(key, draft=window_process(oscillating, PATCH_LEN))
    assert np.isfinite(forecast).all()
    assert np.max(np.abs(forecast)) < 1 + 8 * SIGMA


@functools.cache
def accept_first(limit: int):
    """A rule that keeps `limit` proposals and adds the target's mean after them."""

    def rule(key, current, params):
        return Outcome(jnp.int32(limit), current.target_mean[limit])

    return rule


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_rules_plug_in_as_functions(key, limit):
    """A rule of one's own would be ignored, or its decision be misread."""
    # N = 5: the last round of each limit but 0 reaches beyond the horizon
    _, info = speculate(key, config=DecodeConfig(14, 3, accept_first(limit)))
    last = BONUS if limit == 3 else RECOVERED
    kinds = list(itertools.islice(itertools.cycle([ACCEPTED] * limit + [last]), 5))
    assert info.kind.tolist() == kinds
    assert int(info.rounds) == math.ceil(5 / (limit + 1))
    found = (info.accepted.tolist(), info.proposed.tolist(), int(info.rounds))
    assert found == recount(kinds, 3)


def test_a_rule_that_rejects_all_gives_the_targets_mean_path(key):
    """Rejected proposals would leak into the history of the target."""
    forecast, _ = speculate(key, config=DecodeConfig(20, 3, accept_first(0)))
    expected = mean_path(*parameters(TARGET_LEN), CONTEXT, TARGET_LEN, 7)[:20]
    np.testing.assert_allclose(forecast, expected, atol=1e-5)


def test_bias_and_tolerance_reach_the_rule(key):
    """The settings of the paper's variant would have no effect."""
    config = DecodeConfig(60, 3, "resample")
    rates = []
    for params in (None, RuleParams(20.0, 0.0), RuleParams(1.0, 1e9)):
        _, info = speculate(key, sigma=0.2, config=config, params=params)
        rates.append(int(info.rounds))
    assert rates[0] > rates[1] >= rates[2] == 5


# --- errors before anything is compiled ----------------------------------------------------------


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
]
SPECULATIVE_ERRORS = [
    *SHARED_ERRORS,
    ({"sigma": 0.0}, "sigma.* 0"),
    ({"sigma": np.float32([0.5, 0.0])}, "sigma.* 0"),
    ({"config": DecodeConfig(20, 3, "maximl")}, "'maximl'.*'maximal'"),
    ({"draft": window_process(never, 4)}, "3 and 4"),
    ({"params": RuleParams(0.5, 0.0)}, r"bias.*0\.5"),
    ({"params": RuleParams(math.nan, 0.0)}, "bias.*nan"),
    ({"params": RuleParams(1.0, -0.125)}, r"tolerance.*-0\.125"),
]


@pytest.mark.parametrize(("bad", "message"), SPECULATIVE_ERRORS)
def test_bad_input_of_the_speculative_decoder(key, bad, message):
    """Bad input would be found after minutes of compilation, or never."""
    silent = window_process(never, PATCH_LEN)
    with pytest.raises(InputError, match=message):
        speculate(key, **{"target": silent, "draft": silent, **bad})


@pytest.mark.parametrize(("bad", "message"), SHARED_ERRORS)
def test_bad_input_of_the_autoregressive_decoder(key, bad, message):
    """Bad input would be found after minutes of compilation, or never."""
    with pytest.raises(InputError, match=message):
        roll(key, **{"target": window_process(never, PATCH_LEN), **bad})


@DECODERS
def test_context_shorter_than_the_forecaster_needs(key, decode):
    """A forecaster would be run on windows it was not made for."""
    needy = window_process(never, PATCH_LEN, context_len=13)
    with pytest.raises(InputError, match=r"12 steps.*13"):
        decode(key, target=needy)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"horizon": 0}, "horizon.*0"), ({"horizon": 5, "num_draft": -2}, "num_draft.*-2")],
)
def test_bad_sizes_are_refused_by_the_config(values, message):
    """Impossible sizes would give empty or negative shapes inside the loop."""
    with pytest.raises(InputError, match=message):
        DecodeConfig(**values)


# --- compilation ---------------------------------------------------------------------------------


def counted(calls: list, length: int, gap: float = 0.0):
    """`scale -> process` whose forecaster notes in `calls` each time that Python runs it."""

    def predict(weight, mix, window):
        calls.append(window)
        return forecast_tanh(weight, mix, window)

    weight, mix = parameters(length, gap)
    return lambda scale: window_process(
        Partial(predict, jnp.asarray(scale * weight), jnp.asarray(mix)),
        PATCH_LEN,
        context_len=length,
    )


def test_sweeps_do_not_retrace():
    """Sweeping sigma, bias, tolerance, keys, contexts or checkpoints would compile every time."""
    calls: list = []
    target, draft = counted(calls, TARGET_LEN), counted(calls, DRAFT_LEN, 0.1)
    after_first, forecasts = 0, []
    for i, scale in enumerate((1.0, 1.1, 0.9)):
        forecast, _ = speculate(
            jax.random.key(i),
            scale * CONTEXT,
            target=target(scale),
            draft=draft(1 / scale),
            sigma=SIGMA * scale,
            params=RuleParams(1.0 + i, 0.1 * i),
        )
        after_first = after_first or len(calls)
        forecasts.append(np.asarray(forecast))
    assert len(calls) == after_first > 0
    assert not np.allclose(forecasts[0], forecasts[1])


def test_autoregressive_sweeps_do_not_retrace():
    """Sweeping sigma, keys, contexts or checkpoints would compile every time."""
    calls: list = []
    target, after_first = counted(calls, TARGET_LEN), 0
    for i, scale in enumerate((1.0, 1.1, 0.0)):
        roll(jax.random.key(i), CONTEXT + i, target=target(1 + scale), sigma=SIGMA * scale)
        after_first = after_first or len(calls)
    assert len(calls) == after_first > 0


@DECODERS
def test_inside_the_callers_jit(key, decode):
    """Nobody could make the decoder part of a larger compiled program."""
    found = jax.jit(lambda key, context, sigma: decode(key, context, sigma=sigma))(
        key, CONTEXT, SIGMA
    )
    assert_same(found, decode(key))


def test_inside_the_callers_jit_with_traced_params(key):
    """Settings of the rule could not be traced from outside."""
    config = DecodeConfig(20, 3, "resample")

    @jax.jit
    def run(key, context, sigma, bias, tolerance):
        params = RuleParams(bias, tolerance)
        return speculate(key, context, sigma=sigma, config=config, params=params)

    expected = speculate(key, config=config, params=RuleParams(2.0, 0.2))
    assert_same(run(key, CONTEXT, SIGMA, 2.0, 0.2), expected)


@DECODERS
def test_inside_the_callers_vmap(key, decode):
    """Nobody could sweep sigma, or decode many contexts, in one call."""
    sigmas = jnp.array([0.4, 0.8])
    found = jax.vmap(lambda context, sigma: decode(key, context, sigma=sigma))(BATCH[:2], sigmas)
    for i in range(2):
        expected = decode(key, BATCH[i], sigma=float(sigmas[i]))
        assert_same(jax.tree.map(lambda leaf, i=i: leaf[i], found), expected)


def exported(decode, platforms: list[str]) -> bytearray:
    """The decode of one context shape as a portable program; keys travel as raw data."""

    def program(data: jax.Array, context: jax.Array, sigma: jax.Array):
        forecast, info = decode(data, context, sigma=sigma)
        return forecast, info.kind, info.rounds

    args = (jax.random.key_data(jax.random.key(0)), CONTEXT, np.float32(SIGMA))
    return jax.export.export(jax.jit(program), platforms=platforms)(*args).serialize()


@DECODERS
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_lowers_for_accelerators(decode, platform):
    """The decoder would use something that accelerators do not have; seen only there."""
    program = jax.export.deserialize(exported(decode, [platform]))
    assert program.platforms == (platform,)
    assert program.out_avals[0].shape == (20, NUM_VARS)
    assert "stablehlo.while" in program.mlir_module()


@DECODERS
def test_exported_program_gives_the_same_numbers(key, decode):
    """A deployed forecaster would not be the one that was tested."""
    program = jax.export.deserialize(exported(decode, ["cpu"]))
    found = program.call(jax.random.key_data(key), CONTEXT, np.float32(SIGMA))
    forecast, info = decode(key)
    assert_same(found, (forecast, info.kind, info.rounds))


@DECODERS
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_output_is_float32(key, decode, dtype):
    """Precision would depend on how the caller happened to load the series."""
    forecast, info = decode(key, CONTEXT.astype(dtype))
    assert forecast.dtype == info.proposal.dtype == jnp.float32
    assert forecast.shape == (20, NUM_VARS)
    assert info.kind.dtype == info.rounds.dtype == info.accepted.dtype == jnp.int32
    np.testing.assert_array_equal(forecast, decode(key)[0])


@DECODERS
def test_a_half_precision_forecaster_gets_full_precision_noise(decode, key):
    """Noise in bfloat16 has 128 values; the law of the paths would be a coarse grid."""
    half = window_process(lambda window: jnp.zeros((1, 1), jnp.bfloat16), 1)
    options = {"draft": half} if decode is speculate else {}
    config = DecodeConfig(horizon=1, num_draft=1)
    forecast, _ = decode(key, jnp.zeros((2000, 1, 1)), target=half, config=config, **options)
    assert forecast.dtype == jnp.float32
    assert len(np.unique(np.asarray(forecast))) > 1900


def test_both_decoders_run_in_x64():
    """Users who enable 64-bit numbers elsewhere must still be able to decode."""
    code = (
        "import jax, jax.numpy as jnp; from stride_jax import *\n"
        "p = window_process(lambda w: w[-2:], 2); c = jnp.zeros((3, 4, 1))\n"
        "f, i = decode_speculative(jax.random.key(0), c, target=p, draft=p, sigma=1.0, "
        "config=DecodeConfig(7))\n"
        "a, _ = decode_autoregressive(jax.random.key(0), c, target=p, sigma=1.0, "
        "config=DecodeConfig(7))\n"
        "print(f.dtype, a.dtype, i.rounds.tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_ENABLE_X64": "1"},
    )
    assert done.stdout == "float32 float32 [1, 1, 1]\n", done.stderr


def test_series_numbers_are_whole(key):
    """Fractions would be cut, and two series would share their noise."""
    with pytest.raises(InputError, match="whole numbers"):
        speculate(key, BATCH, series_index=np.linspace(0.1, 0.7, 4))
