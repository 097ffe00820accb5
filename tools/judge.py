"""A learned judge of proposals beside one tolerance of the gap, at equal error.

`python tools/judge.py --out docs/results/judge.json` (about a quarter of an hour on 2 CPU cores)
labels proposals of the shipped pair on validation windows of the embedded series, fits a judge to
them, and fits its bias and the tolerance of `mean` to three budgets on the same windows. Then both
are measured on later windows of that series and on ETTh1. A budget is a share of the draft's mean
squared distance from the target's own path.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from stride_jax.data.config import DataConfig
from stride_jax.decoding.rules import Judge, Mean
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError
from stride_jax.evaluation.bench import Batch
from stride_jax.evaluation.budget import Trial, cheapest, cost_at, references, try_all
from stride_jax.evaluation.config import Setup
from stride_jax.evaluation.results import write_rows
from stride_jax.evaluation.subject import Subject, build, load, speculative, timing_batches
from stride_jax.training.judge import Labels, fit, label

BUDGETS = (0.05, 0.1, 0.2)
TOLERANCES = (0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.14)
SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.55, 0.8)
"""Of the labelled proposals that a judge rejects; each is a bias to try."""
LIMITS = {"target": 5e-4, "truth": 0.0}
"""Most harm of a harmless proposal, in sigma squared, by what it is measured against."""
HORIZON, NUM_DRAFT, BATCH = 168, 6, 64


class Part(NamedTuple):
    """Windows of one series with the decodes that do not depend on a judge."""

    name: str
    subject: Subject
    batches: list[Batch]
    target: Trial
    draft: float
    mean: list[Trial]


def part(name: str, subject: Subject, split: str, batches: int) -> Part:
    """The target, the draft and `mean` with every tolerance on windows of a split."""
    windows = subject.windows(HORIZON, split)
    spread = timing_batches(subject, windows, HORIZON, BATCH, batches - 1)
    target, per_draft = references(subject, HORIZON, spread)
    mean = try_rules(subject, TOLERANCE_RULES, spread)
    return Part(name, subject, spread, target, per_draft, mean)


TOLERANCE_RULES = [Mean(tolerance) for tolerance in TOLERANCES]


def try_rules(subject: Subject, rules: list[Any], batches: list[Batch]) -> list[Trial]:
    """The decodes of the pair by each rule."""
    config, draft = DecodeConfig(HORIZON, NUM_DRAFT), subject.setup.drafts[0]
    return try_all([speculative(subject, config, subject.sigma, draft, r) for r in rules], batches)


def labels(fitted: Part, reference: Any) -> Labels:
    """The tested proposals of all windows, on one axis."""
    subject = fitted.subject
    pair, limit = subject.pairs[subject.setup.drafts[0]], LIMITS[reference]
    parts = [
        label(
            pair.target,
            pair.draft,
            batch.context,
            batch.truth,
            subject.sigma,
            limit,
            num_draft=NUM_DRAFT,
            reference=reference,
        )
        for batch in fitted.batches
    ]
    tested = np.concatenate([np.asarray(x.tested) for x in parts])
    return jax.tree.map(lambda *x: np.concatenate([np.asarray(y) for y in x])[tested], *parts)


def judges(found: Labels, limit: float) -> list[Judge]:
    """A judge with every bias to try."""
    judge = fit(found.features, found.harm <= limit)
    scores = found.features @ np.asarray(judge.weights) + judge.bias
    return [
        dataclasses.replace(judge, bias=float(judge.bias - np.quantile(scores, share)))
        for share in SHARES
    ]


def within(fitted: Part, tried: list[Any], trials: list[Trial], budget: float) -> list[Any]:
    """The rule of fewest passes within a budget; none where no setting is strict enough."""
    try:
        best = cheapest(trials, fitted.target, budget * fitted.draft, draft_cost=0.0)
    except InputError:
        return []
    return [tried[best]]


def row(where: Part, trial: Trial) -> dict[str, Any]:
    """One rule on the windows of a part, beside `mean` at the distance that it has there."""
    distance = float(np.mean(trial.distance(where.target)))
    same = cost_at(where.mean, where.target, distance, draft_cost=0.0)
    passes = float(np.mean(trial.passes))
    return {
        "distance": distance / where.draft,
        "MSE": float(np.mean(trial.error) / np.mean(where.target.error)) - 1,
        "passes": passes,
        "error of it": float(np.std(trial.passes) / np.sqrt(len(trial.passes))),
        "`mean` there": same,
        "saved": 1 - passes / same,
    }


def main() -> None:
    """Fits, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batches", type=int, default=4, help="of 64 windows, for each part")
    args = parser.parse_args()
    setup = Setup(stride=29)
    other = dataclasses.replace(
        setup, data=DataConfig(source="ETTh1", context_len=504, variables="separate")
    )
    subject = build(setup, load(setup), [NUM_DRAFT])
    fitted = part("fitted on", subject, "validation", args.batches)
    rules: dict[str, tuple[list[Any], list[Trial]]] = {"mean": (TOLERANCE_RULES, fitted.mean)}
    facts: dict[str, Any] = {"horizon": HORIZON, "num_draft": NUM_DRAFT}
    for reference, limit in LIMITS.items():
        found = labels(fitted, reference)
        tried = judges(found, limit)
        name = f"judge, by the {reference}"
        rules[name] = tried, try_rules(subject, tried, fitted.batches)
        facts[name] = {
            "labels": len(found.harm),
            "harmless": float(np.mean(found.harm <= limit)),
            "weights": [float(weight) for weight in np.asarray(tried[0].weights)],
        }
        print(name, facts[name], flush=True)
    parts = [
        fitted,
        part("later", subject, "test", args.batches),
        part("ETTh1", build(other, load(other), [NUM_DRAFT]), "test", args.batches),
    ]
    chosen = [
        (budget, name, rule)
        for budget in BUDGETS
        for name, (tried, trials) in rules.items()
        for rule in within(fitted, tried, trials, budget)
    ]
    rows = []
    for where in parts:
        trials = try_rules(where.subject, [rule for *_, rule in chosen], where.batches)
        for (budget, name, _), trial in zip(chosen, trials, strict=True):
            about = {"windows": where.name, "budget": budget, "rule": name}
            rows.append(about | row(where, trial))
            print(rows[-1], flush=True)
    write_rows(args.out, rows, **facts)


if __name__ == "__main__":
    main()
