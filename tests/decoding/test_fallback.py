"""`Fallback`: the draft stops where it is unsure, in a decode like that of a plain Python loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toys import (
    BATCH,
    DRAFT_LEN,
    LINE,
    PATCH_LEN,
    SIGMA,
    TARGET_LEN,
    line,
    line_distributions,
    parameters,
    speculate,
)
from scipy import stats

from stride_jax.decoding.draft_length import Fallback, find_draft_length
from stride_jax.decoding.rules import (
    Block,
    Maximal,
    Mean,
    Several,
)
from stride_jax.decoding.types import DecodeConfig
from stride_jax.decoding.uncertainty import draft_uncertainty
from stride_jax.errors import InputError
from stride_jax.types import PatchDistribution

COUNT, NUM_DRAFT, TOLERANCE, THRESHOLD = 7, 4, 0.25, 0.7


def window_mean(length: int, gap: float):
    """`series -> mean` of the next patch in float64; see `helpers.toys.process`."""
    weight, mix = map(np.float64, parameters(length, gap))
    return lambda series: np.tanh(weight @ series[-length:] @ mix)


def slow_big_little(series):
    """The patches, rounds and proposals of one series, as the paper tells it, round by round."""
    target, draft = window_mean(TARGET_LEN, 0.0), window_mean(DRAFT_LEN, 0.1)
    series, shown, rounds, drafted = np.float64(series), [], 0, 0
    while len(shown) < COUNT:
        grown, proposals = [series], []
        while len(proposals) < min(NUM_DRAFT, COUNT - len(shown)):
            patch = draft(np.concatenate(grown))
            change = np.inf if not proposals else (patch - proposals[-1]) / SIGMA
            if proposals and np.sqrt(np.mean(change**2)) > THRESHOLD:
                break  # fallback: the target goes on
            proposals.append(patch)
            grown.append(patch)
        means = [target(np.concatenate(grown[: i + 1])) for i in range(len(grown))]
        gaps = [(m - x) / SIGMA for m, x in zip(means, proposals, strict=False)]
        far = [np.sqrt(np.mean(gap**2)) > TOLERANCE for gap in gaps]
        kept = far.index(True) if any(far) else len(far)  # rollback to the first far one
        series = np.concatenate([series, *proposals[:kept], means[kept]])
        shown += means[: kept + 1]
        rounds, drafted = rounds + 1, drafted + len(proposals)
    return np.concatenate(shown[:COUNT]), rounds, drafted


def test_big_little_equals_a_python_loop(key):
    """A series would draft as far as its neighbours do, or beyond the patch it is unsure of."""
    options = {"config": DecodeConfig(COUNT * PATCH_LEN, NUM_DRAFT), "rule": Mean(TOLERANCE)}
    forecast, info = speculate(key, BATCH, draft_length=Fallback(THRESHOLD), **options)
    drafted = []
    for i, series in enumerate(BATCH):
        shown, rounds, proposals = slow_big_little(series)
        np.testing.assert_allclose(forecast[i], shown, atol=1e-4)
        assert (int(info.target_passes[i]), int(info.drafted[i])) == (rounds, proposals)
        drafted.append(proposals / rounds)
    assert 1 < min(drafted) < max(drafted) <= NUM_DRAFT  # it stopped here and there


@jax.tree_util.register_static
class Counting:
    """A draft whose mean is the number of steps it was asked for before, squared."""

    patch_len = PATCH_LEN

    def prepare(self, context, length=None):
        return jnp.zeros(())

    def start(self, memory, room):
        return memory

    def predict_next(self, memory, state, shape):
        return PatchDistribution(jnp.full((1, *shape[1:]), jnp.square(state))), state

    def step(self, memory, state, patch):
        return PatchDistribution(jnp.full(patch.shape, jnp.square(state + 1))), state + 1

    def commit(self, state, patches, count):
        return state


def test_the_draft_makes_no_step_after_it_has_stopped(key):
    """The fallback would save no draft step, which is all that it is for."""
    # The means 0, 1, 4, 9, ... move by 1, 3, 5, ...: it stops at the third patch, whose change is
    # 3, and is asked for two steps in each round.
    options = {"config": DecodeConfig(6 * PATCH_LEN, 5), "rule": Mean(0.0)}
    _, info = speculate(key, draft=Counting(), sigma=1.0, draft_length=Fallback(2.0), **options)
    first = np.asarray(info.proposal)[:, 0, 0]
    # One patch a round. Each round begins where the steps of the one before ended.
    np.testing.assert_array_equal(first, np.square([0, 2, 3, 4, 5, 6])[: len(first)])


def test_uncertainty_is_the_std_or_the_change():
    """The threshold would be compared with another number than the documented one."""
    rng = np.random.default_rng(0)
    mean, sigma = rng.normal(size=(4, 3, 2)), rng.uniform(0.5, 2, (3, 2))
    logvar = rng.normal(size=mean.shape)
    changes = [np.sqrt(np.mean(((mean[i] - mean[i - 1]) / sigma) ** 2)) for i in range(1, 4)]
    found = draft_uncertainty(*map(jnp.asarray, (mean,)), None, jnp.asarray(sigma))
    np.testing.assert_allclose(found, [0.0, *changes], rtol=1e-5)
    found = draft_uncertainty(*map(jnp.asarray, (mean, logvar, sigma)))
    stds = np.sqrt(np.mean(np.exp(logvar) / sigma**2, axis=(1, 2)))
    np.testing.assert_allclose(found, stds, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("rule", [Block(), Maximal()])
def test_stopping_keeps_exact_rules_exact(key, rule):
    """A stop that looked at the noise of the proposal it drops would bend the distribution."""
    config = DecodeConfig(8, 3, num_paths=20_000, compactions=0)
    options = {"config": config, "rule": rule, "draft_length": Fallback(1.0)}
    forecast, info = speculate(key, LINE, line(), line(0.5), **options)
    assert 0.2 < np.mean(np.asarray(info.drafted) < 5) < 0.999
    patches = np.asarray(forecast)[..., 0].reshape(-1, 4, 2)
    for patch, (mean, std) in enumerate(line_distributions(0.6, 4)):
        for i in range(2):
            noise = (patches[:, patch, i] - mean[i]) / std[i]
            assert stats.kstest(noise, "norm").pvalue > 1e-4


def test_what_a_fallback_refuses(key):
    """A round would never draft, or the chains of a round would end at different places."""
    with pytest.raises(InputError, match=r"threshold.*-0\.5"):
        find_draft_length("fallback", threshold=-0.5)
    with pytest.raises(InputError, match="one chain"):
        speculate(key, rule=Several(Block(), chains=2), draft_length=Fallback())
    assert find_draft_length("fallback", threshold=0.2) == Fallback(0.2)


def test_a_draft_that_is_no_number_is_unsure():
    """The draft would go on from a proposal that is NaN, and ask for its verification."""
    mean = jnp.zeros((4, 2, 1)).at[1].set(jnp.nan)
    found = Fallback(0.5).unsure(mean, None, jnp.ones((2, 1)))
    assert found.tolist() == [False, True, True, False]
