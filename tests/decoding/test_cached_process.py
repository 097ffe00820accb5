"""The cached process against full passes over the whole sequence, and against a plain loop.

No exactness test of the decoders can see a stale cache of the draft, so its predictions are
compared after every number of acceptances.
"""

import dataclasses
import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.models import forward, params_of
from helpers.toys import CONTEXT, NUM_VARS, PATCH_LEN, TIMER_XL, fading, speculate, timer_xl
from jax.tree_util import Partial

from stride_jax.decoding.compiled import compiled
from stride_jax.decoding.drafts import AutoregressiveDraft, as_draft, multi_patch_draft
from stride_jax.decoding.drafts import propose as propose_with
from stride_jax.decoding.processes import CachedProcess, cached_process, window_process
from stride_jax.decoding.rules import Mean
from stride_jax.decoding.types import RECOVERED, DecodeConfig
from stride_jax.errors import InputError
from stride_jax.models import make_predict
from stride_jax.models.cached import CachedTimerXL, cacheable
from stride_jax.models.config import TimerXLConfig
from stride_jax.types import PatchDistribution

P, K, PROMPT = 4, 3, 5
COUNTS = (4, 1, 3, 0, 2, 4, 4, 1)
"""Patches kept a round: acceptances + 1, so every number of acceptances 0..K; and nothing at all.

A draft that forgets its last proposal goes wrong after a 4.
"""
ROOM = sum(COUNTS) + K
LENGTH = PROMPT + ROOM + 1
"""Patches of every reference pass; what stands behind the patches in question is noise."""

BASE = TimerXLConfig(
    patch_len=P, d_model=16, num_heads=2, d_ff=24, instance_norm="causal", dropout=0.0
)


def make(**changes) -> TimerXLConfig:
    """A small model."""
    return dataclasses.replace(BASE, **changes)


CASES = {
    "1 layer": (make(head="gaussian"), 1),
    "1 layer, frozen": (make(instance_norm=None, head="gaussian"), 1, "frozen"),
    "1 layer, 3 variables, all limits": (
        make(variable_stride=0, max_patches=3, head="gaussian"),
        3,
    ),
    "2 layers, frozen, 3 variables": (make(num_layers=2, variable_stride=7), 3, "frozen"),
    "2 layers, as it is, 3 variables": (
        make(num_layers=2, variable_stride=5, max_patches=4, head="gaussian", instance_norm=None),
        3,
    ),
    "2 layers, covariate": (
        make(num_layers=2, variable_stride=6, covariate=True, covariate_mask="causal"),
        3,
    ),
    "1 layer, covariate, frozen, limited": (
        make(
            variable_stride=0,
            covariate=True,
            covariate_mask="causal",
            instance_norm=None,
            max_patches=2,
            activation="gelu",
        ),
        3,
        "frozen",
    ),
    "8 layers, frozen, limited": (make(num_layers=8, max_patches=3), 1, "frozen"),
    "8 layers, 3 variables": (make(num_layers=8, variable_stride=0), 3),
}


def case(name: str) -> tuple[TimerXLConfig, int, str | None]:
    """Config, variables and normalisation of a case."""
    config, num_vars, *norm = CASES[name]
    return config, num_vars, norm[0] if norm else config.instance_norm


def process_of(config: TimerXLConfig, norm, kind=CachedProcess, **changes) -> CachedProcess:
    """A process with random parameters."""
    process = cached_process(CachedTimerXL(config), params_of(config), P, norm=norm)
    fields = {f.name: getattr(process, f.name) for f in dataclasses.fields(process)}
    return kind(**fields | changes)


def random_patches(count: int, num_vars: int, seed: int = 0) -> np.ndarray:
    """`[count, P, C]`; every variable with another level, spread and drift."""
    rng = np.random.default_rng(seed)
    level = 3 * np.arange(num_vars) + 2 + 0.1 * seed
    spread = 1 + np.arange(num_vars) / 2
    return (level + spread * rng.normal(size=(count, P, num_vars))).astype(np.float32)


# One compilation a process for all tests; compiling takes longer than running these models.
FAST = {"xla_backend_optimization_level": 0}
_open = compiled(
    lambda process, context: (memory := process.prepare(context), process.start(memory, ROOM)),
    compiler_options=FAST,
)
_verify = compiled(lambda process, *args: process.verify(*args), compiler_options=FAST)
_step = compiled(lambda process, *args: process.step(*args), compiler_options=FAST)
_commit = compiled(lambda process, *args: process.commit(*args), compiler_options=FAST)


