"""Scores of decodes, against a walk over the origins of their patches in plain Python."""

import functools
import json
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toys import BATCH, draft_steps, recount, roll, speculate
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from stride_jax.decoding.base import Outcome, Rule
from stride_jax.decoding.draft_length import Threshold
from stride_jax.decoding.rules import Block, Maximal
from stride_jax.decoding.rules.common import num_leading
from stride_jax.decoding.types import ACCEPTED, BONUS, RECOVERED, DecodeConfig, DecodeInfo
from stride_jax.evaluation import theory
from stride_jax.evaluation.scoring import SPECULATIVE, Tally

PROPERTY = settings(deadline=None, max_examples=15, derandomize=True)
PATHS, HORIZON, PATCHES = 9, 20, 7
TRUTH = np.random.default_rng(7).normal(size=(5, HORIZON, 2)).astype(np.float32)
AFTER = {True: "accept_after_accept", False: "accept_after_reject", None: "accept_first"}
DECODES = [(rule, num_draft) for rule in ("maximal", "block") for num_draft in (3, 9)]
PACED = pytest.param("block", 3, Threshold(), marks=pytest.mark.slow)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Coins(Rule):
    """One of three rules, by its number, so that one program serves all of them.

    Number 2 tosses coins: `first` for the first proposal of a round, `later` for the others.
    """

    number: int
    first: float = 0.0
    later: float = 0.0

    def decide(self, key, current):
        """See `Rule`."""
        rules = [Maximal().decide, Block().decide, self.toss]
        return jax.lax.switch(jnp.asarray(self.number), rules, key, current)

    def toss(self, key, current):
        """Coins for all proposals."""
        place = jnp.arange(current.proposals.shape[0])
        chance = jnp.where(place == 0, self.first, self.later)
        toss = jax.random.uniform(key, place.shape)
        count = num_leading(toss < chance, current.length)
        return Outcome(count, current.target_mean[count], log_ratio=chance, threshold=toss)


NAMES = ("maximal", "block", "coins")


def decode(rule: str, num_draft: int, draft_length=None, seed: int = 3, **chances: float):
    """`(forecast [5, 9, 20, 2], info)` of a real decode."""
    config = DecodeConfig(HORIZON, num_draft, num_paths=PATHS, trace=True)
    chosen = Coins(NAMES.index(rule), **chances)
    rest = {"config": config, "rule": chosen, "draft_length": draft_length}
    out = speculate(jax.random.key(seed), BATCH, **rest)
    return jax.tree.map(np.asarray, out)


decoded = functools.cache(decode)


def tallied(forecast, info, truth, reference=None, batches=((0, 1, 2), (3, 4, None))):
    """Scores of windows that come in batches; None is padding, with the content of window 0."""
    tally = Tally()
    for batch in batches:
        weight = jnp.asarray([float(i is not None) for i in batch])
        index = np.array([i or 0 for i in batch])
        here = jax.tree.map(lambda x, index=index: jnp.asarray(x[index]), (forecast, info, truth))
        tally.add(*here, weight)
    np.testing.assert_array_equal(tally.forecasts(), forecast)
    return tally.scores(reference)


def walk(origins) -> dict[bool | None, tuple[int, int]]:
    """`(accepted, tested)` by the fate of the proposal tested before, over all paths."""
    counts = {True: [0, 0], False: [0, 0], None: [0, 0]}
    for path in origins.reshape(-1, origins.shape[-1]):
        before = None
        for origin in path:
            if origin == BONUS:
                continue  # the target's own, nobody tested it
            fate = bool(origin == ACCEPTED)
            counts[before][0] += fate
            counts[before][1] += 1
            before = fate
    return {before: (a, b) for before, (a, b) in counts.items()}


def rate(accepted: int, tested: int) -> float | None:
    """The share, None of nothing."""
    return accepted / tested if tested else None


# ---------------------------------------------------------------- links


@pytest.mark.parametrize(
    ("rule", "num_draft", "draft_length"), [*((*d, None) for d in DECODES), PACED]
)
def test_links_are_read_off_the_origins(rule, num_draft, draft_length):
    """The Markov prediction would be fitted to other acceptances than those that happened."""
    forecast, info = decoded(rule, num_draft, draft_length)
    scores = tallied(forecast, info, TRUTH)
    found = walk(info.origin)
    for before, counts in found.items():
        assert 0 < counts[0] < counts[1]  # all cases happen, or nothing is shown
        assert scores[AFTER[before]] == pytest.approx(rate(*counts))
    assert found[None][1] == 5 * PATHS
    accepted, tested = np.sum(list(found.values()), axis=0)
    assert scores["acceptance"] == pytest.approx(accepted / tested)


