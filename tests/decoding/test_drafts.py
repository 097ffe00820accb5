"""Drafts: what each proposes, by hand; errors; and exactness however bad they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toys import (
    CONTEXT,
    DRAFT,
    LINE,
    NUM_VARS,
    PATCH_LEN,
    SIGMA,
    assert_same,
    fading,
    history,
    line,
    line_distributions,
    speculate,
    timer_xl,
)
from jax.tree_util import Partial
from scipy import stats

from stride_jax.decoding import drafts
from stride_jax.decoding.drafts import (
    AutoregressiveDraft,
    as_draft,
    multi_patch_draft,
    prediction_sigma,
)
from stride_jax.decoding.naive_drafts import last_value_draft, nearest_draft, seasonal_draft
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError
from stride_jax.types import PatchDistribution


def propose(draft, context, num_draft: int, noise=None, sigma=SIGMA, learned=False, count=None):
    """The first proposals after a context."""
    shape = (num_draft, draft.patch_len, context.shape[1])
    noise = jnp.zeros(shape) if noise is None else noise
    memory = draft.prepare(jnp.asarray(context))
    state = draft.start(memory, 9)
    scale, count = jnp.full(shape[1:], sigma), num_draft if count is None else count
    return drafts.propose(draft, memory, state, noise, scale, count, learned=learned)[0]


def flat(made) -> np.ndarray:
    """`[K, P, C]` -> `[K * P, C]`."""
    return np.asarray(made).reshape(-1, made.shape[-1])


@pytest.mark.parametrize("period", [1, 2, 3, 5, 7, 11])  # dividing P = 3 or not; longer than it
def test_seasonal_proposals_repeat_the_last_season(period):
    """The season would be out of phase from one patch to the next."""
    made = propose(seasonal_draft(PATCH_LEN, period), CONTEXT, 4)
    series = list(CONTEXT)
    for _ in range(12):
        series.append(series[-period])
    np.testing.assert_array_equal(flat(made.mean), series[12:])
    np.testing.assert_array_equal(made.patches, made.mean)
    square = np.mean(np.square(CONTEXT[period:] - CONTEXT[:-period]), axis=0)
    expected = np.broadcast_to(np.log(square), (4, PATCH_LEN, NUM_VARS))
    np.testing.assert_allclose(made.logvar, expected, rtol=1e-4, atol=1e-5)


def test_last_value_goes_on():
    """The simplest draft would propose something else."""
    made = propose(last_value_draft(PATCH_LEN), CONTEXT, 2)
    np.testing.assert_array_equal(flat(made.mean), np.broadcast_to(CONTEXT[-1], (6, NUM_VARS)))
    square = np.mean(np.square(CONTEXT[3:] - CONTEXT[:-3]), axis=0)
    np.testing.assert_allclose(flat(made.logvar)[0], np.log(square), rtol=1e-4)


@pytest.mark.parametrize("level", [0.0, 40.0])
def test_nearest_finds_a_planted_repetition(level):
    """A repeated pattern would not be recognised, or not on another level."""
    context = history(30, NUM_VARS)
    context[-3:] = context[8:11] + level
    made = propose(nearest_draft(PATCH_LEN), context, 4)
    np.testing.assert_allclose(flat(made.mean), context[11:23] + level, atol=1e-4)
    assert np.max(made.logvar) < -15  # no mismatch but rounding


def test_nearest_by_hand():
    """Another stretch than the most similar one would be continued, or its spread be wrong."""
    context = np.float64(history(20, NUM_VARS))
    last = context[-3:] - context[-3:].mean(0)
    mismatch = []
    for end in range(3, 18):
        stretch = context[end - 3 : end]
        mismatch.append((stretch - stretch.mean(0)) - last)
    best = int(np.argmin([np.sum(m**2) for m in mismatch]))
    end, mean = best + 3, []
    for i in range(9):
        mean.append(context[end + i % (20 - end)])
    mean = mean + context[-3:].mean(0) - context[end - 3 : end].mean(0)
    made = propose(nearest_draft(PATCH_LEN), context.astype(np.float32), 3)
    np.testing.assert_allclose(flat(made.mean), mean, atol=1e-5)
    expected = np.log(np.mean(mismatch[best] ** 2, axis=0))
    np.testing.assert_allclose(flat(made.logvar)[4], expected, rtol=1e-3)


def test_noise_is_added_with_the_scale_asked_for():
    """Proposals would not be draws from the distribution that the rule is told."""
    noise, draft = jnp.asarray(history(2, PATCH_LEN, NUM_VARS)), seasonal_draft(PATCH_LEN, 4)
    for learned in (False, True):
        made = propose(draft, CONTEXT, 2, noise, learned=learned)
        spread = np.exp(0.5 * made.logvar) if learned else np.full(noise.shape, SIGMA)
        np.testing.assert_allclose(made.sigma, spread, rtol=1e-5)
        np.testing.assert_allclose(made.patches, made.mean + spread * noise, atol=1e-5)


@pytest.mark.parametrize("learned", [False, True])
def test_without_a_learned_sigma_it_is_the_given_one(learned):
    """A model without a variance head would have no scale at all."""
    found = prediction_sigma(
        PatchDistribution(jnp.zeros((4, 3, 2))), jnp.full((3, 2), 0.7), learned
    )
    np.testing.assert_array_equal(found, np.full((4, 3, 2), np.float32(0.7)))


def several(window):
    """Two patches at once."""
    mean = jnp.concatenate([window[-1:] + 1, window[-5:]])
    return PatchDistribution(mean, -mean, features=window)


def test_multi_patch_model():
    """A model of several patches a pass would be cut in the wrong places."""
    draft = multi_patch_draft(Partial(several), PATCH_LEN, context_len=6)
    distribution = several(CONTEXT[-6:])
    made = propose(draft, CONTEXT, 2)
    np.testing.assert_array_equal(flat(made.mean), distribution.mean)
    np.testing.assert_array_equal(flat(made.logvar), distribution.logvar)
    np.testing.assert_array_equal(flat(propose(draft, CONTEXT, 1).mean), distribution.mean[:3])
    with pytest.raises(InputError, match=r"6 steps.*9.*num_draft"):
        propose(draft, CONTEXT, 3)
    with pytest.raises(InputError, match=r"5 steps.*6"):
        propose(draft, CONTEXT[:5], 1)


@pytest.mark.parametrize("kept", [0, 1, 4])
def test_a_continuation_draft_moves_its_window(kept):
    """Later rounds would be drafted from the old context, or from rejected proposals."""
    draft, patches = seasonal_draft(PATCH_LEN, 7), history(4, PATCH_LEN, NUM_VARS)
    state = draft.start(draft.prepare(jnp.asarray(CONTEXT)), 9)
    found = jax.jit(draft.commit)(state, jnp.asarray(patches), jnp.int32(kept))
    series = np.concatenate([CONTEXT, *patches[:kept]])
    np.testing.assert_array_equal(found, series[len(series) - 12 :])


@pytest.mark.parametrize(
    "model", ["window", "cached", pytest.param("timer_xl", marks=pytest.mark.slow)]
)
def test_autoregressive_draft_equals_a_python_loop(model):
    """A proposal would be drawn given another history than the proposals before it."""
    process = {"window": DRAFT, "cached": fading(0.1), "timer_xl": timer_xl()}[model]
    noise, series = jnp.asarray(history(3, PATCH_LEN, NUM_VARS)), CONTEXT
    made = jax.jit(lambda n: propose(as_draft(process), CONTEXT, 3, n))(noise)
    shorter = jax.jit(lambda n, c: propose(as_draft(process), CONTEXT, 3, n, count=c))(
        noise, jnp.int32(2)
    )
    assert_same(jax.tree.map(lambda x: x[:2], shorter), jax.tree.map(lambda x: x[:2], made))
    assert np.isfinite(shorter.patches).all()

    @jax.jit
    def distribution(series):  # a full pass over everything, no state carried on
        memory = process.prepare(series)
        none = jnp.zeros((0, PATCH_LEN, NUM_VARS))
        return process.verify(memory, process.start(memory, 1), none)[0].mean[0]

    for i in range(3):
        mean = distribution(series)
        np.testing.assert_allclose(made.mean[i], mean, atol=1e-4)
        np.testing.assert_allclose(made.patches[i], mean + SIGMA * noise[i], atol=1e-4)
        series = np.concatenate([series, made.patches[i]])


def test_as_draft():
    """A draft would be wrapped twice, or a process be taken for a draft."""
    draft = seasonal_draft(PATCH_LEN, 2)
    assert as_draft(draft) is draft
    wrapped = as_draft(fading())
    assert isinstance(wrapped, AutoregressiveDraft)
    assert wrapped.patch_len == PATCH_LEN
    assert wrapped.process.lag == 2


@pytest.mark.parametrize("period", [0, -3])
def test_a_period_below_one(period):
    """A season of no length would repeat nothing."""
    with pytest.raises(InputError, match=f"period.*{period}"):
        seasonal_draft(PATCH_LEN, period)


@pytest.mark.parametrize(
    ("draft", "message"),
    [
        (seasonal_draft(PATCH_LEN, 12), "period 12.*12 steps"),
        (nearest_draft(7), "two patches, 14 steps.*12"),
    ],
)
def test_context_too_short(draft, message):
    """A draft would read before the beginning of the context."""
    with pytest.raises(InputError, match=message):
        propose(draft, CONTEXT, 1)


def test_what_is_no_draft_is_refused(key):
    """The message would be about an attribute that nobody has heard of."""
    with pytest.raises(InputError, match=r"methods of drafts.Draft, got function"):
        speculate(key, draft=lambda window: window)


def test_last_value_needs_more_than_a_patch():
    """A log variance of nothing would be NaN, and with it every proposal of a learned scale."""
    with pytest.raises(InputError, match="more than one patch"):
        propose(last_value_draft(PATCH_LEN), CONTEXT[:PATCH_LEN], 1)


@pytest.mark.parametrize(
    "draft",
    [
        seasonal_draft(2, 3),
        last_value_draft(2),
        nearest_draft(2),
        multi_patch_draft(Partial(lambda w: PatchDistribution(jnp.full((6, 1), 0.5))), 2),
        line(1.0),
    ],
    ids=["seasonal", "last_value", "nearest", "multi_patch", "process"],
)
def test_any_draft_decodes_exactly(key, draft):
    """Forecasts would follow the draft instead of the target."""
    config = DecodeConfig(4, 2, num_paths=10_000)
    forecast, info = speculate(key, LINE, line(), draft, config=config)
    patches = np.asarray(forecast)[..., 0].reshape(-1, 2, 2)
    for patch, (mean, std) in enumerate(line_distributions(SIGMA, 2)):
        for i in range(2):
            found = (patches[:, patch, i] - mean[i]) / std[i]
            assert stats.kstest(found, "norm").pvalue > 1e-4
    assert 0 < int(info.accepted.sum()) < int(info.proposed.sum())


def test_the_variance_of_a_draft_in_half_precision_is_float32():
    """A chance or a ratio would have 8 bits, and a server would refuse the proposals."""
    half = Partial(lambda window: PatchDistribution(*(jnp.ones((4, 1), jnp.bfloat16),) * 2))
    draft = multi_patch_draft(half, 2)
    state = draft.start(draft.prepare(jnp.zeros((8, 1))), 3)
    noise, sigma = jnp.zeros((2, 2, 1)), jnp.ones((2, 1))
    made, _ = drafts.propose(draft, None, state, noise, sigma, 2, learned=False)
    assert {x.dtype for x in made} == {jnp.dtype("float32")}


def test_a_process_without_a_mask_sees_the_first_value_in_place_of_padding():
    """A short history would be drafted from whatever stands before it."""
    draft, length = as_draft(DRAFT), 2 * PATCH_LEN
    wild, edge = CONTEXT.copy(), CONTEXT.copy()
    wild[:-length], edge[:-length] = 1e3, CONTEXT[-length]
    found = draft.prepare(jnp.asarray(wild), jnp.int32(length))
    np.testing.assert_array_equal(found, draft.prepare(jnp.asarray(edge)))
