"""The experiments over a grid of settings: a sweep on the test split, tuning on the validation."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from stride_jax.checkpoints.build import ProcessKind
from stride_jax.decoding.base import Outcome, Round, Rule
from stride_jax.decoding.rules import find_rule
from stride_jax.decoding.types import DecodeConfig, num_patches
from stride_jax.errors import InputError
from stride_jax.evaluation import theory
from stride_jax.evaluation.bench import Decoder, Measured, Progress, measure, silent
from stride_jax.evaluation.config import SweepConfig, TuneConfig
from stride_jax.evaluation.experiments import Report, run, score_all
from stride_jax.evaluation.results import Row, content
from stride_jax.evaluation.subject import (
    Loaded,
    Subject,
    build,
    check_draft,
    describe,
    draft_only,
    load,
    parse_rules,
    rms,
    scoring_batches,
    speculative,
    target_only,
    timing_batches,
)
from stride_jax.forecasting.choice import useful

GRID = {"bias": "biases", "mse_tolerance": "mse_tolerances", "tolerance": "tolerances"}
"""Settings of rules that a sweep varies, and the fields of its config with their values."""


def settings(name: str, config: Any) -> list[Rule]:
    """A rule with every combination of the values that a config has for its settings."""
    rule = find_rule(name)
    fields = {field.name for field in dataclasses.fields(rule)}  # type: ignore[arg-type]
    names = [name for name, many in GRID.items() if name in fields and hasattr(config, many)]
    grid = itertools.product(*(getattr(config, GRID[name]) for name in names))
    return [rule(**dict(zip(names, values, strict=True))) for values in grid]


# --- sweep ---------------------------------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AcceptNone(Rule):
    """A rule with its work done and nothing accepted, for the cost of a round.

    Attributes:
        rule: the rule whose work is done.
    """

    rule: Any

    @property
    def proposes(self) -> Any:  # type: ignore[override]
        """The noise of the wrapped rule's proposals."""
        return self.rule.proposes

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        """See `Rule`."""
        return self.rule.decide(key, current)._replace(num_accepted=jnp.zeros((), jnp.int32))


@run.register
def sweep(config: SweepConfig, progress: Progress = silent, loaded: Loaded | None = None) -> Report:
    """The test windows decoded under every setting; seconds are the mean of a batch.

    Every decoder of a rule and K takes turns on the same batches as the target only that it is
    compared with. Settings and sigma are traced, so that a rule and a K compile once.
    """
    parse_rules(config.rules, config.num_paths)
    setup = config.setup
    subject = build(setup, loaded or load(setup), config.num_drafts)
    sigmas = config.sigmas or (rms(subject.sigma),)
    rows: list[Row] = []
    for horizon in setup.horizons:
        if num_patches(horizon, subject.target.patch_len) < 2:
            message = f"a sweep needs a horizon of two patches or more, got {horizon} steps."
            raise InputError(message)
    grid = itertools.product(setup.horizons, setup.drafts, config.rules, config.num_drafts)
    for horizon, draft, name, num_draft in grid:
        rules = settings(name, config)
        sampling = rules[0].proposes != "mean"
        sizes = DecodeConfig(horizon, num_draft, num_paths=config.num_paths if sampling else 1)
        progress(f"{name}, K = {num_draft}: {len(sigmas) * len(rules)} settings")
        rows += [
            row
            for row in _sweep_rows(subject, sizes, draft, rules, sigmas, progress)
            if row["rule"] is not None or not any(_same(row, other) for other in rows)
        ]
        jax.clear_caches()  # each rule and K is a program of its own
    return Report(content("sweep", rows, config))


def _same(row: Row, other: Row) -> bool:
    """Whether two rows of one model only show the same decoder."""
    names = ("method", "draft", "output", "sigma", "horizon")
    return all(row[name] == other[name] for name in names)


