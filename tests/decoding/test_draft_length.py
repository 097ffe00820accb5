"""Draft lengths: against plain Python, and in decodes that draft fewer patches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toys import (
    BATCH,
    LINE,
    NUM_VARS,
    TARGET,
    assert_same,
    draft_steps,
    fading,
    line,
    line_distributions,
    process,
    registered,
    speculate,
    take,
)
from jax.tree_util import Partial
from scipy import stats

from stride_jax.decoding.base import Outcome, Rule
from stride_jax.decoding.draft_length import (
    DRAFT_LENGTHS,
    Fixed,
    Gain,
    LengthState,
    Threshold,
    expected_acceptance,
    expected_speed,
    find_draft_length,
)
from stride_jax.decoding.processes import window_process
from stride_jax.decoding.rules import (
    Block,
    Maximal,
)
from stride_jax.decoding.types import ACCEPTED, BONUS, RECOVERED, DecodeConfig
from stride_jax.errors import InputError
from stride_jax.evaluation.theory import speedup
from stride_jax.types import PatchDistribution

THRESHOLD, GAIN = Threshold(lower=0.25, upper=0.6), Gain(draft_cost=0.2, decay=0.8)


def slow_threshold(length: int, accepted: int, num_draft: int) -> int:
    """One patch fewer below `lower`, one more above `upper`, between 1 and K."""
    share = accepted / length
    length += (share > THRESHOLD.upper) - (share < THRESHOLD.lower)
    return min(max(length, 1), num_draft)


def slow_gain(hits: float, total: float, num_draft: int) -> int:
    """The length of most expected patches for the cost."""
    rate = (hits + 1) / (total + 2)
    return max(range(1, num_draft + 1), key=lambda k: speedup(rate, k, GAIN.draft_cost))


@pytest.mark.parametrize("num_draft", [1, 4])
@pytest.mark.parametrize("strategy", [THRESHOLD, GAIN])
def test_lengths_equal_plain_python(strategy, num_draft):
    """Rounds would be shortened or lengthened by another strategy than the one documented."""
    step = jax.jit(lambda state, n: strategy.update(state, n, num_draft))
    rng, state = np.random.default_rng(1), strategy.init(num_draft)
    length, hits, total, lengths = num_draft, 0.0, 0.0, set()
    for _ in range(40):
        accepted = int(rng.integers(0, length + 1)) if rng.random() < 0.7 else 0
        state = step(state, jnp.int32(accepted))
        hits = GAIN.decay * hits + accepted
        total = GAIN.decay * total + min(accepted + 1, length)
        old = length
        length = slow_gain(hits, total, num_draft)
        if strategy is THRESHOLD:
            length = slow_threshold(old, accepted, num_draft)
        else:
            np.testing.assert_allclose([state.accepted, state.tested], [hits, total], rtol=1e-5)
        assert int(state.length) == length
        lengths.add(length)
    assert len(lengths) == 1 if num_draft == 1 else len(lengths) >= 3


@pytest.mark.parametrize("accepted", [0, 2])
def test_a_fixed_length_stays_fixed(accepted):
    """A fixed K would not stay fixed, also after a last round that was cut short."""
    state = Fixed().init(3)
    assert int(state.length) == 3
    short = state._replace(length=jnp.int32(2))
    found = Fixed().update(short, jnp.int32(accepted), 3)
    assert jax.tree.map(float, found) == LengthState(3.0, 0.0, 0.0)


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
    found = expected_acceptance(jnp.log(sigma[None] ** 2 + error**2), sigma)
    delta = np.sqrt(np.sum(np.square(error / sigma[None]), axis=(1, 2)))
    np.testing.assert_allclose(found, 2 * stats.norm.cdf(-delta / 2), rtol=1e-4)
    np.testing.assert_allclose(expected_acceptance(jnp.log(sigma**2 / 9)[None], sigma), [1.0])


def test_an_unsure_draft_is_asked_for_less():
    """Its own variance would not count, or count at places that it did not propose."""
    state, gain = LengthState(jnp.int32(3), jnp.float32(50.0), jnp.float32(50.0)), Gain(0.2)
    found = gain.update(state, jnp.int32(3), 4, jnp.array([1.0, 0.1, 1.0, 0.0]))
    assert int(found.length) == 1  # 2 / 1.2 for one patch, 2.1 / 1.4 for two
    sure = gain.update(state, jnp.int32(3), 4, jnp.array([1.0, 1.0, 1.0, 0.0]))
    assert int(sure.length) == 4


@registered
class EasyOrHard(Rule):
    """Accepts everything where the target's mean is positive, else nothing."""

    def decide(self, key, current):
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
        return PatchDistribution(jnp.full((1, *shape[1:]), state)), state

    def step(self, memory, state, patch):
        return PatchDistribution(jnp.full(patch.shape, state)), state + 1

    def commit(self, state, patches, count):
        return state


def test_a_finished_series_asks_for_nothing(key):
    """Its last length would keep all others drafting as much, to the end of the batch."""
    repeat = window_process(Partial(lambda window: window[-3:]), 3)
    context = np.ones((2, 12, 1), np.float32) * np.float32([1, -1])[:, None, None]
    options = {"config": DecodeConfig(30, 4), "rule": EasyOrHard(), "draft_length": Threshold()}
    _, info = speculate(key, context, target=repeat, draft=Counting(), sigma=1e-6, **options)
    assert info.rounds.tolist() == [2, 10]
    # the rounds drafted 4, 4, 2, 1, 1, ... patches, each all but its first by a step
    counted = np.round(info.proposal[1, :, 0, 0]).tolist()
    assert counted == [0, 3, 6, 7, 7, 7, 7, 7, 7, 7]


