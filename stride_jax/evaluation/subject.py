"""The subject of an experiment: series, models and sigma, built once; its windows and decoders."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.checkpoints.build import (
    ProcessKind,
    make_pair,
    make_target,
    trained_kind,
)
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.checkpoints.pair import Pair
from stride_jax.checkpoints.store import find_model
from stride_jax.data.gaps import Gaps
from stride_jax.data.splits import ForecastData, load_data
from stride_jax.data.windows import Windows, make_windows, padded_batches
from stride_jax.decoding.base import Process, Rule
from stride_jax.decoding.draft_length import DraftLength, Fixed
from stride_jax.decoding.drafts import propose
from stride_jax.decoding.rules import parse_rule, rule_name
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError
from stride_jax.evaluation.bench import Batch, Decoder, Label
from stride_jax.evaluation.config import Setup
from stride_jax.forecasting.sigma import calibrate_scale, calibrate_sigma


class Loaded(NamedTuple):
    """The series and the trained target that a setup names.

    Attributes:
        data: standardised, with its splits.
        target: the checkpoint.
    """

    data: ForecastData
    target: Checkpoint


def load(setup: Setup) -> Loaded:
    """Reads the series and the target.

    Raises:
        InputError: see `data.splits.load_data` and `checkpoints.store.find_model`.
    """
    return Loaded(load_data(setup.data), find_model(setup.target))


class Subject(NamedTuple):
    """Series and models of an experiment under one process.

    Attributes:
        setup: what it was built from.
        data: the series.
        values: `[T, C]`, the standardised series on the device, or `Gaps` of it.
        pairs: target and draft by the draft's name.
        targets: the target by its process; the pairs' process first.
        sigma: std of the target's distribution; a number, or `[P, C]` if it is diagonal.
    """

    setup: Setup
    data: ForecastData
    values: jax.Array | Gaps
    pairs: dict[str, Pair]
    targets: dict[str, Process]
    sigma: Any

    @property
    def process(self) -> str:
        """The process of the pairs."""
        return next(iter(self.targets))

    @property
    def target(self) -> Process:
        """The target under the process of the pairs."""
        return self.targets[self.process]

    def windows(self, horizon: int, split: str = "test") -> Windows:
        """The scored windows of one horizon.

        Raises:
            InputError: the split is shorter than a window.
        """
        return make_windows(
            getattr(self.data.splits, split),
            self.setup.data.context_len + horizon,
            len(self.data.names),
            separate=self.setup.data.variables == "separate",
            stride=self.setup.stride,
            ahead=horizon,
        )


def build(
    setup: Setup,
    loaded: Loaded,
    num_drafts: Sequence[int] = (),
    *,
    process: ProcessKind | None = None,
    both_processes: bool = False,
    diagonal: bool = False,
) -> Subject:
    """The subject of an experiment; models are built and sigma is calibrated here, once.

    Args:
        setup: series, models and process.
        loaded: what `load` returns for it.
        num_drafts: K that every draft must be able to propose.
        process: the process instead of the setup's.
        both_processes: also build the target under its other process.
        diagonal: calibrate a sigma for each step and variable.

    Raises:
        InputError: models that do not fit each other or the context, or too large a K.
    """
    data, target = loaded
    if process is None:
        process = trained_kind(target.model) if setup.process == "auto" else setup.process
    size = 1 if setup.data.variables == "separate" else len(data.names)
    context = setup.data.context_len
    pairs = {name: make_pair(target, name, process, context, size) for name in setup.drafts}
    for pair in pairs.values():
        for num_draft in num_drafts:
            check_draft(pair, context, size, num_draft)
    targets: dict[str, Process] = {process: next(iter(pairs.values())).target}
    if both_processes:
        other: ProcessKind = "window" if process == "cached" else "cached"
        targets[other] = make_target(target, other, context, size)
    subject = Subject(setup, data, data.on_device, pairs, targets, setup.sigma)
    for horizon in setup.horizons:
        subject.windows(horizon)  # raises where none fits
    return subject if setup.sigma else subject._replace(sigma=_calibrated(subject, diagonal))


def check_draft(pair: Pair, context_len: int, num_vars: int, num_draft: int) -> None:
    """Raises InputError when a draft cannot propose K patches after such a context."""

    def once(context: jax.Array) -> Any:
        draft, patch = pair.proposer(), (pair.target.patch_len, num_vars)
        memory = draft.prepare(context)
        noise = jnp.zeros((num_draft, *patch))
        state = draft.start(memory, num_draft)
        return propose(draft, memory, state, noise, jnp.ones(patch), num_draft, learned=False)

    jax.eval_shape(once, jax.ShapeDtypeStruct((context_len, num_vars), jnp.float32))


def _calibrated(subject: Subject, diagonal: bool) -> Any:
    """Sigma of the target on the validation split."""
    setup = dataclasses.replace(subject.setup, stride=subject.setup.calibration_stride)
    windows = subject._replace(setup=setup).windows(subject.target.patch_len, "validation")
    calibrate = calibrate_scale if diagonal else calibrate_sigma
    return calibrate(subject.target, subject.values, windows, setup.batch_size)


def rms(sigma: Any) -> float:
    """A sigma as one number, the root of its mean square."""
    return float(np.sqrt(np.mean(np.square(np.asarray(sigma, np.float64)))))


# --- batches of windows --------------------------------------------------------------------------


def scoring_batches(subject: Subject, windows: Windows, horizon: int) -> list[Batch]:
    """All windows in order, all with the key of the setup; the last batch is filled up."""
    key = jax.random.key(subject.setup.seed)
    parts = zip(*padded_batches(windows.count, subject.setup.batch_size), strict=True)
    return [_batch(subject, windows, horizon, key, index, index, w) for index, w in parts]


def timing_batches(
    subject: Subject, windows: Windows, horizon: int, size: int, repeats: int
) -> list[Batch]:
    """Windows spread over the split for a first call and for each repeat, each with another key."""
    spaced = np.linspace(0, windows.count - 1, size * (repeats + 1)).astype(int)
    # [B * calls] -> [B, calls] -> [calls, B]: the windows of a call lie far apart
    numbers = jnp.asarray(spaced.reshape(size, repeats + 1).T)
    key, index = jax.random.key(subject.setup.seed), jnp.arange(size)
    keys = [jax.random.fold_in(key, number) for number in range(repeats + 1)]
    return [
        _batch(subject, windows, horizon, key, row, index, jnp.ones(size))
        for key, row in zip(keys, numbers, strict=True)
    ]


def _batch(
    subject: Subject, windows: Windows, horizon: int, key: Any, row: Any, index: Any, weight: Any
) -> Batch:
    """The windows of these numbers, with the series index of each."""
    series = windows.gather(subject.values, row)
    return Batch(key, series[:, :-horizon], series[:, -horizon:], index, weight)


# --- decoders ------------------------------------------------------------------------------------


def parse_rules(texts: Sequence[str], num_paths: int, *, learned: bool = False) -> list[Rule]:
    """The rules of these texts.

    Raises:
        InputError: an unknown rule or setting, a rule that samples where there are no sample
            paths, or one that ties the scales where models draw with their own.
    """
    rules = [parse_rule(text) for text in texts]
    for text, rule in zip(texts, rules, strict=True):
        if rule.proposes != "mean" and num_paths == 0:
            raise InputError(f"rule {text!r} draws sample paths; set num_paths to 2 or more.")
        if learned and rule.proposes == "sample" and rule.scales == "tied":
            raise InputError(
                f"learned_scale lets variances differ, which rule {text!r} does not allow; use "
                "--rules residual."
            )
    return rules


def target_only(
    subject: Subject, config: DecodeConfig, sigma: Any, process: str | None = None
) -> Decoder:
    """The target decoded patch by patch; sigma 0 gives its mean path."""
    name = process or subject.process
    sigma = jnp.asarray(sigma, jnp.float32)
    return Decoder(subject.targets[name], None, sigma, None, config, Label(name))


def draft_only(subject: Subject, config: DecodeConfig, sigma: Any, name: str) -> Decoder:
    """A draft decoded by itself; sigma 0 gives its mean path."""
    sigma, label = jnp.asarray(sigma, jnp.float32), Label(subject.process, name)
    return Decoder(None, subject.pairs[name].draft, sigma, None, config, label)


def speculative(
    subject: Subject,
    config: DecodeConfig,
    sigma: Any,
    name: str,
    rule: Rule,
    draft_length: DraftLength | None = None,
) -> Decoder:
    """Speculative decoding of one pair by one rule."""
    sigma, label = jnp.asarray(sigma, jnp.float32), Label(subject.process, name)
    pair = subject.pairs[name]
    parts = (pair.target, pair.draft, sigma, rule, config, label)
    return Decoder(*parts, Fixed() if draft_length is None else draft_length)


def pair_decoders(
    subject: Subject,
    rules: Sequence[Rule],
    config: DecodeConfig,
    draft_length: DraftLength | None = None,
) -> list[Decoder]:
    """All decoders of a subject: target only, drafts only, and every rule with every draft.

    Mean paths come first, one per window, then `config.num_paths` sample paths, with the model's
    own std if `config.learned_scale`.
    """
    mean = dataclasses.replace(config, num_paths=1, learned_scale=False)
    decoders = []
    for sizes, sigma in ((mean, 0.0), (config, subject.sigma)):
        if not sizes.num_paths:
            continue
        decoders += [target_only(subject, sizes, sigma, name) for name in subject.targets]
        decoders += [draft_only(subject, sizes, sigma, name) for name in subject.pairs]
        decoders += [
            speculative(subject, sizes, subject.sigma, name, rule, draft_length)
            for rule in rules
            if (rule.proposes == "mean") == (sizes is mean)
            for name in subject.pairs
        ]
    return decoders


SETTINGS = ("bias", "mse_tolerance", "tolerance")
"""Settings of rules that have a column in every result file."""


def describe(subject: Subject, decoder: Decoder) -> dict[str, Any]:
    """The columns of a row that say what decoded."""
    rule, config = decoder.rule, decoder.config
    settings = {} if rule is None else vars(rule)
    row = {
        "method": decoder.method,
        "output": "sample" if decoder.samples else "mean",
        "data": subject.setup.data.source,
        "context": subject.setup.data.context_len,
        "horizon": config.horizon,
        **decoder.label._asdict(),
        "rule": None if rule is None else rule_name(rule),
        "num_draft": None if rule is None else config.num_draft,
        "sigma": rms(decoder.sigma),
        "num_paths": config.num_paths,
    }
    return row | {name: settings.get(name) for name in SETTINGS}
