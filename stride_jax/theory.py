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
    gives = [acceptance**i * (1 - acceptance) for i in range(num_draft)] + [acceptance**num_draft]
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