def opened(process, context: np.ndarray):
    """Memory of `[N, P, C]` and the state of a path before its first patch."""
    return _open(process, jnp.asarray(context.reshape(-1, context.shape[2])))


def full_pass(config, norm, context: np.ndarray, grown: np.ndarray) -> PatchDistribution:
    """Distributions after each patch of `grown [N, P, C]` by one ordinary pass, `[N, P, C]`.

    Frozen: the model without normalisation, on values standardised by hand with the context's
    statistics in float64.
    """
    num_vars = grown.shape[2]
    center, scale = np.zeros(num_vars), np.ones(num_vars)
    if norm == "frozen":
        rows = context.astype(np.float64).reshape(-1, num_vars)
        center, scale = rows.mean(axis=0), np.sqrt(rows.var(axis=0) + 1e-5)
        config = dataclasses.replace(config, instance_norm=None)
    assert (norm == "causal") == (config.instance_norm == "causal")
    x = ((grown - center) / scale).astype(np.float32).reshape(1, -1, num_vars)
    out = forward(config, x, params_of(config))
    mean, logvar = out if isinstance(out, tuple) else (out, None)
    mean = mean.reshape(grown.shape) * scale + center
    if logvar is not None:
        logvar = logvar.reshape(grown.shape) + 2 * np.log(scale)
    return PatchDistribution(mean, logvar)


def distribution_error(
    found: PatchDistribution, config, norm, context, grown: np.ndarray, first: int
) -> float:
    """The largest error of distributions after patches `first`, `first + 1`, ... of the sequence.

    In units of each variable's spread, where that is above 1.
    """
    distributions, num_vars = len(found.mean), grown.shape[2]
    assert found.features.shape == (distributions, num_vars, config.d_model)
    assert found.mean.shape == (distributions, P, num_vars)
    assert found.mean.dtype == jnp.float32
    assert (found.logvar is None) == (config.head == "mean")
    noise = 50 * random_patches(LENGTH - len(grown), num_vars, seed=99)
    expected = full_pass(config, norm, context, np.concatenate([grown, noise]))
    errors = [np.abs(found.mean - expected.mean[first : first + distributions]).max()]
    if found.logvar is not None:
        assert found.logvar.dtype == jnp.float32
        errors.append(np.abs(found.logvar - expected.logvar[first : first + distributions]).max())
    return float(max(errors))


def target_errors(process, config, norm, num_vars: int, counts=COUNTS, prefill=PROMPT):
    """Error of the distributions of each round: verify K proposals, keep `count` patches.

    The last patch kept is the one recovered, which `verify` has not seen.
    """
    context = random_patches(prefill, num_vars)
    memory, state = opened(process, context)
    grown, errors = context, []
    for seed, count in enumerate(counts, 1):
        proposals = 3 * random_patches(K, num_vars, seed=seed)
        distributions, seen = _verify(process, memory, state, jnp.asarray(proposals))
        sequence = np.concatenate([grown, proposals])
        errors.append(
            distribution_error(distributions, config, norm, context, sequence, len(grown) - 1)
        )
        kept = proposals[:count].copy()
        kept[count - 1 :] = random_patches(1, num_vars, seed=seed + 50)
        bonus = random_patches(1, num_vars, seed=seed + 70)
        patches = np.concatenate([kept, 1e3 * random_patches(K, num_vars)])[:K]
        patches = np.concatenate([patches, bonus])
        state = _commit(process, seen, jnp.asarray(patches), jnp.int32(count))
        grown = np.concatenate([grown, patches[:count]])
    return errors


def draft_errors(process, config, norm, num_vars: int, counts=COUNTS, wanted=None):
    """Error of the distributions of each round: K proposals patch by patch, keep `count` patches.

    `wanted`: how many proposals a round makes; K each by default.
    """
    context = random_patches(PROMPT, num_vars)
    memory, state = opened(process, context)
    grown, errors = context, []
    for seed, count in enumerate(counts, 1):
        many = K if wanted is None else wanted[seed - 1]
        proposals = 3 * random_patches(many, num_vars, seed=seed)
        distributions, ahead = _verify(process, memory, state, jnp.zeros((0, P, num_vars)))
        for patch in proposals[:-1]:
            distribution, ahead = _step(process, memory, ahead, jnp.asarray(patch))
            distributions = jax.tree.map(
                lambda x, y: jnp.concatenate([x, y[None]]), distributions, distribution
            )
        assert len(distributions.mean) == many
        sequence = np.concatenate([grown, proposals])
        errors.append(
            distribution_error(distributions, config, norm, context, sequence, len(grown) - 1)
        )
        patches = np.concatenate([proposals, random_patches(1, num_vars, seed=seed + 70)])
        if 0 < count <= many:
            patches[count - 1] = random_patches(1, num_vars, seed=seed + 50)[0]
        patches[count:] = 1e3
        patches = np.concatenate([patches, np.full((K - many, P, num_vars), 1e3, np.float32)])
        state = _commit(process, ahead, jnp.asarray(patches), jnp.int32(count))
        grown = np.concatenate([grown, patches[:count]])
    return errors


