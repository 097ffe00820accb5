"""Contexts of different lengths, padded in front: against passes that know no padding at all."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.models import params_of
from helpers.toys import assert_same, history, process, take
from hypothesis import given, settings
from hypothesis import strategies as st

from stride_jax.decoding.base import Rule
from stride_jax.decoding.batching import normals, patch_keys, path_keys
from stride_jax.decoding.naive_drafts import last_value_draft
from stride_jax.decoding.normalization import EPS, patch_moments, std, window_stats
from stride_jax.decoding.normalization import running_moments as _running_moments
from stride_jax.decoding.processes import CachedProcess, cached_process
from stride_jax.decoding.processes import cached as cached_processes
from stride_jax.decoding.rules import Maximal, Mean, Residual
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError
from stride_jax.models import TimerXL, attention
from stride_jax.models import cached as cached_model
from stride_jax.models.cached import CachedTimerXL
from stride_jax.models.config import TimerXLConfig
from stride_jax.types import PatchDistribution

PROPERTY = settings(deadline=None, max_examples=25, derandomize=True)
P, N, K = 4, 5, 2
HISTORIES = (1, 2, 3, N)
"""Patches of history; a draft has two pending patches, so that the first one has padding there."""
LENGTHS = P * np.array(HISTORIES, np.int32)
CONFIG = DecodeConfig(horizon=15, num_draft=K)  # four patches, the last one is cut
SIGMA = 0.6
ATOL = 1e-4  # positions move with the padding: other roundings of the rotations
BASE = TimerXLConfig(
    patch_len=P, d_model=8, num_heads=2, d_ff=8, instance_norm="causal", dropout=0.0
)
CASES: dict[str, tuple[dict[str, Any], int, str | None]] = {
    "causal": ({"head": "gaussian"}, 1, "causal"),
    "frozen, 2 layers, 2 variables, limited": (
        {"num_layers": 2, "variable_stride": 6, "max_patches": 2},
        2,
        "frozen",
    ),
    "as it is, 2 layers, covariate": (
        {"num_layers": 2, "variable_stride": 0, "covariate": True, "covariate_mask": "causal"},
        2,
        None,
    ),
    "frozen": ({}, 1, "frozen"),
    "causal, 3 layers, 3 variables": ({"num_layers": 3, "variable_stride": 0}, 3, "causal"),
    "causal, 2 variables, limited": ({"variable_stride": N, "max_patches": 3}, 2, "causal"),
    "frozen, 3 variables": ({"variable_stride": 0}, 3, "frozen"),
    "as it is, limited": ({"max_patches": 3}, 1, None),
}
QUICK = list(CASES)[:3]
"""In every run; the others are slow tests."""


def cases(quick: list[str]) -> list[Any]:
    """Parameters of a test of all cases, of which these are quick."""
    marks = {name: () if name in quick else pytest.mark.slow for name in CASES}
    return [pytest.param(name, marks=mark) for name, mark in marks.items()]


def model_of(name: str) -> TimerXLConfig:
    """The model of a case."""
    changes, _, norm = CASES[name]
    return dataclasses.replace(BASE, instance_norm=norm if norm == "causal" else None, **changes)


def contexts_of(name: str) -> np.ndarray:
    """`[B, L, C]`; every series and variable with another level, spread and drift."""
    num_vars, rng = CASES[name][1], np.random.default_rng(7)
    made = rng.normal(size=(len(LENGTHS), N * P, num_vars)).cumsum(axis=1) / 2
    return (made + np.arange(len(LENGTHS))[:, None, None] - np.arange(num_vars)).astype(np.float32)


def drafted(params: Any) -> Any:
    """The parameters of a draft: the target's, somewhat off."""
    rng = np.random.default_rng(3)
    return jax.tree.map(lambda x: x + 0.05 * rng.normal(size=x.shape).astype(np.float32), params)


