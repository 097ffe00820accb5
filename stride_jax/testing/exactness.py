"""Proof of exactness: decoded paths of an analytic target against its distribution.

`python -m stride_jax.testing.exactness --out docs/results/exactness.json` prints the p-values of
the exact rules and of wrong ones, on both processes, for one and several variables, joint and
separate. The target is a linear-Gaussian autoregression, so that the distribution of everything it
emits is known; the draft is another, deliberately poor one.

What is tested of S decoded paths: the innovation of each emitted patch, standardised by the
target's distribution given the EMITTED prefix, is N(0, I): Kolmogorov-Smirnov tests along the
draft-target direction and along random ones; and the covariance of the whole forecast has its
closed form. p-values are Bonferroni-corrected for the tests of their kind.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from stride_jax.checkpoints.build import ProcessKind
from stride_jax.decoding.base import Draft, Outcome, Round, Rule
from stride_jax.decoding.draft_length import DraftLength, LengthState
from stride_jax.decoding.keys import as_key
from stride_jax.decoding.rules import RULES, AsReleased, Resample, SharedNoise
from stride_jax.decoding.rules.common import (
    gap_products,
    log_ratios,
    log_uniform,
    num_leading,
    target_draw,
)
from stride_jax.decoding.rules.exact import full_log_ratio, residual_patch
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import DecodeConfig
from stride_jax.evaluation.results import write_rows
from stride_jax.testing.analytic import (
    Problem,
    closed_form_covariance,
    innovations,
    make_problem,
    processes,
)

PASS_ABOVE = 1e-3
"""A right rule's smallest corrected p-value must exceed this."""
FAIL_BELOW = 1e-6
"""A wrong rule's must be below this."""
CONTEXT = 4
"""Patches of context; the models see the last two."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class InTurns(DraftLength):
    """Rounds of K, 1, 2, ..., K, 1, ... proposals, whatever was accepted.

    With K in every round only the last ones are shorter, and nothing shows what follows one of them
    when all of it is accepted.
    """

    def update(
        self,
        state: LengthState,
        num_accepted: jax.Array,
        num_draft: int,
        chances: jax.Array | None = None,
    ) -> LengthState:
        """See `DraftLength`."""
        return state._replace(length=state.length % num_draft + 1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PlantedMaximal(Rule):
    """A wrong maximal: accepts like it, but recovers without mirroring the noise."""

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        """See `Rule`."""
        ratio = log_ratios(current)
        count = num_leading(log_uniform(key, len(ratio)) <= ratio, current.length)
        first = jnp.minimum(count, len(ratio) - 1)
        moved = current.target_mean[first] + current.target_sigma[first] * current.noise[first]
        return Outcome(
            count, jnp.where(count == current.length, target_draw(current, count), moved)
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PlantedBlock(Rule):
    """A wrong block: keeps the longest prefix with `u <= p_i`, blind to the next patch."""

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        """See `Rule`."""
        ratio = log_ratios(current)
        log_p = [jnp.minimum(ratio[0], 0.0)]
        for step in ratio[1:]:
            log_p.append(jnp.minimum(log_p[-1] + step, 0.0))
        joined = jnp.stack(log_p)
        uniform_key, along_key = jax.random.split(key)
        fits = log_uniform(uniform_key, len(ratio)) <= joined
        count = jnp.max(jnp.where(fits, jnp.arange(1, len(ratio) + 1), 0)).astype(jnp.int32)
        before, products = jnp.append(0.0, joined), gap_products(current)
        patch = residual_patch(along_key, current, count, before, products)
        return Outcome(count, patch)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PlantedResidual(Rule):
    """A wrong residual: accepts by the right ratio, but redraws from the target's distribution."""

    scales: ClassVar = "free"

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        """See `Rule`."""
        predictions = current.target_mean[:-1], current.target_sigma[:-1]
        drawn = current.draft_mean, current.draft_sigma
        ratio = full_log_ratio(current.proposals, *predictions, *drawn)
        count = num_leading(log_uniform(key, len(ratio)) <= ratio, current.length)
        return Outcome(count, target_draw(current, count))


