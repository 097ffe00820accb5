"""Proof of exactness: decoded paths of an analytic target against its law.

`python -m stride_jax.exactness --out docs/results/exactness.json` prints the p-values of the right
rule and of wrong ones. The target is a linear-Gaussian autoregression, so that the law of
everything it emits is known; the draft is another, deliberately poor one.

What is tested of S decoded series: the innovation of each emitted patch, standardised by the
target's law given the EMITTED prefix, is N(0, I): Kolmogorov-Smirnov tests along the
draft-target direction and along random ones; and the covariance of the whole forecast has its
closed form. p-values are Bonferroni-corrected for the tests of their kind.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from stride_jax.benchmark import environment
from stride_jax.config import DecodeConfig
from stride_jax.coupling import Outcome, Round, Rule, RuleParams, leading, log_ratios, log_uniform
from stride_jax.processes import WindowProcess, window_process
from stride_jax.speculative import decode_speculative

PASS_ABOVE = 1e-3
"""A right rule's smallest corrected p-value must exceed this."""
FAIL_BELOW = 1e-6
"""A wrong rule's must be below this."""


class Problem(NamedTuple):
    """Two linear-Gaussian autoregressions with one sigma.

    Attributes:
        weight: `[P * C, L * C]`, the target's mean is `weight @ window`.
        draft_weight: `[P * C, L * C]`.
        draft_bias: `[P * C]`; the draft's mean is `draft_weight @ window + draft_bias`.
        sigma: std of both laws.
        patch_len: P.
        num_vars: C.
        num_patches: N, patches decoded.
    """

    weight: np.ndarray
    draft_weight: np.ndarray
    draft_bias: np.ndarray
    sigma: float
    patch_len: int
    num_vars: int
    num_patches: int

    def means(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Target's and draft's mean for `[S, L * C]`, each `[S, P * C]`."""
        target = windows @ self.weight.T
        return target, windows @ self.draft_weight.T + self.draft_bias[None]


def make_problem(
    seed: int = 0,
    *,
    patch_len: int = 2,
    num_vars: int = 2,
    num_patches: int = 6,
    delta: float = 1.0,
    sigma: float = 0.7,
) -> Problem:
    """A stable target over two patches of context, and a draft about `delta` sigmas away."""
    rng = np.random.default_rng(seed)
    width = patch_len * num_vars
    weight = rng.normal(size=(width, 2 * width))
    weight *= 0.7 / np.linalg.norm(weight, 2)
    other = rng.normal(size=(width, 2 * width))
    other *= 0.25 * delta / np.linalg.norm(other, 2)
    bias = rng.normal(size=width)
    bias *= delta * sigma / np.linalg.norm(bias)
    return Problem(weight, weight + other, bias, sigma, patch_len, num_vars, num_patches)


def _linear(patch_len: int, weight: jax.Array, bias: jax.Array, window: jax.Array) -> jax.Array:
    # [L, C] -> [L * C] -> [P * C] -> [P, C]
    return (weight @ window.reshape(-1) + bias).reshape(patch_len, window.shape[1])


def processes(problem: Problem) -> tuple[WindowProcess, WindowProcess]:
    """Target and draft as window processes."""

    def build(weight: np.ndarray, bias: np.ndarray) -> WindowProcess:
        predict = functools.partial(_linear, problem.patch_len)
        arrays = jnp.asarray(weight, jnp.float32), jnp.asarray(bias, jnp.float32)
        return window_process(jax.tree_util.Partial(predict, *arrays), problem.patch_len)

    zero = np.zeros_like(problem.draft_bias)
    return build(problem.weight, zero), build(problem.draft_weight, problem.draft_bias)


def planted_recover(key: jax.Array, current: Round, params: RuleParams) -> Outcome:
    """A wrong rule: accepts like maximal, but recovers without mirroring the noise."""
    num_draft = current.proposals.shape[0]
    count = leading(log_uniform(key, num_draft) <= log_ratios(current))
    first = jnp.minimum(count, num_draft - 1)
    moved = current.target_mean[first] + current.proposals[first] - current.draft_mean[first]
    bonus = current.target_mean[-1] + current.sigma * current.fresh
    return Outcome(count, jnp.where(count == num_draft, bonus, moved))


def innovations(
    problem: Problem, context: np.ndarray, forecast: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Standardised innovations and draft-target gaps of emitted patches.

    Args:
        problem: the two models.
        context: `[L, C]`, the same for all series.
        forecast: `[S, N * P, C]`.

    Returns:
        `(eps, gap)`, each `[S, N, P * C]`: `(x - mean_p) / sigma` and `(mean_p - mean_q) / sigma`
        given the emitted prefix, in float64.
    """
    size, length = len(forecast), len(context)
    grown = np.concatenate([np.broadcast_to(context, (size, *context.shape)), forecast], axis=1)
    eps, gap = [], []
    for n in range(problem.num_patches):
        start = n * problem.patch_len
        window = grown[:, start : start + length].reshape(size, -1).astype(np.float64)
        stop = start + length + problem.patch_len
        patch = grown[:, start + length : stop].reshape(size, -1)
        target, draft = problem.means(window)
        eps.append((patch - target) / problem.sigma)
        gap.append((target - draft) / problem.sigma)
    return np.stack(eps, axis=1), np.stack(gap, axis=1)


def closed_form_covariance(problem: Problem, context_len: int) -> np.ndarray:
    """Covariance of the whole forecast, `[N * P * C, N * P * C]`.

    With `x = T x + c + sigma eps`, T strictly block lower triangular, it is
    `sigma^2 (I - T)^-1 (I - T)^-T`.
    """
    width = problem.patch_len * problem.num_vars
    total, lags = problem.num_patches * width, context_len // problem.patch_len
    transition = np.zeros((total, total))
    for n in range(problem.num_patches):
        for lag in range(1, min(lags, n) + 1):
            block = problem.weight[:, (lags - lag) * width : (lags - lag + 1) * width]
            rows, columns = slice(n * width, (n + 1) * width), slice((n - lag) * width, None)
            transition[rows, columns][:, :width] = block
    inverse = np.linalg.inv(np.eye(total) - transition)
    return problem.sigma**2 * inverse @ inverse.T


def decode(problem: Problem, rule: str | Rule, num_series: int, num_draft: int, seed: int) -> Any:
    """`(context, forecast [S, N * P, C], info)` of S series from one context."""
    target, draft = processes(problem)
    rng = np.random.default_rng(seed)
    context = rng.normal(size=(2 * problem.patch_len, problem.num_vars)).astype(np.float32)
    forecast, info = decode_speculative(
        jax.random.key(seed),
        jnp.broadcast_to(context, (num_series, *context.shape)),
        target=target,
        draft=draft,
        sigma=problem.sigma,
        config=DecodeConfig(problem.num_patches * problem.patch_len, num_draft, rule),
    )
    return context, np.asarray(forecast, np.float64), info


def check(
    problem: Problem,
    rule: str | Rule,
    *,
    num_series: int = 100_000,
    num_draft: int = 3,
    num_projections: int = 4,
    seed: int = 0,
) -> dict[str, float]:
    """Decodes and tests one rule.

    Returns:
        Corrected p-values `p_direction`, `p_projections`, `p_covariance` and their minimum `p`;
        effect sizes `ks_direction`, `ks_projections` (largest distance of a distribution function
        from the normal one); `acceptance`; 5, 50 and 95 % quantiles of delta.
    """
    context, forecast, info = decode(problem, rule, num_series, num_draft, seed)
    eps, gap = innovations(problem, context, forecast)
    delta = np.linalg.norm(gap, axis=-1)
    along = np.sum(eps * gap / delta[..., None], axis=-1)  # [S, N]
    rng = np.random.default_rng(seed + 1)
    direction = rng.normal(size=(num_projections, eps.shape[-1]))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    projected = np.einsum("snd,rd->snr", eps, direction).reshape(num_series, -1)  # [S, N * R]
    ks_direction, p_direction = _worst_ks(along)
    ks_projections, p_projections = _worst_ks(projected)
    p_covariance = _covariance_p(
        forecast.reshape(num_series, -1), closed_form_covariance(problem, len(context))
    )
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
    found = np.cov(samples.T)
    diagonal = np.diag(covariance)
    spread = np.sqrt((np.outer(diagonal, diagonal) + covariance**2) / len(samples))
    upper = np.triu_indices(len(covariance))
    score = np.abs((found - covariance) / spread)[upper]
    return float(min(1.0, 2 * stats.norm.sf(score.max()) * len(score)))


def report(num_series: int = 100_000) -> list[dict[str, Any]]:
    """One row a rule and a difficulty: the exact rule, and wrong ones that must fail."""
    rules: list[tuple[str, str | Rule, bool]] = [
        ("maximal", "maximal", True),
        ("resample", "resample", False),
        ("planted: recover without mirroring", planted_recover, False),
    ]
    rows = []
    for delta in (0.7, 1.3):
        problem = make_problem(delta=delta)
        for name, rule, exact in rules:
            result = check(problem, rule, num_series=num_series)
            right = result["p"] > PASS_ABOVE if exact else result["p"] < FAIL_BELOW
            rows.append({"rule": name, "exact": exact, "as_expected": right, **result})
    return rows


def main(argv: list[str] | None = None) -> int:
    """The command `python -m stride_jax.exactness`; 1 if a rule did not do as it should."""
    parser = argparse.ArgumentParser(prog="python -m stride_jax.exactness")
    parser.add_argument("--num-series", type=int, default=100_000)
    parser.add_argument("--out", type=Path, help="also write the rows as JSON")
    args = parser.parse_args(argv)
    rows = report(args.num_series)
    columns = ("acceptance", "delta_50", "p_direction", "p_projections", "p_covariance")
    print(f"{'rule':36}" + "".join(f"{name:>15}" for name in columns) + "  as expected")
    for row in rows:
        cells = "".join(f"{row[name]:15.3g}" for name in columns)
        print(f"{row['rule']:36}{cells}  {row['as_expected']}")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        content = {"rows": rows, "num_series": args.num_series, **environment()}
        args.out.write_text(json.dumps(content, indent=1) + "\n")
    return 0 if all(row["as_expected"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
