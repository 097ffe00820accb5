"""The bench: whose turn it is, what is compiled, what is timed and scored."""

import types
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.trained import CONTEXT, HORIZON, loaded, setup
from helpers.watched import Watched

from stride_jax.data.windows import make_windows
from stride_jax.decoding.naive_drafts import last_value_draft, seasonal_draft
from stride_jax.decoding.rules import Mean
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import DecodeConfig
from stride_jax.evaluation import bench
from stride_jax.evaluation.subject import (
    build,
    draft_only,
    scoring_batches,
    speculative,
    target_only,
    timing_batches,
)


@pytest.fixture(scope="module")
def subject():
    """The small pair."""
    return build(setup(), loaded())


@pytest.fixture(scope="module")
def decoders(subject):
    """The mean path of each kind, the target's sample path, and a rule with another tolerance."""
    sizes = DecodeConfig(HORIZON, 2, num_paths=1)
    rules = [Mean(0.0), Mean(1e6)]
    return [
        target_only(subject, sizes, 0.0),
        target_only(subject, sizes, 0.7),
        draft_only(subject, sizes, 0.0, "last-value"),
        *(speculative(subject, sizes, 0.7, "last-value", rule) for rule in rules),
    ]


@pytest.fixture(scope="module")
def batches(subject):
    """Three batches of two windows."""
    return timing_batches(subject, subject.windows(HORIZON), HORIZON, 2, 2)


@pytest.fixture(scope="module")
def measured(decoders, batches):
    """One measurement."""
    return bench.measure(decoders, batches)


# --- the clock -----------------------------------------------------------------------------------


def test_decoders_take_turns_and_the_first_call_does_not_count(monkeypatch):
    """Guards against a slow moment that hits one decoder, and compilation timed as decoding."""
    now, order, received = [0.0], [], []
    monkeypatch.setattr(bench, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))

    def call(name: str, seconds: list[float]):
        def decode(number: int) -> str:
            now[0] += seconds[number]
            order.append((name, number))
            return name

        return decode

    def receive(i: int, number: int, out: str) -> None:
        now[0] += 100.0  # scoring is off the clock
        received.append((i, number, out))

    calls = [call("a", [90.0, 1.0, 60.0, 2.0]), call("b", [80.0, 3.0, 4.0, 5.0])]
    assert bench.time_in_turns(calls, 3, receive) == [[1.0, 60.0, 2.0], [3.0, 4.0, 5.0]]
    assert order == [(name, number) for number in range(4) for name in "ab"]
    assert received == [(i, n, "ab"[i]) for n in range(1, 4) for i in range(2)]


def test_a_result_is_let_go_before_the_next_call() -> None:
    """A GPU would record the launches of every call anew, since its results lie elsewhere."""
    watched = Watched()
    calls = [lambda _: watched.make()] * 2
    bench.time_in_turns(calls, 2)
    assert watched.alive == [0] * 6


def test_the_median_counts(measured):
    """Guards against one odd window that decides the time of a decoder."""
    assert measured[0]._replace(times=[1.0, 60.0, 2.0]).seconds == 2.0


# --- programs ------------------------------------------------------------------------------------


def test_decoders_that_differ_in_values_share_a_program(measured, decoders):
    """Guards against a sweep that compiles every tolerance and sigma anew."""
    programs = [id(one.program) for one in measured]
    assert programs[0] == programs[1]  # sigma 0 and sigma .7
    assert programs[3] == programs[4]  # tolerance 0 and without end
    assert len(set(programs)) == 3
    assert all(one.program.compile_seconds > 0 for one in measured)
    assert [one.decoder for one in measured] == list(decoders)


def test_rules_of_one_shape_do_not_share_a_program(subject, batches):
    """Guards against one rule run under the name of another with the same fields."""

    def signature(cls):
        rule = jax.tree_util.register_dataclass(cls)()
        decoder = speculative(subject, DecodeConfig(HORIZON, 2), 0.7, "last-value", rule)
        return bench._signature(decoder, batches[0])

    first = dataclass(frozen=True)(type("First", (Mean,), {}))
    second = dataclass(frozen=True)(type("Second", (Mean,), {}))
    assert signature(first) != signature(second)


