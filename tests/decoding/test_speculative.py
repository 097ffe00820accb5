"""The compiled loop against Python loops written from the documentation; closed forms; counts."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toys import (
    CONTEXT,
    DRAFT,
    DRAFT_LEN,
    NUM_VARS,
    PATCH_LEN,
    SIGMA,
    TARGET,
    TARGET_LEN,
    fading,
    parameters,
    recount,
    speculate,
    timer_xl,
)
from scipy import stats

from stride_jax.decoding.base import Round, Rule
from stride_jax.decoding.batching import normals, patch_keys, path_keys
from stride_jax.decoding.compiled import compiled
from stride_jax.decoding.drafts import as_draft, propose
from stride_jax.decoding.rules import RULES, Block, Maximal, Mean, Resample, SharedNoise
from stride_jax.decoding.types import ACCEPTED, BONUS, RECOVERED, DecodeConfig

PAIRS = {
    "window": (TARGET, DRAFT),
    "cached": (fading(), fading(0.1)),
    "timer_xl": (timer_xl(), timer_xl(0.4)),
}
CHOSEN = {"resample": Resample(1.3, 0.02), "mean": Mean(0.25), "shared_noise": SharedNoise(0.25)}
"""Settings at which these rules both accept and reject."""


# --- the loop ----------------------------------------------------------------------------------


@functools.cache
def pieces(pair: str, num_draft: int):
    """`(start, look, commit)`, compiled: the draft's and the target's part of a round."""
    target, draft = PAIRS[pair][0], as_draft(PAIRS[pair][1])
    scale = jnp.full((PATCH_LEN, NUM_VARS), SIGMA)

    def start(context):
        memories = target.prepare(context), draft.prepare(context)
        room = 7 + num_draft
        return memories, (target.start(memories[0], room), draft.start(memories[1], room))

    def look(memories, states, noise, fresh):
        made, drafted = propose(
            draft, memories[1], states[1], noise, scale, num_draft, learned=False
        )
        distributions, seen = target.verify(memories[0], states[0], made.patches)
        current = Round(
            proposals=made.patches,
            noise=noise,
            draft_mean=made.mean,
            draft_sigma=made.sigma,
            target_mean=distributions.mean,
            target_sigma=jnp.broadcast_to(scale, distributions.mean.shape),
            draft_logvar=None,
            fresh=fresh,
            length=jnp.int32(num_draft),
        )
        return current, (seen, drafted)

    def commit(states, patches, count):
        return target.commit(states[0], patches, count), draft.commit(states[1], patches, count)

    return jax.jit(start), jax.jit(look), jax.jit(commit)


@compiled
def decide(rule: Rule, key, current: Round):
    """The rule's decision."""
    return rule.decide(key, current)


def slow_decode(key, pair: str, rule: Rule, num_draft: int, count: int):
    """A decode as the documentation tells it, round by round in Python.

    Returns:
        The patches shown, their origins, the last proposals, the rounds and the draft steps.
    """
    start, look, commit = pieces(pair, num_draft)
    shape = (PATCH_LEN, NUM_VARS)
    memories, states = start(CONTEXT)
    keys, rounds, drafted = path_keys(jax.random.fold_in(key, 0)), 0, 0
    own, shown, origins, last = keys.rounds, [], [], []
    while len(origins) < count:
        own, draft_key, rule_key = jax.random.split(own, 3)
        fresh = normals(patch_keys(keys.noise, len(origins), num_draft + 1), shape)
        noise = jax.random.normal(draft_key, (num_draft, *shape))
        if rule.proposes != "sample":
            noise = fresh[:-1] if rule.proposes == "patch_noise" else jnp.zeros_like(noise)
        current, states = look(memories, states, noise, fresh)
        length = min(num_draft, count - len(origins))
        current = current._replace(length=jnp.int32(length))
        outcome = decide(rule, rule_key, current)
        kept, patch = int(outcome.num_accepted), np.asarray(outcome.patch)
        proposals = np.asarray(current.proposals)
        visible = proposals if outcome.emitted is None else np.asarray(outcome.emitted)
        shown += [*visible[:kept], patch]
        origins += [ACCEPTED] * kept + [BONUS if kept == length else RECOVERED]
        last += [*proposals[:length], np.full(shape, np.nan)][: kept + 1]
        grown = np.stack([*proposals[:kept], *[patch] * (num_draft + 1 - kept)])
        states = commit(states, grown, np.int32(kept + 1))
        rounds, drafted = rounds + 1, drafted + length
    return np.stack(shown[:count]), origins[:count], np.stack(last[:count]), rounds, drafted


