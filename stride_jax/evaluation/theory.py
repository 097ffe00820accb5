"""What the paper predicts: patches a round and speedup from the acceptance rate."""

from __future__ import annotations


def patches_per_round(acceptance: float, num_draft: int) -> float:
    """Expected patches of a round, `(1 - a^(K+1)) / (1 - a)`, acceptances independent (paper).

    Worked line: a = .5, K = 3 gives 1 + .5 + .25 + .125 = 1.875.
    """
    return sum(acceptance**i for i in range(num_draft + 1))


def rounds(acceptance: float, num_draft: int, num_patches: int) -> float:
    """Expected rounds until `num_patches` are there; the last round may overshoot.

    With m patches missing, `R(m) = 1 + sum_j P(a round gives j) R(m - j)`, `R(m <= 0) = 0`.
    """
    gives = round_gives(acceptance, acceptance, num_draft)
    expected: list[float] = [0.0]
    for missing in range(1, num_patches + 1):
        rest = sum(p * expected[max(0, missing - i - 1)] for i, p in enumerate(gives))
        expected.append(1 + rest)
    return expected[num_patches]


def speedup(
    acceptance: float, num_draft: int, draft_cost: float, verify_cost: float = 1.0
) -> float:
    """Patches a round over what the round costs, in target passes.

    Args:
        acceptance: a, the probability that a tested proposal is accepted.
        num_draft: K.
        draft_cost: c, one draft step over one target pass.
        verify_cost: one verification of K + 1 prefixes over one target pass; the paper takes 1.
    """
    patches = patches_per_round(acceptance, num_draft)
    return round_speedup(patches, num_draft, draft_cost, verify_cost)


def round_speedup(
    patches: float, num_draft: int, draft_cost: float, verify_cost: float = 1.0
) -> float:
    """`speedup` for a known number of patches a round, such as that of a finite horizon."""
    return patches / (draft_cost * num_draft + verify_cost)


def round_gives(after_accept: float, start: float, num_draft: int) -> list[float]:
    """Probabilities that a round accepts 0, 1, ..., K proposals.

    Args:
        after_accept: probability that a proposal is accepted after an accepted one.
        start: the same for the first of the round.
        num_draft: K, at least 1.
    """
    reach, gives = 1.0, []
    for place in range(num_draft):
        accept = start if place == 0 else after_accept
        gives.append(reach * (1 - accept))
        reach *= accept
    return [*gives, reach]


def markov_missing(
    after_accept: float, after_reject: float, first: float, num_draft: int, num_patches: int
) -> list[list[float]]:
    """Law of the patches still missing after 0, 1, ..., N rounds: `P(0), ..., P(N)` of each.

    Accept and reject follow a two-state Markov chain over the tested proposals: the first proposal
    of a round depends on how the round before ended (all accepted, or one rejected). With all three
    probabilities equal acceptances are independent, and the mean number of rounds is `rounds`.

    Args:
        after_accept: P(accept) after an accepted proposal.
        after_reject: P(accept) after a rejected one.
        first: P(accept) of the first proposal of all.
        num_draft: K, at least 1.
        num_patches: N.
    """
    starts = {"accept": after_accept, "reject": after_reject}
    now = {(num_patches, "first"): 1.0}
    laws = []
    for _ in range(num_patches + 1):
        law, then = [0.0] * (num_patches + 1), dict[tuple[int, str], float]()
        for (missing, last), weight in now.items():
            law[missing] += weight
            gives = round_gives(after_accept, starts.get(last, first), num_draft)
            for accepted, chance in enumerate(gives):
                place = (missing - accepted - 1, "accept" if accepted == num_draft else "reject")
                if place[0] <= 0:
                    place = (0, "done")
                then[place] = then.get(place, 0.0) + weight * chance
        laws.append(law)
        now = then
    return laws


def longest_drafted(laws: list[list[float]], num_draft: int, batch: int) -> float:
    """Expected draft steps until the last of `batch` independent series has its patches.

    A round drafts K proposals, or as many as the series that misses most patches still needs:
    `max min(K, m)`. The expectation of a maximum is the sum of `P(max >= k)`. With K = 1 these are
    the rounds themselves.

    Args:
        laws: of the missing patches before each round, see `markov_missing`.
        num_draft: K.
        batch: series.
    """
    total = 0.0
    for law in laws:
        for k in range(1, min(num_draft, len(law) - 1) + 1):
            total += 1 - sum(law[:k]) ** batch
    return total
