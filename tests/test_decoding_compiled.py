"""Decoders as programs: retracing, jit and vmap around them, export, precision, odd rules."""

import dataclasses
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
from jax.tree_util import Partial
from toys import (
    BATCH,
    CONTEXT,
    DRAFT_LEN,
    NUM_VARS,
    PATCH_LEN,
    SIGMA,
    TARGET_LEN,
    assert_same,
    draft_steps,
    forecast_tanh,
    parameters,
    recount,
    roll,
    speculate,
    take,
    timer_xl,
)

from stride_jax.config import DecodeConfig
from stride_jax.coupling import Outcome, RuleParams
from stride_jax.decoding import ACCEPTED, BONUS, RECOVERED, compiled
from stride_jax.pacing import PaceParams
from stride_jax.processes import window_process

DECODERS = pytest.mark.parametrize("decode", [speculate, roll])


# --- rules of one's own and wild drafts --------------------------------------------------------


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
    forecast, info = speculate(key, config=DecodeConfig(14, 3, accept_first(limit)))
    last = BONUS if limit == 3 else RECOVERED
    kinds = list(itertools.islice(itertools.cycle([ACCEPTED] * limit + [last]), 5))
    assert info.kind.tolist() == kinds
    assert int(info.rounds) == math.ceil(5 / (limit + 1))
    assert int(info.drafted) == draft_steps(kinds, 3)
    found = (info.accepted.tolist(), info.proposed.tolist(), int(info.rounds))
    assert found == recount(kinds, 3)
    patches = np.pad(forecast, ((0, 1), (0, 0))).reshape(5, PATCH_LEN, NUM_VARS)
    weight, mix = parameters(TARGET_LEN)
    series = CONTEXT
    for place, (kind, patch, proposal) in enumerate(
        zip(kinds, patches, info.proposal, strict=True)
    ):
        steps = 2 if place == 4 else 3  # the last one is cut
        expected = (
            proposal if kind == ACCEPTED else forecast_tanh(weight, mix, series[-TARGET_LEN:])
        )
        np.testing.assert_allclose(patch[:steps], expected[:steps], atol=1e-5)
        assert bool(np.isnan(proposal).all()) == (kind == BONUS)
        series = np.concatenate([series, patch])


def oscillating(window):
    """Answers every patch with -1000 times it."""
    return -1e3 * window[-PATCH_LEN:]


def shifted(offset, window):
    """The target's forecast plus a constant."""
    return forecast_tanh(*parameters(TARGET_LEN), window[-TARGET_LEN:]) + offset


@pytest.mark.parametrize("rule", ["maximal", "block", "residual"])
def test_wild_drafts_leave_the_forecast_finite(key, rule):
    """A bad draft would break the forecast instead of only slowing it down."""
    config = DecodeConfig(20, 3, rule)
    for offset in (1e6, -1e6, 1e-30, 1e18, 1e30):
        draft = window_process(Partial(shifted, jnp.float32(offset)), PATCH_LEN)
        forecast, info = speculate(key, draft=draft, config=config)
        assert np.isfinite(forecast).all()
        assert np.max(np.abs(forecast)) < 1 + 8 * SIGMA  # tanh plus noise
        assert int(info.rounds) == (7 if abs(offset) > 1 else 2)


def growing(window):
    """Overflows on its own proposals."""
    return 1e30 * window[-PATCH_LEN:]


@pytest.mark.parametrize(
    "rule",
    ["block", *(pytest.param(rule, marks=pytest.mark.slow) for rule in ("maximal", "residual"))],
)
def test_drafts_that_are_not_finite_leave_the_forecast_finite(key, rule):
    """One causal pass sees all proposals: a NaN would spread to the laws of those before it."""
    config, fixed = DecodeConfig(20, 3, rule), Partial(constant, jnp.float32(jnp.nan))
    for predict in (fixed, Partial(constant, jnp.float32(jnp.inf)), growing):
        draft = window_process(predict, PATCH_LEN)
        forecast, info = speculate(key, target=timer_xl(), draft=draft, config=config)
        assert np.isfinite(forecast).all()
        assert info.kind.tolist() == [RECOVERED] * 7


def constant(value, window):
    """The same for every patch."""
    return jnp.full((PATCH_LEN, NUM_VARS), value)


def test_a_cached_draft_recovers_from_what_is_not_finite():
    """One wild patch in its caches would silence a draft to the end of the decode."""
    draft = timer_xl().drafting()
    memory = jax.jit(draft.prepare)(jnp.asarray(CONTEXT))
    state = draft.start(memory, 8)
    verify = jax.jit(draft.verify)
    patches = jnp.zeros((2, PATCH_LEN, NUM_VARS))
    _, after = verify(memory, state, patches + jnp.nan)
    laws, _ = verify(memory, after, patches)
    clean, _ = verify(memory, state, patches)
    np.testing.assert_allclose(laws.mean, clean.mean, atol=1e-6)


def test_an_oscillating_draft_leaves_the_forecast_finite(key):
    """A draft that diverges on its own proposals would break the forecast."""
    forecast, _ = speculate(key, draft=window_process(oscillating, PATCH_LEN))
    assert np.isfinite(forecast).all()
    assert np.max(np.abs(forecast)) < 1 + 8 * SIGMA


