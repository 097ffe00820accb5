"""The distribution of the number of rounds against enumeration and a simulated Markov chain."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stride_jax.evaluation import theory

PROPERTY = settings(deadline=None, max_examples=25, derandomize=True)
CHANCE = st.floats(0, 1)
CHAIN = st.tuples(CHANCE, CHANCE, CHANCE)


def mean_of(distribution: list[float]) -> float:
    """The expectation of a distribution over 0, 1, 2, ..."""
    return sum(r * p for r, p in enumerate(distribution))


def rounds_distribution(*chain) -> list[float]:
    """P(0), P(1), ... rounds, from the patches that are missing after each."""
    done = [distribution[0] for distribution in theory.markov_missing(*chain)]
    return list(np.diff([0.0, *done]))


def longest(distribution: list[float], batch: int) -> float:
    """Expected rounds of the slowest of a batch, from the distribution of the rounds of one."""
    done = np.cumsum(distribution)
    return theory.longest_drafted([[p, 1 - p] for p in done.tolist()], 1, batch)


def simulate(
    accept, reject, first, num_draft, num_patches, size=40_000, missing=None
) -> np.ndarray:
    """Rounds of so many paths `[size]`, proposal by proposal.

    What is missing before each round is appended to `missing`.
    """
    rng = np.random.default_rng(0)
    filled, rounds, last = np.zeros(size, int), np.zeros(size, int), np.full(size, -1)
    while (filled < num_patches).any():
        if missing is not None:
            missing.append(np.maximum(num_patches - filled, 0))
        going = filled < num_patches
        rounds += going
        for _ in range(num_draft):
            chance = np.select([last == 1, last == 0], [accept, reject], first)
            kept = rng.random(size) < chance
            last = np.where(going, kept, last)
            filled += going  # the proposal, or what replaces it
            going = going & kept
        filled += going  # the bonus
    return rounds


def check_predictions(distribution: list[float], rounds: np.ndarray) -> None:
    """The shares of the simulated numbers of rounds are the probabilities."""
    shares = np.bincount(rounds, minlength=len(distribution)) / len(rounds)
    assert len(shares) == len(distribution)
    for share, chance in zip(shares, distribution, strict=True):
        assert abs(share - chance) < 5 * np.sqrt(chance * (1 - chance) / len(rounds)) + 1e-9


@PROPERTY
@given(after=CHANCE, start=CHANCE, num_draft=st.integers(1, 6))
def test_a_round_gives_what_its_proposals_allow(after, start, num_draft):
    """Every prediction from measured acceptances starts from this distribution."""
    expected = [0.0] * (num_draft + 1)
    for fates in itertools.product([True, False], repeat=num_draft):  # also of those not tested
        chances = [start, *[after] * (num_draft - 1)]
        weight = np.prod([c if kept else 1 - c for c, kept in zip(chances, fates, strict=True)])
        expected[[*fates, False].index(False)] += float(weight)
    found = theory.round_gives(after, start, num_draft)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@PROPERTY
@given(acceptance=CHANCE, num_draft=st.integers(1, 8))
def test_a_round_of_independent_proposals_is_the_paper_s(acceptance, num_draft):
    """The measured and the assumed prediction would differ where the assumption holds."""
    gives = theory.round_gives(acceptance, acceptance, num_draft)
    expected = theory.patches_per_round(acceptance, num_draft)
    assert 1 + mean_of(gives) == pytest.approx(expected)


@PROPERTY
@given(chain=CHAIN, num_draft=st.integers(1, 9), num_patches=st.integers(1, 9))
def test_the_rounds_have_a_distribution(chain, num_draft, num_patches):
    """Chances that do not add up to 1 make every predicted speedup too large or too small."""
    distribution = rounds_distribution(*chain, num_draft, num_patches)
    assert len(distribution) == num_patches + 1
    assert min(distribution) >= -1e-12  # differences of sums
    assert sum(distribution) == pytest.approx(1)
    fewest = -(-num_patches // (num_draft + 1))
    assert sum(distribution[:fewest]) == 0


def test_nothing_to_decode_takes_no_round():
    """The distribution of no rounds would be none."""
    assert rounds_distribution(0.5, 0.5, 0.5, 3, 0) == [1.0]


@PROPERTY
@given(acceptance=CHANCE, num_draft=st.integers(1, 9), num_patches=st.integers(1, 12))
def test_equal_chances_are_the_independent_rounds(acceptance, num_draft, num_patches):
    """The two predictions beside a measured speedup could not be told apart from a mistake."""
    distribution = rounds_distribution(acceptance, acceptance, acceptance, num_draft, num_patches)
    expected = theory.rounds(acceptance, num_draft, num_patches)
    assert mean_of(distribution) == pytest.approx(expected)


@PROPERTY
@given(chain=CHAIN)
def test_worked_lines(chain):
    """Which acceptance a first proposal has depends on how the round before it ended."""
    a, r, f = chain
    two = rounds_distribution(a, r, f, 1, 2)
    np.testing.assert_allclose(two, [0, f, 1 - f], atol=1e-12)
    # one proposal a round: accepted gives 2 patches, rejected 1
    three = rounds_distribution(a, r, f, 1, 3)
    np.testing.assert_allclose(three, [0, 0, f + (1 - f) * r, (1 - f) * (1 - r)], atol=1e-12)
    four = rounds_distribution(a, r, f, 1, 4)
    in_two = f * a
    in_three = f * (1 - a) + (1 - f) * r + (1 - f) * (1 - r) * r
    rest = (1 - f) * (1 - r) * (1 - r)
    np.testing.assert_allclose(four, [0, 0, in_two, in_three, rest], atol=1e-12)
    # two proposals: the second follows an accepted one
    long = rounds_distribution(a, r, f, 2, 3)
    expected = [0, f * a, f * (1 - a) + (1 - f) * r, (1 - f) * (1 - r)]
    np.testing.assert_allclose(long, expected, atol=1e-12)


@pytest.mark.parametrize("num_draft", [1, 3, 9])
def test_the_ends(num_draft):
    """A perfect draft, or a useless one, would be predicted a wrong speedup."""
    for num_patches in range(1, 10):
        perfect = rounds_distribution(1.0, 1.0, 1.0, num_draft, num_patches)
        assert perfect[-(-num_patches // (num_draft + 1))] == 1
        useless = rounds_distribution(0.0, 0.0, 0.0, num_draft, num_patches)
        assert useless[num_patches] == 1


@pytest.mark.parametrize(
    ("chain", "num_draft", "num_patches"),
    [
        ((0.9, 0.3, 0.6), 3, 8),
        ((0.5, 0.9, 0.1), 2, 7),
        ((0.8, 0.2, 0.95), 1, 6),
        ((0.85, 0.4, 0.7), 9, 5),
    ],
)
def test_the_distribution_of_rounds_is_that_of_a_simulated_chain(chain, num_draft, num_patches):
    """The prediction that is fitted to a measured row would be of another process."""
    rounds = simulate(*chain, num_draft, num_patches)
    check_predictions(rounds_distribution(*chain, num_draft, num_patches), rounds)
    # the overall rate alone, or the chain with its ends exchanged, is not enough
    accept, reject, first = chain
    for wrong in ([sum(chain) / 3] * 3, [reject, accept, first]):
        with pytest.raises(AssertionError):
            check_predictions(rounds_distribution(*wrong, num_draft, num_patches), rounds)


@PROPERTY
@given(
    weights=st.lists(st.integers(0, 5), min_size=1, max_size=4).filter(any),
    batch=st.integers(1, 4),
)
def test_the_longest_of_a_batch_by_enumeration(weights, batch):
    """A batch waits for its slowest series; predicting the mean promises too much."""
    distribution = [0.0, *(w / sum(weights) for w in weights)]
    expected = 0.0
    for each in itertools.product(range(len(distribution)), repeat=batch):
        expected += max(each) * float(np.prod([distribution[r] for r in each]))
    assert longest(distribution, batch) == pytest.approx(expected)


def test_the_longest_of_one_is_the_mean_and_of_many_the_largest():
    """A batch of one would be predicted to wait for others."""
    distribution = rounds_distribution(0.8, 0.4, 0.6, 3, 8)
    assert longest(distribution, 1) == pytest.approx(mean_of(distribution))
    found = [longest(distribution, batch) for batch in (1, 2, 8, 64, 10**9)]
    assert found == sorted(found)
    assert found[-1] == pytest.approx(8)
    # all proposals accepted: everybody is done at once
    sure = rounds_distribution(1.0, 1.0, 1.0, 3, 8)
    assert longest(sure, 64) == pytest.approx(2)


def test_the_longest_of_a_batch_by_simulation():
    """The two formulas together are what is printed beside the measured speedup of a batch."""
    chain, num_draft, num_patches, batch = (0.9, 0.3, 0.6), 3, 8, 5
    rounds = simulate(*chain, num_draft, num_patches).reshape(-1, batch)
    distribution = rounds_distribution(*chain, num_draft, num_patches)
    slowest = rounds.max(axis=1)
    error = 5 * slowest.std() / np.sqrt(len(slowest))
    assert abs(slowest.mean() - longest(distribution, batch)) < error
    assert abs(slowest.mean() - mean_of(distribution)) > 10 * error  # not the mean of one


def test_draft_steps_of_a_batch_by_simulation():
    """A speedup would be predicted for draft steps that no decode takes."""
    chain, num_draft, num_patches, batch = (0.9, 0.3, 0.6), 3, 8, 5
    missing: list[np.ndarray] = []
    simulate(*chain, num_draft, num_patches, missing=missing)
    lengths = np.clip(np.stack(missing), 0, num_draft)  # [rounds, paths]
    distributions = theory.markov_missing(*chain, num_draft, num_patches)
    for size in (1, batch):
        steps = lengths.reshape(len(lengths), -1, size).max(axis=2).sum(axis=0)
        error = 5 * steps.std() / np.sqrt(len(steps))
        assert abs(steps.mean() - theory.longest_drafted(distributions, num_draft, size)) < error
    certain = theory.markov_missing(1.0, 1.0, 1.0, 3, 9)
    assert theory.longest_drafted(certain, 3, 7) == pytest.approx(3 + 3 + 1)  # 4 + 4 + 1 patches
