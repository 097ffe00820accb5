"""The experiments of `evaluate.py` on a trained pair: a first look, an evaluation, its speed.

`run` takes any config to its experiment; those of `grids`, `latency` and `testing.fidelity` join it
where they are imported.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from stride_jax.decoding.draft_length import DraftLength, find_draft_length
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError, counted
from stride_jax.evaluation.bench import (
    Batch,
    Decoder,
    Measured,
    Progress,
    measure,
    score,
    silent,
)
from stride_jax.evaluation.config import EvaluateConfig, QuickConfig, SpeedConfig
from stride_jax.evaluation.fastest import lengths_of, with_fastest
from stride_jax.evaluation.figures.forecasts import Picture
from stride_jax.evaluation.picture import draw_window, plotted
from stride_jax.evaluation.results import Content, Row, content
from stride_jax.evaluation.subject import (
    Loaded,
    Subject,
    build,
    describe,
    load,
    pair_decoders,
    parse_rules,
    rms,
    scoring_batches,
    timing_batches,
)
from stride_jax.forecasting.cost_file import default_path, read_costs


class Report(NamedTuple):
    """The results of an experiment.

    Attributes:
        content: of the result file.
        picture: one decoded window, or None.
    """

    content: Content
    picture: Picture | None = None


@functools.singledispatch
def run(config: Any, progress: Progress = silent, loaded: Loaded | None = None) -> Report:
    """The experiment of a config.

    Args:
        config: a config of an experiment.
        progress: called with a line on what is being done.
        loaded: series and target; None reads those that the setup names.

    Raises:
        InputError: a mistake in the config, before anything is compiled.
    """
    raise InputError(f"there is no experiment of a {type(config).__name__}.")


@run.register
def quick(config: QuickConfig, progress: Progress = silent, loaded: Loaded | None = None) -> Report:
    """A few decoders, timed and scored on the same windows, one series at a time."""
    rules, setup = parse_rules(config.rules, 1), config.setup
    loaded = loaded or load(setup)
    variable = plotted(config.plot_variable, loaded, progress)
    lengths = _lengths(config, loaded)
    subject = build(setup, loaded, lengths)
    rows: list[Row] = []
    for horizon in setup.horizons:
        windows = subject.windows(horizon)
        sizes = DecodeConfig(horizon, lengths[0], num_paths=1)
        decoders = _few(pair_decoders(subject, rules, sizes))
        decoders = _with_auto(config, subject, decoders, 1, progress)
        count = min(config.windows, windows.count)
        if count < config.windows:
            progress(f"horizon {horizon}: the test split has {counted(count, 'window')}")
        batches = timing_batches(subject, windows, horizon, 1, count)
        measured = measure(decoders, batches, progress)
        named = _rows(subject, measured, [_score(measured, one) for one in measured])
        rows += [{**row, "windows": count} for row in named]
        programs = [one.program for one in measured]
        picture = draw_window(subject, decoders, horizon, variable, programs)
    return Report(content("quick", rows, config, sigma=rms(subject.sigma)), picture)


def _few(decoders: Sequence[Decoder]) -> list[Decoder]:
    """The decoders of a first look: no draft only on sample paths, no output without a rule."""
    outputs = {decoder.samples for decoder in decoders if decoder.rule is not None}
    return [
        decoder
        for decoder in decoders
        if decoder.samples in outputs and not (decoder.samples and decoder.method == "draft")
    ]


@run.register
def evaluate(
    config: EvaluateConfig, progress: Progress = silent, loaded: Loaded | None = None
) -> Report:
    """Errors over every window of the test split, and times one batch at a time."""
    rules = parse_rules(config.rules, config.num_paths, learned=config.learned_scale)
    draft_length, setup = parse_draft_length(config.draft_length), config.setup
    loaded = loaded or load(setup)
    variable = plotted(config.plot_variable, loaded, progress)
    lengths = _lengths(config, loaded)
    subject = build(
        setup,
        loaded,
        lengths,
        both_processes=config.both_processes,
        diagonal=config.diagonal_sigma,
    )
    rows: list[Row] = []
    naive, missing, picture = {}, {}, None
    for horizon in setup.horizons:
        progress(f"horizon {horizon}")
        windows, learned = subject.windows(horizon), config.learned_scale
        paths = config.num_paths or None
        sizes = DecodeConfig(horizon, lengths[0], num_paths=paths, learned_scale=learned)
        decoders = pair_decoders(subject, rules, sizes, draft_length)
        decoders = _with_auto(config, subject, decoders, config.timing_batch, progress)
        singles = [decoder.with_config(num_paths=1) for decoder in decoders]
        spread = timing_batches(subject, windows, horizon, config.timing_batch, config.repeats)
        measured = measure(singles, spread, progress)
        batches = scoring_batches(subject, windows, horizon)
        scores = score_all(decoders, batches, progress)
        named = [one._replace(decoder=d) for one, d in zip(measured, decoders, strict=True)]
        counts = {"windows": windows.count, "batch": config.timing_batch}
        rows += [{**row, **counts} for row in _rows(subject, named, scores)]
        naive[str(horizon)] = naive_scores(batches, config.season)
        missing[str(horizon)] = missing_truths(batches)
        progress(
            "horizon {}: {missing} of {truths} truths are missing".format(
                horizon, **missing[str(horizon)]
            )
        )
        traced = [one.with_config(trace=one.rule is not None) for one in singles]
        picture = draw_window(subject, traced, horizon, variable)
    sigma = rms(subject.sigma)
    facts = {"sigma": sigma, "seasonal_naive": naive, "missing_truths": missing}
    results = content("evaluation", rows, config, **facts)
    return Report(results, picture)


@run.register
def speed(config: SpeedConfig, progress: Progress = silent, loaded: Loaded | None = None) -> Report:
    """Times, acceptances by place and memory of one path per series at every batch size."""
    rules, setup = parse_rules(config.rules, 1), config.setup
    both = config.both_processes
    loaded = loaded or load(setup)
    lengths = _lengths(config, loaded)
    subject = build(setup, loaded, lengths, both_processes=both)
    rows: list[Row] = []
    for horizon in setup.horizons:
        windows = subject.windows(horizon)
        sizes = DecodeConfig(horizon, lengths[0], num_paths=1)
        everything = pair_decoders(subject, rules, sizes)
        for size in config.batches:
            progress(f"horizon {horizon}, batch {size}")
            decoders = _with_auto(config, subject, everything, size, progress)
            batches = timing_batches(subject, windows, horizon, size, config.repeats)
            measured = measure(decoders, batches, progress)
            scores = [one.tally.scores() for one in measured]
            shown = [{name: s[name] for name in SPEED_SCORES} for s in scores]
            memory = [{"batch": size, "memory_bytes": m.program.memory_bytes} for m in measured]
            group = _rows(subject, measured, shown)
            rows += [{**row, **facts} for row, facts in zip(group, memory, strict=True)]
            jax.clear_caches()  # another batch size is another program
    return Report(content("speed", rows, config, sigma=rms(subject.sigma)))


PairConfig = QuickConfig | EvaluateConfig | SpeedConfig
"""Configs of the experiments on a trained pair."""


def _lengths(config: PairConfig, loaded: Loaded) -> list[int]:
    """K that the drafts must be able to propose; the first is that of all decoders until chosen."""
    patch_len = loaded.target.model.patch_len
    return lengths_of(config.num_draft, config.setup.horizons, patch_len)


def _with_auto(
    config: PairConfig,
    subject: Subject,
    decoders: list[Decoder],
    batch: int,
    progress: Progress,
) -> list[Decoder]:
    """The decoders of a config, which with num_draft auto are those that pay."""
    if config.num_draft != "auto":
        return decoders
    return with_fastest(subject, decoders, batch, read_costs(default_path()), progress)


SPEED_SCORES = ("target_passes", "patches_per_round", "acceptance", "acceptance_by_place")
"""Scores in the rows of `speed`."""


def parse_draft_length(text: str) -> DraftLength:
    """A draft length from its name and settings, as in `gain:draft_cost=0.1`.

    Raises:
        InputError: an unknown name or setting, or a value that is no number.
    """
    name, _, settings = text.partition(":")
    parts = [part.partition("=") for part in settings.split(",") if part]
    try:
        return find_draft_length(name, **{field.strip(): float(v) for field, _, v in parts})
    except (TypeError, ValueError) as error:
        raise InputError(f"draft_length {text!r}: {error}") from error


# --- scores and rows -----------------------------------------------------------------------------


def score_all(
    decoders: Sequence[Decoder], batches: Sequence[Batch], progress: Progress = silent
) -> list[dict[str, Any]]:
    """The scores of every decoder; distances are from the target of the same output and process.

    Speculative decoders leave a trace, from which the closed form of the acceptance is taken.
    """
    traced = [d.with_config(trace=True) if d.rule is not None else d for d in decoders]
    references: dict[Any, np.ndarray] = {}
    scores = []
    for decoder, tally in zip(decoders, score(traced, batches, progress), strict=True):
        same = decoder.samples, decoder.label.process
        scores.append(tally.scores(references.get(same)))
        if decoder.method == "target":
            references[same] = tally.forecasts()
    return scores


def _score(measured: Sequence[Measured], one: Measured) -> dict[str, Any]:
    """The scores of one of the measured decoders; no distance for the target itself."""
    target = reference(measured, one.decoder)
    return one.tally.scores(None if target is one else target.tally.forecasts())


def reference(measured: Sequence[Measured], decoder: Decoder) -> Measured:
    """The target only with the output and the process of a decoder."""

    def label(one: Decoder) -> Any:
        return one.samples, one.label.process, one.config.horizon

    targets = [one for one in measured if one.decoder.method == "target"]
    return next(one for one in targets if label(one.decoder) == label(decoder))


def _rows(
    subject: Subject, measured: Sequence[Measured], scores: Sequence[dict[str, Any]]
) -> list[Row]:
    """The rows of decoders of one horizon and batch size.

    Speedups are over the target only of the same process, and over the fastest of its processes,
    both with the same output.
    """
    rows = []
    for one, numbers in zip(measured, scores, strict=True):
        same = [
            m.seconds
            for m in measured
            if m.decoder.method == "target" and m.decoder.samples == one.decoder.samples
        ]
        rows.append(
            {
                **describe(subject, one.decoder),
                **numbers,
                "seconds": one.seconds,
                "compile_seconds": one.program.compile_seconds,
                "speedup": reference(measured, one.decoder).seconds / one.seconds,
                "speedup_over_fastest": min(same) / one.seconds,
            }
        )
    return rows


def naive_scores(batches: Sequence[Batch], season: int) -> dict[str, float]:
    """MSE and MAE of repeating the last `season` steps, over every observed truth."""
    totals, count = {"mse": 0.0, "mae": 0.0}, 0
    for batch in batches:
        real = np.asarray(batch.weight) > 0
        past, truth = np.asarray(batch.context)[real], np.asarray(batch.truth)[real]
        steps = np.arange(truth.shape[1]) % season
        error = (past[:, -season:][:, steps] - truth).astype(np.float64)
        totals["mse"] += float(np.nansum(np.square(error)))
        totals["mae"] += float(np.nansum(np.abs(error)))
        count += int(np.sum(~np.isnan(error)))
    return {name: total / count for name, total in totals.items()}


def missing_truths(batches: Sequence[Batch]) -> dict[str, int]:
    """Truths of all windows, and those among them that were not observed and are not scored."""
    truths = [np.asarray(batch.truth)[np.asarray(batch.weight) > 0] for batch in batches]
    missing = sum(int(np.isnan(truth).sum()) for truth in truths)
    return {"missing": missing, "truths": sum(truth.size for truth in truths)}
