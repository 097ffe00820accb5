"""Recorded forecasts of the original code of a model, compared with those of its process here."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.decoding.base import Process
from stride_jax.decoding.compiled import compiled


class ParityErrors(NamedTuple):
    """Largest differences from a recorded forecast of N patches, over the range of the history.

    Over its level where the history is constant.

    Attributes:
        one_pass: the recorded patches but the last are verified in one pass, so that no error is
            fed back.
        decode: the process takes the patches one by one and feeds back its own.
    """

    one_pass: float
    decode: float


def parity_errors(
    process: Process, history: np.ndarray, recorded: np.ndarray, fed_back: int
) -> ParityErrors:
    """The errors of what a process reports.

    Args:
        process: of the model.
        history: `[L, C]`, NaN where a value is missing and the process takes that.
        recorded: `[N, P, C, Q]`, what the original reported.
        fed_back: which of the Q outputs the original fed back.
    """
    memory = process.prepare(jnp.asarray(history, jnp.float32))
    state = process.start(memory, len(recorded))
    proposals = jnp.asarray(recorded[:-1, ..., fed_back], jnp.float32)
    one_pass = np.asarray(_verified(process, memory, state, proposals))
    patches = []
    for _ in recorded:
        reported, state = _next_patch(process, memory, state, proposals[:0])
        patches.append(np.asarray(reported))
    wide = float(np.nanmax(history) - np.nanmin(history)) or float(np.nanmax(np.abs(history)))
    worst = [float(np.abs(ours - recorded).max()) for ours in (one_pass, np.stack(patches))]
    return ParityErrors(*(error / wide for error in worst))


@compiled
def _verified(process: Process, memory: Any, state: Any, proposals: jax.Array) -> Any:
    """Reported outputs after 0, 1, ..., K proposals, `[K + 1, P, C, Q]`."""
    return process.verify(memory, state, proposals)[0].reported


@compiled
def _next_patch(process: Process, memory: Any, state: Any, nothing: jax.Array) -> Any:
    """Reported outputs of the next patch, `[P, C, Q]`, and the state that has kept its mean."""
    predictions, state = process.verify(memory, state, nothing)
    reported: Any = predictions.reported
    return reported[0], process.commit(state, predictions.mean, jnp.ones((), jnp.int32))
