"""The trace of one decoded path as rows, a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from stride_jax.decoding import Trace
from stride_jax.errors import InputError

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
    found = []
    for number, start in enumerate(np.asarray(trace.start)):
        if start < 0:
            break
        for place in range(int(trace.length[number])):
            found.append(
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
    return found


def save_csv(path: Path, trace: Trace) -> None:
    """Writes the rows of one path."""
    found = rows(trace)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(found)
