"""What the paper predicts: patches a round and speedup from the acceptance rate."""

from __future__ import annotations


def patches_per_round(acceptance: float, num_draft: int) -> float:
    """Expected patches of a round, `(1 - a^(K+1)) / (1 - a)`, acceptances independent (paper).

    Worked line: a = .5, K = 3 gives 1 + .5 + .25 + .125 = 1.875.
    """
    return sum(acceptance**i for i in range(num_draft + 1))


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
    return patches_per_round(acceptance, num_draft) / (draft_cost * num_draft + verify_cost)
