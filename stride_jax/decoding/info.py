"""Statistics of a decode: counts, origins, proposals, and the trace with its rows."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.decoding.base import ACCEPTED, BONUS, RECOVERED, DecodeInfo, Outcome, Round, Trace
from stride_jax.decoding.rules.common import gaps
from stride_jax.errors import InputError


def empty_info(num_draft: int, room: int, patch: tuple[int, ...], *, trace: bool) -> DecodeInfo:
    """Nothing decoded, with room for `room` patches and rounds."""
    zero = jnp.zeros((), jnp.int32)
    rows = None
    if trace:
        grid = jnp.zeros((room, num_draft), jnp.float32)
        numbers = jnp.full(room, -1, jnp.int32)
        rows = Trace(numbers, grid, grid, grid > 0, grid, length=numbers)
    return DecodeInfo(
        accepted=jnp.zeros(num_draft, jnp.int32),
        proposed=jnp.zeros(num_draft, jnp.int32),
        rounds=zero,
        target_passes=zero,
        drafted=zero,
        overflow=zero,
        origin=jnp.zeros(room, jnp.int32),
        proposal=jnp.full((room, *patch), jnp.nan, jnp.float32),
        trace=rows,
    )


def trimmed(info: DecodeInfo, count: int) -> DecodeInfo:
    """Without the spare room; leaves have leading `[B, S]`."""
    return info._replace(
        target_passes=info.rounds,
        origin=info.origin[:, :, :count],
        proposal=info.proposal[:, :, :count],
        trace=jax.tree.map(lambda x: x[:, :, :count], info.trace),
    )


def count_round(
    info: DecodeInfo,
    filled: jax.Array,
    current: Round,
    outcome: Outcome,
    emitted: jax.Array,
    count: int,
) -> DecodeInfo:
    """The info after a round; only proposals that fall within the N patches count.

    Args:
        info: before it, with room.
        filled: patches emitted before it.
        current: the round.
        outcome: what the rule decided.
        emitted: patches emitted in it; 0 for a path that has all.
        count: N.
    """
    length = current.length
    num_draft = current.proposals.shape[0]
    place = jnp.arange(num_draft + 1)
    within = (filled + place < count) & (place < length)
    within, before = within[:-1], place[:-1]
    last = jnp.where(outcome.num_accepted == length, BONUS, RECOVERED)
    origin = jnp.where(place < outcome.num_accepted, ACCEPTED, last).astype(jnp.int32)
    nothing = jnp.full_like(current.fresh[:1], jnp.nan)
    proposal = jnp.concatenate([current.proposals, nothing])
    proposal = jnp.where((place < length)[:, None, None], proposal, jnp.nan)
    active = emitted > 0
    ran_out = jnp.asarray(outcome.overflow) * (outcome.num_accepted < emitted)
    return info._replace(
        accepted=info.accepted + (within & (before < outcome.num_accepted)),
        proposed=info.proposed + (within & (before <= outcome.num_accepted)),
        rounds=info.rounds + active,
        drafted=info.drafted + jnp.where(active, length, 0),
        overflow=info.overflow + jnp.asarray(ran_out, jnp.int32),
        origin=jax.lax.dynamic_update_slice_in_dim(info.origin, origin, filled, 0),
        proposal=jax.lax.dynamic_update_slice_in_dim(info.proposal, proposal, filled, 0),
        trace=None
        if info.trace is None
        else _traced(info, filled, current, outcome, active, count),
    )


def _traced(
    info: DecodeInfo,
    filled: jax.Array,
    current: Round,
    outcome: Outcome,
    active: jax.Array,
    count: int,
) -> Trace:
    """The trace with this round written at its number; a finished path writes past round N."""
    trace = info.trace
    assert trace is not None
    missing = jnp.full(current.proposals.shape[0], jnp.nan, jnp.float32)
    place = jnp.arange(len(missing))
    row = Trace(
        start=jnp.where(active, filled, -1),
        log_ratio=missing if outcome.log_ratio is None else outcome.log_ratio,
        threshold=missing if outcome.threshold is None else outcome.threshold,
        accepted=place < outcome.num_accepted,
        gap=jnp.sqrt(jnp.mean(jnp.square(gaps(current)), axis=(1, 2))),
        length=current.length,
    )
    number = jnp.where(active, info.rounds, count)
    return jax.tree.map(
        lambda rows, new: jax.lax.dynamic_update_slice_in_dim(rows, new[None], number, 0),
        trace,
        row,
    )


COLUMNS = ("round", "position", "place", "log_ratio", "threshold", "accepted", "gap")


def rows(trace: Trace) -> list[dict[str, Any]]:
    """One row a drafted proposal of one path, in order.

    Columns: round, position (of the patch, from 0), place in the round, log_ratio and threshold,
    accepted, and gap (RMS distance of the two means in units of sigma). Most rules accept while
    log_ratio >= threshold; `block` accepts up to the last place where that holds, and an
    `mse_tolerance` accepts whatever the ratio.

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
