"""The draft by itself: any draft, its own process where it is one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import BATCH, CONTEXT, DRAFT, NUM_VARS, PATCH_LEN, SIGMA, assert_same, roll

from stride_jax.config import DecodeConfig
from stride_jax.draft_alone import decode_draft
from stride_jax.drafts import as_draft, seasonal_draft
from stride_jax.errors import InputError

CONFIG = DecodeConfig(20, 3)  # 7 patches: the third call makes two too many


@pytest.mark.parametrize("sigma", [0.0, SIGMA])
@pytest.mark.parametrize("num_draft", [1, 3, 9])
def test_a_process_alone_is_its_autoregressive_decode(key, sigma, num_draft):
    """The draft-alone row would be another forecast than the draft's own."""
    config = dataclasses.replace(CONFIG, num_draft=num_draft, num_paths=2)
    found = decode_draft(key, BATCH, draft=as_draft(DRAFT), sigma=sigma, config=config)
    expected = roll(key, BATCH, target=DRAFT, sigma=sigma, config=config)
    assert_same(found[0], expected[0])
    assert not np.any(found[1].target_passes)
    rounds = -(-7 // min(num_draft, 7))
    assert np.unique(found[1].rounds).tolist() == [rounds]
    assert np.unique(found[1].drafted).tolist() == [rounds * min(num_draft, 7)]


def test_a_continuation_goes_on_from_its_own_patches(key):
    """Every call would start from the context again: three patches, over and over."""
    period = 5  # no multiple of the patch
    draft = seasonal_draft(PATCH_LEN, period)
    found, _ = decode_draft(key, CONTEXT, draft=draft, sigma=0.0, config=CONFIG)
    repeated = CONTEXT[-period:][np.arange(20) % period]
    np.testing.assert_allclose(found, repeated)


def test_its_own_variance_is_used_where_asked_for(key):
    """Paths of a draft that knows its variance would be as wide as the target's."""
    draft = seasonal_draft(PATCH_LEN, PATCH_LEN)
    config = dataclasses.replace(CONFIG, horizon=PATCH_LEN, num_paths=4000, learned_scale=True)
    paths, _ = decode_draft(key, CONTEXT, draft=draft, sigma=99.0, config=config)
    std = np.sqrt(np.mean(np.square(CONTEXT[PATCH_LEN:] - CONTEXT[:-PATCH_LEN]), axis=0))
    np.testing.assert_allclose(np.std(paths, axis=(0, 1)), std, rtol=0.2)


def test_inputs_are_checked(key):
    """A decode of no patches, or of NaN, would be found out by its table."""
    draft = seasonal_draft(PATCH_LEN, 3)
    with pytest.raises(InputError, match="num_draft must be at least 1"):
        decode_draft(key, CONTEXT, draft=draft, sigma=0.0, config=DecodeConfig(20, 0))
    bad = jnp.full((12, NUM_VARS), jnp.nan)
    with pytest.raises(InputError, match="NaN"):
        decode_draft(jax.random.key(0), bad, draft=draft, sigma=0.0, config=CONFIG)
