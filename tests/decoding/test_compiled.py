"""Decoders as programs: retracing, jit and vmap around them, export, precision, odd rules."""

import dataclasses
import itertools
import math
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toys import (
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
    registered,
    roll,
    speculate,
    take,
    timer_xl,
)
from jax.tree_util import Partial

from stride_jax.decoding.base import Outcome, Round, Rule
from stride_jax.decoding.compiled import compiled
from stride_jax.decoding.draft_length import Gain, Threshold
from stride_jax.decoding.processes import window_process
from stride_jax.decoding.rules import RULES, AsReleased, Mean, Resample, SharedNoise
from stride_jax.decoding.types import ACCEPTED, BONUS, RECOVERED, DecodeConfig

DECODERS = pytest.mark.parametrize("decode", [speculate, roll])


# --- rules of one's own and wild drafts --------------------------------------------------------


@registered
class AcceptFirst(Rule):
    """Keeps `limit` proposals and adds the target's mean after them."""

    limit: int

    def decide(self, key, current):
        limit = jnp.asarray(self.limit, jnp.int32)
        return Outcome(limit, current.target_mean[limit])


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_rules_of_ones_own_plug_in(key, limit):
    """A rule of one's own would be ignored, or its decision be misread."""
    # N = 5: the last round of each limit but 0 reaches beyond the horizon
    forecast, info = speculate(key, config=DecodeConfig(14, 3), rule=AcceptFirst(limit))
    last = BONUS if limit == 3 else RECOVERED
    origins = list(itertools.islice(itertools.cycle([ACCEPTED] * limit + [last]), 5))
    assert info.origin.tolist() == origins
    assert int(info.rounds) == math.ceil(5 / (limit + 1))
    assert int(info.drafted) == draft_steps(origins, 3)
    found = (info.accepted.tolist(), info.proposed.tolist(), int(info.rounds))
    assert found == recount(origins, 3)
    patches = np.pad(forecast, ((0, 1), (0, 0))).reshape(5, PATCH_LEN, NUM_VARS)
    weight, mix = parameters(TARGET_LEN)
    series = CONTEXT
    for place, (origin, patch, proposal) in enumerate(
        zip(origins, patches, info.proposal, strict=True)
    ):
        steps = 2 if place == 4 else 3  # the last one is cut
        expected = (
            proposal if origin == ACCEPTED else forecast_tanh(weight, mix, series[-TARGET_LEN:])
        )
        np.testing.assert_allclose(patch[:steps], expected[:steps], atol=1e-5)
        assert bool(np.isnan(proposal).all()) == (origin == BONUS)
        series = np.concatenate([series, patch])


def oscillating(window):
    """Answers every patch with -1000 times it."""
    return -1e3 * window[-PATCH_LEN:]


def shifted(offset, window):
    """The target's forecast plus a constant."""
    return forecast_tanh(*parameters(TARGET_LEN), window[-TARGET_LEN:]) + offset


@pytest.mark.parametrize("name", ["maximal", "block", "residual"])
def test_wild_drafts_leave_the_forecast_finite(key, name):
    """A bad draft would break the forecast instead of only slowing it down."""
    for offset in (1e6, -1e6, 1e-30, 1e18, 1e30):
        draft = window_process(Partial(shifted, jnp.float32(offset)), PATCH_LEN)
        forecast, info = speculate(key, draft=draft, rule=RULES[name]())
        assert np.isfinite(forecast).all()
        assert np.max(np.abs(forecast)) < 1 + 8 * SIGMA  # tanh plus noise
        assert int(info.rounds) == (7 if abs(offset) > 1 else 2)


def growing(window):
    """Overflows on its own proposals."""
    return 1e30 * window[-PATCH_LEN:]


@pytest.mark.parametrize(
    "name",
    ["block", *(pytest.param(name, marks=pytest.mark.slow) for name in ("maximal", "residual"))],
)
def test_drafts_that_are_not_finite_leave_the_forecast_finite(key, name):
    """One causal pass sees all proposals: a NaN would reach the predictions before it."""
    fixed = Partial(constant, jnp.float32(jnp.nan))
    for predict in (fixed, Partial(constant, jnp.float32(jnp.inf)), growing):
        draft = window_process(predict, PATCH_LEN)
        forecast, info = speculate(key, target=timer_xl(), draft=draft, rule=RULES[name]())
        assert np.isfinite(forecast).all()
        assert info.origin.tolist() == [RECOVERED] * 7


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
    distributions, _ = verify(memory, after, patches)
    clean, _ = verify(memory, state, patches)
    np.testing.assert_allclose(distributions.mean, clean.mean, atol=1e-6)


def test_an_oscillating_draft_leaves_the_forecast_finite(key):
    """A draft that diverges on its own proposals would break the forecast."""
    forecast, _ = speculate(key, draft=window_process(oscillating, PATCH_LEN))
    assert np.isfinite(forecast).all()
    assert np.max(np.abs(forecast)) < 1 + 8 * SIGMA


def test_bias_and_tolerance_reach_the_rule(key):
    """The settings of the paper's variant would have no effect."""
    config, rates = DecodeConfig(60, 3), []
    for rule in (Resample(), Resample(bias=20.0), Resample(mse_tolerance=1e9)):
        _, info = speculate(key, sigma=0.2, config=config, rule=rule)
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
            rule=Resample(bias=1.0 + i, mse_tolerance=0.1 * i),
            draft_length=Gain(draft_cost=0.1 * (i + 1), decay=0.9 - 0.2 * i),
            series_index=jnp.int32(7 * i),
        )
        after_first = after_first or len(calls)
        forecasts.append(np.asarray(forecast))
    assert len(calls) == after_first > 0
    assert not np.allclose(forecasts[0], forecasts[1])
    same = {"target": target(1.0), "draft": draft(1.0), "rule": Resample()}
    other = DecodeConfig(20, 2)
    speculate(jax.random.key(0), config=other, draft_length=Gain(), **same)
    assert len(calls) > after_first  # K is a size: the count above could have seen a retrace


