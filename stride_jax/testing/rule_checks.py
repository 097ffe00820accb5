"""Proof that a rule is exact: its paths follow the target's distribution, on both processes."""

from __future__ import annotations

import numpy as np

from stride_jax.checkpoints.build import ProcessKind
from stride_jax.config import whole_number
from stride_jax.decoding.base import Rule
from stride_jax.decoding.draft_length import DraftLength, Fixed
from stride_jax.errors import InputError
from stride_jax.testing.analytic import make_problem
from stride_jax.testing.exactness import PASS_ABOVE, InTurns, check

CLAIMS = {
    "p_direction": "the innovations along the draft's error are standard normal",
    "p_projections": "the innovations along random directions are standard normal",
    "p_covariance": "the covariance of the forecast has its closed form",
}
"""The claim that each p-value of `exactness.check` tests."""

CASES: tuple[tuple[ProcessKind, str, DraftLength], ...] = (
    ("window", "", Fixed()),
    ("cached", "", Fixed()),
    ("cached", " with rounds of 1 to K proposals", InTurns()),
)
"""Process, words for its rounds, and how many proposals they have."""

LEAST_PATHS = 1_000
"""Fewer show no error that matters."""


def check_exact(
    rule: Rule,
    *,
    delta: float = 1.0,
    correlation: float = 0.0,
    num_draft: int = 3,
    num_paths: int = 30_000,
    seed: int = 0,
) -> None:
    """Checks that a rule of your own keeps the distribution of the target.

    Decodes paths of a linear-Gaussian target, whose distribution is known, with a deliberately poor
    draft, two variables and both processes (`window` and `cached`), on the cached one also with
    rounds of 1 to K proposals in turns, as an adaptive draft length has them. A rule with
    `scales = "free"` gets a draft whose sigma is 1.3 of the target's. About 30 seconds on two CPU
    cores.

    Args:
        rule: to check.
        delta: how poor the draft is: usual distance of its mean from the target's, in sigmas.
        correlation: of the errors of neighbouring steps of a patch, in (-1, 1): 0 gives `decode` a
            number as sigma, any other a `PatchCovariance`, which the rule must take.
        num_draft: K, proposals per round.
        num_paths: decoded each time, 1,000 or more. More of them find smaller errors.
        seed: of the paths; the same seed gives the same result.

    Raises:
        InputError: no rule, a delta that is not above 0, a correlation outside (-1, 1), num_draft
            below 1, fewer than 1,000 paths, or a seed outside 0 to 2**32 - 1.
        AssertionError: a corrected p-value is below .001. The message gives the process, the claim
            and all p-values.
    """
    if not isinstance(rule, Rule):
        raise InputError(f"rule must be an acceptance rule such as Maximal(), got {rule!r}.")
    number = isinstance(delta, int | float | np.number) and np.isfinite(delta)
    if not (number and delta > 0):
        raise InputError(f"delta must be finite and above 0, got {delta}: a poor draft is needed.")
    num_draft = whole_number("num_draft", num_draft, least=1)
    num_paths = whole_number("num_paths", num_paths, least=LEAST_PATHS)
    scale = 1.3 if rule.scales == "free" else 1.0
    problem = make_problem(num_vars=2, delta=delta, draft_scale=scale, correlation=correlation)
    for kind, rounds, draft_length in CASES:
        result = check(
            problem,
            rule,
            kind=kind,
            num_series=num_paths,
            num_draft=num_draft,
            seed=seed,
            draft_length=draft_length,
        )
        if result["p"] > PASS_ABOVE:
            continue
        worst = min(CLAIMS, key=lambda name: result[name])
        values = ", ".join(f"{name} {result[name]:.3g}" for name in CLAIMS)
        raise AssertionError(
            f"{type(rule).__name__} is not exact on the {kind} process{rounds}: it is wrong that "
            f"{CLAIMS[worst]} ({values}; {num_paths} paths, acceptance "
            f"{result['acceptance']:.3f})."
        )
