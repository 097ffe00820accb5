"""The trace of a decode: rows that agree with the counts, at no cost where it is off."""

import jax
import numpy as np
import pytest
from helpers.toys import BATCH, CONTEXT, SIGMA, assert_same, parameters, registered, speculate, take

from stride_jax.decoding import info as bookkeeping
from stride_jax.decoding.base import Outcome, Rule
from stride_jax.decoding.draft_length import Fixed, Gain, Threshold
from stride_jax.decoding.rules import Block, Maximal, Mean, Resample
from stride_jax.decoding.types import BONUS, DecodeConfig

CLOSE = Mean(tolerance=0.25)


def leading(passed: np.ndarray, length: int) -> int:
    """What most rules keep."""
    return length if passed[:length].all() else int(np.argmin(passed))


def last(passed: np.ndarray) -> int:
    """What block keeps: up to the last place that passes."""
    return int(np.max(np.where(passed, np.arange(1, len(passed) + 1), 0)))


def check_rows(info, num_draft: int, rule: Rule) -> int:
    """Checks one path's trace against its counts; the number of rounds."""
    trace, rounds = jax.tree.map(np.asarray, info.trace), int(info.rounds)
    start, accepted = 0, np.zeros(num_draft, int)
    assert trace.start.shape == trace.length.shape == (len(info.origin),)
    assert trace.log_ratio.shape == trace.gap.shape == (len(info.origin), num_draft)
    for row in range(rounds):
        assert trace.start[row] == start
        length, kept = trace.length[row], int(trace.accepted[row].sum())
        assert 1 <= length <= num_draft
        assert trace.accepted[row].tolist() == [True] * kept + [False] * (num_draft - kept)
        within = np.arange(num_draft) < length
        passed = (trace.log_ratio[row] >= trace.threshold[row]) & within
        assert kept == (last(passed) if isinstance(rule, Block) else leading(passed, length))
        real = (start + np.arange(num_draft) < len(info.origin)) & within
        accepted += trace.accepted[row] & real
        if start + kept < len(info.origin):
            assert (int(info.origin[start + kept]) == BONUS) == (kept == length)
        start += kept + 1
    assert start >= len(info.origin)
    assert trace.start[rounds:].tolist() == [-1] * (len(info.origin) - rounds)
    np.testing.assert_array_equal(accepted, info.accepted)
    assert int(info.drafted) == trace.length[:rounds].sum()
    return rounds


@pytest.mark.parametrize(
    ("rule", "draft_length"),
    [
        (Maximal(), Fixed()),
        pytest.param(Block(), Gain(), marks=pytest.mark.slow),
        pytest.param(Resample(), Threshold(), marks=pytest.mark.slow),
        (CLOSE, Fixed()),
    ],
)
def test_the_trace_agrees_with_the_counts_and_changes_nothing(key, rule, draft_length):
    """A picture of the rounds would show another decode than the one that was made."""
    options = {"rule": rule, "draft_length": draft_length}
    configs = [DecodeConfig(20, 3, trace=on) for on in (True, False)]
    (forecast, info), plain = (speculate(key, BATCH, config=c, **options) for c in configs)
    assert plain[1].trace is None
    assert_same((forecast, info._replace(trace=None)), plain)
    rounds = {check_rows(take(info, i), 3, rule) for i in range(len(BATCH))}
    assert min(rounds) < 7 or rule is CLOSE


def test_rows_that_were_not_played_do_not_depend_on_the_batch(key):
    """The rows after a path's last round would be those of rounds that only others needed."""
    config = DecodeConfig(20, 3, trace=True)
    _, info = speculate(key, BATCH, config=config)
    assert len(set(info.rounds.tolist())) > 1
    for i in range(len(BATCH)):
        rest = jax.tree.map(lambda x, i=i: np.asarray(x)[i, int(info.rounds[i]) :], info.trace)
        assert (rest.length == -1).all()
        assert not rest.accepted.any()
        assert not rest.log_ratio.any()
        assert not rest.gap.any()


def test_the_gap_is_the_rms_distance_of_the_means(key):
    """The distance shown would not be the one that the tolerance is compared with."""
    _, info = speculate(key, config=DecodeConfig(20, 3, trace=True), rule=CLOSE)
    played = int(info.rounds)
    np.testing.assert_allclose(info.trace.gap[:played], -info.trace.log_ratio[:played], atol=1e-5)
    np.testing.assert_allclose(info.trace.threshold[:played], -0.25)
    target = np.tanh(parameters(10)[0] @ CONTEXT[-10:] @ parameters(10)[1])
    draft = np.tanh(parameters(7, 0.1)[0] @ CONTEXT[-7:] @ parameters(7)[1])
    gap = np.sqrt(np.mean(np.square((target - draft) / SIGMA)))
    np.testing.assert_allclose(info.trace.gap[0, 0], gap, rtol=1e-4)


@registered
class Reject(Rule):
    """A rule without numbers to compare."""

    def decide(self, key, current):
        return Outcome(current.length * 0, current.target_mean[0])


def test_a_rule_without_numbers_has_none_in_its_trace(key):
    """A rule of one's own could not be traced, or would show numbers it never had."""
    _, info = speculate(key, config=DecodeConfig(20, 3, trace=True), rule=Reject())
    assert np.isnan(info.trace.log_ratio).all()
    assert np.isnan(info.trace.threshold).all()
    assert np.isfinite(info.trace.gap).all()
    assert info.trace.start.tolist() == [*range(7)]


def test_no_trace_costs_nothing(key, monkeypatch):
    """Every decode would compute and carry what nobody asked for."""

    def program(on: bool) -> str:
        jax.clear_caches()
        config = DecodeConfig(20, 3, trace=on)
        return jax.jit(lambda k: speculate(k, config=config)).lower(key).as_text()

    plain, traced = program(False), program(True)
    grid = "x11x3x3xf32>"  # [N + K + 1, 3, K]: nothing but what the rule compared has this shape
    assert grid in traced
    assert grid not in plain
    monkeypatch.setattr(bookkeeping, "Trace", None)  # a decoder that knows no trace
    monkeypatch.setattr(bookkeeping, "_compared", None)
    assert program(False) == plain
