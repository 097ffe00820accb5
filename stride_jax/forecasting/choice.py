"""Whether to speculate: a decision by measured costs, or by a model of them where none is known.

`choose` decides and does nothing else. Costs are measured by `evaluation.calibration.calibrate`,
and kept in a file by device, pair and shapes; see `cost_file`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding.base import Rule
from stride_jax.decoding.lanes import LEAST_LANES, LEAST_PATCHES
from stride_jax.decoding.several import chains_of

MEASURED_GAIN, ESTIMATED_GAIN = 1.05, 1.5
"""How much faster speculation has to be than the target alone, by what is known of its cost."""

ACCEPTANCE, VERIFY_LAUNCHES = 0.8, 1.3
"""Share of proposals that an estimate takes to be accepted, and launches of a verification over
those of a pass on a GPU (docs/results/launches.md)."""

CALL, SPECULATIVE_CALL = 350, 600
"""Launches that cost as much as a call on a GPU besides its passes, its prefill included, where
results are kept: .7 ms for the target alone and 1.2 ms with a draft, at 2 microseconds each
(docs/results/accelerator.md)."""

COMPACTED = 1.4
"""About the lanes x rounds that a large batch plays on a CPU over those that its paths need, where
it goes on in smaller batches (docs/results/quality.md)."""

ROWS = (1, 5, 7, 28, 35, 112)
MILLISECONDS = (12.0, 22.0, 29.0, 54.0, 59.0, 75.0)
"""A pass of so many rows, 8 layers of width 1024 in float32 on two cores of a CPU (measured)."""

NUM_DRAFTS = (2, 4, 8)
"""K that are tried."""

MANY = 256
"""Patches of a path from which on its rounds are taken to grow in proportion."""


class Work(NamedTuple):
    """The work of a decode, on which its cost depends; equal work has equal costs.

    Attributes:
        device: its kind.
        pair: a hash of the static structure and of the shapes of both models.
        rule: with its settings.
        patches: N of a path.
        lanes: paths decoded at a time, rounded up to a power of two.
        num_vars: C.
        context: patches of the longest context, one of few sizes (see `lengths.few_patches`).
        chains: of proposals that a round drafts and verifies for each path.
    """

    device: str
    pair: str
    rule: str
    patches: int
    lanes: int
    num_vars: int
    context: int
    chains: int = 1

    @property
    def key(self) -> str:
        """One line that names it in the file of costs."""
        return " | ".join(map(str, self))


class Costs(NamedTuple):
    """The costs of one decode, all in one unit.

    Attributes:
        plain: of the target alone.
        speculative: with the draft, by K.
        measured: on this device, else estimated.
    """

    plain: float
    speculative: Mapping[int, float]
    measured: bool


class Choice(NamedTuple):
    """How to decode.

    Attributes:
        num_draft: K; 0 for the target alone.
        reason: one line, for a person.
    """

    num_draft: int
    reason: str


def choose(costs: Costs) -> Choice:
    """The cheapest decode; the target alone unless speculation is faster by a margin.

    Measured costs need a gain of 5 %, so that their noise does not make a decode slower. An
    estimate does not know the acceptance, so it needs a gain of half. A cost that is no finite
    number above 0 is not known, and nothing is gained over it.
    """
    alone = "decoded by the target alone"
    if not costs.speculative:
        return Choice(0, f"{alone}: a forecast of one patch leaves nothing to propose")
    if not _known(costs.plain):
        return Choice(0, f"{alone}: its own cost is not known")
    how = "measured" if costs.measured else "estimated"
    least = MEASURED_GAIN if costs.measured else ESTIMATED_GAIN
    usable = {k: cost for k, cost in costs.speculative.items() if _known(cost)}
    if not usable:
        return Choice(0, f"{alone}: no cost with the draft is known")
    best = min(usable, key=lambda k: (usable[k], k))
    gain = costs.plain / usable[best]
    text = f"num_draft {best} is {gain:.2f} times as fast as the target alone ({how})"
    if not gain >= least:
        return Choice(0, f"{alone}: {text}, and {least} would pay")
    return Choice(best, f"decoded with the draft: {text}")


def _known(cost: float) -> bool:
    """Whether a cost is a finite number above 0."""
    return bool(np.isfinite(cost) and cost > 0)


def work_of(pair: Pair, rule: Rule, patches: int, lanes: int, num_vars: int, context: int) -> Work:
    """The work of a decode on the default device.

    Args:
        pair: target and draft.
        rule: with its settings.
        patches: N of a path.
        lanes: paths decoded at a time.
        num_vars: C.
        context: patches of the longest context.
    """
    device = jax.devices()[0]
    name = hashlib.blake2b(_structure(pair).encode(), digest_size=6).hexdigest()
    rounded = 1 << max(0, lanes - 1).bit_length()
    kind = f"{device.platform} {device.device_kind}"
    text = _lasting(repr(rule))
    return Work(kind, name, text, patches, rounded, num_vars, context, chains_of(rule))


def _structure(pair: Pair) -> str:
    """The static fields of both models, and the shape and type of each of their arrays.

    It is the same in every run. Parameters do not count, only what a decode is compiled for.
    """
    leaves, structure = jax.tree.flatten(pair)
    types = [(np.shape(leaf), str(getattr(leaf, "dtype", type(leaf).__name__))) for leaf in leaves]
    models = type(pair.target).__qualname__, type(pair.draft).__qualname__
    return _lasting(repr((*models, str(structure), types)))


def _lasting(text: str) -> str:
    """A repr without the addresses of functions and objects, which differ from run to run."""
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", text)


def estimate(pair: Pair, work: Work, num_drafts: Sequence[int] = NUM_DRAFTS) -> Costs:
    """Costs from the sizes of the models and a usual acceptance.

    On a CPU a pass and the prefill cost their rows (patches x variables x paths), and a draft step
    its share of the parameters. On an accelerator passes and steps cost their launches, about one
    for each array of parameters, and the call costs some more; only a single path is estimated
    there. A draft without steps proposes all K in one.
    """
    target, draft = (jax.tree.leaves(part) for part in (pair.target, pair.draft))
    tried = useful(num_drafts, work.patches, pair.draft)
    stepwise = hasattr(pair.proposer(), "step")
    steps = {k: k if stepwise else 1 for k in tried}
    if work.device.startswith("cpu"):
        share = _numbers(draft) / max(1, _numbers(target))
        before = pass_of(work.num_vars * work.context) / pass_of(work.lanes * work.num_vars)
        costs = {k: before + _on_cpu(work, k, steps[k] * share) for k in tried}
        return Costs(before + work.patches, costs, measured=False)

    def on_gpu(num_draft: int) -> float:
        launches = VERIFY_LAUNCHES * len(target) + steps[num_draft] * len(draft)
        return SPECULATIVE_CALL + slowest(work.patches, num_draft, 1) * launches

    plain = float(CALL + work.patches * len(target))
    return Costs(plain, {k: on_gpu(k) for k in tried}, measured=False)


def _numbers(leaves: Sequence[Any]) -> int:
    """How many numbers the arrays hold."""
    return sum(int(np.size(leaf)) for leaf in leaves)


def _on_cpu(work: Work, num_draft: int, share: float) -> float:
    """The rounds of a decode on a CPU in passes; `share` is that of all proposals of a round.

    A batch plays as many rounds as its slowest path, or goes on in smaller batches where it is
    large. What several chains are accepted more is not in the estimate.
    """
    rows = work.lanes * work.num_vars
    drafted = rows * work.chains
    if work.lanes >= LEAST_LANES and work.patches >= LEAST_PATCHES:
        rounds = COMPACTED * slowest(work.patches, num_draft, 1)
    else:
        rounds = slowest(work.patches, num_draft, work.lanes)
    verify = pass_of(drafted * (num_draft + 1))
    propose = share * pass_of(drafted)
    return rounds * (verify + propose) / pass_of(rows)


def slowest(patches: int, num_draft: int, lanes: int, acceptance: float = ACCEPTANCE) -> float:
    """The expected rounds of the slowest of some paths.

    Each proposal is accepted alike and on its own, so a round emits `m + 1` patches with
    probability `a^m (1 - a)`, and K + 1 with `a^K` (Leviathan et al. 2023, section 3.1).

    Args:
        patches: N of each path; from `MANY` on in proportion, which is up to a tenth too much.
        num_draft: K.
        lanes: paths that decode together.
        acceptance: a.
    """
    if patches > MANY:
        return slowest(MANY, num_draft, lanes, acceptance) * patches / MANY
    places = np.arange(num_draft + 1)
    emitted = acceptance**places * np.where(places < num_draft, 1 - acceptance, 1.0)
    missing = np.zeros(patches + 1)  # the probability that a path still needs so many patches
    missing[patches] = 1.0
    rounds = 0.0
    while (unfinished := missing[1:].sum()) > 1e-9:
        rounds += 1 - (1 - unfinished) ** lanes  # P(the slowest plays this round too)
        left = np.zeros_like(missing)
        for count, probability in enumerate(emitted, 1):
            left[0] += probability * missing[1 : count + 1].sum()
            left[1 : max(1, patches + 1 - count)] += probability * missing[1 + count :]
        missing = left
    return rounds


def useful(num_drafts: Sequence[int], patches: int, draft: Any = None) -> list[int]:
    """K in order, each cut to what there is to propose.

    That is N - 1 patches, beside one of the target's own, and no more than a draft can propose in a
    round where it says so (`longest_round`, see `Draft`).
    """
    most = min(patches - 1, getattr(draft, "longest_round", patches))
    return sorted({min(k, most) for k in num_drafts} - {0})


def pass_of(rows: int) -> float:
    """Milliseconds of a pass of so many rows on a CPU, see `MILLISECONDS`."""
    if rows > ROWS[-1]:
        return MILLISECONDS[-1] * rows / ROWS[-1]
    return float(np.interp(rows, ROWS, MILLISECONDS))


def decide(pair: Pair, work: Work, known: Mapping[str, Any]) -> Choice:
    """The choice for a piece of work, by its measured costs if they are known, else by estimate.

    Args:
        pair: target and draft.
        work: what is to be decoded.
        known: `Costs` by the keys of work.
    """
    if pair.draft is None:
        return Choice(0, "decoded by the target alone: there is no draft")
    costs = known.get(work.key)
    if costs is None and work.lanes > 1 and not work.device.startswith("cpu"):
        text = "what a batch costs on an accelerator is not estimated; `calibrate` measures it"
        return Choice(0, f"decoded by the target alone: {text}")
    return choose(costs or estimate(pair, work))