@pytest.mark.parametrize(("rule", "num_draft"), DECODES)
def test_acceptance_by_place_is_counted_by_hand(rule, num_draft):
    """Where in a round proposals fail would be read off the wrong column."""
    forecast, info = decoded(rule, num_draft)
    scores = tallied(forecast, info, TRUTH)
    paths = [recount(list(origins), num_draft) for origins in info.origin.reshape(-1, PATCHES)]
    accepted, tested = (np.sum([path[i] for path in paths], axis=0) for i in (0, 1))
    expected = [rate(int(a), int(b)) for a, b in zip(accepted, tested, strict=True)]
    assert scores["acceptance_by_place"] == pytest.approx(expected)
    assert len(expected) == num_draft
    assert expected[PATCHES:] == [None] * max(0, num_draft - PATCHES)
    rounds = sum(path[2] for path in paths)
    assert scores["patches_per_round"] == pytest.approx(5 * PATHS * PATCHES / rounds)
    assert scores["target_passes"] == pytest.approx(rounds / (5 * PATHS))
    steps = sum(
        draft_steps(list(origins), num_draft) for origins in info.origin.reshape(-1, PATCHES)
    )
    assert scores["drafted"] == pytest.approx(steps / (5 * PATHS))
    assert scores["overflow"] == 0


