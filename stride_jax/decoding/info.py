"""Statistics of a decode: counts, origins, proposals, and the trace with its rows."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.decoding.base import Outcome, Round
from stride_jax.decoding.batching import overwrite
from stride_jax.decoding.rules.common import gaps
from stride_jax.decoding.types import ACCEPTED, BONUS, RECOVERED, DecodeInfo, Trace, no_value
from stride_jax.errors import InputError
from stride_jax.types import PatchDistribution


class Log(NamedTuple):
    """The outcomes of the rounds of one path; the counts are made of them after the last one.

    Everything stands at the place of a patch: a round at that of its first one. The room is N and
    K + 1 spare places, where a path that has its N patches still writes.

    Attributes:
        patches: `[room, P, C]`, the patches put out.
        proposal: `[room, P, C]`, what the draft proposed there, NaN where it proposed nothing.
        rounds: `[room, 3]` int32, the fields of `Played`; -1 where no round started.
        compared: `[room, 3, K]`, log ratio, threshold and gap of the round; None without a trace.
        reported: `[room, P, C, Q]`, what the target reports of each patch; None for nothing.
    """

    patches: jax.Array
    proposal: jax.Array
    rounds: jax.Array
    compared: jax.Array | None
    reported: jax.Array | None


class Played(NamedTuple):
    """One round, or `[N]` of them by the place of their first patch; int32.

    Attributes:
        length: proposals drafted, no more than were missing of N; -1 where no round started.
        accepted: the leading ones that the rule kept.
        overflow: 1 if a bounded loop of the rule ran out.
    """

    length: jax.Array
    accepted: jax.Array
    overflow: jax.Array


def empty_log(
    num_draft: int, room: int, patch: tuple[int, ...], *, trace: bool, outputs: int = 0
) -> Log:
    """Nothing decoded, with room for `room` patches and `outputs` reported values of each step."""
    reported = jnp.zeros((room, *patch, outputs), jnp.float32) if outputs else None
    return Log(
        patches=jnp.zeros((room, *patch), jnp.float32),
        proposal=jnp.full((room, *patch), no_value(), jnp.float32),
        rounds=jnp.full((room, len(Played._fields)), -1, jnp.int32),
        compared=jnp.zeros((room, 3, num_draft), jnp.float32) if trace else None,
        reported=reported,
    )


def write_round(
    log: Log,
    first: jax.Array,
    current: Round,
    outcome: Outcome,
    emitted: jax.Array,
    reported: jax.Array | None = None,
) -> Log:
    """The log after a round.

    Args:
        log: before it.
        first: int32, the place of its first patch.
        current: the round.
        outcome: what the rule decided.
        emitted: `[K + 1, P, C]`, the patches put out; those after the rule's own do not count.
        reported: `[K + 1, P, C, Q]`, what the target reports after 0, 1, ..., K proposals.
    """
    place = jnp.arange(len(emitted))[:, None, None]
    proposed = jnp.where(place < current.length, one_more(current.proposals), no_value())
    played = Played(current.length, outcome.num_accepted, jnp.asarray(outcome.overflow))
    played_row = jnp.stack([jnp.asarray(number, jnp.int32) for number in played])[None]
    compared = log.compared
    if compared is not None:
        compared = overwrite(compared, _compared(current, outcome)[None], first)
    outputs = log.reported
    if outputs is not None and reported is not None:
        outputs = overwrite(outputs, reported, first)
    return Log(
        patches=overwrite(log.patches, emitted, first),
        proposal=overwrite(log.proposal, proposed, first),
        rounds=overwrite(log.rounds, played_row, first),
        compared=compared,
        reported=outputs,
    )


def named_reports(prediction: PatchDistribution, count: int) -> jax.Array | None:
    """Outputs that a target reports, `[..., P, C, Q]` float32; None where its traits name none.

    Args:
        prediction: of the target.
        count: Q, the outputs that `Traits.reports` names; 0 keeps nothing.

    Raises:
        InputError: another number of outputs than are named, or none.
    """
    if not count:
        return None
    reported = prediction.reported
    if reported is None or reported.shape[-1] != count:
        shape = None if reported is None else reported.shape
        raise InputError(
            f"the target names {count} reported outputs in `reports`, its prediction holds "
            f"{shape}; name as many as its last axis has."
        )
    return jnp.asarray(reported, jnp.float32)


def one_more(patches: jax.Array) -> jax.Array:
    """`[K, P, C]` with a patch of zeros behind it; a pad fuses with what follows it."""
    return jnp.pad(patches, ((0, 1), (0, 0), (0, 0)))


def _compared(current: Round, outcome: Outcome) -> jax.Array:
    """Log ratio, threshold and gap of a round, `[3, K]`; NaN where the rule has none."""
    gap = jnp.sqrt(jnp.mean(jnp.square(gaps(current)), axis=(1, 2)))
    missing = jnp.full_like(gap, no_value())
    log_ratio = missing if outcome.log_ratio is None else outcome.log_ratio
    threshold = missing if outcome.threshold is None else outcome.threshold
    return jnp.stack([log_ratio, threshold, gap])


def decode_info(log: Log, num_draft: int, count: int) -> DecodeInfo:
    """The info of one path from the log of its rounds; only what falls within the N counts."""
    length, accepted, overflow = played = Played(*log.rounds[:count].T)
    places = jnp.arange(count, dtype=jnp.int32)
    started = length >= 0

    # Proposals by their place in the round, [N, K]; no round is longer than what is missing.
    place = jnp.arange(num_draft)[None]
    drafted = place < length[:, None]
    passed, tested = place < accepted[:, None], place <= accepted[:, None]

    # Where each patch comes from: the last round that started at or before it.
    first = jax.lax.cummax(jnp.where(started, places, 0))
    last = jnp.where(accepted == length, BONUS, RECOVERED)
    origin = jnp.where(places - first < accepted[first], ACCEPTED, last[first])

    rounds = _total(started)
    return DecodeInfo(
        accepted=_total(drafted & passed),
        proposed=_total(drafted & tested),
        rounds=rounds,
        target_passes=rounds,
        drafted=_total(jnp.where(started, length, 0)),
        overflow=_total(jnp.where(started & (accepted < count - places), overflow, 0)),
        origin=origin.astype(jnp.int32),
        proposal=log.proposal[:count],
        trace=None if log.compared is None else _trace(played, log.compared[:count]),
        reported=None if log.reported is None else log.reported[:count],
    )


def _total(numbers: jax.Array) -> jax.Array:
    """The sum over the first axis, int32."""
    return jnp.sum(numbers, axis=0, dtype=jnp.int32)


def _trace(played: Played, compared: jax.Array) -> Trace:
    """The trace, round by round, from what was logged by places; `compared [N, 3, K]`."""
    started = played.length >= 0
    order = jnp.argsort(~started, stable=True).astype(jnp.int32)  # the places of the rounds first
    log_ratio, threshold, gap = jnp.moveaxis(compared[order], 1, 0)  # [N, 3, K] -> [3, N, K]
    return Trace(
        start=jnp.where(started[order], order, -1),
        log_ratio=log_ratio,
        threshold=threshold,
        accepted=jnp.arange(gap.shape[1])[None] < played.accepted[order][:, None],
        gap=gap,
        length=played.length[order],
    )


COLUMNS = ("round", "position", "place", "log_ratio", "threshold", "accepted", "gap")


def rows(trace: Trace) -> list[dict[str, Any]]:
    """One row a drafted proposal of one path, in order.

    Columns: round, position (of the patch, from 0), place in the round, log_ratio and threshold,
    accepted, and gap (RMS distance of the two means in units of sigma, whitened with a covariance).
    Most rules accept while log_ratio >= threshold; `block` accepts up to the last place where that
    holds, and an `mse_tolerance` accepts whatever the ratio.

    Args:
        trace: of one path, without leading axes.

    Raises:
        InputError: None (decode with `DecodeConfig(trace=True)`), or a trace of several paths.
    """
    if trace is None or np.ndim(trace.start) != 1:
        raise InputError(
            "rows needs the trace of one path: decode with DecodeConfig(trace=True) and take one "
            "with jax.tree.map(lambda x: x[i], info.trace)."
        )
    rows_of_trace = []
    for number, start in enumerate(np.asarray(trace.start)):
        if start < 0:
            break
        for place in range(int(trace.length[number])):
            rows_of_trace.append(
                {
                    "round": number,
                    "position": int(start) + place,
                    "place": place,
                    "log_ratio": float(trace.log_ratio[number, place]),
                    "threshold": float(trace.threshold[number, place]),
                    "accepted": bool(trace.accepted[number, place]),
                    "gap": float(trace.gap[number, place]),
                }
            )
    return rows_of_trace


def save_csv(path: Path, trace: Trace) -> None:
    """Writes the rows of one path."""
    rows_of_trace = rows(trace)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows_of_trace)
