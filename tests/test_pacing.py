"""Pacing: the rules against plain Python, and decodes that draft fewer patches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy import stats
from toys import (
    BATCH,
    LINE,
    NUM_VARS,
    TARGET,
    assert_same,
    draft_steps,
    fading,
    line,
    line_laws,
    process,
    speculate,
    take,
)

from stride_jax.config import DecodeConfig
from stride_jax.coupling import Outcome
from stride_jax.decoding import ACCEPTED, BONUS, RECOVERED
from stride_jax.errors import InputError
from stride_jax.pacing import (
    Pace,
    PaceParams,
    expected_speed,
    initial_pace,
    next_pace,
    own_chances,
)
from stride_jax.processes import window_process
from stride_jax.theory import speedup
from stride_jax.types import PatchLaw

PARAMS = PaceParams(lower=0.25, upper=0.6, draft_cost=0.2, decay=0.8)


def slow_threshold(length: int, accepted: int, num_draft: int) -> int:
    """One patch fewer below `lower`, one more above `upper`, between 1 and K."""
    share = accepted / length
    length += (share > PARAMS.upper) - (share < PARAMS.lower)
    return min(max(length, 1), num_draft)


def slow_gain(hits: float, total: float, num_draft: int) -> int:
    """The length of most expected patches for the cost."""
    rate = (hits + 1) / (total + 2)
    return max(range(1, num_draft + 1), key=lambda k: speedup(rate, k, PARAMS.draft_cost))


@pytest.mark.parametrize("num_draft", [1, 4])
@pytest.mark.parametrize("pacing", ["threshold", "gain"])
def test_pace_equals_plain_python(pacing, num_draft):
    """Rounds would be shortened or lengthened by another rule than the one documented."""
    step = jax.jit(lambda pace, n: next_pace(pacing, pace, n, PARAMS, num_draft))
    rng, pace = np.random.default_rng(1), initial_pace(num_draft)
    length, hits, total, lengths = num_draft, 0.0, 0.0, set()
    for _ in range(40):
        accepted = int(rng.integers(0, length + 1)) if rng.random() < 0.7 else 0
        pace = step(pace, jnp.int32(accepted))
        hits = PARAMS.decay * hits + accepted
        total = PARAMS.decay * total + min(accepted + 1, length)
        old = length
        length = slow_gain(hits, total, num_draft)
        if pacing == "threshold":
            length = slow_threshold(old, accepted, num_draft)
        else:
            np.testing.assert_allclose([pace.accepted, pace.tested], [hits, total], rtol=1e-5)
        assert int(pace.length) == length
        lengths.add(length)
    assert len(lengths) == 1 if num_draft == 1 else len(lengths) >= 3


def test_no_pacing_leaves_the_pace():
    """A fixed K would not stay fixed."""
    pace = Pace(jnp.int32(3), jnp.float32(0), jnp.float32(0))
    assert next_pace(None, pace, jnp.int32(0), PaceParams(), 3) is pace


def test_expected_speed_is_that_of_the_theory():
    """The gain would not be the speedup that the paper predicts."""
    found = expected_speed(jnp.full(5, 0.7), jnp.float32(0.15))
    np.testing.assert_allclose(found, [speedup(0.7, k, 0.15) for k in range(1, 6)], rtol=1e-5)
    falling = expected_speed(jnp.array([0.5, 0.2]), jnp.float32(1.0))
    np.testing.assert_allclose(falling, [1.5 / 2, 1.6 / 3], rtol=1e-6)


def test_the_chances_are_those_of_the_excess_variance():
    """A draft that knows where it is unsure would be asked for as much there as elsewhere."""
    sigma = jnp.array([[0.5, 2.0]])  # [P, C]
    error = jnp.array([[[0.3, 0.4]], [[0.0, 0.0]], [[1.5, 0.0]]])  # [K, P, C]
    found = own_chances(jnp.log(sigma[None] ** 2 + error**2), sigma)
    delta = np.sqrt(np.sum(np.square(error / sigma[None]), axis=(1, 2)))
    np.testing.assert_allclose(found, 2 * stats.norm.cdf(-delta / 2), rtol=1e-4)
    np.testing.assert_allclose(own_chances(jnp.log(sigma**2 / 9)[None], sigma), [1.0])


def test_an_unsure_draft_is_asked_for_less():
    """Its own variance would not count, or count at places that it did not propose."""
    pace = Pace(jnp.int32(3), jnp.float32(50.0), jnp.float32(50.0))
    chances = jnp.array([1.0, 0.1, 1.0, 0.0])
    params = PaceParams(draft_cost=0.2)
    found = next_pace("gain", pace, jnp.int32(3), params, 4, chances)
    assert int(found.length) == 1  # 2 / 1.2 for one patch, 2.1 / 1.4 for two
    sure = next_pace("gain", pace, jnp.int32(3), params, 4, jnp.array([1.0, 1.0, 1.0, 0.0]))
    assert int(sure.length) == 4


def easy_or_hard(key, current, params):
    """Accepts everything where the target's mean is positive, else nothing."""
    easy = current.target_mean[0, 0, 0] > 0
    return Outcome(jnp.where(easy, current.length, 0), current.target_mean[0])