def made_info(rng: np.random.Generator, chance: float, num_draft: int, shape) -> DecodeInfo:
    """What a decode of `[B, S, N]` patches would note down, every proposal a coin."""
    origins = np.zeros(shape, np.int32)
    for path in origins.reshape(-1, shape[-1]):
        place = 0
        for n in range(len(path)):
            if place == num_draft:
                path[n], place = BONUS, 0
            elif rng.random() < chance:
                path[n], place = ACCEPTED, place + 1
            else:
                path[n], place = RECOVERED, 0
    counted = [recount(list(path), num_draft) for path in origins.reshape(-1, shape[-1])]
    accepted, proposed, rounds = (np.array(x, np.int32) for x in zip(*counted, strict=True))
    lanes = shape[:2]
    rounds = rounds.reshape(lanes)
    return DecodeInfo(
        accepted=accepted.reshape(*lanes, num_draft),
        proposed=proposed.reshape(*lanes, num_draft),
        rounds=rounds,
        target_passes=rounds,
        drafted=num_draft * rounds,
        overflow=np.zeros(lanes, np.int32),
        origin=origins,
        proposal=np.full((*shape, 1, 1), np.nan, np.float32),
    )


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Random values."""
    return rng.normal(size=shape).astype(np.float32)


@PROPERTY
@given(chance=st.sampled_from([0.0, 0.2, 0.7, 1.0]), seed=st.integers(0, 99))
def test_links_of_any_origins(chance, seed):
    """A perfect or a useless draft would divide by nothing, or count what was never tested."""
    rng = np.random.default_rng(seed)
    info = made_info(rng, chance, 2, (3, 2, 6))
    forecast, truth = normal(rng, 3, 2, 6, 1), normal(rng, 3, 6, 1)
    scores = tallied(forecast, info, truth, batches=((0, 1), (2, None)))
    for before, counts in walk(info.origin).items():
        assert scores[AFTER[before]] == pytest.approx(rate(*counts))
    places = zip(info.accepted.sum((0, 1)), info.proposed.sum((0, 1)), strict=True)
    assert scores["acceptance_by_place"] == pytest.approx([rate(*map(int, p)) for p in places])
    assert scores["expected_acceptance"] is None  # no trace
    json.dumps(scores, allow_nan=False)
    if chance == 1:
        assert scores["accept_after_reject"] is None
        assert scores["accept_after_accept"] == 1
    if chance == 0:
        assert scores["accept_after_accept"] is None
        assert scores["acceptance_by_place"] == [0, None]


def test_one_patch_has_first_proposals_only():
    """A horizon of a patch would end in an error, or show rates of nothing."""
    rng = np.random.default_rng(0)
    info = made_info(rng, 0.5, 3, (3, 2, 1))
    forecast, truth = normal(rng, 3, 2, 4, 1), normal(rng, 3, 4, 1)
    scores = tallied(forecast, info, truth, batches=((0, 1), (2, None)))
    assert (
        scores["accept_first"] == scores["acceptance"] == pytest.approx(np.mean(info.origin == 0))
    )
    assert scores["accept_after_accept"] is None
    assert scores["accept_after_reject"] is None
    assert scores["acceptance_by_place"][1:] == [None, None]


# ---------------------------------------------------------------- from coins to predictions


@pytest.mark.parametrize(("first", "later"), [(0.6, 0.6), (0.4, 0.9)])
def test_coins_have_their_chances(first, later):
    """Acceptance rates of a row would not be the probabilities that theory asks for."""
    parts = [decode("coins", 3, seed=seed, first=first, later=later) for seed in range(60)]
    forecast, info = jax.tree.map(lambda *x: np.concatenate(x, axis=1), *parts)
    scores = tallied(forecast, info, TRUTH)

    def check(found: float, chance: float, tested: int) -> None:
        assert abs(found - chance) < 5 * np.sqrt(chance * (1 - chance) / tested)

    tested = info.proposed.sum((0, 1))
    assert min(tested) > 1000
    for found, chance, count in zip(
        scores["acceptance_by_place"], (first, later, later), tested, strict=True
    ):
        check(found, chance, count)
    counts = walk(info.origin)
    check(scores["accept_first"], first, counts[None][1])
    check(scores["accept_after_reject"], first, counts[False][1])
    if first == later:
        check(scores["accept_after_accept"], first, counts[True][1])
        error = 5 * info.rounds.std() / np.sqrt(info.rounds.size)
        assert abs(scores["target_passes"] - theory.rounds(first, 3, PATCHES)) < error
    else:
        assert first < scores["accept_after_accept"] < later  # after a bonus a round begins


# ---------------------------------------------------------------- errors and coverage


def test_scores_are_means_over_windows():
    """A sampled row would be scored by another mean, or padding would count."""
    forecast, info = decoded("maximal", 3)
    reference = forecast + np.float32(0.5)
    scores = tallied(forecast, info, TRUTH, reference)
    gap = forecast.astype(np.float64) - TRUTH[:, None]
    assert scores["mse"] == pytest.approx(np.mean(gap**2), rel=1e-5)
    assert scores["mae"] == pytest.approx(np.mean(np.abs(gap)), rel=1e-5)
    assert scores["mse_of_mean"] == pytest.approx(np.mean(gap.mean(axis=1) ** 2), rel=1e-5)
    pairs = np.abs(forecast[:, :, None] - forecast[:, None]).sum((1, 2)) / (PATHS * (PATHS - 1))
    crps = np.mean(np.abs(gap), axis=1) - pairs / 2
    assert scores["crps"] == pytest.approx(np.mean(crps), rel=1e-4)
    assert scores["distance"] == pytest.approx(0.25, rel=1e-5)
    low, high = np.quantile(forecast, [0.1, 0.9], axis=1, method="weibull")
    inside = (low <= TRUTH) & (high >= TRUTH)
    assert 0.2 < inside.mean() < 0.95
    assert scores["coverage_80"] == pytest.approx(inside.mean(), rel=1e-6)


def test_batches_do_not_matter():
    """The numbers of a row would depend on how many windows fit into memory."""
    forecast, info = decoded("block", 3)
    cut = [
        tallied(forecast, info, TRUTH, forecast + 1, batches)
        for batches in (((0, 1, 2), (3, 4, None)), ((0, 1, 2, 3, 4),))
    ]
    assert set(cut[0]) == set(cut[1])
    for name, value in cut[0].items():
        np.testing.assert_allclose(value, cut[1][name], rtol=1e-5, err_msg=name)


def test_coverage_needs_nine_paths():
    """A band of fewer paths cannot reach 80 %, and a row would look overconfident."""
    forecast, info = decoded("maximal", 3)
    few = jax.tree.map(lambda x: x[:, :8], (forecast, info))
    assert tallied(*few, TRUTH)["coverage_80"] is None
    assert tallied(forecast, info, TRUTH)["coverage_80"] is not None


def test_rows_without_proposals_have_no_rates():
    """The baselines' rows would show acceptances, or count passes the draft does not make."""
    forecast, info = roll(jax.random.key(3), BATCH, config=DecodeConfig(HORIZON, num_paths=PATHS))
    made = jax.tree.map(np.asarray, (forecast, info))
    scores = tallied(*made, TRUTH)
    assert scores["target_passes"] == PATCHES
    assert [scores[x] for x in SPECULATIVE] == [None] * len(SPECULATIVE)
    assert 0 < scores["coverage_80"] < 1
    single = jax.tree.map(lambda x: x[:, :1], made)
    point = tallied(*single, TRUTH)
    assert [point[x] for x in ("crps", "mse_of_mean", "coverage_80", "distance")] == [None] * 4
    names = set(tallied(*decoded("maximal", 3), TRUTH))
    assert set(point) == set(scores) == names


def test_the_expected_acceptance_is_of_every_proposal_that_was_tested() -> None:
    """Without the rejected ones it would be taken for a draft that is far worse than it is."""
    config = DecodeConfig(20, 3, num_paths=4, trace=True)
    forecast, info = jax.tree.map(np.asarray, speculate(jax.random.key(3), BATCH, config=config))
    tally = Tally()
    tally.add(forecast, info, np.zeros((5, 20, 2), np.float32), np.ones(5, np.float32))
    trace, chances = info.trace, []
    for place in np.argwhere(trace.start >= 0):
        start, length, gaps = (x[tuple(place)] for x in (trace.start, trace.length, trace.gap))
        tested = min(trace.accepted[tuple(place)].sum() + 1, length, info.origin.shape[-1] - start)
        size = info.proposal.shape[-1] * info.proposal.shape[-2]
        chances += list(2 * norm.cdf(-gaps[:tested] * np.sqrt(size) / 2))
    assert len(chances) == info.proposed.sum()
    found = tally.scores()["expected_acceptance"]
    np.testing.assert_allclose(found, np.mean(chances), rtol=1e-4)