def test_counts_hold_every_number_of_acceptances():
    """The tests below would leave out the one that goes wrong."""
    assert set(COUNTS) == set(range(K + 2))
    assert COUNTS.index(K + 1) < len(COUNTS) - 1


DEPTHS = [
    pytest.param(name, marks=pytest.mark.slow) if name.startswith("8 layers") else name
    for name in CASES
]
"""Deep models compile slowly."""


@pytest.mark.parametrize("name", DEPTHS)
def test_target_distributions_are_those_of_a_full_pass(name):
    """Decoding from caches would be another forecast than the model's own."""
    config, num_vars, norm = case(name)
    errors = target_errors(process_of(config, norm), config, norm, num_vars)
    assert max(errors) < 1e-4, errors


@pytest.mark.parametrize("name", DEPTHS)
def test_draft_distributions_are_those_of_a_full_pass(name):
    """A stale cache would cost acceptances without any other test noticing."""
    config, num_vars, norm = case(name)
    draft = process_of(config, norm).drafting()
    assert draft.lag == 2
    errors = draft_errors(draft, config, norm, num_vars)
    assert max(errors) < 1e-4, errors


def test_the_last_reference_pass_has_no_patch_behind():
    """Everything above would rest on the model not seeing what stands behind."""
    config, num_vars, norm = case("1 layer, 3 variables, all limits")
    context = random_patches(LENGTH - K, num_vars)
    process = process_of(config, norm)
    memory, state = opened(process, context)
    proposals = random_patches(K, num_vars, seed=1)
    distributions, _ = _verify(process, memory, state, jnp.asarray(proposals))
    grown = np.concatenate([context, proposals])
    assert distribution_error(distributions, config, norm, context, grown, len(context) - 1) < 1e-4


@pytest.mark.parametrize("norm", ["causal", "frozen"])
def test_rounds_with_fewer_proposals(norm):
    """Pacing (fewer than K proposals in a round) would leave holes in the draft's cache."""
    config = case("1 layer" if norm == "causal" else "1 layer, frozen")[0]
    draft = process_of(config, norm).drafting()
    wanted, counts = (2, 3, 1, 1, 3, 2, 1, 3), (3, 4, 2, 1, 2, 3, 2, 4)
    errors = draft_errors(draft, config, norm, 1, counts, wanted)
    assert max(errors) < 1e-4, errors


@pytest.mark.parametrize(("norm", "lag"), [("causal", 1), ("causal", 2), ("frozen", 1)])
def test_a_context_that_is_pending_as_a_whole(norm, lag):
    """The shortest context would be normalised or cached differently from longer ones."""
    config = case("1 layer" if norm == "causal" else "1 layer, frozen")[0]
    process = process_of(config, norm, lag=lag)
    errors = target_errors(process, config, norm, 1, COUNTS[:4], prefill=lag)
    assert max(errors) < 1e-4, errors


def test_only_the_last_steps_of_a_longer_context_count():
    """A model would be given a longer context than it was trained on."""
    config, num_vars, norm = case("1 layer, 3 variables, all limits")
    context = random_patches(PROMPT + 2, num_vars)
    process = process_of(config, norm, context_len=PROMPT * P)
    memory, state = opened(process, np.concatenate([1e4 * context[:2], context[2:]]))
    proposals = random_patches(K, num_vars, seed=1)
    distributions, _ = _verify(process, memory, state, jnp.asarray(proposals))
    grown = np.concatenate([context[2:], proposals])
    assert distribution_error(distributions, config, norm, context[2:], grown, PROMPT - 1) < 1e-4