@pytest.mark.parametrize("strategy", [Threshold(), Gain()])
def test_a_bad_draft_is_asked_for_less(key, strategy):
    """A draft that is always wrong would go on costing K steps a round."""
    options = {"config": DecodeConfig(30, 4), "draft_length": strategy}
    _, info = speculate(key, draft=process(7, 9.0), sigma=0.02, **options)
    rounds, lengths = int(info.rounds), [4]
    assert info.origin.tolist() == [RECOVERED] * 10
    hits = total = 0.0
    while len(lengths) < rounds:
        total = 0.9 * total + 1
        rate = (hits + 1) / (total + 2)
        best = max(range(1, 5), key=lambda k: speedup(rate, k, 0.1))
        lengths.append(best if isinstance(strategy, Gain) else max(lengths[-1] - 1, 1))
    assert int(info.drafted) == sum(lengths) < 25


@pytest.mark.parametrize("strategy", [Threshold(), Gain()])
def test_a_perfect_draft_is_never_slowed(key, strategy):
    """The drafting loop of changing length would be another decoder than that of a fixed K."""
    options = {"draft": TARGET, "config": DecodeConfig(27, 2)}
    varied = speculate(key, BATCH, draft_length=strategy, **options)
    fixed = speculate(key, BATCH, **options)
    assert_same(varied, fixed)
    assert_same(speculate(key, BATCH, draft_length=Fixed(), **options), fixed, atol=0)
    assert fixed[1].rounds.tolist() == [3] * 5


@pytest.mark.slow
@pytest.mark.parametrize("target", [None, "cached"])
def test_a_series_of_varied_rounds_does_not_depend_on_its_batch(key, target):
    """The longest round of a neighbour would change a forecast."""
    target, draft = (fading(), fading(0.3)) if target else (TARGET, process(7, 0.2))
    models = {"target": target, "draft": draft, "config": DecodeConfig(27, 4)}
    options = {**models, "rule": Block(), "draft_length": Gain(draft_cost=0.4)}
    whole = speculate(key, BATCH, **options)
    for i in (1, 4):
        alone = speculate(key, BATCH[i], series_index=jnp.int32(i), **options)
        assert_same(take(whole, i), alone, atol=1e-4)
    info = whole[1]
    drafted, rounds = np.asarray(info.drafted), np.asarray(info.rounds)
    assert np.all((rounds <= drafted) & (drafted <= 4 * rounds))
    fixed = [draft_steps(origins.tolist(), 4) for origins in info.origin]
    assert np.any(drafted < fixed)
    for i in range(5):
        origins = info.origin[i].tolist()
        assert int(info.accepted[i].sum()) == origins.count(ACCEPTED)
        assert int(info.proposed[i].sum()) == origins.count(ACCEPTED) + origins.count(RECOVERED)
        assert np.isnan(info.proposal[i]).all((1, 2)).tolist() == [x == BONUS for x in origins]
    assert info.proposal.shape == (5, 9, 3, NUM_VARS)


@pytest.mark.slow
@pytest.mark.parametrize("rule", [Maximal(), Block()])
def test_a_varied_length_keeps_exact_rules_exact(key, rule):
    """Choosing the length by what was accepted would bend the distribution of the samples."""
    config = DecodeConfig(8, 3, num_paths=20_000)
    options = {"config": config, "rule": rule, "draft_length": Gain(draft_cost=0.4)}
    forecast, info = speculate(key, LINE, line(), line(0.5), **options)
    fixed = [draft_steps(origins, 3) for origins in info.origin.tolist()]
    assert 0 < np.mean(np.asarray(info.drafted) < fixed) < 1
    patches = np.asarray(forecast)[..., 0].reshape(-1, 4, 2)
    for patch, (mean, std) in enumerate(line_distributions(0.6, 4)):
        for i in range(2):
            found = (patches[:, patch, i] - mean[i]) / std[i]
            assert stats.kstest(found, "norm").pvalue > 1e-4


WRONG = [("gain", "draft_cost", np.nan), ("gain", "decay", -0.5), ("threshold", "upper", -1.0)]


@pytest.mark.parametrize(("name", "setting", "value"), WRONG)
def test_settings_that_mean_nothing_are_refused(key, name, setting, value):
    """The best of numbers that are NaN is the first: every round would have one proposal."""
    with pytest.raises(InputError, match=setting):
        find_draft_length(name, **{setting: value})
    with pytest.raises(InputError, match=setting):
        speculate(key, draft_length=DRAFT_LENGTHS[name](**{setting: value}))


def test_strategies_are_found_by_their_names():
    """A strategy could not be named in a config, or would lose its settings."""
    assert find_draft_length("fixed") == Fixed()
    assert find_draft_length("gain", draft_cost=0.3) == Gain(draft_cost=0.3)
    assert find_draft_length("threshold", lower=0.1, upper=0.2) == Threshold(0.1, 0.2)


def test_an_unknown_strategy():
    """A misspelt strategy would silently be a fixed K."""
    with pytest.raises(InputError, match=r"'gian'.*'gain'"):
        find_draft_length("gian")


def test_a_draft_that_knows_it_is_unsure_is_asked_for_less_by_a_decode(key):
    """`Gain` would never hear what the draft expects of its own proposals."""
    options = {"config": DecodeConfig(16, 4), "draft_length": Gain(0.2)}  # N = 8
    wide = np.full((2, 1), 9.0)  # the same means, so that all proposals are accepted
    _, sure = speculate(key, LINE, line(), line(), **options)
    _, unsure = speculate(key, LINE, line(), line(0.0, wide), **options)
    assert (int(sure.rounds), int(sure.drafted)) == (2, 4 + 3)
    assert (int(unsure.rounds), int(unsure.drafted)) == (3, 4 + 1 + 1)