def _sweep_rows(
    subject: Subject,
    sizes: DecodeConfig,
    draft: str,
    rules: Sequence[Rule],
    sigmas: Sequence[float],
    progress: Progress,
) -> list[Row]:
    """The rows of one rule and K: target only and draft only with each sigma, then its settings."""
    sampling = rules[0].proposes != "mean"
    alone = list(sigmas) if sampling else [0.0]
    decoders = [target_only(subject, sizes, sigma) for sigma in alone]
    decoders += [draft_only(subject, sizes, sigma, draft) for sigma in alone]
    tried = [speculative(subject, sizes, sigma, draft, rule) for sigma in sigmas for rule in rules]

    # Decoders for the costs of a pass, a draft step and a round; they have no rows.
    patch = dataclasses.replace(sizes, horizon=subject.target.patch_len)
    costly = [
        target_only(subject, patch, alone[-1]),
        draft_only(subject, patch, alone[-1], draft),
        speculative(subject, sizes, sigmas[0], draft, AcceptNone(rules[0])),
    ]
    batches = scoring_batches(subject, subject.windows(sizes.horizon), sizes.horizon)
    measured = measure([*decoders, *tried, *costly], [batches[0], *batches], progress)
    shown, last = measured[: -len(costly)], len(alone) - 1
    clocks = measured[last], measured[-3], measured[2 * len(alone) - 1], measured[-2], measured[-1]
    seconds = [statistics.mean(clock.times) for clock in clocks]
    count = num_patches(sizes.horizon, subject.target.patch_len)
    costs = theory.Costs.of(count, sizes.num_draft, *seconds)
    rows = [_sweep_row(subject, shown, one) for one in shown]
    batch = subject.setup.batch_size
    return [
        row if row["rule"] is None else {**row, **costs.predictions(row, batch)} for row in rows
    ]


def _sweep_row(subject: Subject, measured: Sequence[Measured], one: Measured) -> Row:
    """One row, compared with the target only and the draft only of the same sigma."""
    decoder = one.decoder
    sigma = float(decoder.sigma) if decoder.samples else 0.0
    same = [m for m in measured if m.decoder.rule is None and float(m.decoder.sigma) == sigma]
    target, draft = (next(m for m in same if m.decoder.method == x) for x in ("target", "draft"))
    forecasts = target.tally.forecasts()
    scores, base = one.tally.scores(forecasts), target.tally.scores()
    error = "crps" if decoder.samples else "mse"
    exact = decoder.rule is not None and decoder.rule.exact  # what is measured is chance
    seconds = statistics.mean(one.times)
    return {
        **describe(subject, decoder),
        "windows": len(forecasts),
        "batch": subject.setup.batch_size,
        **scores,
        "relative_error": 0.0 if exact else scores[error] / base[error] - 1,
        "distance_over_drafts": share(scores, draft.tally.scores(forecasts)),
        "seconds": seconds,
        "speedup": statistics.mean(target.times) / seconds,
    }


def share(scores: Row, draft: Row) -> float | None:
    """The distance of a forecast from the target's over the draft's; None where one is unknown."""
    if scores["distance"] is None or not draft["distance"]:
        return None
    return float(scores["distance"] / draft["distance"])


# --- tune ----------------------------------------------------------------------------------------


@run.register
def tune(config: TuneConfig, progress: Progress = silent, loaded: Loaded | None = None) -> Report:
    """Every rule, K and tolerance on the validation split, and the fastest within the error.

    K = 0, the target only, is among them under each process, and the error of a setting is relative
    to the most accurate of those. An exact rule has the error of its own process by construction,
    so none is measured for it.
    """
    setup, sampling = config.setup, config.output == "sample"
    rules = [name for name in config.rules if (find_rule(name).proposes != "mean") == sampling]
    if not rules:
        raise InputError(f"none of the rules {list(config.rules)} gives {config.output} paths.")
    loaded = loaded or load(setup)
    rows: list[Row] = []
    for process in processes(config, loaded):
        subject = build(setup, loaded, process=process)
        for horizon in setup.horizons:
            progress(f"{process} process, horizon {horizon}")
            rows += _tune_rows(config, subject, rules, horizon, progress)
    best = [choose(config, rows, horizon) for horizon in setup.horizons]
    for row in best:
        progress(verdict(row))
    return Report(content("tune", rows, config, best=best))


