"""The decoders of an experiment with the K that is fastest on this device: `--num_draft auto`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding.base import Rule
from stride_jax.decoding.rules import rule_name
from stride_jax.decoding.types import num_patches
from stride_jax.evaluation.bench import Decoder, Progress
from stride_jax.evaluation.config import Lengths
from stride_jax.evaluation.subject import Subject
from stride_jax.forecasting.choice import NUM_DRAFTS, Costs, Work, decide, useful, work_of
from stride_jax.forecasting.lengths import few_patches


def lengths_of(num_draft: Lengths, horizons: Sequence[int], patch_len: int) -> list[int]:
    """K that the drafts must be able to propose: the one that is given, or all that auto tries."""
    if num_draft != "auto":
        return [num_draft]
    return useful(NUM_DRAFTS, num_patches(max(horizons), patch_len))


def with_fastest(
    subject: Subject,
    decoders: Sequence[Decoder],
    batch: int,
    known: Mapping[str, Costs],
    progress: Progress,
) -> list[Decoder]:
    """The decoders, each rule with its fastest K, and without the rules that would not pay.

    Args:
        subject: models and sizes.
        decoders: of any kind; K is set for those with a rule.
        batch: series that are decoded at a time.
        known: measured costs by the keys of work, see `forecasting.cost_file.read_costs`.
        progress: called with one line for each rule: its K and the reason.
    """
    fastest = []
    for decoder in decoders:
        if decoder.target is None or decoder.rule is None:
            fastest.append(decoder)
            continue
        pair, horizon = Pair(decoder.target, decoder.draft), decoder.config.horizon
        choice = decide(pair, _work(subject, pair, decoder.rule, horizon, batch), known)
        progress(f"{rule_name(decoder.rule)}, {decoder.label.draft}: {choice.reason}")
        if choice.num_draft:
            fastest.append(decoder.with_config(num_draft=choice.num_draft))
    return fastest


def _work(subject: Subject, pair: Pair, rule: Rule, horizon: int, batch: int) -> Work:
    """The work of decoding `horizon` steps of so many series by a rule."""
    patch_len, data = pair.target.patch_len, subject.setup.data
    return work_of(
        pair,
        rule,
        num_patches(horizon, patch_len),
        batch,
        1 if data.variables == "separate" else len(subject.data.names),
        few_patches(data.context_len // patch_len),
    )