def test_the_draft_class_proposes_by_a_full_pass():
    """The decoder's draft would drive the process differently from the tests above."""
    config, num_vars, norm = case("1 layer, 3 variables, all limits")
    draft = as_draft(process_of(config, norm))
    assert isinstance(draft, AutoregressiveDraft)
    context = random_patches(PROMPT, num_vars)
    memory, state = opened(draft, context)
    sigma = jnp.full((P, num_vars), 0.5)
    propose = jax.jit(functools.partial(propose_with, draft, learned=False), compiler_options=FAST)
    grown = context
    for seed, count in enumerate((4, 2, 4, 1)):
        noise = jnp.asarray(np.random.default_rng(seed).normal(size=(K, P, num_vars)), jnp.float32)
        made, ahead = propose(memory, state, noise, sigma, K)
        sequence = np.concatenate([grown, made.patches])
        padding = random_patches(LENGTH - len(sequence), num_vars)
        full = full_pass(config, norm, context, np.concatenate([sequence, padding]))
        part = slice(len(grown) - 1, len(grown) - 1 + K)
        np.testing.assert_allclose(made.mean, full.mean[part], atol=1e-4)
        np.testing.assert_allclose(made.logvar, full.logvar[part], atol=1e-4)
        patches = np.concatenate([made.patches, random_patches(1, num_vars, seed=seed)])
        state = draft.commit(ahead, jnp.asarray(patches), jnp.int32(count))
        grown = np.concatenate([grown, patches[:count]])


# Planted mistakes.


@pytest.mark.parametrize("norm", ["causal", "frozen"])
def test_a_draft_that_lags_by_one_is_caught(norm):
    """The tests above would not see a draft whose last accepted proposal was never fed to it."""
    config = case("1 layer" if norm == "causal" else "1 layer, frozen")[0]
    stale = process_of(config, norm)
    good = draft_errors(stale, config, norm, 1, (1, 3, 2, 0, 3))
    assert max(good) < 1e-4  # its caches are whole as long as a proposal was rejected
    bad = draft_errors(stale, config, norm, 1, (K + 1, 1, 1))
    assert bad[0] < 1e-4
    assert bad[1] > 1e-3, bad


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LeakingMoments(CachedProcess):
    """A mistake: running statistics go on from everything fed, rejected proposals too."""

    def commit(self, state, patches, count):
        return super().commit(state, patches, count)._replace(moments=state.ahead)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KeepingRejected(CachedProcess):
    """A mistake: the length is not moved back behind rejected proposals."""

    def commit(self, state, patches, count):
        done = super().commit(state, patches, count)
        return done._replace(length=state.length + patches.shape[0])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LateLaws(CachedProcess):
    """A mistake: the distribution for proposal i is taken after it (the original's slice)."""

    def verify(self, memory, state, proposals):
        distributions, state = super().verify(memory, state, proposals)
        return jax.tree.map(lambda x: jnp.roll(x, -1, axis=0), distributions), state


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ForgettingPending(CachedProcess):
    """A mistake: the patch before the recovered one stays pending."""

    def commit(self, state, patches, count):
        done = super().commit(state, patches, count)
        return done._replace(pending=state.pending)


@pytest.mark.parametrize(
    "kind", [LeakingMoments, KeepingRejected, LateLaws, ForgettingPending], ids=lambda k: k.__name__
)
def test_planted_mistakes_are_caught(kind):
    """The tests above would pass whatever a rollback leaves behind."""
    config, num_vars, norm = case("1 layer")
    errors = target_errors(process_of(config, norm, kind), config, norm, num_vars, (2, 1, 3))
    assert max(errors) > 1e-2, errors
    if kind is not LateLaws:
        assert errors[0] < 1e-4


# Rollback and paths.


@pytest.mark.parametrize("lag", [1, 2])
@pytest.mark.parametrize("name", ["1 layer, frozen", "1 layer, 3 variables, all limits"])
def test_keeping_nothing_changes_nothing(name, lag):
    """A finished path, or a round of rejections, would leave a trace in later distributions."""
    config, num_vars, norm = case(name)
    process = process_of(config, norm, lag=lag)
    memory, state = opened(process, random_patches(PROMPT, num_vars))
    first = random_patches(K + 1, num_vars, seed=1)
    _, seen = _verify(process, memory, state, jnp.asarray(first[:K]))
    state = _commit(process, seen, jnp.asarray(first), jnp.int32(2))
    rejected = jnp.asarray(1e4 * random_patches(K + 1, num_vars, seed=2))
    _, seen = _verify(process, memory, state, rejected[:K])
    back = _commit(process, seen, rejected, jnp.int32(0))
    for now in range(2):  # at once, and after one more round
        proposals = jnp.asarray(random_patches(K + 1, num_vars, seed=3 + now))
        distributions, state = _verify(process, memory, state, proposals[:K])
        again, back = _verify(process, memory, back, proposals[:K])
        jax.tree.map(np.testing.assert_array_equal, distributions, again)
        state = _commit(process, state, proposals, jnp.int32(3))
        back = _commit(process, back, proposals, jnp.int32(3))


