"""Theory of rejections: how many a path costs at least, and how many each exact rule takes.

A rejection is a round that ends before all its proposals are kept. Where the draft proposes at
every place of a path (K = N, so no patch is a bonus) and the rule decides place by place, the
expected number is the sum of the total variations of draft and target along a path of the target,
and no exact rule of one proposal that decides so has fewer (Yin et al., NeurIPS 2024,
arXiv 2411.00841).

Letters as in `decoding.rules.exact`: p is the target's prediction of a patch, q the draft's,
`r = p(x) / q(x)` at the patch of the path and delta the distance of their means in sigmas. S paths
of N patches come from the target, so everything here is an expectation over its distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtr
from scipy.stats import norm

from stride_jax.decoding.rules import Block, Maximal, Residual, Rule, Several
from stride_jax.decoding.rules.several import left_over
from stride_jax.errors import InputError

CONFIDENCE = 0.999
"""The confidence of the intervals of `compare`."""


class Along(NamedTuple):
    """Gaps and log ratios of two models along paths of the target.

    Attributes:
        delta: `[S, N]`, distance of the two means at each place, in sigmas.
        log_ratio: `[S, N]`, `log p(x) - log q(x)` of the patches of the path.
    """

    delta: np.ndarray
    log_ratio: np.ndarray

    @classmethod
    def of(cls, eps: np.ndarray, gap: np.ndarray) -> Along:
        """Gaps and ratios from patches `(x - mean_p) / sigma` and gaps `(mean_p - mean_q) / sigma`.

        Args:
            eps: `[S, N, D]`.
            gap: `[S, N, D]`.
        """
        square = np.sum(np.square(gap), axis=-1)
        return cls(np.sqrt(square), np.sum(eps * gap, axis=-1) + square / 2)


# --- one place -----------------------------------------------------------------------------------


def mass_above(delta: np.ndarray, proposals: int = 1) -> np.ndarray:
    """The mass of `(p - n q)_+`, which n proposals of a place can never cover.

    `Phi(delta/2 - log n / delta) - n Phi(-delta/2 - log n / delta)`; for one proposal the total
    variation of p and q, `2 Phi(delta / 2) - 1`.

    Args:
        delta: distance of the means, any shape.
        proposals: n.
    """
    safe = np.maximum(delta, 1e-9)
    shift = np.log(proposals) / safe
    mass = ndtr(safe / 2 - shift) - proposals * ndtr(-safe / 2 - shift)
    return np.maximum(mass, 0.0)


def expected_total_variation(mean: np.ndarray, covariance: np.ndarray) -> float:
    """`E[2 Phi(|g| / 2) - 1]` of a Gaussian gap g, the total variation at one place.

    It is `P(|g|^2 / 4 > Z^2)` with Z standard normal: a quadratic form in Gaussians, whose
    distribution is one integral (Imhof, Biometrika 48, 1961).

    Args:
        mean: `[D]`, of the gap in sigmas.
        covariance: `[D, D]`, of the gap; 0 for a gap that is known.
    """
    variance, axes = np.linalg.eigh(covariance)
    variance = np.maximum(variance, 0.0)
    square = np.square(axes.T @ mean)
    if variance.sum() < 1e-12:
        return float(mass_above(np.sqrt(square.sum())))
    # Weights of the form, and squares of the shifts times their weight; the last is -Z^2.
    weight = np.append(variance / 4, -1.0)[:, None]
    shift = np.append(square / 4, 0.0)[:, None]
    grid = np.linspace(-20.0, 25.0, 20_001)  # of log u
    u = np.exp(grid)[None]
    damping = 1 + np.square(weight * u)
    angle = 0.5 * np.sum(np.arctan(weight * u) + shift * u / damping, axis=0)
    log_decay = 0.25 * np.log(damping) + 0.5 * shift * weight * u**2 / damping
    integrand = np.sin(angle) * np.exp(-np.sum(log_decay, axis=0))
    return float(0.5 + np.trapezoid(integrand, grid) / np.pi)


# --- a path --------------------------------------------------------------------------------------


def fewest(rule: Rule, along: Along) -> np.ndarray:
    """The bound of the class of a rule, `[S]`: no exact rule of its class rejects less on average.

    Rules that decide place by place, one proposal or n: the mass of `(p - n q)_+`, summed over the
    places. `block` looks ahead, so only the whole path bounds it: without a rejection the path is
    one of the n chains drafted first, which has probability `1 - ` the mass of `(P - n Q)_+` for
    the distributions P and Q of whole paths. A rule that is not exact is held against the bound of
    one proposal.

    Args:
        rule: with its settings.
        along: paths of the target.
    """
    chains = _chains(rule)
    if _looks_ahead(rule):
        log_path = np.sum(along.log_ratio, axis=1)
        return np.maximum(-np.expm1(np.log(chains) - log_path), 0.0)
    return np.sum(mass_above(along.delta, chains), axis=1)


def keep_chances(rule: Rule, along: Along) -> np.ndarray:
    """P(at least i proposals of a round are kept | the path put out), `[S, N + 1]`, i = 0 ... N.

    The round starts at the first place. `maximal` and `residual` keep a patch x of the path with
    probability `min(1, 1 / r)`, place by place; `block` keeps i of them with the least of
    `1 / (r_1 ... r_j)`, j <= i, and 1. Of n chains the first place is kept with
    `min(1, lam_n / r)`, see `rules.several`.

    Args:
        rule: an exact one.
        along: paths of the target.

    Raises:
        InputError: a rule without such a formula.
    """
    lost = -along.log_ratio
    if isinstance(rule, Several):
        lam = np.asarray(_lam(jnp.asarray(along.delta[:, 0], jnp.float32), rule.chains))
        first = np.exp(np.minimum(np.log(lam) + lost[:, 0], 0.0))[:, None]
        behind = keep_chances(rule.rest, Along(along.delta[:, 1:], along.log_ratio[:, 1:]))
        return np.concatenate([np.ones_like(first), first * behind], axis=1)
    if isinstance(rule, Block):
        log_chance = np.minimum.accumulate(_from_zero(np.cumsum(lost, axis=1)), axis=1)
    elif isinstance(rule, Maximal | Residual):
        log_chance = _from_zero(np.cumsum(np.minimum(lost, 0.0), axis=1))
    else:
        raise InputError(f"no formula for the rejections of {rule!r}; use an exact rule.")
    return np.exp(log_chance)


def expected_rejections(rule: Rule, along: Along, num_draft: int) -> np.ndarray:
    """Expected rejections of an exact rule on each path, `[S]`.

    Given the path, the rounds are a renewal process: one starts at the first place, behind each
    rejection, and behind the bonus of a round whose proposals were all kept.

    Args:
        rule: an exact one with equal sigmas.
        along: paths of the target.
        num_draft: K; the last rounds draft the patches that are missing.

    Raises:
        InputError: see `keep_chances`.
    """
    paths, places = along.delta.shape
    starts, rejections = np.zeros((places + num_draft + 1, paths)), np.zeros(paths)
    starts[0] = 1
    for first in range(places):
        # The chances that a round from this place keeps 0, 1, ... proposals at least.
        length = min(num_draft, places - first)
        window = slice(first, first + length)
        chances = keep_chances(rule, Along(along.delta[:, window], along.log_ratio[:, window])).T

        # A rejection, or the bonus, is one patch; the next round starts behind it.
        rejected = starts[first] * (chances[:-1] - chances[1:])  # [length, S]
        starts[first + 1 : first + length + 1] += rejected
        starts[first + length + 1] += starts[first] * chances[-1]
        rejections += np.sum(rejected, axis=0)
    return rejections


def _chains(rule: Rule) -> int:
    """n, the proposals of a place."""
    return rule.chains if isinstance(rule, Several) else 1


def _looks_ahead(rule: Rule) -> bool:
    """Whether a patch is kept by what is proposed behind it."""
    return isinstance(rule.rest if isinstance(rule, Several) else rule, Block)


def _from_zero(logs: np.ndarray) -> np.ndarray:
    """`[S, N]` with a first column of 0."""
    return np.concatenate([np.zeros((len(logs), 1)), logs], axis=1)


def _lam(delta: jax.Array, chains: int) -> jax.Array:
    """lam_n of every delta `[S]`."""
    return jax.vmap(lambda one: left_over(one, chains)[0][-1])(delta)


# --- measured against theory ---------------------------------------------------------------------


class Comparison(NamedTuple):
    """A measured mean beside what theory says.

    Attributes:
        difference: measured minus theory.
        half_width: of its interval of confidence.
        side: `at`, `above` or `below`: where the interval lies.
    """

    difference: float
    half_width: float
    side: Literal["at", "above", "below"]


def compare(measured: np.ndarray, theory: np.ndarray | float) -> Comparison:
    """Whether measured rejections lie at, above or below those of theory.

    Args:
        measured: `[M]`, means of independent units (paths of one context, or the windows).
        theory: `[M]` of the same units, or one known number.
    """
    off = np.asarray(measured, np.float64) - theory
    error = float(np.std(off, ddof=1)) / np.sqrt(len(off))
    half_width = float(norm.ppf((1 + CONFIDENCE) / 2) * error)
    difference = float(np.mean(off))
    side: Literal["at", "above", "below"] = "at"
    if abs(difference) > half_width:
        side = "above" if difference > 0 else "below"
    return Comparison(difference, half_width, side)


def rejection_row(
    name: str, rule: Rule, measured: np.ndarray, along: Along, total_variation: float | None = None
) -> dict[str, Any]:
    """Measured rejections of a rule beside its expectation and the bound of its class, K = N.

    Args:
        name: of the rule.
        rule: with its settings.
        measured: `[M]`, mean rejections of each of M independent units.
        along: paths of the target, as many of each unit, unit by unit.
        total_variation: the sum of the total variations, where its closed form is known; it is the
            bound of rules of one proposal that decide place by place.
    """
    places = along.delta.shape[1]

    def by_unit(numbers: np.ndarray) -> np.ndarray:
        return numbers.reshape(len(measured), -1).mean(axis=1)  # [M * S] -> [M, S] -> [M]

    bound: float | np.ndarray = by_unit(fewest(rule, along))
    if total_variation is not None and _chains(rule) == 1 and not _looks_ahead(rule):
        bound = total_variation
    row: dict[str, Any] = {
        "rule": name,
        "exact": rule.exact,
        "rejections": float(np.mean(measured)),
        "+-": compare(measured, 0.0).half_width,
        "expected": None,
        "bound": float(np.mean(bound)),
        "rejections and bound": compare(measured, bound).side,
    }
    if rule.exact:
        expected = by_unit(expected_rejections(rule, along, places))
        row |= {"expected": float(np.mean(expected))}
        row |= {"rejections and expected": compare(measured, expected).side}
    return row


def contradictions(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of rules that claim to be exact and cannot be, or that do not do what theory expects."""
    return [
        row
        for row in rows
        if row["exact"]
        and (row["rejections and bound"] == "below" or row["rejections and expected"] != "at")
    ]