@jax.tree_util.register_static
class Counting:
    """A draft that expects the number of steps that it has been asked for before."""

    patch_len = 3

    def prepare(self, context, length=None):
        return jnp.zeros(())

    def start(self, memory, room):
        return memory

    def predict_next(self, memory, state, shape):
        return PatchLaw(jnp.full((1, *shape[1:]), state)), state

    def step(self, memory, state, patch):
        return PatchLaw(jnp.full(patch.shape, state)), state + 1

    def commit(self, state, patches, count):
        return state


def test_a_finished_series_asks_for_nothing(key):
    """Its last length would keep all others drafting as much, to the end of the batch."""
    repeat = window_process(Partial(lambda window: window[-3:]), 3)
    context = np.ones((2, 12, 1), np.float32) * np.float32([1, -1])[:, None, None]
    config = DecodeConfig(30, 4, easy_or_hard, pacing="threshold")
    _, info = speculate(key, context, target=repeat, draft=Counting(), sigma=1e-6, config=config)
    assert info.rounds.tolist() == [2, 10]
    # the rounds drafted 4, 4, 2, 1, 1, ... patches, each all but its first by a step
    counted = np.round(info.proposal[1, :, 0, 0]).tolist()
    assert counted == [0, 3, 6, 7, 7, 7, 7, 7, 7, 7]


@pytest.mark.parametrize("pacing", ["threshold", "gain"])
def test_a_bad_draft_is_asked_for_less(key, pacing):
    """A draft that is always wrong would go on costing K steps a round."""
    config = DecodeConfig(30, 4, pacing=pacing)
    _, info = speculate(key, draft=process(7, 9.0), sigma=0.02, config=config)
    rounds, lengths = int(info.rounds), [4]
    assert info.kind.tolist() == [RECOVERED] * 10
    hits = total = 0.0
    while len(lengths) < rounds:
        total = 0.9 * total + 1
        rate = (hits + 1) / (total + 2)
        best = max(range(1, 5), key=lambda k: speedup(rate, k, 0.1))
        lengths.append(best if pacing == "gain" else max(lengths[-1] - 1, 1))
    assert int(info.drafted) == sum(lengths) < 25


@pytest.mark.parametrize("pacing", ["threshold", "gain"])
def test_a_perfect_draft_is_never_slowed(key, pacing):
    """The drafting loop of changing length would be another decoder than that of a fixed K."""
    paced = speculate(key, BATCH, draft=TARGET, config=DecodeConfig(27, 2, pacing=pacing))
    fixed = speculate(key, BATCH, draft=TARGET, config=DecodeConfig(27, 2))
    assert_same(paced, fixed)
    assert fixed[1].rounds.tolist() == [3] * 5


@pytest.mark.slow
@pytest.mark.parametrize("target", [None, "cached"])
def test_a_paced_series_does_not_depend_on_its_batch(key, target):
    """The longest round of a neighbour would change a forecast."""
    target, draft = (fading(), fading(0.3)) if target else (TARGET, process(7, 0.2))
    config = DecodeConfig(27, 4, "block", pacing="gain")
    options = {"target": target, "draft": draft, "config": config}
    params = PaceParams(draft_cost=0.4)
    whole = speculate(key, BATCH, pace=params, **options)
    for i in (1, 4):
        alone = speculate(key, BATCH[i], pace=params, series_index=jnp.int32(i), **options)
        assert_same(take(whole, i), alone, atol=1e-4)
    info = whole[1]
    drafted, rounds = np.asarray(info.drafted), np.asarray(info.rounds)
    assert np.all((rounds <= drafted) & (drafted <= 4 * rounds))
    unpaced = [draft_steps(kinds.tolist(), 4) for kinds in info.kind]
    assert np.any(drafted < unpaced)
    for i in range(5):
        kinds = info.kind[i].tolist()
        assert int(info.accepted[i].sum()) == kinds.count(ACCEPTED)
        assert int(info.proposed[i].sum()) == kinds.count(ACCEPTED) + kinds.count(RECOVERED)
        assert np.isnan(info.proposal[i]).all((1, 2)).tolist() == [k == BONUS for k in kinds]
    assert info.proposal.shape == (5, 9, 3, NUM_VARS)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["maximal", "block"])
def test_pacing_keeps_exact_rules_exact(key, rule):
    """Choosing the length by what was accepted would bend the law of the samples."""
    config = DecodeConfig(8, 3, rule, num_paths=20_000, pacing="gain")
    pace = PaceParams(draft_cost=0.4)
    forecast, info = speculate(key, LINE, line(), line(0.5), config=config, pace=pace)
    unpaced = [draft_steps(kinds, 3) for kinds in info.kind.tolist()]
    assert 0 < np.mean(np.asarray(info.drafted) < unpaced) < 1
    patches = np.asarray(forecast)[..., 0].reshape(-1, 4, 2)
    for patch, (mean, std) in enumerate(line_laws(0.6, 4)):
        for i in range(2):
            found = (patches[:, patch, i] - mean[i]) / std[i]
            assert stats.kstest(found, "norm").pvalue > 1e-4


@pytest.mark.parametrize("wrong", [{"draft_cost": np.nan}, {"decay": -0.5}], ids=str)
def test_settings_that_mean_nothing_are_refused(key, wrong):
    """The best of numbers that are NaN is the first: every round would have one proposal."""
    with pytest.raises(InputError, match=next(iter(wrong))):
        speculate(key, config=DecodeConfig(9, pacing="gain"), pace=PaceParams(**wrong))


def test_unknown_pacing():
    """A misspelt pacing would silently be a fixed K."""
    with pytest.raises(InputError, match="'gian'"):
        DecodeConfig(8, pacing="gian")