SLOW = [("rule", AsReleased), ("rule", SharedNoise), ("draft_length", Threshold)]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("rule", Mean),
        ("draft_length", Gain),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW),
    ],
)
def test_a_sweep_of_settings_compiles_once(name, kind):
    """A sweep of a hundred settings of a rule or a length would compile a hundred programs."""
    calls: list = []
    models = {"target": counted(calls, TARGET_LEN)(1.0), "draft": counted(calls, DRAFT_LEN)(1.0)}
    fields = [f.name for f in dataclasses.fields(kind) if not isinstance(f.default, bool)]
    after = []
    for value in (1.0, 1.5, 2.0):
        chosen = kind(**dict.fromkeys(fields, value))
        speculate(jax.random.key(0), **models, **{name: chosen})
        after.append(len(calls))
    assert after[0] == after[2] > 0


def test_autoregressive_sweeps_do_not_retrace():
    """Sweeping sigma, keys, contexts, series or checkpoints would compile every time."""
    calls: list = []
    target, after_first = counted(calls, TARGET_LEN), 0
    for i, scale in enumerate((1.0, 1.1, 0.0)):
        options = {"target": target(1 + scale), "sigma": SIGMA * scale}
        roll(jax.random.key(i), CONTEXT + i, series_index=jnp.int32(i), **options)
        after_first = after_first or len(calls)
    assert len(calls) == after_first > 0


def classes_of_rules(count: int) -> list[type[Rule]]:
    """Rules with the same single setting; rule n keeps nothing and puts out n times it."""

    def make(number: int) -> type[Rule]:
        @registered
        class Same(Rule):
            value: float

            def decide(self, key, current):
                return Outcome(jnp.int32(0), number * self.value + 0 * current.target_mean[0])

        return Same

    return [make(number) for number in range(count)]


@pytest.mark.slow
def test_classes_with_the_same_fields_have_programs_of_their_own():
    """A user's rule or draft would be run for another one, once in about a hundred times."""
    rules = classes_of_rules(150)  # plain `jax.jit` mixes some of so many up
    rounds = Round(*[jnp.zeros((2, 1, 1))] * 8, jnp.int32(1))
    decide = compiled(lambda rule, current: rule.decide(None, current).patch[0, 0])
    found = [int(decide(kind(1.0), rounds)) for kind in rules]
    assert found == list(range(len(rules)))


@registered
class Never(Rule):
    """Keeps nothing; has the settings of `SharedNoise`."""

    tolerance: float = 0.1

    def decide(self, key, current):
        return Outcome(jnp.int32(0), current.target_mean[0])


@registered
class Always(Rule):
    """Keeps everything; has the settings of `SharedNoise`."""

    tolerance: float = 0.1

    def decide(self, key, current):
        return Outcome(current.length, current.target_mean[current.length])


def test_a_decode_runs_the_rule_that_it_is_given(key):
    """Of rules with the same settings, the one that was compiled first would run for all."""
    kinds = SharedNoise, Never, Always, Never
    found = [int(speculate(key, rule=kind(9.0))[1].rounds) for kind in kinds]
    assert found == [2, 7, 2, 7]


@DECODERS
def test_inside_the_callers_jit(key, decode):
    """Nobody could make the decoder part of a larger program, or trace the rule's settings."""
    rule = Resample(bias=2.0, mse_tolerance=0.2)
    expected = decode(key, rule=rule)

    @jax.jit
    def run(key, context, sigma, rule):
        return decode(key, context, sigma=sigma, rule=rule)

    assert_same(run(key, CONTEXT, SIGMA, rule), expected)


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
        return forecast, info.origin, info.rounds

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
    assert_same(found, (forecast, info.origin, info.rounds))


@DECODERS
def test_output_is_float32(key, decode):
    """Precision would depend on how the caller happened to load the series."""
    forecast, info = decode(key, CONTEXT.astype(np.float64))
    assert forecast.dtype == info.proposal.dtype == jnp.float32
    assert info.origin.dtype == info.rounds.dtype == info.accepted.dtype == jnp.int32
    assert info.drafted.dtype == info.overflow.dtype == jnp.int32
    np.testing.assert_array_equal(forecast, decode(key)[0])


@DECODERS
def test_a_half_precision_forecaster_gets_full_precision_noise(decode, key):
    """Noise in bfloat16 has 128 values; the distribution of the paths would be a coarse grid."""
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
        "from stride_jax.decoding.rules import RULES\n"
        "for rule in RULES.values():\n"
        "    f, i = decode(jax.random.key(0), c, target=p, draft=p, sigma=1.0, rule=rule(), "
        "draft_length=Gain(), config=DecodeConfig(4, num_draft=1, trace=True))\n"
        "    assert (f.dtype, i.rounds.tolist()) == ('float32', [1, 1, 1]), (rule, f.dtype)\n"
        "a, _ = decode(jax.random.key(0), c, target=p, sigma=1.0, config=DecodeConfig(7))\n"
        "print(a.dtype)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_ENABLE_X64": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
    )
    assert done.stdout == "float32\n", done.stderr