def decode_problem(
    problem: Problem,
    rule: Rule,
    num_series: int,
    num_draft: int,
    seed: int,
    kind: ProcessKind = "window",
    draft: Draft | None = None,
    draft_length: DraftLength | None = None,
    decoder: Callable[..., Any] = decode,
) -> Any:
    """`(context [L, C], forecast [S, N * P, C], info)` of S paths of one context."""
    target, usual = processes(problem, kind)
    key, rng = as_key(seed), np.random.default_rng(seed)
    context = rng.normal(size=(CONTEXT * problem.patch_len, problem.num_vars)).astype(np.float32)
    config = DecodeConfig(
        problem.num_patches * problem.patch_len,
        num_draft,
        num_paths=num_series,
        learned_scale=rule.scales == "free",
    )
    series = jnp.asarray(context.T[:, :, None] if problem.separate else context[None])
    forecast, info = decoder(
        key,
        series,
        target=target,
        draft=usual if draft is None else draft,
        sigma=problem.scale,
        config=config,
        rule=rule,
        draft_length=draft_length,
    )
    paths = np.asarray(forecast, np.float64)
    # separate: [C, S, N * P, 1] -> [S, N * P, C]; joint: [1, S, N * P, C] -> [S, N * P, C]
    return context, np.moveaxis(paths[..., 0], 0, -1) if problem.separate else paths[0], info


def check(
    problem: Problem,
    rule: Rule,
    *,
    kind: ProcessKind = "window",
    num_series: int = 100_000,
    num_draft: int = 3,
    num_projections: int = 4,
    seed: int = 0,
    draft: Draft | None = None,
    draft_length: DraftLength | None = None,
    decoder: Callable[..., Any] = decode,
) -> dict[str, float]:
    """Decodes and tests one rule, with the problem's draft or another one.

    `decoder` takes the arguments of `decode` and returns a forecast and its info, as `decode` does.

    Returns:
        Corrected p-values `p_direction`, `p_projections`, `p_covariance` and their minimum `p`;
        effect sizes `ks_direction`, `ks_projections` (largest distance of a distribution function
        from the normal one); `acceptance`; 5, 50 and 95 % quantiles of delta.

    Raises:
        AssertionError: a path holds a value that is not finite, of which no test says anything.
    """
    context, forecast, info = decode_problem(
        problem, rule, num_series, num_draft, seed, kind, draft, draft_length, decoder
    )
    if not np.isfinite(forecast).all():
        raise AssertionError(f"{type(rule).__name__} put out values that are NaN or infinite.")
    eps, gap = innovations(problem, context, forecast)
    delta = np.linalg.norm(gap, axis=-1)
    along = np.sum(eps * gap / delta[..., None], axis=-1)  # [S, N]
    rng = np.random.default_rng(seed + 1)
    direction = rng.normal(size=(num_projections, eps.shape[-1]))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    projected = np.einsum("snd,rd->snr", eps, direction).reshape(num_series, -1)  # [S, N * R]
    ks_direction, p_direction = _worst_ks(along)
    ks_projections, p_projections = _worst_ks(projected)
    p_covariance = _covariance_p(forecast.reshape(num_series, -1), closed_form_covariance(problem))
    low, middle, high = np.quantile(delta, [0.05, 0.5, 0.95])
    return {
        "acceptance": float(np.sum(info.accepted) / np.sum(info.proposed)),
        "delta_5": float(low),
        "delta_50": float(middle),
        "delta_95": float(high),
        "p_direction": p_direction,
        "p_projections": p_projections,
        "p_covariance": p_covariance,
        "p": min(1.0, 3 * min(p_direction, p_projections, p_covariance)),
        "ks_direction": ks_direction,
        "ks_projections": ks_projections,
    }


def _worst_ks(samples: np.ndarray) -> tuple[float, float]:
    """Largest distance and smallest corrected p-value over the columns of `[S, M]`."""
    tests = [stats.kstest(column, "norm") for column in samples.T]
    smallest = min(test.pvalue for test in tests)
    return float(max(test.statistic for test in tests)), float(min(1.0, smallest * len(tests)))


