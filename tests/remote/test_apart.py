"""A decode with draft and target apart is the decode of one process, key by key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.apart import Losing, apart
from helpers.first_value import FirstValue
from helpers.tools import load_tool
from helpers.toys import BATCH, CONTEXT, LINE, TARGET, assert_same, fading, line, speculate
from jax.tree_util import Partial

from stride_jax.decoding.draft_length import Gain
from stride_jax.decoding.naive_drafts import last_value_draft
from stride_jax.decoding.processes import window_process
from stride_jax.decoding.rules import (
    AsReleased,
    Block,
    Maximal,
    Mean,
    Residual,
    SharedNoise,
    WithoutBonus,
)
from stride_jax.decoding.scale import PatchCovariance
from stride_jax.decoding.types import DecodeConfig
from stride_jax.remote.link import DirectLink
from stride_jax.remote.server import conversation
from stride_jax.testing.analytic import make_problem
from stride_jax.testing.exactness import FAIL_BELOW, PASS_ABOVE, check
from stride_jax.types import PatchDistribution

CORRELATED = PatchCovariance(np.linalg.cholesky(np.full((3, 3), 0.4) + 0.6 * np.eye(3)), 0.5)


def reporting(window):
    """The target of the toys, which also reports its mean and its double."""
    mean = TARGET.predict(window)
    return PatchDistribution(mean, reported=jnp.stack([mean, 2 * mean], axis=-1))


REPORTING = window_process(
    Partial(reporting), TARGET.patch_len, context_len=TARGET.context_len, reports=("mean", "twice")
)
CACHED = {"target": fading(), "draft": fading(0.3)}
CASES = {
    "rounds with a bonus": (BATCH, 0, {"rule": Maximal()}),
    "means, one block ahead": (BATCH, 1, {"rule": WithoutBonus(Mean(0.3))}),
    "a covariance": (CONTEXT, 0, {"rule": SharedNoise(0.3), "sigma": CORRELATED}),
    "sample paths from caches, two blocks ahead": (
        CONTEXT,
        2,
        {
            **CACHED,
            "rule": WithoutBonus(Block()),
            "draft_length": Gain(),
            "config": DecodeConfig(20, 2, num_paths=4),
        },
    ),
    "reported outputs": (
        BATCH[:2],
        1,
        {"target": REPORTING, "rule": WithoutBonus(Maximal())},
    ),
    "short histories": (
        BATCH[:2],
        0,
        {**CACHED, "lengths": np.array([6, 12]), "series_index": np.array([7, 3])},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_paths_are_those_of_one_process(key, case):
    """A forecast would depend on where the target lies, or on what the client guessed."""
    context, ahead, options = CASES[case]
    result = apart(key, context, ahead=ahead, **options)
    assert_same((result.forecast, result.info), speculate(key, context, **options))
    assert not result.left_alone
    assert (np.asarray(result.verified) == len(result.info.origin.T)).all()


@pytest.mark.parametrize(("ahead", "round_trips"), [(0, 3), (1, 2), (2, 1)])
def test_going_on_saves_round_trips(key, ahead, round_trips):
    """Blocks that are sent ahead would be verified one after the other; N = 7, K = 3."""
    options = {"draft": TARGET, "rule": WithoutBonus(Maximal())}  # always accepted
    link = load_tool("apart").VirtualLink(conversation(TARGET))
    result = apart(key, CONTEXT, ahead=ahead, link=link, **options)
    assert link.now == round_trips
    assert (result.blocks, result.void_blocks) == (3, 0)


def test_what_was_drafted_after_a_rejection_is_thrown_away(key):
    """Proposals that follow a rejected one would reach the forecast."""
    rule = WithoutBonus(SharedNoise(0.0))  # rejects whatever is not the target's own
    result = apart(key, CONTEXT, rule=rule, ahead=2)
    alone = apart(key, CONTEXT, rule=rule)
    assert_same(result[:3], alone[:3])
    assert alone.blocks == 7
    assert result.void_blocks > 0
    assert result.blocks == 7 + result.void_blocks


def through_a_link(spoil, **options):
    """`decode` with the target at the other end of a link; `spoil` sees what the server gets."""

    def decoder(key, context, *, target, **rest):
        reply = conversation(target)
        link = DirectLink(lambda message: reply(spoil(message)))
        result = apart(key, context, link=link, **rest, **options)
        return result.forecast, result.info

    return decoder


def shift_means(message):
    """The server decides by other means than those that the proposals were drawn with."""
    if message.kind == "block":
        message.arrays["mean"] = message.arrays["mean"] + np.float32(0.2)
    return message


@pytest.mark.parametrize(("ahead", "right"), [(0, True), (1, True), (0, False)])
def test_paths_follow_the_distribution_of_the_target(ahead, right):
    """The decode apart would not be exact, while each of its parts is."""
    rule = WithoutBonus(Maximal()) if ahead else Maximal()
    decoder = through_a_link((lambda message: message) if right else shift_means, ahead=ahead)
    problem = make_problem(num_vars=2, delta=1.0)
    result = check(problem, rule, kind="cached", num_series=20_000, decoder=decoder)
    assert result["p"] > PASS_ABOVE if right else result["p"] < FAIL_BELOW
    assert result["acceptance"] < 0.9  # the proposals are not the target's own


LEARNED = {
    "context": LINE,
    "target": line(0.0, [[0.4], [0.9]]),
    "draft": line(0.3, [[0.7], [0.6]]),
    "sigma": 1.5,
    "config": DecodeConfig(16, 2, num_paths=20, learned_scale=True),
}


def test_stds_of_their_own_decide_apart_as_together(key):
    """Proposals would be drawn with one std and be judged by another: not exact."""
    found = apart(key, rule=Residual(), **LEARNED)
    assert_same((found.forecast, found.info), speculate(key, rule=Residual(), **LEARNED))
    assert 0 < int(found.info.accepted.sum()) < int(found.info.proposed.sum())


def test_the_log_variance_of_the_draft_reaches_the_rule(key):
    """The server would decide by the std of the draws where the rule reads the learned one."""
    options = LEARNED | {"rule": AsReleased(), "config": DecodeConfig(16, 2, num_paths=20)}
    found = apart(key, **options)
    assert_same((found.forecast, found.info), speculate(key, **options))


def test_keys_of_another_generator_are_those_of_the_client():
    """The server would draw other noise than the client, or refuse the key."""
    key = jax.random.key(0, impl="rbg")
    found = apart(key, CONTEXT)
    assert_same((found.forecast, found.info), speculate(key, CONTEXT))


def test_nothing_is_reported_of_patches_that_nobody_verified(key):
    """Zeros would pass for what the target says of the draft's own patches."""

    def predict(window):
        mean = TARGET.predict(window)
        return PatchDistribution(mean, reported=mean[..., None])

    target = window_process(
        Partial(predict), TARGET.patch_len, context_len=TARGET.context_len, reports=("mean",)
    )
    link = DirectLink(conversation(target), Losing("answer", 1, 99))
    result = apart(key, CONTEXT, link=link, on_loss="draft", timeout=0.01)
    count, reported = int(result.verified), np.asarray(result.info.reported)
    assert 0 < count < len(reported)
    assert np.isfinite(reported[:count]).all()
    assert np.isnan(reported[count:]).all()


def test_a_target_that_masks_steps_takes_any_length_apart(key):
    """A history that `decode` takes would be refused, though the target knows what to mask."""
    options = {
        "target": FirstValue(True),
        "draft": last_value_draft(4),
        "context": np.arange(16, dtype=np.float32).reshape(2, 8, 1),
        "lengths": np.array([3, 5]),
        "config": DecodeConfig(8, 2),
    }
    found = apart(key, **options)
    assert_same((found.forecast, found.info), speculate(key, **options))
