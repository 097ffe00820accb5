"""Every rule of the field on one pair: passes, errors, time and launches, in one table.

`python tools/field.py --out docs/results/field.json` (5 to 10 minutes on 2 CPU cores that do
nothing else) decodes test windows of the embedded series with the shipped pair. `big little` and
`mean` with K 4 have the settings that `tools/big_little.py` fitted to a budget of a tenth; the
judge has the weights that `tools/judge.py` wrote, and the bias that meets this budget on
validation windows. The time of a forecast is that of one window at a time. The speedup by launches
is that of a target of 8 layers and width 1024 on a GPU with these passes, see
docs/results/launches.md. The p-value is the smallest one of the tests of exactness, on a target of
known distribution.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stride_jax.decoding.draft_length import DraftLength, Fallback, Fixed
from stride_jax.decoding.rules import Block, Judge, Maximal, Mean, Rule, Several, WithoutBonus
from stride_jax.decoding.types import DecodeConfig
from stride_jax.evaluation.bench import Decoder, measure, score
from stride_jax.evaluation.budget import cheapest, references, try_all
from stride_jax.evaluation.config import Setup
from stride_jax.evaluation.results import read_results, write_rows
from stride_jax.evaluation.subject import (
    Subject,
    build,
    draft_only,
    load,
    scoring_batches,
    speculative,
    target_only,
    timing_batches,
)
from stride_jax.testing.analytic import make_problem
from stride_jax.testing.exactness import check

HORIZON, NUM_DRAFT, NUM_PATHS, REPEATS, BUDGET = 168, 6, 4, 25, 0.1
BIASES = tuple(np.linspace(-6.0, 3.0, 10))
"""Of the judge, to choose from."""


class Entry(NamedTuple):
    """One row: a rule with its draft length and K, and the rule whose launches are counted for it.

    Attributes:
        name: in the table.
        rule: the rule.
        num_draft: K.
        length: the draft length.
        counted: the rule of the row of launches.json.
    """

    name: str
    rule: Rule
    num_draft: int = NUM_DRAFT
    length: DraftLength = Fixed()
    counted: str = "maximal"


def entries(judge: Judge) -> list[Entry]:
    """What is compared."""
    return [
        Entry("mean", Mean(0.2), counted="mean"),
        Entry("mean, budget", Mean(0.06), 4, counted="mean"),
        Entry("big little, budget", Mean(0.06), NUM_DRAFT, Fallback(0.2), "mean"),
        Entry("judge, budget", judge, NUM_DRAFT, counted="mean"),
        Entry("maximal", Maximal()),
        Entry("block", Block(), counted="block"),
        Entry("several, 2 chains", Several(Block(), chains=2), counted="several"),
        Entry("several, 4 chains", Several(Block(), chains=4), counted="several"),
        Entry("maximal, without bonus", WithoutBonus(Maximal())),
    ]


def decoder(subject: Subject, entry: Entry, paths: int) -> Decoder:
    """The decoder of a row."""
    config = DecodeConfig(HORIZON, entry.num_draft, num_paths=paths)
    name = subject.setup.drafts[0]
    return speculative(subject, config, subject.sigma, name, entry.rule, entry.length)


def fitted_judge(subject: Subject, weights: list[float]) -> Judge:
    """The judge whose bias has the fewest passes within the budget on validation windows."""
    windows = subject.windows(HORIZON, "validation")
    batches = timing_batches(subject, windows, HORIZON, 64, 1)
    target, per_draft = references(subject, HORIZON, batches)
    judges = [Judge(np.asarray(weights, np.float32), float(bias)) for bias in BIASES]
    trials = try_all([decoder(subject, Entry("judge", one), 1) for one in judges], batches)
    return judges[cheapest(trials, target, BUDGET * per_draft, draft_cost=0.0)]


def launches() -> dict[str, dict[str, Any]]:
    """The counted rounds at 8 layers and batch 1, by rule."""
    rows = read_results(Path("docs/results/launches.json"))["rows"]
    same = {"layers": 8, "num_vars": 1, "batch": 1, "draft": "autoregressive", "draft_layers": 1}
    same |= {"dtype": "float32"}
    return {r["rule"]: r for r in rows if all(r[name] == value for name, value in same.items())}


def by_launches(counted: dict[str, Any], num_draft: int, passes: float, patches: int) -> float:
    """Launches of the target alone over those of the rounds; proposals cost in proportion to K."""
    proposals = counted["proposals"] * num_draft / counted["num_draft"]
    one = proposals + counted["verification"] + counted["round_overhead"]
    return float(patches * counted["target_pass"] / (passes * one))


def guarantee(rule: Rule) -> str:
    """One word for what a rule promises."""
    if rule.exact:
        return "exact"
    return "measured" if isinstance(rule, Judge) else "bounded"


def p_value(rule: Rule, seed: int) -> float:
    """The smallest p-value of an exact rule, corrected for the number of its tests."""
    problem = make_problem(num_vars=2, delta=1.0)
    return float(check(problem, rule, kind="cached", num_series=50_000, seed=seed)["p"])


def rows_of(subject: Subject, chosen: list[Entry]) -> list[dict[str, Any]]:
    """Measured and scored rows: the target, the draft, and every entry, by output."""
    rows = []
    for output, paths in (("mean", 1), ("sample", NUM_PATHS)):
        some = [e for e in chosen if (e.rule.proposes == "mean") == (output == "mean")]
        rows += output_rows(subject, output, some, paths)
    return rows


def output_rows(
    subject: Subject, output: str, some: list[Entry], paths: int
) -> list[dict[str, Any]]:
    """The rows of one output; *x rule* compares with `mean` or with `block`."""
    windows, name = subject.windows(HORIZON), subject.setup.drafts[0]
    plain = DecodeConfig(HORIZON, num_paths=paths)
    sigma, error = (0.0, "mse") if output == "mean" else (subject.sigma, "crps")
    decoders = [target_only(subject, plain, sigma), draft_only(subject, plain, sigma, name)]
    decoders += [decoder(subject, entry, paths) for entry in some]

    # One path at a time with a clock, then all windows without one.
    timing = timing_batches(subject, windows, HORIZON, 1, REPEATS)
    timed = measure([one.with_config(num_paths=1) for one in decoders], timing, print)
    seconds = [one.seconds for one in timed]
    tallies = score(decoders, scoring_batches(subject, windows, HORIZON), print)
    scores = [tally.scores() for tally in tallies]

    entries: list[Entry | None] = [None, None, *some]
    names = ["target only", "draft only", *(entry.name for entry in some)]
    compared = seconds[names.index(output if output == "mean" else "block")]
    patches, counted = HORIZON // subject.target.patch_len, launches()
    return [
        {
            "output": output,
            "program": names[number],
            "guarantee": guarantee(entry.rule) if entry else "",
            "K": entry.num_draft if entry else None,
            "passes": scored["target_passes"],
            "accepted": scored["acceptance"],
            "error": scored[error] / scores[0][error] - 1,
            "ms": 1000 * seconds[number],
            "x target": seconds[0] / seconds[number],
            "x rule": compared / seconds[number],
            "by launches": entry
            and by_launches(
                counted[entry.counted], entry.num_draft, scored["target_passes"], patches
            ),
            "p": p_value(entry.rule, number) if entry and entry.rule.exact else None,
        }
        for number, (entry, scored) in enumerate(zip(entries, scores, strict=True))
    ]


def main() -> None:
    """Measures, prints and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--judge", type=Path, default=Path("docs/results/judge.json"))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    weights = json.loads(args.judge.read_text())["judge, by the target"]["weights"]
    setup = Setup(stride=29)
    subject = build(setup, load(setup), [NUM_DRAFT])
    judge = fitted_judge(subject, weights)
    write_rows(args.out, rows_of(subject, entries(judge)), judge_bias=float(judge.bias))


if __name__ == "__main__":
    main()
