"""The big little decoder beside `mean` with a fixed or an adaptive draft length, at equal error.

`python tools/big_little.py --out docs/results/big_little.json` (about 20 minutes on 2 CPU cores)
decodes the embedded series with the shipped pair. Big little is `Fallback(threshold)` and
`Mean(tolerance)`. Each method has its thresholds fitted on validation windows to three budgets: the
cheapest setting whose mean squared distance from the target's own path is within a share of the
draft's, where a draft step costs a tenth of a target pass. Later windows show what it costs.
`--repeats 0` counts without a clock.
"""

import argparse
import itertools
from pathlib import Path
from typing import Any

import numpy as np

from stride_jax.decoding.draft_length import DraftLength, Fallback, Fixed, Gain, Threshold
from stride_jax.decoding.rules import Mean
from stride_jax.decoding.types import DecodeConfig
from stride_jax.evaluation.bench import Decoder, measure
from stride_jax.evaluation.budget import Trial, cheapest, references, try_all
from stride_jax.evaluation.config import Setup
from stride_jax.evaluation.results import write_rows
from stride_jax.evaluation.subject import (
    Subject,
    build,
    load,
    speculative,
    target_only,
    timing_batches,
)

BUDGETS = (0.05, 0.1, 0.2)
TOLERANCES = (0.03, 0.04, 0.05, 0.06, 0.08, 0.12)
FALLBACKS = (0.05, 0.1, 0.2, 0.4)
NUM_DRAFTS = (2, 4, 6)
HORIZON, BATCH, DRAFT_COST = 168, 64, 0.1


def methods(subject: Subject) -> dict[str, list[Decoder]]:
    """The settings of each method."""
    most = max(NUM_DRAFTS)

    def all_of(num_drafts: tuple[int, ...], lengths: list[DraftLength]) -> list[Decoder]:
        grid = itertools.product(num_drafts, lengths, TOLERANCES)
        return [
            speculative(
                subject,
                DecodeConfig(HORIZON, k),
                subject.sigma,
                subject.setup.drafts[0],
                Mean(tolerance),
                length,
            )
            for k, length, tolerance in grid
        ]

    return {
        "mean, fixed K": all_of(NUM_DRAFTS, [Fixed()]),
        "mean, threshold": all_of((most,), [Threshold()]),
        "mean, gain": all_of((most,), [Gain(DRAFT_COST)]),
        "big little": all_of((most,), [Fallback(threshold) for threshold in FALLBACKS]),
    }


def settings(decoder: Decoder) -> dict[str, Any]:
    """The settings that were fitted."""
    length, rule = decoder.draft_length, decoder.rule
    return {
        "K": decoder.config.num_draft,
        "tolerance": rule.tolerance if isinstance(rule, Mean) else None,
        "fallback": length.threshold if isinstance(length, Fallback) else None,
    }


def counts(trial: Trial, target: Trial, per_draft: float) -> dict[str, Any]:
    """Errors and counts on one part of the data; `per_draft` is the draft's distance there."""
    return {
        "distance": float(np.mean(trial.distance(target))) / per_draft,
        "MSE": float(np.mean(trial.error) / np.mean(target.error)) - 1,
        "passes": float(np.mean(trial.passes)),
        "draft steps": float(np.mean(trial.steps)),
        "cost": trial.cost(DRAFT_COST),
        "error of it": float(
            np.std(trial.passes + DRAFT_COST * trial.steps) / np.sqrt(len(trial.passes))
        ),
    }


def milliseconds(subject: Subject, decoders: list[Decoder], repeats: int) -> list[float | None]:
    """Median time of a forecast of one series by each decoder; they take turns."""
    if repeats == 0:
        return [None] * len(decoders)
    batches = timing_batches(subject, subject.windows(HORIZON), HORIZON, 1, repeats)
    single = [decoder.with_config(num_paths=1) for decoder in decoders]
    return [1e3 * one.seconds for one in measure(single, batches)]


def main() -> None:
    """Fits, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=60, help="timed calls; 0 for no times")
    parser.add_argument("--fit", type=int, default=3, help="batches of 64 windows to fit to")
    parser.add_argument("--test", type=int, default=4, help="batches of 64 windows to measure on")
    args = parser.parse_args()
    setup = Setup(stride=29)
    subject = build(setup, load(setup), NUM_DRAFTS)

    # Fit the thresholds of each method to each budget.
    windows = subject.windows(HORIZON, "validation")
    batches = timing_batches(subject, windows, HORIZON, BATCH, args.fit - 1)
    target, per_draft = references(subject, HORIZON, batches)
    chosen = []
    for name, decoders in methods(subject).items():
        trials = try_all(decoders, batches)
        for budget in BUDGETS:
            best = cheapest(trials, target, budget * per_draft, draft_cost=DRAFT_COST)
            chosen.append((budget, name, decoders[best]))
            print(budget, name, counts(trials[best], target, per_draft), flush=True)

    # Measure them on later windows.
    batches = timing_batches(subject, subject.windows(HORIZON), HORIZON, BATCH, args.test - 1)
    target, per_draft = references(subject, HORIZON, batches)
    trials = try_all([decoder for _, _, decoder in chosen], batches)
    alone = target_only(subject, DecodeConfig(HORIZON, 1), 0.0)
    tried = [alone, *(decoder for _, _, decoder in chosen)]
    times = milliseconds(subject, tried, args.repeats)
    names: list[Any] = [(None, "target only"), *((b, name) for b, name, _ in chosen)]
    rows = []
    for (budget, name), decoder, trial, ms in zip(
        names, tried, [target, *trials], times, strict=True
    ):
        about = {"budget": budget, "method": name, **settings(decoder)}
        rows.append(about | counts(trial, target, per_draft) | {"ms": ms})
    rows.sort(key=lambda row: row["budget"] or 0.0)
    for row in rows:
        print(row, flush=True)
    write_rows(args.out, rows, horizon=HORIZON, draft_cost=DRAFT_COST)


if __name__ == "__main__":
    main()