def test_bias_and_tolerance_reach_the_rule(key):
    """The settings of the paper's variant would have no effect."""
    config, rates = DecodeConfig(60, 3, "resample"), []
    for params in (None, RuleParams(bias=20.0), RuleParams(mse_tolerance=1e9)):
        _, info = speculate(key, sigma=0.2, config=config, params=params)
        rates.append(int(info.rounds))
    assert rates[0] > rates[1] >= rates[2] == 5


# --- compilation -------------------------------------------------------------------------------


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
    """Sweeping settings, keys, contexts, series or checkpoints would compile every time."""
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
            config=DecodeConfig(20, 3, "resample", pacing="gain"),
            params=RuleParams(bias=1.0 + i, mse_tolerance=0.1 * i, tolerance=0.2 * i),
            pace=PaceParams(draft_cost=0.1 * (i + 1), lower=0.2 * i),
            series_index=jnp.int32(7 * i),
        )
        after_first = after_first or len(calls)
        forecasts.append(np.asarray(forecast))
    assert len(calls) == after_first > 0
    assert not np.allclose(forecasts[0], forecasts[1])
    other = DecodeConfig(20, 2, "resample", pacing="gain")
    speculate(jax.random.key(0), target=target(1.0), draft=draft(1.0), config=other)
    assert len(calls) > after_first  # K is a size: the count above could have seen a retrace


def test_autoregressive_sweeps_do_not_retrace():
    """Sweeping sigma, keys, contexts, series or checkpoints would compile every time."""
    calls: list = []
    target, after_first = counted(calls, TARGET_LEN), 0
    for i, scale in enumerate((1.0, 1.1, 0.0)):
        options = {"target": target(1 + scale), "sigma": SIGMA * scale}
        roll(jax.random.key(i), CONTEXT + i, series_index=jnp.int32(i), **options)
        after_first = after_first or len(calls)
    assert len(calls) == after_first > 0


def registered_classes(count: int) -> list:
    """Classes with the same single field."""

    def make():
        @jax.tree_util.register_dataclass
        @dataclasses.dataclass(frozen=True)
        class Same:
            value: float

        return Same

    return [make() for _ in range(count)]


def test_classes_with_the_same_fields_have_programs_of_their_own():
    """A user's draft would be run in place of another one, once in about a hundred times."""
    classes = registered_classes(150)  # plain `jax.jit` mixes some of so many up
    number_of = compiled(lambda thing, x: classes.index(type(thing)) + x)
    found = [int(number_of(kind(1.0), 0)) for kind in classes]
    assert found == list(range(len(classes)))


@DECODERS
def test_inside_the_callers_jit(key, decode):
    """Nobody could make the decoder part of a larger program, or trace the rule's settings."""
    config, params = DecodeConfig(20, 3, "resample"), RuleParams(bias=2.0, mse_tolerance=0.2)
    options = {"config": config} if decode is roll else {"config": config, "params": params}
    expected = decode(key, **options)

    @jax.jit
    def run(key, context, sigma, params):
        traced = options if decode is roll else {"config": config, "params": params}
        return decode(key, context, sigma=sigma, **traced)

    assert_same(run(key, CONTEXT, SIGMA, params), expected)


@pytest.mark.slow
@DECODERS
def test_inside_the_callers_vmap(key, decode):
    """Nobody could sweep sigma, or decode many contexts, in one call."""
    sigmas = jnp.array([0.4, 0.8])
    found = jax.vmap(lambda context, sigma: decode(key, context, sigma=sigma))(BATCH[:2], sigmas)
    for i in range(2):
        assert_same(take(found, i), decode(key, BATCH[i], sigma=float(sigmas[i])))


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
def test_output_is_float32(key, decode):
    """Precision would depend on how the caller happened to load the series."""
    forecast, info = decode(key, CONTEXT.astype(np.float64))
    assert forecast.dtype == info.proposal.dtype == jnp.float32
    assert info.kind.dtype == info.rounds.dtype == info.accepted.dtype == jnp.int32
    assert info.drafted.dtype == info.overflow.dtype == jnp.int32
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


@pytest.mark.slow
def test_both_decoders_run_in_x64():
    """Users who enable 64-bit numbers elsewhere must still be able to decode."""
    code = (
        "import jax, jax.numpy as jnp; from stride_jax import *\n"
        "p = window_process(lambda w: w[-2:], 2); c = jnp.zeros((3, 4, 1))\n"
        "from stride_jax.coupling import RULES\n"
        "for rule in RULES:\n"
        "    f, i = decode_speculative(jax.random.key(0), c, target=p, draft=p, sigma=1.0, "
        "config=DecodeConfig(4, rule=rule, num_draft=1, pacing='gain', trace=True))\n"
        "    assert (f.dtype, i.rounds.tolist()) == ('float32', [1, 1, 1]), (rule, f.dtype)\n"
        "a, _ = decode_autoregressive(jax.random.key(0), c, target=p, sigma=1.0, "
        "config=DecodeConfig(7))\n"
        "print(a.dtype)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_ENABLE_X64": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
    )
    assert done.stdout == "float32\n", done.stderr
