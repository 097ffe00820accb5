"""The loss of sample paths: what it scores, and that its gradient is right."""

import dataclasses
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.training import MODEL, series_of, train_config

from stride_jax import metrics
from stride_jax.checkpoints.build import make_target
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.decoding.scale import PatchCovariance, make_scale
from stride_jax.errors import InputError
from stride_jax.models.timer_xl import TimerXL, init_params
from stride_jax.training import loop
from stride_jax.training.path_loss import NUM_PATHS, path_crps, path_task

P, CONTEXT, AHEAD = 8, 32, 2
GAUSSIAN = dataclasses.replace(
    MODEL, head="gaussian", instance_norm="causal", variable_stride=0, dropout=0.0
)
PARAMS = init_params(jax.random.key(3), GAUSSIAN)
FACTOR = np.linalg.cholesky(0.6 ** np.abs(np.subtract.outer(np.arange(P), np.arange(P))))
CORRELATION = make_scale(PatchCovariance(FACTOR), (P, 1)).correlation
WINDOW = np.cumsum(np.random.default_rng(0).normal(size=(CONTEXT + AHEAD * P, 1)), axis=0).astype(
    np.float32
)


def score(params, window=WINDOW, length=CONTEXT, key=5, correlation=CORRELATION):
    """`path_crps` of the toy target."""
    process = make_target(Checkpoint(GAUSSIAN, params, CONTEXT), "cached", None, 1)
    of_one = jax.jit(lambda *args: path_crps(process, *args, ahead=AHEAD, correlation=correlation))
    return of_one(jax.random.key(key), window, jnp.asarray(length, jnp.int32))


@functools.partial(jax.jit, static_argnames=("length", "stopped"))
def score_by_hand(params, window, key, length=CONTEXT, stopped=False):
    """The same without caches, padding and loops: the whole series so far in every pass."""
    history, truth = window[CONTEXT - length : CONTEXT], window[CONTEXT:]

    def after(series):
        mean, logvar = TimerXL(GAUSSIAN).apply({"params": params}, series[None], last_only=True)
        return mean[0], jnp.exp(logvar[0] / 2)

    def path(noise):
        series = history
        for patch in noise:
            fed = jax.lax.stop_gradient(series) if stopped else series
            error = after(history)[1] * (jnp.asarray(FACTOR, jnp.float32) @ patch)
            series = jnp.concatenate([series, after(fed)[0] + error])
        return series[length:]

    paths = jax.vmap(path)(jax.random.normal(key, (NUM_PATHS, AHEAD, P, 1)))
    whole = jnp.concatenate([history, truth])
    unit = jnp.maximum(jnp.std(history), 0.2 * jnp.std(whole))
    return metrics.crps(paths / unit, truth / unit)


@pytest.mark.parametrize("length", [2 * P, CONTEXT])
def test_it_scores_the_paths_that_a_forecast_draws(length: int) -> None:
    """The target would be trained on paths of another history, another std, or other errors."""
    expected = score_by_hand(PARAMS, WINDOW, jax.random.key(5), length)
    np.testing.assert_allclose(score(PARAMS, length=length), expected, rtol=1e-4)
    independent = score(PARAMS, length=length, correlation=None)
    assert abs(independent / expected - 1) > 1e-3


def test_steps_before_a_shorter_history_do_not_matter() -> None:
    """Short histories would be trained with the values that they lack."""
    other = WINDOW.copy()
    other[: CONTEXT - 2 * P] = 1e3
    assert score(PARAMS, other, 2 * P) == score(PARAMS, WINDOW, 2 * P)
    assert score(PARAMS, other) != score(PARAMS, WINDOW)


def test_the_score_does_not_depend_on_level_and_scale() -> None:
    """Series of large numbers would dominate the others."""
    np.testing.assert_allclose(score(PARAMS, 50 * WINDOW + 300), score(PARAMS), rtol=1e-3)


def test_the_gradient_goes_through_the_patches_that_are_fed_back() -> None:
    """Only the last pass of a path would learn: the loss of one patch again."""
    found = jax.grad(score)(PARAMS)
    by_hand = jax.grad(score_by_hand)(PARAMS, WINDOW, jax.random.key(5))
    stopped = jax.grad(score_by_hand)(PARAMS, WINDOW, jax.random.key(5), stopped=True)

    def distance(other):
        apart = jax.tree.map(lambda a, b: jnp.sum(jnp.square(a - b)), found, other)
        size = jax.tree.map(lambda a: jnp.sum(jnp.square(a)), found)
        return float(jnp.sqrt(sum(jax.tree.leaves(apart)) / sum(jax.tree.leaves(size))))

    assert distance(by_hand) < 1e-3
    assert distance(stopped) > 0.1


def path_config(out: Path, **optim: object):
    """A run of a few seconds with the loss of sample paths."""
    config = train_config(out, **optim)
    data = dataclasses.replace(config.data, variables="separate")
    return dataclasses.replace(config, model=GAUSSIAN, data=data, loss="paths", ahead=2)


def test_training_lowers_the_score_of_the_paths(tmp_path: Path) -> None:
    """A wrong sign, or truths that are not those of the history."""
    covariance = PatchCovariance(FACTOR)
    loop.train(path_config(tmp_path, epochs=3), series_of(), covariance=covariance)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [r["loss"] for r in records if "loss" in r]
    assert losses[-1] < 0.7 * losses[0]
    assert [r["val_path_crps"] for r in records if "val_path_crps" in r]


def test_the_validation_score_is_the_same_in_every_epoch(tmp_path: Path) -> None:
    """The best parameters would be those of the luckiest draw."""
    task = path_task(path_config(tmp_path), series_of())
    windows = jnp.asarray(np.stack([WINDOW[: 32 + 2 * P]] * 2))
    error = jax.jit(task.validation_error)
    first, second = error(PARAMS, windows)
    assert first != second  # two windows do not share their noise
    np.testing.assert_array_equal(error(PARAMS, windows), jnp.stack([first, second]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"head": "mean"}, "loss paths scores a distribution"),
        ({"instance_norm": "window"}, "set model.instance_norm causal"),
    ],
)
def test_a_model_that_draws_no_paths_is_refused(
    tmp_path: Path, changes: dict[str, str], words: str
) -> None:
    """The error would come from the depths of the decoder."""
    config = path_config(tmp_path)
    with pytest.raises(InputError, match=words):
        dataclasses.replace(config, model=dataclasses.replace(GAUSSIAN, **changes))


def test_a_covariance_of_another_loss_is_refused(tmp_path: Path) -> None:
    """The errors would be independent, and nobody would be told."""
    config = dataclasses.replace(path_config(tmp_path), covariance="zero_shot")
    with pytest.raises(InputError, match="the loss is crps"):
        dataclasses.replace(config, loss="crps")


def test_a_covariance_of_another_patch_length_is_refused(tmp_path: Path) -> None:
    """It would be broadcast, or fail while compiling."""
    with pytest.raises(InputError, match=r"must be \[P, P\]"):
        path_task(path_config(tmp_path), series_of(), PatchCovariance(np.eye(P + 1)))
