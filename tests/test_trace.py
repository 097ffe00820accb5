"""The trace of a decode: rows that agree with the counts, at no cost where it is off."""

import jax
import numpy as np
import pytest
from toys import BATCH, CONTEXT, SIGMA, assert_same, parameters, quickly, speculate, take

from stride_jax.config import DecodeConfig
from stride_jax.coupling import Outcome, RuleParams
from stride_jax.decoding import BONUS

PARAMS = RuleParams(tolerance=0.25)


def check_rows(info, num_draft: int) -> int:
    """Checks one path's trace against its counts; the number of rounds."""
    trace, rounds = jax.tree.map(np.asarray, info.trace), int(info.rounds)
    start, accepted = 0, np.zeros(num_draft, int)
    assert trace.start.shape == trace.length.shape == (len(info.kind),)
    assert trace.log_ratio.shape == trace.gap.shape == (len(info.kind), num_draft)
    for row in range(rounds):
        assert trace.start[row] == start
        length, kept = trace.length[row], int(trace.accepted[row].sum())
        assert 1 <= length <= num_draft
        assert trace.accepted[row].tolist() == [True] * kept + [False] * (num_draft - kept)
        within = np.arange(num_draft) < length
        passed = (trace.log_ratio[row] >= trace.threshold[row]) & within
        assert passed[:kept].all() or kept == 0
        assert kept == length or not passed[kept]
        real = (start + np.arange(num_draft) < len(info.kind)) & within
        accepted += trace.accepted[row] & real
        if start + kept < len(info.kind):
            assert (int(info.kind[start + kept]) == BONUS) == (kept == length)
        start += kept + 1
    assert start >= len(info.kind)
    assert trace.start[rounds:].tolist() == [-1] * (len(info.kind) - rounds)
    np.testing.assert_array_equal(accepted, info.accepted)
    assert int(info.drafted) == trace.length[:rounds].sum()
    return rounds


@pytest.mark.parametrize(
    ("rule", "pacing"), [("maximal", None), ("resample", "threshold"), ("mean", None)]
)
def test_the_trace_agrees_with_the_counts_and_changes_nothing(key, rule, pacing):
    """A picture of the rounds would show another decode than the one that was made."""
    options = {"params": PARAMS, "sigma": SIGMA}
    with quickly():
        configs = [DecodeConfig(20, 3, rule, pacing=pacing, trace=on) for on in (True, False)]
        (forecast, info), plain = (speculate(key, BATCH, config=c, **options) for c in configs)
    assert plain[1].trace is None
    assert_same((forecast, info._replace(trace=None)), plain)
    rounds = {check_rows(take(info, i), 3) for i in range(len(BATCH))}
    assert min(rounds) < 7 or rule == "mean"


def test_rows_that_were_not_played_do_not_depend_on_the_batch(key):
    """The rows after a path's last round would be those of rounds that only others needed."""
    config = DecodeConfig(20, 3, trace=True)
    with quickly():
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
    _, info = speculate(key, config=DecodeConfig(20, 3, "mean", trace=True), params=PARAMS)
    played = int(info.rounds)
    np.testing.assert_allclose(info.trace.gap[:played], -info.trace.log_ratio[:played], atol=1e-5)
    np.testing.assert_allclose(info.trace.threshold[:played], -0.25)
    target = np.tanh(parameters(10)[0] @ CONTEXT[-10:] @ parameters(10)[1])
    draft = np.tanh(parameters(7, 0.1)[0] @ CONTEXT[-7:] @ parameters(7)[1])
    gap = np.sqrt(np.mean(np.square((target - draft) / SIGMA)))
    np.testing.assert_allclose(info.trace.gap[0, 0], gap, rtol=1e-4)


def reject(key, current, params):
    """A rule without numbers to compare."""
    return Outcome(current.length * 0, current.target_mean[0])


def test_a_rule_without_numbers_has_none_in_its_trace(key):
    """A rule of one's own could not be traced, or would show numbers it never had."""
    with quickly():
        _, info = speculate(key, config=DecodeConfig(20, 3, reject, trace=True))
    assert np.isnan(info.trace.log_ratio).all()
    assert np.isnan(info.trace.threshold).all()
    assert np.isfinite(info.trace.gap).all()
    assert info.trace.start.tolist() == [*range(7)]


def test_no_trace_costs_nothing(key):
    """Every decode would carry arrays through its loop that nobody asked for."""

    def program(on: bool) -> str:
        config = DecodeConfig(20, 3, trace=on)
        return jax.jit(lambda k: speculate(k, config=config)).lower(key).as_text()

    grid = "x11x3xi1>"  # [N + K + 1, K] bool: nothing but the trace has this shape
    assert grid in program(True)
    assert grid not in program(False)
