"""Recorded forecasts of the original code of a model, compared with those of its process here."""

from __future__ import annotations

import json
from collections.abc import Mapping
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


def relative(forecast: Any, recorded: Any) -> float:
    """The largest error over the largest recorded value.

    Raises:
        ValueError: the shapes differ.
    """
    forecast, recorded = np.asarray(forecast, np.float64), np.asarray(recorded, np.float64)
    if forecast.shape != recorded.shape:
        raise ValueError(f"shapes {forecast.shape} and {recorded.shape} differ.")
    return float(np.abs(forecast - recorded).max() / np.abs(recorded).max())


@compiled
def rolled(process: Process, context: jax.Array, length: Any, *, patches: int) -> tuple[Any, Any]:
    """The predictions of the autoregressive decode `[N, ...]`, and the memory of the context.

    Args:
        process: of the model.
        context: `[L, C]`.
        length: int32, steps of the history at its end; None for all.
        patches: N.
    """
    memory = process.prepare(context, length)
    nothing = jnp.zeros((0, process.patch_len, context.shape[1]))

    def step(state: Any, _: None) -> tuple[Any, Any]:
        predictions, state = process.verify(memory, state, nothing)
        state = process.commit(state, predictions.mean, jnp.int32(1))
        return state, jax.tree.map(lambda x: x[0], predictions)

    _, predictions = jax.lax.scan(step, process.start(memory, patches), length=patches)
    return predictions, memory


def fracast_sizes(recorded: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Fields of the config of a recorded Fracast-0 that only the original's settings tell."""
    given = json.loads(str(recorded["config"]))
    return {
        "context_len": given["W"],
        "num_scales": given["n_stages"],
        "future_layers": given["head_future_conv_layers"],
        "future_seed": given["head_future_conv_seed"],
        "phase_bins": given["head_phase_bins"],
    }


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
