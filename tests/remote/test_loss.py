"""Lost, late and repeated messages: the path is right, or the result says what is not verified."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.apart import Losing, apart
from helpers.toys import (
    CONTEXT,
    DRAFT,
    PATCH_LEN,
    TARGET,
    assert_same,
    speculate,
)
from jax.tree_util import Partial

from stride_jax.decoding.draft_length import Fallback
from stride_jax.decoding.processes import window_process
from stride_jax.decoding.rules import Mean, WithoutBonus
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import AUTOREGRESSIVE, DecodeConfig
from stride_jax.remote.link import DirectLink, LinkClosedError
from stride_jax.remote.messages import (
    unpack,
)
from stride_jax.remote.server import conversation
from stride_jax.types import PatchDistribution

RULE, AHEAD = WithoutBonus(Mean(0.35)), 2
CONFIG = DecodeConfig(24, 2)  # N = 8
KINDS = [("open", None), ("ready", None), ("block", 0), ("block", 1), ("answer", 0), ("answer", 2)]
decode_lossy = functools.partial(apart, rule=RULE, config=CONFIG, ahead=AHEAD, timeout=0.01)


def with_std(process):
    """The same means, with a learned std of 1, of which a `Fallback(0.0)` is never sure."""

    def predict(window):
        mean = process.predict_patch(window).mean
        return PatchDistribution(mean, jnp.zeros_like(mean))

    return window_process(Partial(predict), PATCH_LEN, context_len=process.context_len)


def link_to(lost=None, target=TARGET):
    """A direct link that loses what `lost` says."""
    return DirectLink(conversation(target), lost)


@pytest.fixture(scope="module")
def whole():
    """`(forecast, info)` of one process, and of a link that loses nothing."""
    key = jax.random.key(0)
    expected = speculate(key, CONTEXT, rule=RULE, config=CONFIG)
    result = decode_lossy(key, CONTEXT)
    assert_same((result.forecast, result.info), expected)
    assert result.blocks > 3
    return result


@pytest.mark.parametrize(("kind", "block"), KINDS)
def test_a_client_that_waits_gets_the_same_path(key, whole, kind, block):
    """A block would be verified twice, or an answer taken for that of another block."""
    lost = Losing(kind, block, times=2)
    result = decode_lossy(key, CONTEXT, link=link_to(lost))
    assert lost.left == 0
    assert_same((result.forecast, result.info), (whole.forecast, whole.info), atol=0)
    assert not result.left_alone


def test_a_draft_that_is_never_sure_finishes_alone(key):
    """The client would draft rounds without a proposal for ever."""
    options = {"draft_length": Fallback(0.0), "draft": with_std(DRAFT), "on_loss": "draft"}
    for lost in (None, Losing("block", 0, 99)):
        result = decode_lossy(key, CONTEXT, link=link_to(lost), **options)
        assert result.left_alone == (lost is not None)
        assert np.isfinite(result.forecast).all()
        assert int(result.verified) == (8 if lost is None else 0)


@pytest.mark.parametrize(("kind", "block"), KINDS)
def test_a_client_that_does_not_wait_finishes_with_the_draft(key, whole, kind, block):
    """Patches of the draft would pass for verified ones, or verified ones would be lost."""
    result = decode_lossy(key, CONTEXT, link=link_to(Losing(kind, block, 99)), on_loss="draft")
    assert result.left_alone
    count = int(result.verified)
    assert (count == 0) == (kind in ("open", "ready") or block == 0)
    assert count < 8

    # What was answered is the path of the whole decode.
    steps = count * PATCH_LEN
    np.testing.assert_array_equal(result.forecast[:steps], whole.forecast[:steps])
    np.testing.assert_array_equal(result.info.origin[:count], whole.info.origin[:count])

    # The rest is the draft alone, from the context that the models have seen.
    assert (np.asarray(result.info.origin[count:]) == AUTOREGRESSIVE).all()
    assert np.isnan(result.info.proposal[count:]).all()
    seen = np.concatenate([CONTEXT, context_patches(whole, count)])
    alone = {"target": None, "draft": DRAFT, "sigma": 1.0, "config": DecodeConfig(24, 1)}
    expected, _ = decode(key, seen, rule=Mean(), **alone)
    np.testing.assert_allclose(result.forecast[steps:], expected[: 24 - steps], atol=1e-5)


def context_patches(whole, count):
    """`[count * P, C]`: accepted proposals, and the target's patches between them."""
    kept = np.asarray(whole.info.origin[:count] == 0)[:, None, None]
    emitted = np.asarray(whole.forecast).reshape(-1, PATCH_LEN, 2)[:count]  # [T, C] -> [N, P, C]
    patches = np.where(kept, whole.info.proposal[:count], emitted)
    return patches.reshape(-1, 2)  # [count, P, C] -> [count * P, C]


