"""`decode` of one model alone: any draft, the mean paths of target and draft, what is refused."""

import dataclasses

import numpy as np
import pytest
from helpers.toys import (
    BATCH,
    CONTEXT,
    DRAFT,
    NUM_VARS,
    PATCH_LEN,
    SIGMA,
    TARGET,
    assert_same,
    roll,
    speculate,
)

from stride_jax.decoding.drafts import as_draft
from stride_jax.decoding.naive_drafts import seasonal_draft
from stride_jax.decoding.rules import Block, Mean, Resample
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError

CONFIG = DecodeConfig(20, 3)  # 7 patches: the third call makes two too many
SEASONAL = seasonal_draft(PATCH_LEN, 5)  # no multiple of the patch


def draft_alone(key, context=CONTEXT, draft=SEASONAL, sigma=0.0, config=CONFIG, **rest):
    """`decode` of the draft alone with defaults."""
    return decode(key, context, target=None, draft=draft, sigma=sigma, config=config, **rest)


# --- the draft alone ---------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.0, SIGMA])
@pytest.mark.parametrize("num_draft", [1, 3, 9])
def test_a_process_alone_is_its_autoregressive_decode(key, sigma, num_draft):
    """The draft-alone row would be another forecast than the draft's own."""
    config = dataclasses.replace(CONFIG, num_draft=num_draft, num_paths=2)
    expected = roll(key, BATCH, target=DRAFT, sigma=sigma, config=config)
    # as it is, patch by patch; as a draft, `num_draft` patches at a time
    for draft, size in ((DRAFT, 1), (as_draft(DRAFT), min(num_draft, 7))):
        found, info = draft_alone(key, BATCH, draft, sigma, config)
        assert_same(found, expected[0])
        assert not np.any(info.target_passes)
        rounds = -(-7 // size)
        assert np.unique(info.rounds).tolist() == [rounds]
        assert np.unique(info.drafted).tolist() == [rounds * size]


def test_a_continuation_goes_on_from_its_own_patches(key):
    """Every call would start from the context again: three patches, over and over."""
    found, _ = draft_alone(key)
    repeated = CONTEXT[-5:][np.arange(20) % 5]
    np.testing.assert_allclose(found, repeated)


def test_its_own_variance_is_used_where_asked_for(key):
    """Paths of a draft that knows its variance would be as wide as the target's."""
    draft = seasonal_draft(PATCH_LEN, PATCH_LEN)
    config = dataclasses.replace(CONFIG, horizon=PATCH_LEN, num_paths=4000, learned_scale=True)
    paths, _ = draft_alone(key, draft=draft, sigma=99.0, config=config)
    std = np.sqrt(np.mean(np.square(CONTEXT[PATCH_LEN:] - CONTEXT[:-PATCH_LEN]), axis=0))
    np.testing.assert_allclose(np.std(paths, axis=(0, 1)), std, rtol=0.2)


def test_inputs_are_checked(key):
    """A decode of no patches, or of NaN, would be found out by its table."""
    with pytest.raises(InputError, match="num_draft must be at least 1"):
        draft_alone(key, config=DecodeConfig(20, 0))
    with pytest.raises(InputError, match="NaN"):
        draft_alone(key, np.full((12, NUM_VARS), np.nan, np.float32))


# --- mean paths --------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [Mean(), Mean(tolerance=9.0), Mean(temperature=1.0)])
def test_a_rule_of_means_gives_the_mean_path_of_either_model(key, rule):
    """A mean path would carry noise because it is not decoded speculatively."""
    expected = roll(key, sigma=0.0)
    assert_same(roll(key, rule=rule), expected, atol=0)
    assert_same(
        speculate(key, config=dataclasses.replace(CONFIG, num_draft=0), rule=rule), expected, atol=0
    )
    found, _ = draft_alone(key, draft=DRAFT, sigma=SIGMA, rule=rule)
    np.testing.assert_array_equal(found, roll(key, target=DRAFT, sigma=0.0)[0])
    found, _ = draft_alone(key, sigma=SIGMA, rule=rule)
    np.testing.assert_array_equal(found, draft_alone(key, sigma=0.0)[0])


@pytest.mark.parametrize("rule", [None, Block(), Resample()])
def test_other_rules_do_not_change_a_model_alone(key, rule):
    """The baseline of a rule would not be the target's own sample path."""
    assert_same(roll(key, rule=rule), roll(key), atol=0)


# --- what is refused -----------------------------------------------------------------------------


def test_neither_target_nor_draft(key):
    """A missing model would show as a traceback about None."""
    with pytest.raises(InputError, match="a target, a draft, or both; got neither"):
        decode(key, CONTEXT, target=None, sigma=SIGMA, config=CONFIG)


WRONG_MODELS = [
    (SEASONAL, None, "target must be a process.*ContinuationDraft"),
    (3, DRAFT, "target must be a process.*got 3"),
    (lambda window: window, None, "target must be a process.*function"),
    (None, lambda window: window, "a draft is a process or.*function"),
    (TARGET, 3, "a draft is a process or.*int"),
]


@pytest.mark.parametrize(("target", "draft", "said"), WRONG_MODELS)
def test_something_that_is_no_model(key, target, draft, said):
    """A draft in the place of the target, or a bare function, would show as a traceback."""
    with pytest.raises(InputError, match=said):
        decode(key, CONTEXT, target=target, draft=draft, sigma=SIGMA, config=CONFIG)


@pytest.mark.parametrize("models", [(TARGET, None), (None, DRAFT), (TARGET, DRAFT)])
@pytest.mark.parametrize("rule", ["block", Block, lambda key, current: None, 3, ()])
def test_something_that_is_no_rule(key, models, rule):
    """A rule's name, class or function would fail within the loop, or be ignored for one model."""
    target, draft = models
    with pytest.raises(InputError, match=r"rule must be an acceptance rule such as Maximal\(\)"):
        decode(key, CONTEXT, target=target, draft=draft, sigma=SIGMA, config=CONFIG, rule=rule)


def test_a_learned_scale_with_a_tied_rule_is_refused_for_pairs_alone(key):
    """One model has its own std whatever the rule; two of them need a rule that allows it."""
    config = dataclasses.replace(CONFIG, learned_scale=True)
    for rule in (None, Block(), Mean()):
        with pytest.raises(InputError, match=r"needs one sigma.*Residual\(\)"):
            speculate(key, config=config, rule=rule)
    assert_same(roll(key, config=config, rule=Block()), roll(key), atol=0)  # has no std
