"""`Judge`: its features and decisions against float64, and a decode against a plain Python loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.rounds import check_leading, decide, doubles, random_rounds
from helpers.toys import (
    BATCH,
    DRAFT_LEN,
    PATCH_LEN,
    SIGMA,
    TARGET_LEN,
    assert_same,
    parameters,
    speculate,
)

from stride_jax.decoding.rules import RULES, Judge, Mean
from stride_jax.decoding.rules.judge import FEATURES, as_tolerance, features
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError

COUNT, NUM_DRAFT = 7, 3
WEIGHTS = np.float32([-1.0, -0.3, 0.4, 0.5, 0.2, -0.6, 0.1, -0.1, 0.2, -0.2])


def root(values) -> float:
    """The RMS of an array."""
    return float(np.sqrt(np.mean(np.square(values))))


def slow_features(target, draft, sigma, missing: int):
    """The features of K proposals in float64, as documented; `target` and `draft` `[K, P, C]`."""
    rows = []
    for i, (mean, proposal) in enumerate(zip(target, draft, strict=True)):
        gap = (mean - proposal) / sigma
        before = [np.zeros(2), np.zeros(2)]
        if i > 0:
            before = [(draft[i] - draft[i - 1]) / sigma, (mean - target[i - 1]) / sigma]
        level = (mean / sigma).mean(axis=0)
        row = {
            "gap": np.log(root(gap)),
            "level": np.log(1 + np.mean(gap.mean(axis=0) ** 2) / root(gap) ** 2),
            "end": np.log(1 + np.mean(gap[-1] ** 2) / root(gap) ** 2),
            "first": float(i == 0),
            "place": np.log(1 + i),
            "after": np.log(max(missing - 1 - i, 1)),
            "uncertainty": np.log(root(before[0])) if i else 0.0,
            "change": np.log(root(before[1])) if i else 0.0,
            "amplitude": np.log(root(mean / sigma - level)),
            "slope": np.log(root((mean[-1] - mean[0]) / sigma)),
        }
        rows.append([row[name] for name in FEATURES])
    return np.asarray(rows)


def test_features_are_the_documented_ones():
    """Weights that were fitted to other features would judge something else."""
    sigma = jnp.full((3, 2), 0.7)
    rounds = random_rounds(6, 4, 0.3)
    rounds = rounds._replace(target_sigma=jnp.broadcast_to(sigma, rounds.target_sigma.shape))
    rounds = rounds._replace(missing=jnp.asarray([1, 2, 3, 4, 5, 9], jnp.int32))
    found = np.asarray(jax.vmap(features)(rounds))
    assert found.shape == (6, 4, len(FEATURES))
    slow = doubles(rounds)
    for i in range(6):
        means = slow.target_mean[i, :-1], slow.draft_mean[i], 0.7
        np.testing.assert_allclose(found[i], slow_features(*means, slow.missing[i]), atol=2e-4)


def test_a_judge_of_the_gap_alone_is_the_tolerance():
    """Rules that should be compared would differ in more than their decisions."""
    rounds = random_rounds(200, 3, 0.3)
    found, expected = decide(as_tolerance(0.3), rounds), decide(Mean(0.3), rounds)
    assert set(expected.num_accepted) == {0, 1, 2, 3}
    for name in ("num_accepted", "patch", "emitted"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_a_judge_decides_by_the_sign_of_its_score():
    """It would accept a later proposal after one that it rejected, or by another sum."""
    rounds = random_rounds(200, 3, 0.3)
    rounds = rounds._replace(missing=jnp.full(200, 5, jnp.int32))
    rounds = rounds._replace(target_sigma=jnp.ones_like(rounds.target_sigma))
    judge = Judge(WEIGHTS, -0.6)

    def slow(r, _):
        table = slow_features(r.target_mean[:-1], r.draft_mean, 1.0, int(r.missing))
        accepted = [*(table @ np.float64(WEIGHTS) - 0.6 >= 0), False].index(False)
        return accepted, r.target_mean[accepted]

    check_leading(decide(judge, rounds), slow, rounds)


def window_mean(length: int, gap: float):
    """`series -> mean` of the next patch in float64; see `helpers.toys.process`."""
    weight, mix = map(np.float64, parameters(length, gap))
    return lambda series: np.tanh(weight @ series[-length:] @ mix)


def slow_decode(series, judge: Judge):
    """The patches and rounds of one series, round by round in Python."""
    target, draft = window_mean(TARGET_LEN, 0.0), window_mean(DRAFT_LEN, 0.1)
    series, shown, rounds = np.float64(series), [], 0
    while len(shown) < COUNT:
        grown, means, missing = [series], [target(series)], COUNT - len(shown)
        for _ in range(NUM_DRAFT):
            grown.append(draft(np.concatenate(grown)))
            means.append(target(np.concatenate(grown)))
        table = slow_features(np.asarray(means[:-1]), np.asarray(grown[1:]), SIGMA, missing)
        accepted = [*(table @ np.float64(judge.weights) + judge.bias >= 0), False].index(False)
        accepted = min(accepted, missing)
        series = np.concatenate([*grown[: accepted + 1], means[accepted]])
        shown, rounds = shown + means[: accepted + 1], rounds + 1
    return np.concatenate(shown[:COUNT]), rounds


def test_while_loop_equals_a_python_loop(key):
    """A judge in the decoder would see other numbers than those it was fitted to."""
    judge, config = Judge(WEIGHTS, -1.6), DecodeConfig(COUNT * PATCH_LEN, NUM_DRAFT)
    forecast, info = speculate(key, BATCH, rule=judge, config=config)
    for i, series in enumerate(BATCH):
        shown, rounds = slow_decode(series, judge)
        np.testing.assert_allclose(forecast[i], shown, atol=1e-4)
        assert int(info.target_passes[i]) == rounds
    assert 2 < np.mean(info.target_passes) < COUNT
    same = {"config": config, "rule": Mean(0.25)}
    expected = speculate(key, BATCH, **same)
    assert_same(speculate(key, BATCH, **{**same, "rule": as_tolerance(0.25)}), expected)


def test_what_is_not_finite_is_never_accepted():
    """A weight that likes large gaps would let an infinite proposal into the context."""
    rounds = random_rounds(3, 2, 0.3)
    bad = jnp.asarray([jnp.nan, jnp.inf, -jnp.inf])[:, None, None, None]
    rounds = rounds._replace(draft_mean=rounds.draft_mean + bad)
    likes = Judge(np.eye(len(FEATURES), dtype=np.float32)[0], 100.0)
    assert decide(likes, rounds).num_accepted.tolist() == [0, 0, 0]


WRONG = {
    "9 of 10": (Judge(WEIGHTS[:-1]), r"10 numbers.*\(9,\)"),
    "nan": (Judge(np.full(len(FEATURES), np.nan)), "weights.*finite"),
    "bias": (Judge(WEIGHTS, float("nan")), "bias.*nan"),
}


@pytest.mark.parametrize(("judge", "message"), WRONG.values(), ids=WRONG)
def test_weights_that_are_none_are_refused(key, judge, message):
    """Weights of another version would judge by the wrong features."""
    with pytest.raises(InputError, match=message):
        speculate(key, rule=judge)


def test_a_judge_claims_nothing():
    """A rule without a bound would stand in a table as if it had one."""
    assert not Judge.exact
    assert Judge.guarantee == "measured, not proved"
    assert Judge not in RULES.values()


def test_the_uncertainty_of_a_draft_with_a_variance_is_its_std():
    """A judge would read the change of the mean where the draft says how unsure it is."""
    rounds = random_rounds(6, 4, 0.3)
    logvar = 2 * jnp.log(rounds.draft_sigma) + jnp.arange(4.0)[None, :, None, None]
    rounds = rounds._replace(draft_logvar=logvar, missing=jnp.full(6, 5, jnp.int32))
    found = np.asarray(jax.vmap(features)(rounds))[..., FEATURES.index("uncertainty")]
    std = np.exp(0.5 * np.float64(logvar)) / np.float64(rounds.target_sigma[:, :-1])
    expected = np.log(np.sqrt(np.mean(np.square(std), axis=(2, 3))))
    np.testing.assert_allclose(found[:, 1:], expected[:, 1:], atol=2e-4)
    np.testing.assert_array_equal(found[:, 0], 0)