def check_against_slow(pair: str, name: str, num_draft: int) -> list[int]:
    """Compares two seeds of both decoders; the origins of all patches."""
    seen = []
    for seed in range(2):
        key = jax.random.key(seed)
        target, draft = PAIRS[pair]
        rule, config = CHOSEN.get(name, RULES[name]()), DecodeConfig(20, num_draft)
        forecast, info = speculate(key, target=target, draft=draft, config=config, rule=rule)
        shown, origins, last, rounds, drafted = slow_decode(key, pair, rule, num_draft, 7)
        np.testing.assert_allclose(forecast, shown.reshape(-1, NUM_VARS)[:20], atol=1e-4)
        assert info.origin.tolist() == origins
        np.testing.assert_allclose(info.proposal, last, atol=1e-4)
        assert int(info.rounds) == int(info.target_passes) == rounds
        assert int(info.drafted) == drafted
        accepted, proposed, _ = recount(origins, num_draft)
        assert (info.accepted.tolist(), info.proposed.tolist()) == (accepted, proposed)
        assert int(info.overflow) == 0
        seen += origins
    return seen


CASES = [
    ("window", "maximal", 1),
    ("window", "resample", 3),
    ("window", "mean", 2),
    ("window", "shared_noise", 4),
    ("cached", "block", 2),
]
"""One of each way to propose and to emit; all combinations are a slow test."""


@pytest.mark.parametrize(("pair", "rule", "num_draft"), CASES)
def test_while_loop_equals_a_python_loop(pair, rule, num_draft):
    """The forecast or its counts would not be those of the algorithm that is documented."""
    origins = check_against_slow(pair, rule, num_draft)
    assert len(set(origins)) >= 2  # something was kept and something replaced


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pair", "rule", "num_draft"), [*itertools.product(PAIRS, RULES, range(1, 5))]
)
def test_while_loop_equals_a_python_loop_in_every_combination(pair, rule, num_draft):
    """The forecast or its counts would not be those of the algorithm that is documented."""
    check_against_slow(pair, rule, num_draft)


def slow_round(keys, series, sigma, num_draft: int, target, draft):
    """One round of `maximal` in float64: `(patches, origins, proposals)`, lists of equal length."""
    shape = (PATCH_LEN, NUM_VARS)
    grown, proposals, means = [series], [], []
    for noise in np.float64(jax.random.normal(keys[0], (num_draft, *shape))):
        means.append(draft(np.concatenate(grown)))
        proposals.append(means[-1] + sigma * noise)
        grown.append(proposals[-1])
    tiny = np.finfo(np.float32).tiny
    uniform = np.float64(jax.random.uniform(keys[1], (num_draft,), minval=tiny))
    for i, u in enumerate(uniform):
        mean_p = target(np.concatenate(grown[: i + 1]))
        gap, z = (mean_p - means[i]) / sigma, (proposals[i] - means[i]) / sigma
        if np.log(u) > (np.sum(z**2) - np.sum((z - gap) ** 2)) / 2:
            mirrored = z - 2 * gap * np.sum(gap * z) / np.sum(gap**2)
            origins = [ACCEPTED] * i + [RECOVERED]
            return [*proposals[:i], mean_p + sigma * mirrored], origins, proposals[: i + 1]
    fresh = np.float64(jax.random.normal(jax.random.fold_in(keys[2], keys[3] + num_draft), shape))
    bonus = target(np.concatenate(grown)) + sigma * fresh
    origins = [ACCEPTED] * num_draft + [BONUS]
    return [*proposals, bonus], origins, [*proposals, np.full(shape, np.nan)]