def processes(config: TuneConfig, loaded: Loaded) -> list[ProcessKind]:
    """The processes to try: the setup's, or both where the model allows."""
    if config.setup.process != "auto":
        return [config.setup.process]
    model = loaded.target.model
    leaks = model.covariate and model.covariate_mask == "original"
    return ["window"] if leaks else ["cached", "window"]


def _tune_rows(
    config: TuneConfig, subject: Subject, rules: Sequence[str], horizon: int, progress: Progress
) -> list[Row]:
    """The rows of one process and horizon."""
    sampling = config.output == "sample"
    sizes = DecodeConfig(horizon, 1, num_paths=config.num_paths if sampling else 1)
    sigma = subject.sigma if sampling else 0.0
    decoders = [target_only(subject, sizes, sigma)]
    decoders += [draft_only(subject, sizes, sigma, name) for name in subject.pairs]
    patches = num_patches(horizon, subject.target.patch_len)
    lengths = useful(config.num_drafts, max(2, patches))  # of one patch, a round of one proposal
    for name, k, rule in itertools.product(subject.pairs, lengths, rules):
        if _proposes(subject, name, k):
            changed = dataclasses.replace(sizes, num_draft=k)
            decoders += [
                speculative(subject, changed, subject.sigma, name, setting)
                for setting in settings(rule, config)
            ]
    windows = subject.windows(horizon, "validation")
    spread = timing_batches(subject, windows, horizon, config.timing_batch, config.repeats)
    timed = measure([d.with_config(num_paths=1) for d in decoders], spread, progress)
    inexact = [d for d in decoders if d.rule is None or not d.rule.exact]
    batches = scoring_batches(subject, windows, horizon)
    scores = dict(zip(map(id, inexact), score_all(inexact, batches, progress), strict=True))
    target = scores[id(decoders[0])]
    drafts = {d.label.draft: scores[id(d)] for d in inexact if d.method == "draft"}
    return [
        _tune_row(subject, d, scores.get(id(d)), target, drafts.get(d.label.draft), one)
        for d, one in zip(decoders, timed, strict=True)
        if d.method != "draft"
    ]


def _tune_row(
    subject: Subject,
    decoder: Decoder,
    scores: Row | None,
    target: Row,
    draft: Row | None,
    timed: Measured,
) -> Row:
    """The row of a setting; one that is not scored is exact and has the error of the target."""
    error = "crps" if decoder.samples else "mse"
    return {
        **describe(subject, decoder),
        "error": (scores or target)[error],
        "distance_over_drafts": share(scores, draft) if scores and draft else None,
        "target_passes": scores["target_passes"] if scores else None,
        "seconds": timed.seconds,
    }


def _proposes(subject: Subject, name: str, num_draft: int) -> bool:
    """Whether a draft can propose K patches at once."""
    size = 1 if subject.setup.data.variables == "separate" else len(subject.data.names)
    try:
        check_draft(subject.pairs[name], subject.setup.data.context_len, size, num_draft)
    except InputError:
        return False
    return True


def choose(config: TuneConfig, rows: Sequence[Row], horizon: int) -> Row:
    """The fastest row of a horizon within the error and the distance; adds `relative_error`."""
    rows = [row for row in rows if row["horizon"] == horizon]
    least = min(row["error"] for row in rows if row["method"] == "target")
    for row in rows:
        row["relative_error"] = row["error"] / least - 1

    def close(row: Row) -> bool:
        distance = row["distance_over_drafts"]
        return distance is None or config.max_distance is None or distance <= config.max_distance

    within = [row for row in rows if row["relative_error"] <= config.max_error and close(row)]
    return min(within, key=lambda row: float(row["seconds"]))


def verdict(row: Row) -> str:
    """The best setting of a horizon as flags of an evaluation."""
    start = f"horizon {row['horizon']}: --process {row['process']}"
    if row["rule"] is None:
        return f"{start}, the target only; speculation does not pay within this error."
    tolerance = "" if row["tolerance"] is None else f":tolerance={row['tolerance']:g}"
    flags = f"--rules {row['rule']}{tolerance} --num_draft {row['num_draft']}"
    return f"{start} {flags} --drafts {row['draft']}"