def test_counts_are_of_the_rounds_that_were_answered(key, whole):
    """The draft's patches would count as accepted."""
    link = link_to(Losing("answer", 1, 99))
    result = decode_lossy(key, CONTEXT, link=link, on_loss="draft")
    assert int(result.info.rounds) == int(result.info.target_passes) == 1
    assert int(result.info.accepted.sum()) == int((result.info.origin == 0).sum())


class Late(DirectLink):
    """A link where the client stops to wait just before the answer to each block comes."""

    def __init__(self, reply):
        super().__init__(reply)
        self.late = set()

    def receive(self, timeout):
        waiting = unpack(self._answers[0]).fields if self._answers else {}
        name = waiting.get("number"), waiting.get("block")
        if name in self.late:
            return super().receive(timeout)
        self.late.add(name)
        return None


def test_late_answers_are_not_taken_for_others(key, whole):
    """An answer that comes twice, or after its decode, would be that of another block."""
    link = Late(conversation(TARGET))
    result = decode_lossy(key, CONTEXT, link=link)
    assert_same((result.forecast, result.info), (whole.forecast, whole.info), atol=0)

    # The rest of a decode that was given up comes in the next one.
    given_up = decode_lossy(key, CONTEXT, link=link, on_loss="draft")
    assert given_up.left_alone
    again = decode_lossy(key, CONTEXT, link=link)
    assert_same((again.forecast, again.info), (whole.forecast, whole.info), atol=0)


class Closing(DirectLink):
    """A link that is closed after so many messages of the server."""

    def __init__(self, reply, after):
        super().__init__(reply)
        self.after = after

    def receive(self, timeout):
        if self.after == 0:
            raise LinkClosedError("gone")
        self.after -= 1
        return super().receive(timeout)


@pytest.mark.parametrize("after", [0, 2])
def test_a_link_that_is_closed(key, whole, after):
    """A client would wait for ever, or stop with an error although it may finish alone."""
    with pytest.raises(LinkClosedError):
        decode_lossy(key, CONTEXT, link=Closing(conversation(TARGET), after))
    result = decode_lossy(key, CONTEXT, link=Closing(conversation(TARGET), after), on_loss="draft")
    assert result.left_alone
    steps = int(result.verified) * PATCH_LEN
    assert (steps > 0) == (after > 0)
    np.testing.assert_array_equal(result.forecast[:steps], whole.forecast[:steps])


class Shut(DirectLink):
    """A link that does not even send."""

    def send(self, message):
        raise LinkClosedError("gone")


def test_a_client_that_cannot_send_finishes_alone(key):
    """It would stop with an error although it may finish alone."""
    options = {"link": Shut(conversation(TARGET)), "timeout": 0.01}
    result = apart(key, CONTEXT, on_loss="draft", **options)
    assert result.left_alone
    assert int(result.verified) == 0
    with pytest.raises(LinkClosedError):
        apart(key, CONTEXT, **options)