def _covariance_p(samples: np.ndarray, covariance: np.ndarray) -> float:
    """Smallest corrected p-value over the entries of the sample covariance.

    For Gaussians `sqrt(S) (S_ij - C_ij)` has variance `C_ii C_jj + C_ij^2`.
    """
    measured = np.cov(samples.T)
    diagonal = np.diag(covariance)
    spread = np.sqrt((np.outer(diagonal, diagonal) + covariance**2) / len(samples))
    upper = np.triu_indices(len(covariance))
    score = np.abs((measured - covariance) / spread)[upper]
    return float(min(1.0, 2 * stats.norm.sf(score.max()) * len(score)))


SHAPES = {
    "one": {"num_vars": 1, "patch_len": 3},
    "two, joint": {"num_vars": 2},
    "two, separate": {"num_vars": 2, "separate": True},
}
"""Variables of the problems, and how they are decoded."""
WRONG: dict[str, tuple[Rule, float]] = {
    "resample": (Resample(), 1.0),
    "as_released": (AsReleased(), 0.6),
    "shared_noise, any tolerance": (SharedNoise(1e9), 1.0),
    "planted: maximal without mirroring": (PlantedMaximal(), 1.0),
    "planted: block blind to the next patch": (PlantedBlock(), 1.0),
    "planted: residual redrawn from the target": (PlantedResidual(), 1.3),
}
"""Rules that must fail the same tests, and the draft's scale they are tried with."""


def report(num_series: int = 100_000) -> list[dict[str, Any]]:
    """One row per case: exact rules over processes, variables and difficulties; wrong ones."""
    exact = {name: rule() for name, rule in RULES.items() if rule.exact}
    kinds: tuple[ProcessKind, ...] = ("window", "cached")
    cells = [
        (name, rule, True, kind, shape, delta, 1.3 if rule.scales == "free" else 1.0)
        for (name, rule), kind, shape, delta in itertools.product(
            exact.items(), kinds, SHAPES, (0.7, 1.3)
        )
    ]
    wrong: list[Any] = [
        (name, rule, False, kind, "two, joint", 1.3, scale)
        for (name, (rule, scale)), kind in itertools.product(WRONG.items(), kinds)
    ]
    rows = []
    for name, rule, right, kind, shape, delta, scale in cells + wrong:
        problem = make_problem(delta=delta, draft_scale=scale, **SHAPES[shape])  # type: ignore[arg-type]
        seed = kinds.index(kind)  # other draws, or both processes would give the same paths
        result = check(problem, rule, kind=kind, num_series=num_series, seed=seed)
        passed = result["p"] > PASS_ABOVE if right else result["p"] < FAIL_BELOW
        rows.append(
            {
                "rule": name,
                "exact": right,
                "process": kind,
                "variables": shape,
                "as_expected": passed,
                **result,
            }
        )
    return rows


def main(argv: list[str] | None = None) -> int:
    """The command `python -m stride_jax.testing.exactness`; 1 if a rule did not do as it should."""
    parser = argparse.ArgumentParser(prog="python -m stride_jax.testing.exactness")
    parser.add_argument("--num-series", type=int, default=100_000)
    parser.add_argument("--out", type=Path, help="also write the rows as JSON")
    args = parser.parse_args(argv)
    rows = report(args.num_series)
    columns = ("acceptance", "delta_50", "p_direction", "p_projections", "p_covariance")
    labels = ("rule", "process", "variables")
    header = f"{labels[0]:42}{labels[1]:8}{labels[2]:15}"
    print(header + "".join(f"{name:>15}" for name in columns) + "  as expected")
    for row in rows:
        cells = "".join(f"{row[name]:15.3g}" for name in columns)
        where = f"{row['rule']:42}{row['process']:8}{row['variables']:15}"
        print(f"{where}{cells}  {row['as_expected']}")
    if args.out:
        write_rows(args.out, rows, table="exactness", num_series=args.num_series)
    return 0 if all(row["as_expected"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