def window_mean(length: int, gap: float):
    """`series -> mean` of the next patch in float64, of the forecaster with these parameters."""
    weight, mix = map(np.float64, parameters(length, gap))
    return lambda series: np.tanh(weight @ series[-length:] @ mix)


def slow_speculative(key, sigma, num_draft: int, count: int):
    """The whole decode in float64: `(patches, origins, proposals, rounds)`, cut to `count`."""
    target, draft = window_mean(TARGET_LEN, 0.0), window_mean(DRAFT_LEN, 0.1)
    noise, own = jax.random.split(jax.random.fold_in(key, 0))
    series = np.float64(CONTEXT)
    patches, origins, proposals, rounds = [], [], [], 0
    while len(origins) < count:
        own, draft_key, rule_key = jax.random.split(own, 3)
        keys = draft_key, rule_key, noise, len(origins)
        new = slow_round(keys, series, sigma, num_draft, target, draft)
        for total, part in zip((patches, origins, proposals), new, strict=True):
            total.extend(part)
        series, rounds = np.concatenate([series, *new[0]]), rounds + 1
    return np.concatenate(patches[:count]), origins[:count], np.stack(proposals[:count]), rounds


@pytest.mark.parametrize("shape", [(NUM_VARS,), (PATCH_LEN, NUM_VARS)])
def test_decoder_equals_a_float64_python_loop(shape):
    """Drafting, verifying, coupling or committing would differ from the algorithm on paper."""
    sigma = np.random.default_rng(6).uniform(0.4, 0.8, shape).astype(np.float32)
    config, origins = DecodeConfig(horizon=27, num_draft=2), []
    for seed in range(3):
        forecast, info = speculate(jax.random.key(seed), sigma=sigma, config=config)
        slow = slow_speculative(jax.random.key(seed), np.float64(sigma), 2, 9)
        np.testing.assert_allclose(forecast, slow[0], atol=1e-4)
        assert info.origin.tolist() == slow[1]
        np.testing.assert_allclose(info.proposal, slow[2], atol=1e-4)
        assert int(info.rounds) == slow[3]
        origins += slow[1]
    assert set(origins) == {ACCEPTED, RECOVERED, BONUS}  # nothing above was vacuous


def innovations(rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """Of 8,000 paths: the target's noise along the draft's error, and its squared norm."""
    config = DecodeConfig(9, 2, num_paths=8_000)
    forecast, _ = speculate(jax.random.key(9), config=config, rule=rule)
    weight, mix = map(np.float64, parameters(TARGET_LEN))
    draft_weight, _ = map(np.float64, parameters(DRAFT_LEN, 0.1))
    context = np.broadcast_to(CONTEXT, (len(forecast), *CONTEXT.shape))
    series, along, norms = np.concatenate([context, forecast], axis=1).astype(np.float64), [], []
    for end in (12, 15, 18):
        mean = np.tanh(weight @ series[:, end - TARGET_LEN : end] @ mix)
        gap = (mean - np.tanh(draft_weight @ series[:, end - DRAFT_LEN : end] @ mix)) / SIGMA
        noise = (series[:, end : end + 3] - mean) / SIGMA
        along.append(np.sum(noise * gap, (1, 2)) / np.sqrt(np.sum(gap**2, (1, 2))))
        norms.append(np.sum(noise**2, (1, 2)))
    return np.stack(along), np.stack(norms)


@pytest.mark.parametrize("rule", [Maximal(), Block()])
def test_forecasts_follow_the_target_process(rule):
    """The decode as a whole would not be exact: noise of the target, every patch, every prefix."""
    along, norms = innovations(rule)
    assert min(stats.kstest(patch, "norm").pvalue for patch in along) > 1e-4
    assert min(stats.kstest(patch, stats.chi2(6).cdf).pvalue for patch in norms) > 1e-4
    correlation = np.corrcoef(along)[np.triu_indices(3, 1)]
    assert np.max(np.abs(correlation)) < 5 / np.sqrt(along.shape[1])


def test_resample_does_not_follow_the_target_process():
    """The test above could not tell an exact rule from one that is not."""
    along, _ = innovations(Resample())
    assert max(stats.kstest(patch, "norm").pvalue for patch in along) < 1e-6
