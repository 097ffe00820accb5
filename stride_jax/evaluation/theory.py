"""Theory of the speedup: patches per round and times from the acceptance rate; the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from stride_jax.decoding.rules import RULES


def patches_per_round(acceptance: float, num_draft: int) -> float:
    """Expected patches per round, `(1 - a^(K+1)) / (1 - a)`, acceptances independent (paper).

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
    """Patches per round over the cost of a round, in target passes.

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
    """`speedup` for a known number of patches per round, such as that of a finite horizon."""
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
    """Distribution of the patches missing after 0, 1, ..., N rounds: `P(0), ..., P(N)` of each.

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
    distributions = []
    for _ in range(num_patches + 1):
        weights, then = [0.0] * (num_patches + 1), dict[tuple[int, str], float]()
        for (missing, last), weight in now.items():
            weights[missing] += weight
            gives = round_gives(after_accept, starts.get(last, first), num_draft)
            for accepted, chance in enumerate(gives):
                place = (missing - accepted - 1, "accept" if accepted == num_draft else "reject")
                if place[0] <= 0:
                    place = (0, "done")
                then[place] = then.get(place, 0.0) + weight * chance
        distributions.append(weights)
        now = then
    return distributions


def longest_drafted(missing: list[list[float]], num_draft: int, batch: int) -> float:
    """Expected draft steps until the last of `batch` independent series has its patches.

    A round drafts K proposals, or as many as the series that misses most patches still needs:
    `max min(K, m)`. The expectation of a maximum is the sum of `P(max >= k)`. With K = 1 these are
    the rounds themselves.

    Args:
        missing: distributions of the patches missing before each round, see `markov_missing`.
        num_draft: K.
        batch: series.
    """
    total = 0.0
    for weights in missing:
        for k in range(1, min(num_draft, len(weights) - 1) + 1):
            total += 1 - sum(weights[:k]) ** batch
    return total


class Costs(NamedTuple):
    """Seconds of a batch; those of a draft step and of a verification hold for all its settings.

    Attributes:
        patches: N.
        num_draft: K.
        full: the decode by the target only.
        prepare: what target and draft take before their first passes.
        one: a pass of the target.
        draft: a pass of the draft.
        verify: the verification of a round and the rule.
    """

    patches: int
    num_draft: int
    full: float
    prepare: float
    one: float
    draft: float
    verify: float

    @classmethod
    def of(
        cls,
        count: int,
        num_draft: int,
        full: float,
        first: float,
        draft: float,
        draft_first: float,
        forced: float,
    ) -> Costs:
        """The costs from decodes of N patches and of one, and of one that accepts nothing.

        `full` and `first` are the target's, `draft` and `draft_first` the draft's.
        """
        tiny = 1e-9  # a coarse clock may see no time pass
        one = max(tiny, (full - first) / (count - 1))
        step = max(tiny, (draft - draft_first) / (count - 1))
        prepare = max(0.0, first - one) + max(0.0, draft_first - step)
        drafted = sum(min(num_draft, missing) for missing in range(1, count + 1))
        rounds = forced - prepare - drafted * step
        return cls(count, num_draft, full, prepare, one, step, max(tiny, rounds / count))

    def predictions(self, row: dict[str, Any], batch: int) -> dict[str, Any]:
        """Speedups that theory expects from the acceptances of a row.

        `paper`: its formula, with a verification as expensive as one pass. `independent`: with the
        measured costs of draft and verification, a finite horizon, and the slowest of a batch.
        `markov`: the same with acceptances that depend on the one before.
        """
        acceptance = row["acceptance"]
        links = [row[f"accept_{x}"] for x in ("after_accept", "after_reject", "first")]
        chances = [acceptance if link is None else link for link in links]
        lanes = batch * int(row["num_paths"])

        def ratio(chances: list[float]) -> float:
            accept, reject, first = chances
            missing = markov_missing(accept, reject, first, self.num_draft, self.patches)
            rounds = longest_drafted(missing, 1, lanes)
            drafted = longest_drafted(missing, self.num_draft, lanes)
            return self.full / (self.prepare + rounds * self.verify + drafted * self.draft)

        paper = speedup(acceptance, self.num_draft, self.draft / self.one)
        return {
            "verify_seconds": self.verify,
            "pass_seconds": self.one,
            "predicted_paper": paper,
            "predicted_independent": ratio([acceptance] * 3),
            "predicted_markov": ratio(chances),
        }


PREDICTIONS = {
    "paper": "predicted_paper",
    "independent": "predicted_independent",
    "Markov": "predicted_markov",
}
"""Names of the predictions of a speedup in a table, and their fields."""


def misses(rows: Sequence[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Median and largest relative miss of each prediction of the speedup."""
    relative = {
        name: [abs(row[field] / row["speedup"] - 1) for row in rows]
        for name, field in PREDICTIONS.items()
    }
    return {name: (float(np.median(off)), max(off)) for name, off in relative.items()}


def front(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The Pareto front: rows that no other one beats in error and speedup, fastest last."""
    least, rows_in_front = np.inf, []
    for row in sorted(rows, key=lambda r: (-r["speedup"], r["relative_error"])):
        if row["relative_error"] < least:
            least = row["relative_error"]
            rows_in_front.append(row)
    return rows_in_front[::-1]


def chance(rows: Sequence[dict[str, Any]]) -> float | None:
    """RMS of the measured relative CRPS of exact rules, whose true one is 0; None without any."""
    targets = [row for row in rows if (row["method"], row["output"]) == ("target", "sample")]
    base = {row["sigma"]: row["crps"] for row in targets}
    exact = [row for row in rows if row["rule"] in RULES and RULES[row["rule"]].exact]
    off = [row["crps"] / base[row["sigma"]] - 1 for row in exact]
    return float(np.sqrt(np.mean(np.square(off)))) if off else None