@pytest.mark.parametrize("name", ["1 layer, frozen", "1 layer, 3 variables, all limits"])
def test_paths_share_the_prompt_and_stay_apart(name):
    """100 sample paths would hold 100 copies of the context, or see each other's patches."""
    config, num_vars, norm = case(name)
    process = process_of(config, norm)
    memory, state = opened(process, random_patches(PROMPT, num_vars))
    patches = jnp.asarray(
        np.stack([random_patches(K + 1, num_vars, seed=i) for i in range(1, K + 3)])
    )
    verify = jax.jit(jax.vmap(process.verify, in_axes=(None, 0, 0)), compiler_options=FAST)
    commit = jax.jit(jax.vmap(process.commit), compiler_options=FAST)
    paths = jax.tree.map(lambda x: jnp.broadcast_to(x, (K + 2, *x.shape)), state)
    for _ in range(2):
        distributions, seen = verify(memory, paths, patches[:, :K])
        for i in range(K + 2):
            one = jax.tree.map(lambda x, i=i: x[i], paths)
            alone, _ = _verify(process, memory, one, patches[i, :K])
            np.testing.assert_allclose(distributions.mean[i], alone.mean, atol=1e-5)
            np.testing.assert_allclose(distributions.features[i], alone.features, atol=1e-5)
        paths = commit(seen, patches, jnp.arange(K + 2))  # lengths differ from now on
    np.testing.assert_array_equal(paths.length, 2 * np.arange(K + 2))


def test_parameters_are_traced():
    """Every new checkpoint of the same shape would compile anew."""
    traces = []

    def run(process, context):
        traces.append(process)
        memory = process.prepare(context)
        distributions, _ = process.verify(memory, process.start(memory, 1), jnp.zeros((0, P, 1)))
        return distributions.mean

    run = jax.jit(run, compiler_options=FAST)
    config = case("1 layer")[0]
    context = jnp.asarray(random_patches(2, 1).reshape(-1, 1))
    params = params_of(config)
    other = jax.tree.map(lambda x: 1.5 * x, params)
    a, b = (
        run(cached_process(CachedTimerXL(make(head="gaussian")), p, P, norm="causal"), context)
        for p in (params, other)
    )
    assert len(traces) == 1
    assert np.abs(a - b).max() > 1e-3


# Units and precision.


@pytest.mark.parametrize("name", ["1 layer, frozen", "1 layer, 3 variables, all limits"])
def test_distributions_are_in_the_units_of_the_series(name):
    """Celsius and Fahrenheit would get different forecasts, or a variance of another size."""
    config, num_vars, norm = case(name)
    process = process_of(config, norm)
    context, proposals = random_patches(PROMPT, num_vars), random_patches(K, num_vars, seed=1)
    distributions, _ = _verify(process, *opened(process, context), jnp.asarray(proposals))
    other, _ = _verify(
        process, *opened(process, 10 * context - 40), jnp.asarray(10 * proposals - 40)
    )
    np.testing.assert_allclose(other.mean, 10 * distributions.mean - 40, atol=2e-3)
    np.testing.assert_allclose(other.logvar, distributions.logvar + 2 * np.log(10), atol=1e-3)
    np.testing.assert_allclose(other.features, distributions.features, atol=1e-3)
    assert distributions.features.shape == (K + 1, num_vars, config.d_model)


def test_features_are_what_the_head_reads():
    """A rule or a calibration on features would see something else than the predictions do."""
    config, num_vars, _ = case("2 layers, as it is, 3 variables")
    process = process_of(config, None)
    proposals = jnp.asarray(random_patches(K, num_vars, seed=1))
    distributions, _ = _verify(
        process, *opened(process, random_patches(PROMPT, num_vars)), proposals
    )
    head = params_of(config)["head_mean"]
    mean = distributions.features @ head["kernel"] + head["bias"][None, None]  # [k, C, P]
    np.testing.assert_allclose(distributions.mean, mean.transpose(0, 2, 1), atol=1e-5)


@pytest.mark.parametrize("norm", ["causal", "frozen"])
def test_bfloat16_errs_by_its_rounding_alone(norm):
    """Statistics or forecasts would be rounded to 8 bits, and the noise to few values."""
    exact = case("1 layer" if norm == "causal" else "1 layer, frozen")[0]
    short = dataclasses.replace(exact, dtype="bfloat16")
    context = 1000 + random_patches(PROMPT, 1)
    proposals = jnp.asarray(1000 + random_patches(K, 1, seed=1))
    distributions = []
    for config in (exact, short):
        process = cached_process(CachedTimerXL(config), params_of(exact), P, norm=norm)
        memory, state = opened(process, context)
        found, state = _verify(process, memory, state, proposals)
        distributions.append(found)
    assert {x.dtype for x in jax.tree.leaves(state.cache)} == {jnp.dtype("bfloat16")}
    for x in (*memory.moments, memory.center, memory.scale, memory.origin, state.moments):
        assert x.dtype == jnp.float32
    assert distributions[1].mean.dtype == distributions[1].logvar.dtype == jnp.float32
    error = np.asarray(distributions[1].mean - distributions[0].mean)
    unit = 2.0**-8  # one rounding
    spread = np.asarray(distributions[0].mean).std()
    assert 1e-5 * spread < np.sqrt(np.mean(error**2)) < 4 * unit * spread
    np.testing.assert_allclose(distributions[1].logvar, distributions[0].logvar, atol=16 * unit)


