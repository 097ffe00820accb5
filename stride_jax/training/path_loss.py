"""The score of sample paths: a target is trained on the forecasts that it is used for.

The loss of one patch ahead never sees a model go on from its own patches, and that is what a
forecast over several patches is made of. Here a few sample paths are drawn from the history as
`forecast` draws them, by the decoder's own process, and scored at every step; the gradient goes
through the patches that were fed back.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from stride_jax import metrics
from stride_jax.checkpoints.build import make_target
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.data.splits import ForecastData
from stride_jax.decoding.base import Process
from stride_jax.decoding.scale import Correlation, PatchCovariance, apply, check_factor, make_scale
from stride_jax.models.timer_xl import Params
from stride_jax.training.config import TrainConfig
from stride_jax.training.losses import UNIT_FLOOR, running_unit
from stride_jax.training.step import Metrics, Task, training_windows, with_changed_windows

NUM_PATHS = 4
"""Sample paths of a window."""
SHORTEST = 2
"""Patches of the shortest history."""
EXPECTED_FLOOR = 0.1
"""Added to the expected error that a loss is counted in, in the unit of the scores: a window whose
error is expected to be next to nothing does not dominate."""
VALIDATION_KEY = 0x50415448
"""Seed of the paths of a validation window, the same in every epoch."""


class PathScore(NamedTuple):
    """The score of the sample paths from one history, both scalars in one unit, see `path_crps`.

    Attributes:
        crps: mean of `metrics.crps` over all steps.
        expected: mean of the stds that the target predicts for the first patch ahead.
    """

    crps: jax.Array
    expected: jax.Array

    @property
    def relative(self) -> jax.Array:
        """The score in units of the error to be expected; no gradient goes through that unit.

        A mean of scores is made of the series that are hard to forecast. In these units those
        that are easily forecast count as much.
        """
        return self.crps / (jax.lax.stop_gradient(self.expected) + EXPECTED_FLOOR)


def path_task(
    config: TrainConfig, data: ForecastData, covariance: PatchCovariance | None = None
) -> Task:
    """The task of a target whose sample paths are scored, `config.ahead` patches of them.

    A step lowers the mean of `PathScore.relative`, the validation error is `PathScore.crps`.
    Every second window of a training step has a shorter history, of any number of patches from two
    on; those of the validation have all of it.

    Args:
        config: its loss is `paths`.
        data: the series.
        covariance: gives the correlations of the errors of a patch; None for independent ones.

    Raises:
        InputError: an unknown family of synthetic series, a split shorter than a window, or a
            covariance of another patch length.
    """
    model, context_len = config.trained_model, config.data.context_len
    patches = context_len // model.patch_len
    num_vars = 1 if config.data.variables == "separate" else data.values.shape[1]
    correlation = None
    if covariance is not None:
        check_factor(covariance.factor, (model.patch_len, num_vars))
        correlation = make_scale(covariance, (model.patch_len, num_vars)).correlation

    def score(params: Params, windows: jax.Array, key: jax.Array, lengths: jax.Array) -> PathScore:
        checkpoint = Checkpoint(model, params, context_len)
        process = make_target(checkpoint, "cached", None, num_vars)
        keys = jax.random.split(key, len(windows))
        of_one = functools.partial(path_crps, process, ahead=config.ahead, correlation=correlation)
        return jax.vmap(of_one)(keys, windows, lengths)

    def loss(params: Params, windows: jax.Array, key: jax.Array) -> tuple[jax.Array, Metrics]:
        length_key, path_key = jax.random.split(key)
        count = len(windows)
        fewer = jax.random.randint(length_key, (count,), min(SHORTEST, patches), patches + 1)
        shown = jnp.where(jnp.arange(count) % 2 == 0, patches, fewer)
        return jnp.mean(score(params, windows, path_key, shown * model.patch_len).relative), {}

    def validation_error(params: Params, windows: jax.Array) -> jax.Array:
        whole = jnp.full(len(windows), context_len, jnp.int32)
        return score(params, windows, jax.random.key(VALIDATION_KEY), whole).crps

    train, validation = training_windows(config.data, data, config.ahead * model.patch_len)
    task = Task(model, context_len, train, validation, loss, validation_error, "val_path_crps")
    return with_changed_windows(task, config.data, config.optim)


def path_crps(
    process: Process,
    key: jax.Array,
    window: jax.Array,
    length: jax.Array,
    *,
    ahead: int,
    correlation: Correlation | None,
) -> PathScore:
    """The score of a few sample paths from one history; differentiable.

    Every patch of a path has the std that the target predicts after the history, as in `forecast`.

    Args:
        process: a target that predicts a std and supports padding.
        key: of the paths; consumed.
        window: `[L + M * P, C]`, a context and the truth after it, NaN where that is unknown.
        length: int32, steps of the history at the end of the context, a multiple of P.
        ahead: M, patches that are scored.
        correlation: of the errors of a patch; None for independent ones.

    Returns:
        The score, in units of the std of the history, at least 0.2 of that of history and truth.
    """
    patch_len, num_vars = process.patch_len, window.shape[1]
    context_len = window.shape[0] - ahead * patch_len
    context, truth = window[:context_len], window[context_len:]
    memory = process.prepare(context, length)
    start = process.start(memory, ahead)
    nothing = jnp.zeros((0, patch_len, num_vars), jnp.float32)

    # Every patch has the std that is predicted after the history.
    after, _ = process.verify(memory, start, nothing)
    assert after.logvar is not None
    std = jnp.exp(after.logvar[0] / 2)

    def path(noise: jax.Array) -> jax.Array:
        def step(state: Any, noise: jax.Array) -> tuple[Any, jax.Array]:
            predictions, state = process.verify(memory, state, nothing)
            patch = predictions.mean[0] + apply(noise, std, correlation)
            return process.commit(state, patch[None], jnp.ones((), jnp.int32)), patch

        return jax.lax.scan(step, start, noise)[1]

    noise = jax.random.normal(key, (NUM_PATHS, ahead, patch_len, num_vars))
    # [S, M, P, C] -> [S, M * P, C]
    paths = jax.vmap(path)(noise).reshape(NUM_PATHS, *truth.shape)
    unit = _unit(window, context_len, length)
    crps = metrics.crps(paths / unit, truth / unit[0], ~jnp.isnan(truth))
    return PathScore(crps, jnp.mean(std / unit[0]))


def _unit(window: jax.Array, context_len: int, length: jax.Array) -> jax.Array:
    """The unit of the errors of each variable, `[1, 1, C]`: see `path_crps`."""
    place = jnp.arange(len(window))[:, None]
    whole = jnp.where(place >= context_len - length, window, jnp.nan)
    history = jnp.where(place < context_len, whole, jnp.nan)
    spread = jnp.nanstd(history, axis=0)[None, None, None]
    return running_unit(spread, whole[None], UNIT_FLOOR)[0]