class WholeState(NamedTuple):
    """The history of one path, at the front of its room."""

    patches: jax.Array
    length: jax.Array
    fed: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Whole:
    """The process without padding and without caches: a pass over all patches for each one.

    The history goes to the front, where nothing is before it. What stands behind it no causal model
    sees.
    """

    params: Any
    config: TimerXLConfig = dataclasses.field(metadata={"static": True})
    norm: str | None = dataclasses.field(metadata={"static": True})
    context_len: int | None = dataclasses.field(default=None, metadata={"static": True})

    @property
    def patch_len(self):
        return self.config.patch_len

    @property
    def supports_padding(self):
        return True

    def prepare(self, context, length=None):
        length = context.shape[0] if length is None else length
        if self.context_len is not None:
            context = context[context.shape[0] - self.context_len :]
            length = jnp.minimum(length, self.context_len)
        count = jnp.asarray(length // P, jnp.int32)
        front = jnp.roll(context.reshape(-1, P, context.shape[1]), count, axis=0)
        center, scale = jnp.zeros(context.shape[1]), jnp.ones(context.shape[1])
        if self.norm == "frozen":
            own = (jnp.arange(len(context)) >= len(context) - length)[:, None]
            center = jnp.sum(jnp.where(own, context, 0), axis=0) / length
            square = jnp.where(own, jnp.square(context - center[None]), 0)
            scale = jnp.sqrt(jnp.sum(square, axis=0) / length + 1e-5)
        return front, count, center[None, None], scale[None, None]

    def start(self, memory, room):
        front, count, *_ = memory
        spare = jnp.zeros((room + K + 1, *front.shape[1:]))
        return WholeState(jnp.concatenate([front, spare]), count, count)

    def _distributions(self, memory, patches, first, count):
        _, _, center, scale = memory
        x = ((patches - center) / scale).reshape(1, -1, patches.shape[2])
        out = TimerXL(self.config).apply({"params": self.params}, x)
        mean, logvar = out if isinstance(out, tuple) else (out, None)

        def chosen(z):
            return jax.lax.dynamic_slice_in_dim(z.reshape(patches.shape), first, count)

        if logvar is not None:
            logvar = chosen(logvar) + 2 * jnp.log(scale)
        return PatchDistribution(chosen(mean) * scale + center, logvar)

    def verify(self, memory, state, proposals):
        grown = jax.lax.dynamic_update_slice_in_dim(state.patches, proposals, state.length, 0)
        distributions = self._distributions(memory, grown, state.length - 1, len(proposals) + 1)
        return distributions, state._replace(patches=grown, fed=state.length + len(proposals))

    def step(self, memory, state, patch):
        grown = jax.lax.dynamic_update_slice_in_dim(state.patches, patch[None], state.fed, 0)
        distributions = self._distributions(memory, grown, state.fed, 1)
        return jax.tree.map(lambda x: x[0], distributions), WholeState(
            grown, state.length, state.fed + 1
        )

    def commit(self, state, patches, count):
        grown = jax.lax.dynamic_update_slice_in_dim(state.patches, patches, state.length, 0)
        return WholeState(grown, state.length + jnp.asarray(count, jnp.int32), state.fed)

    def drafting(self):
        return self


def cached(
    name: str, kind=CachedProcess, model=CachedTimerXL, params=None, **changes
) -> CachedProcess:
    """The cached process of a case; `kind` and `model` may hold a mistake."""
    config, norm = model_of(name), CASES[name][2]
    process = cached_process(model(config), params or params_of(config), P, norm=norm)
    fields = {f.name: getattr(process, f.name) for f in dataclasses.fields(process)}
    return kind(**fields | changes)


def whole(name: str, **changes) -> Whole:
    """The process of a case without padding and caches."""
    config = model_of(name)
    return dataclasses.replace(Whole(params_of(config), config, CASES[name][2]), **changes)


def alone(process, context, lengths=LENGTHS, config=CONFIG, sigma=SIGMA, **rest):
    """The target alone."""
    return decode(
        jax.random.key(0),
        context,
        target=process,
        sigma=sigma,
        config=config,
        lengths=lengths,
        **rest,
    )


def pair(name: str, make=cached):
    """Target and draft of a case; the draft sees fewer patches than there are."""
    draft = make(name, params=drafted(params_of(model_of(name))), context_len=(N - 1) * P)
    return {"target": make(name), "draft": draft}


def both(models, context, lengths=LENGTHS, config=CONFIG, sigma=SIGMA, **rest):
    """Speculative decoding."""
    return decode(
        jax.random.key(0), context, sigma=sigma, config=config, lengths=lengths, **models, **rest
    )


def garbage(name: str, kind: str) -> np.ndarray:
    """The contexts of a case with something else in their padding."""
    context = contexts_of(name).copy()
    noise = 1e4 * np.random.default_rng(5).normal(size=context.shape)
    wild = {"large": np.full_like(context, 1e6), "nan": np.full_like(context, np.nan)}
    for series, other, length in zip(context, wild.get(kind, noise), LENGTHS, strict=True):
        series[: N * P - length] = other[: N * P - length]
    return context


# --- distributions, round by round ----------------------------------------------------------------

COUNTS = (K + 1, 1, 2)
"""Patches kept a round; the first one keeps all, so that a draft lags."""


class Played(NamedTuple):
    """The distributions of every round, and the first slot that holds no padding."""

    distributions: list[PatchDistribution]
    first: list[jax.Array | None]


def play(processes, context, length, patches) -> Played:
    """Rounds of one series: K proposals are verified, some are kept; `patches [R, K + 1, P, C]`."""
    memories = [p.prepare(context, length) for p in processes]
    starts = [p.start(m, sum(COUNTS) + K) for p, m in zip(processes, memories, strict=True)]

    def turn(states, now):
        made, count = now
        looks = [
            p.verify(m, s, made[:K]) for p, m, s in zip(processes, memories, states, strict=True)
        ]
        distributions = [distribution._replace(features=None) for distribution, _ in looks]
        after = [p.commit(s, made, count) for p, (_, s) in zip(processes, looks, strict=True)]
        return after, distributions

    _, distributions = jax.lax.scan(turn, starts, (patches, jnp.array(COUNTS)))
    return Played(distributions, [getattr(m, "first", None) for m in memories])


FAST = {"xla_backend_optimization_level": 0}
one_series = jax.jit(play, compiler_options=FAST)
every_series = jax.jit(jax.vmap(play, in_axes=(None, 0, 0, 0)), compiler_options=FAST)


def patches_of(name: str) -> np.ndarray:
    """What is proposed and kept, `[B, R, K + 1, P, C]`."""
    shape = (len(LENGTHS), len(COUNTS), K + 1, P, CASES[name][1])
    return np.random.default_rng(8).normal(size=shape).astype(np.float32)


def played(name: str, context=None) -> Played:
    """A target, a draft and the process without padding and caches."""
    processes = [cached(name), cached(name, lag=2), whole(name)]
    context = contexts_of(name) if context is None else context
    return jax.device_get(every_series(processes, context, LENGTHS, patches_of(name)))


@pytest.mark.parametrize("name", cases(QUICK))
def test_neither_target_nor_draft_sees_padding(name):
    """A short history would be forecast as if something had happened before it."""
    target, draft, expected = played(name).distributions
    assert expected.mean.shape[:3] == (len(LENGTHS), len(COUNTS), K + 1)
    assert_same(target, expected, ATOL)
    assert_same(draft, expected, ATOL)


@pytest.mark.parametrize("name", cases(QUICK))
@pytest.mark.parametrize("kind", ["large", "random", "nan"])
def test_what_stands_in_the_padding_changes_no_distribution(name, kind):
    """Whatever a batch was padded with would leak into the forecast."""
    context = garbage(name, kind)
    assert (context != contexts_of(name)).any(axis=2).sum() == (N * P - LENGTHS).sum()
    found, plain = played(name, context), played(name)
    jax.tree.map(np.testing.assert_array_equal, found.distributions[:2], plain.distributions[:2])


def test_the_first_slot_that_is_no_padding():
    """A pending patch of padding would count in the statistics, or a real one would not."""
    target, draft, _ = played("causal").first
    assert target.tolist() == [0, -1, -2, -4]
    assert draft.tolist() == [1, 0, -1, -3]
    context = jnp.zeros((N * P, 1))
    assert jax.eval_shape(cached("causal").prepare, context).first is None


@pytest.mark.parametrize("name", cases(["causal"]))
def test_distributions_are_those_of_the_context_without_padding(name):
    """Cutting a context to its history by hand would give other predictions than a length."""
    i, count = 1, HISTORIES[1]
    processes = [cached(name), cached(name, lag=2)]
    own = contexts_of(name)[i, (N - count) * P :]
    found = one_series(processes, own, None, patches_of(name)[i])
    assert found.first == [None, None]
    assert_same(found.distributions, take(played(name).distributions[:2], i), ATOL)


# --- decodes -----------------------------------------------------------------------------------


def check_speculative(name: str, rule: Rule, config: DecodeConfig = CONFIG) -> None:
    """Forecast and info are those of a pair without padding and caches."""
    context = contexts_of(name)
    options = {"config": config, "rule": rule}
    found = both(pair(name), context, **options)
    assert_same(found, both(pair(name, whole), context, **options), ATOL)
    assert len(np.unique(found[1].origin)) >= 2  # not all proposals share one fate
    for kind in ("large", "random"):
        wild = both(pair(name), garbage(name, kind), **options)
        jax.tree.map(np.testing.assert_array_equal, wild, found)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_forecasts_and_counts_do_not_depend_on_padding(name):
    """Forecasts, counts or proposals would change with how far a batch had to be padded."""
    check_speculative(name, Maximal())


@pytest.mark.slow
def test_learned_variances_do_not_depend_on_padding():
    """A model's own variance would be scaled by the spread of what stands in the padding."""
    check_speculative("causal", Residual(), dataclasses.replace(CONFIG, learned_scale=True))


# --- planted mistakes ------------------------------------------------------------------------


class OpenPrompt(CachedTimerXL):
    """A mistake: the context's patches see the padding before them."""

    def prefill(self, params, patches, skip):
        return dataclasses.replace(super().prefill(params, patches, None), skip=skip)


class OpenSlots(CachedTimerXL):
    """A mistake: later patches see the padding in the prefill."""

    def extend(self, params, prefill, cache, patches, start):
        seen = dataclasses.replace(prefill, skip=None)
        return super().extend(params, seen, cache, patches, start)


class OneTooMany(CachedTimerXL):
    """A mistake: the last patch of padding is seen."""

    def prefill(self, params, patches, skip):
        return super().prefill(params, patches, None if skip is None else skip - 1)


def over_everything(function, *args, **kwargs):
    """The statistics with padding for values."""
    return function(*args, **{k: v for k, v in kwargs.items() if k != "real"})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AllRunning(CachedProcess):
    """A mistake: the running statistics of the context take padding for values."""

    def prepare(self, context, length=None):
        counted = functools.partial(over_everything, cached_processes.running_moments)
        with mock.patch.object(cached_processes, "running_moments", counted):
            return super().prepare(context, length)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AllPending(CachedProcess):
    """A mistake: padding among the pending patches counts in the running statistics."""

    def prepare(self, context, length=None):
        return super().prepare(context, length)._replace(first=None)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AllFrozen(CachedProcess):
    """A mistake: the statistics of the context take padding for values."""

    def prepare(self, context, length=None):
        stats = cached_processes.window_stats
        with mock.patch.object(
            cached_processes, "window_stats", lambda x, real, **options: stats(x, **options)
        ):
            return super().prepare(context, length)


def first_distributions(process, context, length, proposals):
    """The distributions of the first round."""
    memory = process.prepare(context, length)
    return process.verify(memory, process.start(memory, K), proposals)[0].mean


MISTAKES = [
    ("as it is, 2 layers, covariate", {"model": OpenPrompt}),
    ("causal", {"model": OpenSlots}),
    ("frozen, 2 layers, 2 variables, limited", {"model": OneTooMany}),
    ("causal", {"kind": AllRunning}),
    ("causal", {"kind": AllPending, "lag": 2}),
    ("frozen, 2 layers, 2 variables, limited", {"kind": AllFrozen}),
]


@pytest.mark.parametrize(
    ("name", "changes"), MISTAKES, ids=[next(iter(m.values())).__name__ for _, m in MISTAKES]
)
def test_planted_mistakes_are_caught(name, changes):
    """The tests above would pass whatever the masks and the statistics do."""
    distributions = jax.jit(
        jax.vmap(first_distributions, in_axes=(None, 0, 0, 0)), compiler_options=FAST
    )
    wrong = cached(name, **changes)
    found = distributions(wrong, contexts_of(name), LENGTHS, patches_of(name)[:, 0, :K])
    expected = played(name).distributions[2].mean[:, 0]
    assert np.abs(found - expected).max() > 100 * ATOL


@PROPERTY
@given(sizes=st.sampled_from([(8, 1, None), (8, 2, 5), (3, 1, 3), (1, 1, None)]), data=st.data())
def test_a_continuation_takes_padding_for_its_first_value(sizes, data):
    """A draft without a model would propose what a batch was padded with."""
    steps, num_vars, wanted = sizes
    length = data.draw(st.integers(1, steps))
    values = np.random.default_rng(steps).normal(size=(steps, num_vars)).astype(np.float32)
    draft = dataclasses.replace(last_value_draft(1), context_len=wanted)
    found = draft.prepare(jnp.asarray(values), jnp.int32(length))
    expected = values.copy()
    expected[: steps - length] = values[steps - length]
    np.testing.assert_array_equal(found, expected[steps - (wanted or steps) :])


# --- masks -----------------------------------------------------------------------------------


def visible(config, num_vars, asking, keys, skip) -> list[list[bool]]:
    """Which `(variable, patch)` of `keys` each one of `asking` sees, one by one."""

    def sees(c: int, t: int, d: int, s: int) -> bool:
        within = s <= t and (config.max_patches is None or s > t - config.max_patches)
        allowed = c == d or not config.covariate or c == num_vars - 1
        return within and allowed and (s >= skip or (c == d and s == t))

    return [[sees(c, t, d, s) for d, s in keys] for c, t in asking]


MASKED = st.builds(
    functools.partial(dataclasses.replace, BASE, covariate_mask="causal"),
    max_patches=st.none() | st.integers(1, 4),
    covariate=st.booleans(),
    variable_stride=st.integers(0, 5),
)


@PROPERTY
@given(
    config=MASKED,
    num_vars=st.integers(1, 3),
    count=st.integers(1, 4),
    skip=st.integers(0, 4),
    last_only=st.booleans(),
)
def test_the_mask_of_a_padded_input_slow(config, num_vars, count, skip, last_only):
    """A patch would see padding, or lose sight of a real one."""
    layout = attention.full_layout(config, num_vars, count, last_only=last_only)
    assert attention.padded(layout, num_vars, None) is layout
    found = attention.padded(layout, num_vars, np.int32(skip))
    tokens = [(c, n) for c in range(num_vars) for n in range(count)]
    asking = [tokens[i] for i in layout.queries]
    expected = visible(config, num_vars, asking, tokens, skip)
    np.testing.assert_array_equal(found.visible, expected)
    assert np.any(found.visible, axis=1).all()  # a softmax over nothing is NaN
    rest = found._replace(visible=layout.visible)
    assert all(a is b for a, b in zip(rest, layout, strict=True))


@PROPERTY
@given(
    config=MASKED,
    skip=st.integers(0, 5),
    sizes=st.sampled_from([(1, 0, 3, 1, 2), (2, 3, 4, 0, 2), (3, 2, 5, 2, 3), (2, 4, 1, 0, 1)]),
)
def test_the_mask_of_a_padded_sequence_slow(config, skip, sizes):
    """A patch after the context would see padding, or lose sight of a real patch."""
    num_vars, prefill, cache, start, count = sizes
    args = config, num_vars, prefill, cache, count, start
    plain, found = attention.cached_layout(*args), attention.cached_layout(*args, np.int32(skip))
    keys = [(c, n) for n in range(prefill + cache) for c in range(num_vars)]
    asking = [(c, prefill + start + n) for c in range(num_vars) for n in range(count)]
    expected = visible(config, num_vars, asking, keys, skip)
    np.testing.assert_array_equal(found.visible, expected)
    assert np.any(found.visible, axis=1).all()
    np.testing.assert_array_equal(plain.visible, visible(config, num_vars, asking, keys, 0))
    for name in ("queries", "positions", "same"):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name))