# A trained model from caches.


def test_the_first_patch_is_that_of_the_window_process():
    """A published checkpoint would be decoded with other positions than it was trained with."""
    trained = make(num_layers=2, instance_norm="window", head="gaussian")
    params = params_of(trained)
    context = random_patches(PROMPT, 3)
    window = window_process(make_predict(trained, params), P)
    distribution = jax.jit(window.predict_patch, compiler_options=FAST)
    expected = distribution(jnp.asarray(context.reshape(-1, 3)))
    config = cacheable(trained, PROMPT * P, 3)
    process = cached_process(CachedTimerXL(config), params, P, norm="frozen")
    distributions, _ = _verify(process, *opened(process, context), jnp.zeros((0, P, 3)))
    np.testing.assert_allclose(distributions.mean[0], expected.mean, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(distributions.logvar[0], expected.logvar, rtol=1e-4, atol=1e-4)
    # and other positions would be seen
    other = dataclasses.replace(config, variable_stride=PROMPT + 1)
    process = cached_process(CachedTimerXL(other), params, P, norm="frozen")
    distributions, _ = _verify(process, *opened(process, context), jnp.zeros((0, P, 3)))
    assert np.abs(distributions.mean[0] - expected.mean).max() > 1e-3


def test_cacheable_pins_what_depends_on_the_length():
    """Positions of neighbouring variables would meet once the sequence has grown."""
    free = make(instance_norm="window")
    pinned = cacheable(free, 6 * P, 3)
    assert pinned == dataclasses.replace(free, variable_stride=6, max_patches=6)
    assert cacheable(dataclasses.replace(free, max_patches=2), 6 * P, 3).max_patches == 2
    assert cacheable(free, 6 * P, 1) == free
    apart, by_time = (dataclasses.replace(free, variable_stride=n) for n in (7, 0))
    assert cacheable(apart, 6 * P, 3) == dataclasses.replace(apart, max_patches=7)
    assert cacheable(by_time, 6 * P, 3) == by_time


def test_the_originals_covariate_mask_is_refused():
    """Proposals would be verified by distributions that have already seen them."""
    config = make(instance_norm="window", covariate=True)
    with pytest.raises(InputError, match=r"covariate.mask"):
        cacheable(config, 6 * P, 3)
    with pytest.raises(InputError, match="covariate_mask"):
        cacheable(dataclasses.replace(config, variable_stride=0), 6 * P, 1)
    causal = dataclasses.replace(config, covariate_mask="causal")
    assert cacheable(causal, 6 * P, 3).covariate_mask == "causal"


# Errors.


def test_several_variables_need_an_integer_stride():
    """Positions would change with every patch, and the cached keys be those of another place."""
    process = process_of(make(), "causal")
    with pytest.raises(InputError, match=r"variable_stride None.*cacheable"):
        jax.eval_shape(process.prepare, jnp.zeros((PROMPT * P, 3)))


@pytest.mark.parametrize("length", [9, 11, 5])
def test_a_context_that_is_not_whole_patches(length):
    """Patches would be cut at another place than in training, or a reshape fail deep inside."""
    process = process_of(make(), "causal")
    with pytest.raises(InputError, match=rf"{length} steps, not a multiple of patch_len 4"):
        process.prepare(jnp.zeros((length, 1)))
    with pytest.raises(InputError, match=rf"{length} steps, not a multiple of patch_len 4"):
        process_of(make(), "causal", context_len=length).prepare(jnp.zeros((40, 1)))


@pytest.mark.parametrize(
    ("length", "context_len", "lag", "need"),
    [(16, 20, 1, 20), (0, None, 1, 4), (2, None, 1, 4), (2, None, 2, 8), (4, 12, 2, 12)],
)
def test_a_context_that_is_too_short(length, context_len, lag, need):
    """A draft would be asked for two patches that are not there."""
    process = process_of(make(), "causal", context_len=context_len, lag=lag)
    with pytest.raises(InputError, match=rf"context has {length} steps.* needs {need}"):
        process.prepare(jnp.zeros((length, 1)))


def test_a_draft_that_sees_one_patch():
    """A draft of one patch of context would predict one patch too few, a shape deep in the loop."""
    draft = process_of(case("1 layer")[0], "causal", context_len=P).drafting()

    def distributions(context):
        memory = draft.prepare(context)
        return draft.verify(memory, draft.start(memory, K), jnp.zeros((0, P, 1)))[0].mean

    try:
        found = jax.eval_shape(distributions, jnp.zeros((2 * P, 1)))
    except InputError:
        return  # saying that it needs two is fine as well
    assert found.shape == (1, P, 1)


@pytest.mark.parametrize("absent", ["prefill", "empty_cache", "extend"])
def test_a_model_without_the_functions(absent):
    """A bare Flax module passed by mistake would fail deep inside a trace."""

    class Partly:
        prefill = empty_cache = extend = staticmethod(lambda *args: None)

    setattr(Partly, absent, None)
    with pytest.raises(InputError, match=rf"needs the functions {absent}\."):
        cached_process(Partly(), {}, P, norm=None)
    with pytest.raises(InputError, match="prefill, empty_cache, extend"):
        cached_process(lambda w: w, {}, P, norm=None)


@pytest.mark.parametrize("norm", ["window", "none", "", 1])
def test_an_unknown_norm(norm):
    """A misspelt normalisation would silently be none."""
    with pytest.raises(InputError, match=rf"'frozen', 'causal' or None, got {norm!r}"):
        cached_process(CachedTimerXL(make()), {}, P, norm=norm)


@pytest.mark.parametrize(("patch_len", "context_len"), [(0, None), (-3, 4), (2, 0), (2, -5)])
def test_sizes_below_one(patch_len, context_len):
    """Nonsense sizes would be sliced silently into empty or wrong contexts."""
    with pytest.raises(InputError, match=rf"got {patch_len} and {context_len}"):
        cached_process(CachedTimerXL(make()), {}, patch_len, norm=None, context_len=context_len)


# A forecaster of a user's own.


@dataclass(frozen=True)
class MovingAverage:
    """Exponential moving average of patches; slot i holds the state after i + 1 patches."""

    def _run(self, params, before, patches):
        def body(level, patch):
            level = params["keep"] * level + (1 - params["keep"]) * patch
            return level, level

        return jax.lax.scan(body, before, patches)[1]

    def prefill(self, params, patches, skip):
        zero = jnp.zeros(patches.shape[1:])
        return self._run(params, zero, patches)[-1] if len(patches) else zero

    def empty_cache(self, params, prefill, count):
        return jnp.zeros((count, *prefill.shape))

    def extend(self, params, prefill, cache, patches, start):
        before = jnp.where(start == 0, prefill, cache[start - 1])
        levels = self._run(params, before, patches)
        distribution = PatchDistribution(levels + params["drift"], 2 * levels)
        return distribution, jax.lax.dynamic_update_slice_in_dim(cache, levels, start, 0)


def plain_average(norm, context: np.ndarray, grown: np.ndarray) -> PatchDistribution:
    """The same in float64 by a plain loop over the whole sequence."""
    num_vars = grown.shape[2]
    level, means, logvars = np.zeros((P, num_vars)), [], []
    for n, patch in enumerate(grown.astype(np.float64)):
        rows = (context if norm == "frozen" else grown[: n + 1]).astype(np.float64)
        rows = rows.reshape(-1, num_vars)
        center, scale = rows.mean(axis=0), np.sqrt(rows.var(axis=0) + 1e-5)
        if norm is None:
            center, scale = np.zeros(num_vars), np.ones(num_vars)
        level = 0.7 * level + 0.3 * (patch - center) / scale
        means.append((level + 0.25) * scale + center)
        logvars.append(2 * level + 2 * np.log(scale))
    return PatchDistribution(np.array(means), np.array(logvars))


@pytest.mark.parametrize("norm", [None, "frozen", "causal"])
@pytest.mark.parametrize(("lag", "prefill"), [(1, PROMPT), (2, PROMPT), (2, 2)])
def test_a_forecaster_that_is_no_transformer(norm, lag, prefill):
    """Only Timer-XL could be decoded from caches."""
    params = {"keep": jnp.float32(0.7), "drift": jnp.float32(0.25)}
    process = cached_process(MovingAverage(), params, P, norm=norm)
    process = process.drafting() if lag == 2 else process
    context = random_patches(prefill, 2)
    memory, state = opened(process, context)
    grown = context
    for seed, count in enumerate(COUNTS, 1):
        proposals = 3 * random_patches(K + 1, 2, seed=seed)
        expected = plain_average(norm, context, np.concatenate([grown, proposals[:K]]))
        part = slice(len(grown) - 1, None)
        distributions, seen = _verify(process, memory, state, jnp.asarray(proposals[:K]))
        np.testing.assert_allclose(distributions.mean, expected.mean[part], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(
            distributions.logvar, expected.logvar[part], rtol=1e-5, atol=2e-5
        )
        distribution, ahead = _verify(process, memory, state, jnp.zeros((0, P, 2)))
        found = [distribution.mean[0]]
        for patch in proposals[: K - 1]:
            distribution, ahead = _step(process, memory, ahead, jnp.asarray(patch))
            found.append(distribution.mean)
        np.testing.assert_allclose(found, expected.mean[part][:K], rtol=1e-5, atol=1e-5)
        state = _commit(
            process, ahead if lag == 2 else seen, jnp.asarray(proposals), jnp.int32(count)
        )
        grown = np.concatenate([grown, proposals[:count]])


def prediction(process, context, length=None):
    """The mean of the patch after a context."""
    memory = process.prepare(jnp.asarray(context), length)
    none = jnp.zeros((0, PATCH_LEN, context.shape[1]))
    return process.verify(memory, process.start(memory, 4), none)[0].mean[0]


def test_padding_costs_a_series_at_a_high_level_no_digits():
    """A short history of a meter in the millions would be forecast from rounding noise."""
    rng = np.random.default_rng(0)
    series = (1e6 + np.round(16 * rng.normal(size=(3 * PATCH_LEN, NUM_VARS))) / 16).astype("f4")
    padded = np.concatenate([np.zeros((2 * PATCH_LEN, NUM_VARS), np.float32), series])
    expected = np.float64(prediction(fading(), series)) - 1e6
    found = np.float64(prediction(fading(), padded, jnp.int32(len(series)))) - 1e6
    np.testing.assert_allclose(found, expected, atol=1e-1)
    statistics = [
        fading().prepare(jnp.asarray(x), n).moments
        for x, n in ((series, None), (padded, jnp.int32(len(series))))
    ]
    np.testing.assert_allclose(statistics[1].m2, statistics[0].m2, rtol=1e-3)


@pytest.mark.parametrize("size", [1e30, 1e38, np.inf])
def test_a_wild_proposal_leaves_a_transformer_finite(key, size):
    """A weight of 0 times what a wild patch overflows to is NaN: it would reach earlier places."""
    config = dataclasses.replace(TIMER_XL, instance_norm=None)
    target = cached_process(CachedTimerXL(config), params_of(config), PATCH_LEN, norm="frozen")
    wild = multi_patch_draft(
        Partial(lambda window: PatchDistribution(jnp.full((9, NUM_VARS), size))), PATCH_LEN
    )
    forecast, info = speculate(key, target=target, draft=wild, config=DecodeConfig(12, 3))
    assert np.isfinite(forecast).all()
    assert not np.asarray(info.accepted).any()


def test_a_draft_of_one_patch_of_history_is_a_number_after_a_rejection(key):
    """Statistics of no patch would be 0 / 0, and every later proposal of the draft NaN."""
    options = {"target": timer_xl(), "draft": fading(), "config": DecodeConfig(12, 2)}
    _, info = speculate(key, CONTEXT[-PATCH_LEN:], rule=Mean(1e-6), **options)
    assert int(info.origin[0]) == RECOVERED  # so that one patch is kept
    assert np.isfinite(info.proposal).all()


def test_a_draft_of_one_patch_of_history_sees_that_patch_alone():
    """The padding in front would pass for a history of zeros."""
    one = CONTEXT[-PATCH_LEN:]
    for process in (fading(), timer_xl()):
        found = prediction_of_draft(process, one)
        np.testing.assert_allclose(found, prediction(process, one), atol=1e-5)


def test_a_draft_with_a_context_of_two_patches_takes_one():
    """A short history would be refused by the draft and not by its target."""
    one, process = CONTEXT[-PATCH_LEN:], dataclasses.replace(fading(), context_len=2 * PATCH_LEN)
    np.testing.assert_allclose(
        prediction_of_draft(process, one), prediction(fading(), one), atol=1e-5
    )


def prediction_of_draft(process, context):
    """The mean of the first proposal of a process as a draft."""
    draft = as_draft(process)
    memory = draft.prepare(jnp.asarray(context))
    return draft.predict_next(memory, draft.start(memory, 4), (3, *context[:PATCH_LEN].shape))[
        0
    ].mean[0]