def test_drafts_of_one_hash_do_not_share_a_program(subject, batches):
    """Guards against a run that stops, as a period of P steps gives two drafts the same hash."""
    decoder = speculative(subject, DecodeConfig(HORIZON, 2), 0.7, "last-value", Mean())
    size = subject.target.patch_len
    first, second = (
        bench._signature(decoder._replace(draft=draft), batches[0])
        for draft in (seasonal_draft(size, size), last_value_draft(size))
    )
    assert first != second


def test_memory_holds_the_parameters_and_the_context(measured, subject, batches):
    """Guards against parameters baked into the program, whose memory would be missed."""
    weights = sum(x.nbytes for x in jax.tree.leaves(subject.target))
    forecast = batches[0].truth.nbytes
    for one in measured[:2]:
        assert one.program.memory_bytes >= weights + batches[0].context.nbytes + forecast


# --- results -------------------------------------------------------------------------------------


def test_forecasts_and_scores_are_those_of_decode(measured, batches):
    """Guards against a bench that measures another decode than users call."""
    for one in measured:
        decoder, expected, errors = one.decoder, [], []
        for batch in batches[1:]:
            forecast, _ = decode(
                batch.key,
                batch.context,
                target=decoder.target,
                draft=decoder.draft,
                sigma=decoder.sigma,
                config=decoder.config,
                rule=decoder.rule,
                series_index=batch.series_index,
            )
            expected.append(np.asarray(forecast))
            errors.append(np.mean(np.square(forecast[:, 0] - batch.truth)))
        found = one.tally.forecasts()
        np.testing.assert_allclose(found, np.concatenate(expected), atol=1e-5)
        assert one.tally.scores()["mse"] == pytest.approx(np.mean(errors), rel=1e-5)
        assert len(one.times) == len(batches) - 1


def test_every_window_is_scored_once(subject, decoders):
    """Guards against a dropped last batch, or padding that counts."""
    windows = subject.windows(HORIZON)
    assert windows.count % subject.setup.batch_size
    (tally,) = bench.score(decoders[:1], scoring_batches(subject, windows, HORIZON))
    series = windows.gather(subject.values, jnp.arange(windows.count))
    path = np.asarray(series[:, :CONTEXT])
    predict = jax.jit(jax.vmap(subject.target.predict_patch))
    for _ in range(3):
        path = np.concatenate([path, predict(path[:, -CONTEXT:]).mean], axis=1)
    expected = path[:, CONTEXT : CONTEXT + HORIZON]
    np.testing.assert_allclose(tally.forecasts()[:, 0], expected, atol=1e-4)
    error = np.mean(np.square(expected - series[:, CONTEXT:]))
    assert tally.scores()["mse"] == pytest.approx(error, rel=1e-4)


def test_labels_say_what_decodes(decoders):
    """Guards against sample paths compared with mean paths."""
    assert [one.method for one in decoders] == ["target"] * 2 + ["draft"] + ["speculative"] * 2
    assert [one.samples for one in decoders] == [False, True, False, False, False]


# --- windows -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "size", "repeats", "separate"),
    [(60, 3, 4, False), (60, 3, 4, True), (61, 1, 4, False), (5, 3, 1, True), (1, 3, 4, False)],
)
def test_timed_windows_are_spread_over_the_split(subject, count, size, repeats, separate):
    """Guards against times of one stretch of the series, or of a single draw."""
    values = jnp.arange(count + 5)[:, None] + jnp.array([[0, 10_000]])
    windows = make_windows((0, len(values)), 6, 2, separate=separate)
    numbered = subject._replace(values=values.astype(jnp.float32))
    found = timing_batches(numbered, windows, 3, size, repeats)
    every = np.asarray(windows.gather(numbered.values, jnp.arange(windows.count)))
    starts = {float(window[0, 0]): i for i, window in enumerate(every)}
    places = np.array([[starts[float(c[0, 0])] for c in batch.context] for batch in found])
    assert places.shape == (repeats + 1, size)
    assert (places.min(), places.max()) == (0, windows.count - 1)
    if windows.count >= places.size:
        assert len(set(places.ravel())) == places.size  # no call has the windows of another
    assert (np.diff(places, axis=1) >= (windows.count - 1) / size - 1).all()
    assert len({jax.random.key_data(batch.key).tobytes() for batch in found}) == repeats + 1
    for batch, numbers in zip(found, places, strict=True):
        np.testing.assert_array_equal(batch.context, every[numbers][:, :-3])
        np.testing.assert_array_equal(batch.truth, every[numbers][:, -3:])