# --- statistics --------------------------------------------------------------------------------

running_moments = jax.jit(_running_moments, compiler_options={"xla_backend_optimization_level": 0})


@PROPERTY
@given(steps=st.sampled_from([1, 5]), data=st.data(), wild=st.sampled_from([0.0, 1e6, np.nan]))
def test_statistics_of_a_window_are_those_of_its_history(steps, data, wild):
    """A short history would be normalised by what stands before it."""
    skip = data.draw(st.integers(0, steps - 1))
    values = (3 * np.random.default_rng(steps).normal(size=(steps, 2)) + 1).astype(np.float32)
    values[:skip] = wild
    mean, spread = window_stats(jnp.asarray(values), jnp.arange(steps) >= skip)
    rows = values[skip:].astype(np.float64)
    assert mean.shape == spread.shape == (1, 2)
    np.testing.assert_allclose(mean[0], rows.mean(axis=0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(spread[0], np.sqrt(rows.var(axis=0) + EPS), rtol=1e-5)


def slow_moments(patches: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count, mean and sum of squared deviations of `[n, P, C]`; zeros where n is 0."""
    rows = patches.reshape(-1, patches.shape[-1]).astype(np.float64)
    if len(rows) == 0:
        return np.zeros(()), np.zeros(patches.shape[-1]), np.zeros(patches.shape[-1])
    return np.array(len(rows)), rows.mean(axis=0), rows.var(axis=0) * len(rows)


@settings(PROPERTY, max_examples=15)
@given(
    count=st.sampled_from([1, 4]),
    before=st.sampled_from([None, 0, 2]),
    wild=st.sampled_from([0.0, 1e6, np.nan]),
    data=st.data(),
)
def test_running_statistics_leave_padding_out(count, before, wild, data):
    """The statistics at each patch would hold padding, or lose a real patch."""
    skip = data.draw(st.integers(0, count)) if not before else 0
    rng = np.random.default_rng(count)
    past = (2 * rng.normal(size=(before or 0, 3, 2)) + 5).astype(np.float32)
    patches = (2 * rng.normal(size=(count, 3, 2)) + 5).astype(np.float32)
    patches[:skip] = wild
    real = jnp.arange(count) >= skip
    start = None
    if before is not None:
        start = jax.tree.map(
            lambda x: jnp.asarray(x, jnp.float32),
            patch_moments(jnp.zeros((3, 2)), jnp.array(False)),
        )
        if before:
            start = jax.tree.map(lambda x: x[-1], running_moments(jnp.asarray(past)))
    found = running_moments(jnp.asarray(patches), start, real)
    for n in range(count):
        seen = np.concatenate([past, patches[skip : n + 1]])
        expected = slow_moments(seen)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a[n], b, rtol=2e-5, atol=1e-5)
        total, _, m2 = expected
        spread = np.sqrt(m2 / max(total, 1) + EPS)
        np.testing.assert_allclose(std(found)[n], spread, rtol=2e-5)


# --- a model of one's own ----------------------------------------------------------------------

TRACES: list[int] = []
WEIGHT = (np.random.default_rng(2).normal(size=(P, P)) / 2).astype(np.float32)


@dataclass(frozen=True)
class Average:
    """A `CachedModel` of the mean of all patches of the history; a slot holds sum and count."""

    def prefill(self, params, patches, skip):
        skip = jnp.int32(0) if skip is None else skip
        real = (jnp.arange(len(patches)) >= skip).astype(jnp.float32)
        total = jnp.tensordot(real, patches, axes=1)  # [N] x [N, P, C]
        return total, jnp.sum(real), skip - len(patches)

    def empty_cache(self, params, prefill, count):
        return jnp.zeros((count, *prefill[0].shape)), jnp.zeros(count)

    def extend(self, params, prefill, cache, patches, start):
        TRACES.append(len(patches))
        total, count, first = prefill
        last = jnp.maximum(start - 1, 0)
        total = jnp.where(start == 0, total, cache[0][last])
        count = jnp.where(start == 0, count, cache[1][last])
        real = (start + jnp.arange(len(patches)) >= first).astype(jnp.float32)
        totals = total[None] + jnp.cumsum(real[:, None, None] * patches, axis=0)
        counts = count + jnp.cumsum(real)
        means = totals / jnp.maximum(counts, 1)[:, None, None]
        kept = (
            jax.lax.dynamic_update_slice_in_dim(cache[0], totals, start, 0),
            jax.lax.dynamic_update_slice_in_dim(cache[1], counts, start, 0),
        )
        return PatchDistribution(jnp.tanh(jnp.einsum("pq,kqc->kpc", params, means))), kept


def average(weight: np.ndarray = WEIGHT) -> CachedProcess:
    """The process of `Average`."""
    return cached_process(Average(), jnp.asarray(weight), P, norm=None)


VALUES = history(len(LENGTHS), N * P, 2)


MODELS = {"target": average(), "draft": average(0.9 * WEIGHT)}


@functools.cache
def noise_of(series: int, path: int | None) -> np.ndarray:
    """The noise of the four patches of a path."""
    own = jax.random.fold_in(jax.random.key(0), series)
    own = own if path is None else jax.random.fold_in(own, path)
    return np.asarray(normals(patch_keys(path_keys(own).noise, 0, 4), (P, 2)))


def slow_average(count: int, series: int, path: int | None = None) -> np.ndarray:
    """The target alone by hand: the last `count` patches of a series, four more."""
    patches = list(VALUES[series].reshape(N, P, 2)[N - count :])
    for z in noise_of(series, path):
        patches.append(np.tanh(WEIGHT @ np.mean(patches, axis=0)) + SIGMA * z)
    return np.concatenate(patches[count:])[: CONFIG.horizon]


@pytest.mark.parametrize("lag", [1, 2])
def test_a_model_of_ones_own_leaves_padding_out(lag):
    """The contract of `skip` would not say enough for a model to leave padding out."""
    process = dataclasses.replace(average(), lag=lag)
    found, info = alone(process, VALUES)
    for i, count in enumerate(HISTORIES):
        np.testing.assert_allclose(found[i], slow_average(count, i), atol=1e-5)
    assert (info.target_passes == 4).all()


def test_lengths_reach_every_chunk_and_path():
    """In chunks of series and paths a history would get the length of another one."""
    chunked = dataclasses.replace(CONFIG, num_paths=2, batch_size=3, path_chunk=1)
    found, _ = alone(average(), VALUES, config=chunked)
    assert found.shape == (len(LENGTHS), 2, CONFIG.horizon, 2)
    for i, count in enumerate(HISTORIES):
        for path in range(2):
            expected = slow_average(count, i, path)
            np.testing.assert_allclose(found[i, path], expected, atol=1e-5)


@pytest.mark.slow
def test_a_series_of_a_batch_is_decoded_as_alone():
    """A forecast would depend on the lengths of the other series in the batch."""
    batch = both(MODELS, VALUES)
    for i, length in enumerate(LENGTHS):
        one = both(MODELS, VALUES[i], length, series_index=jnp.int32(i))
        assert_same(one, take(batch, i))


def test_speculation_is_that_of_the_context_without_padding():
    """Cutting a context to its history by hand would give another forecast than `lengths`."""
    i, count = 1, HISTORIES[1]
    own = VALUES[i, (N - count) * P :]
    expected = both(MODELS, own, None, series_index=jnp.int32(i))
    assert_same(take(both(MODELS, VALUES), i), expected)


def test_lengths_of_whole_contexts_are_no_lengths():
    """Giving the lengths of a batch that needs no padding would change its forecast."""
    full = np.full(len(LENGTHS), N * P)
    assert_same(both(MODELS, VALUES, full), both(MODELS, VALUES, None))


def test_no_proposals_is_the_target_alone_with_lengths():
    """With K = 0 the lengths would be forgotten."""
    found, _ = both(MODELS, VALUES, config=dataclasses.replace(CONFIG, num_draft=0))
    for i, count in enumerate(HISTORIES):
        np.testing.assert_allclose(found[i], slow_average(count, i), atol=1e-5)


def test_a_draft_without_a_model_takes_lengths():
    """Drafts that need no training could not be used with contexts of different lengths."""
    models = {"target": average(), "draft": last_value_draft(P)}
    found, info = both(models, VALUES, rule=Mean())
    np.testing.assert_allclose(info.proposal[:, 0], VALUES[:, [-1]].repeat(P, axis=1))
    wild = VALUES.copy()
    for context, length in zip(wild, LENGTHS, strict=True):
        context[: N * P - length] = 1e6
    jax.tree.map(np.testing.assert_array_equal, both(models, wild, rule=Mean()), (found, info))


def test_unsigned_numbers_are_lengths():
    """Lengths that another program counted as unsigned numbers would give another forecast."""
    process = dataclasses.replace(average(), context_len=2 * P)  # fewer than some have
    found, _ = alone(process, VALUES, LENGTHS.astype(np.uint16))
    for i, count in enumerate(HISTORIES):
        np.testing.assert_allclose(found[i], slow_average(min(count, 2), i), atol=1e-5)


# --- programs ----------------------------------------------------------------------------------


def test_one_program_serves_all_lengths():
    """Every new combination of lengths would compile anew."""
    for run, who in ((both, MODELS), (alone, average())):
        run(who, VALUES)
        before = len(TRACES)
        assert before > 0
        for lengths in ([4, 4, 4, 4], [20, 16, 12, 8], [8, 20, 4, 20]):
            run(who, VALUES, np.array(lengths, np.int32))
        assert len(TRACES) == before
    alone(average(), VALUES[:2], LENGTHS[:2])
    assert len(TRACES) > before  # a batch size is a shape: the count could have seen a retrace


# --- mistakes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("decode", [alone, both])
@pytest.mark.parametrize(
    ("lengths", "said"),
    [
        ([4, 5, 8, 8], r"whole patches of 4 steps, at most the 20 .*got 5"),
        ([4, 8, 0, 8], "got 0"),
        ([4, 8, -4, 8], "got -4"),
        ([4, 8, 24, 8], "got 24"),
        ([4.0, 8.0, 8.0, 8.0], "float64 of shape"),
        ([True, True, True, True], "bool of shape"),
        ([4, 8, 8], r"shape \(4,\).*of shape \(3,\)"),
        ([[4, 8, 8, 8]], r"shape \(1, 4\)"),
        (8, r"shape \(4,\).*of shape \(\)"),
    ],
)
def test_bad_lengths_are_refused(decode, lengths, said):
    """A wrong length would cut the history or take padding for it, without a word."""
    who = average() if decode is alone else {"target": average(), "draft": average()}
    with pytest.raises(InputError, match=said):
        decode(who, VALUES, np.array(lengths))


def test_one_series_has_one_length():
    """A list of lengths for one series would be taken for something else."""
    with pytest.raises(InputError, match=r"shape \(\), got int64 of shape \(1,\)"):
        alone(average(), VALUES[0], np.array([8]))


def test_shapes_of_lengths_are_checked_inside_a_callers_jit():
    """Inside jit a wrong shape would end in an error from deep inside."""
    with pytest.raises(InputError, match=r"of shape \(3,\)"):
        jax.jit(lambda n: alone(average(), VALUES, n))(jnp.array([4, 8, 8]))
    with pytest.raises(InputError, match="float32"):
        jax.jit(lambda n: alone(average(), VALUES, n))(jnp.ones(4))


def test_a_window_process_takes_no_lengths():
    """A black-box forecaster would be shown the padding as if it were history."""
    window = process(2 * P, patch_len=P)
    with pytest.raises(InputError, match=r"window process .* use the cached process"):
        alone(window, VALUES)
    with pytest.raises(InputError, match="window process"):
        both({"target": window, "draft": average()}, VALUES)


@pytest.mark.parametrize("name", ["causal", "frozen"])
def test_preparing_without_lengths_looks_for_no_first_patch(name):
    """A context without padding would be masked, or gathered from, all the same."""
    context, prepare = contexts_of(name), jax.jit(jax.vmap(cached(name).prepare))
    masks = ("gather", "dynamic_slice", "select", "compare", "and")

    def found(*args) -> set[str]:
        text = prepare.lower(*args).as_text()
        return {name for name in masks if f"stablehlo.{name} " in text or f'.{name}"' in text}

    assert {"select", "compare"} <= found(context, LENGTHS)  # the names are those of the text
    assert found(context) == set()


def lowered(run, *args, **kwargs) -> str:
    """The program of a new function."""
    return jax.jit(functools.partial(run, **kwargs)).lower(*args).as_text()


@pytest.mark.parametrize("models", [{"target": average()}, MODELS], ids=["alone", "both"])
def test_no_lengths_is_one_program_however_it_is_said(models):
    """`lengths=None` would compile another program than leaving it out, or mask."""
    args = jax.random.key(0), VALUES
    absent = lowered(decode, *args, sigma=SIGMA, config=CONFIG, **models)
    assert lowered(decode, *args, sigma=SIGMA, config=CONFIG, lengths=None, **models) == absent
    padded = lowered(decode, *args, sigma=SIGMA, config=CONFIG, lengths=LENGTHS, **models)
    assert padded.count("stablehlo.compare") > absent.count("stablehlo.compare")


def test_without_lengths_nothing_is_masked(monkeypatch):
    """Every decode would pay for padding that it does not have."""
    name = "causal, 2 variables, limited"
    args = [cached(name), cached(name, lag=2)], contexts_of(name)[0]

    def program(length=None) -> str:
        return lowered(play, *args, length, patches_of(name)[0])

    absent, padded = program(), program(LENGTHS[0])
    assert padded.count("stablehlo.select") > absent.count("stablehlo.select")
    masks, moments = attention.cached_layout, cached_processes.running_moments
    # Models and processes that know no padding.
    monkeypatch.setattr(cached_model, "padded", lambda layout, *_: layout)
    monkeypatch.setattr(cached_model, "cached_layout", lambda *sizes: masks(*sizes[:6]))
    monkeypatch.setattr(
        cached_processes, "running_moments", lambda x, before=None, real=None: moments(x, before)
    )
    assert program() == absent
