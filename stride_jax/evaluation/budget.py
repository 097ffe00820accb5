"""Settings within an error budget: what each costs window by window, and the cheapest of them.

The error is the distance from the target's own mean path. A budget is fitted on one part of the
data, and what it costs is measured on another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from stride_jax.decoding.types import DecodeConfig, DecodeInfo
from stride_jax.errors import InputError
from stride_jax.evaluation.bench import Batch, Decoder, compile_all
from stride_jax.evaluation.subject import Subject, draft_only, target_only


class Trial(NamedTuple):
    """One decoder on W windows; float64, each `[W]`.

    Attributes:
        forecasts: `[W, H, C]`, mean paths.
        error: mean squared error against the truth.
        passes: target passes.
        steps: draft steps of a series that is decoded by itself.
    """

    forecasts: np.ndarray
    error: np.ndarray
    passes: np.ndarray
    steps: np.ndarray

    def distance(self, reference: Trial) -> np.ndarray:
        """Mean squared distance from the forecasts of another decoder, `[W]`."""
        return np.mean(np.square(self.forecasts - reference.forecasts), axis=(1, 2))

    def cost(self, draft_cost: float) -> float:
        """Mean cost of a forecast in target passes.

        Args:
            draft_cost: c, the cost of one draft step over that of a verification.
        """
        return float(np.mean(self.passes + draft_cost * self.steps))


def try_all(decoders: Sequence[Decoder], batches: Sequence[Batch]) -> list[Trial]:
    """Decodes all batches by each decoder of one path; those alike but for values compile once."""
    decoders = [decoder.with_config(trace=_stops(decoder), compactions=0) for decoder in decoders]
    trials = []
    for decoder, program in zip(decoders, compile_all(decoders, batches[0]), strict=True):
        parts = []
        for batch in batches:
            forecast, info = program.decode(decoder, batch)
            parts.append(_trial(decoder, np.asarray(forecast), info, batch))
        trials.append(Trial(*(np.concatenate(part) for part in zip(*parts, strict=True))))
    return trials


def references(subject: Subject, horizon: int, batches: Sequence[Batch]) -> tuple[Trial, float]:
    """The target alone, and the draft's mean squared distance from it, of which budgets are shares.

    Args:
        subject: with one draft.
        horizon: steps.
        batches: windows.
    """
    config, (name,) = DecodeConfig(horizon), subject.pairs
    alone = [target_only(subject, config, 0.0), draft_only(subject, config, 0.0, name)]
    target, draft = try_all(alone, batches)
    return target, float(np.mean(draft.distance(target)))


def _stops(decoder: Decoder) -> bool:
    """Whether the draft may stop within a round."""
    return decoder.rule is not None and decoder.draft_length.stops


def _trial(decoder: Decoder, forecast: np.ndarray, info: DecodeInfo, batch: Batch) -> Trial:
    """One batch; forecast `[B, 1, H, C]`, `[B, H, C]` without the axis of paths."""
    real, forecast = np.asarray(batch.weight) > 0, forecast.astype(np.float64)
    if forecast.ndim == 4:
        forecast, info = forecast[:, 0], jax.tree.map(lambda x: x[:, 0], info)
    truth = np.asarray(batch.truth, np.float64)[:, : forecast.shape[1]]
    error = np.nanmean(np.square(forecast - truth), axis=(1, 2))
    steps = np.asarray(info.drafted, np.float64) + dropped(info, decoder.config.num_draft)
    passes = np.asarray(info.target_passes, np.float64)
    return Trial(forecast[real], error[real], passes[real], steps[real])


def dropped(info: DecodeInfo, num_draft: int) -> np.ndarray:
    """Patches that a draft predicted and did not propose, `[B]`; 0 without a trace.

    A draft that stops within a round has predicted the patch before which it stops.

    Args:
        info: with leading `[B]`.
        num_draft: K.
    """
    if info.trace is None:
        return np.zeros(np.shape(info.rounds))
    start, length = np.asarray(info.trace.start), np.asarray(info.trace.length)
    missing = np.asarray(info.origin).shape[-1] - start
    stopped = (start >= 0) & (length < np.minimum(missing, num_draft))
    return np.asarray(np.sum(stopped, axis=-1), np.float64)


def cheapest(trials: Sequence[Trial], reference: Trial, most: float, *, draft_cost: float) -> int:
    """The number of the cheapest setting whose mean distance is within a budget.

    Args:
        trials: of each setting, on the windows it is fitted to.
        reference: the target alone on the same windows.
        most: the largest mean squared distance allowed.
        draft_cost: see `Trial.cost`.

    Raises:
        InputError: none is within the budget.
    """
    distances = [float(np.mean(trial.distance(reference))) for trial in trials]
    within = [i for i, distance in enumerate(distances) if distance <= most]
    if not within:
        raise InputError(
            f"no setting is within a distance of {most:g}; the nearest is at "
            f"{min(distances, default=np.inf):g}. Try stricter settings."
        )
    return min(within, key=lambda i: trials[i].cost(draft_cost))


def cost_at(
    trials: Sequence[Trial], reference: Trial, distance: float, *, draft_cost: float
) -> float:
    """The cost of a family of settings at a mean distance, on a line between its neighbours.

    The line is one over the logarithm of the distance, where costs are closest to a line.

    Args:
        trials: of several settings, on the windows that are compared.
        reference: the target alone on the same windows.
        distance: at which the cost is asked for; beyond the ends it is that of the end.
        draft_cost: see `Trial.cost`.
    """
    distances = np.asarray([np.mean(trial.distance(reference)) for trial in trials])
    costs = [trial.cost(draft_cost) for trial in trials]
    order = np.argsort(distances)
    logs = np.log(np.maximum([distance, *distances[order]], np.finfo(np.float64).tiny))
    return float(np.interp(logs[0], logs[1:], np.asarray(costs)[order]))
