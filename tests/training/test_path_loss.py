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
from stride_jax.training.path_loss import (
    EXPECTED_FLOOR,
    NUM_PATHS,
    VALIDATION_KEY,
    path_crps,
    path_task,
)

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


def scored(params, window=WINDOW, length=CONTEXT, key=5, correlation=CORRELATION):
    """`path_crps` of the toy target."""
    process = make_target(Checkpoint(GAUSSIAN, params, CONTEXT), "cached", None, 1)
    of_one = jax.jit(lambda *args: path_crps(process, *args, ahead=AHEAD, correlation=correlation))
    return of_one(jax.random.key(key), window, jnp.asarray(length, jnp.int32))


def score(*args, **kwargs):
    """The score alone."""
    return scored(*args, **kwargs).crps


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


def test_the_error_to_be_expected_is_the_std_that_the_target_predicts() -> None:
    """Windows would be weighed by an error of another patch, or by the truth that follows."""
    history = WINDOW[None, :CONTEXT]
    forward = jax.jit(lambda x: TimerXL(GAUSSIAN).apply({"params": PARAMS}, x, last_only=True))
    expected = jnp.mean(jnp.exp(forward(history)[1] / 2)) / jnp.std(history)
    other = WINDOW.copy()
    other[CONTEXT:] += 0.1
    for window in (WINDOW, other):
        np.testing.assert_allclose(scored(PARAMS, window).expected, expected, rtol=1e-4)


def test_the_unit_of_a_step_has_no_gradient() -> None:
    """The score would be lowered by predicting larger errors, not by better forecasts."""
    plain = scored(PARAMS)
    unit = plain.expected + EXPECTED_FLOOR
    np.testing.assert_allclose(plain.relative, plain.crps / unit, rtol=1e-6)
    found = jax.grad(lambda params: scored(params).relative)(PARAMS)
    wanted = jax.tree.map(lambda x: x / unit, jax.grad(score)(PARAMS))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), found, wanted)


def test_a_step_counts_easy_windows_as_much_as_hard_ones(tmp_path: Path) -> None:
    """A mean of scores is made of the hard ones; forecasts of the easy ones become less precise."""
    task, key = path_task(path_config(tmp_path), series_of()), jax.random.key(8)
    loss, _ = jax.jit(task.loss)(PARAMS, jnp.asarray(WINDOW)[None], key)
    _, path_key = jax.random.split(key)  # the other one is of the length, and the first is whole
    of_one = jax.random.split(path_key, 1)[0]
    process = make_target(Checkpoint(GAUSSIAN, PARAMS, CONTEXT), "cached", None, 1)
    whole = jnp.asarray(CONTEXT, jnp.int32)
    alone = path_crps(process, of_one, WINDOW, whole, ahead=AHEAD, correlation=None)
    np.testing.assert_allclose(loss, alone.relative, rtol=1e-5)
    assert abs(loss / alone.crps - 1) > 0.1


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


P, CONTEXT, AHEAD = 8, 32, 2


def whole_rows(tmp_path: Path, count: int, changed: slice) -> list[bool]:
    """Which windows of a step see these steps of their context."""
    task, key = path_task(path_config(tmp_path), series_of()), jax.random.key(8)
    loss, windows = jax.jit(task.loss), np.stack([WINDOW] * count)
    before, seen = loss(PARAMS, windows, key)[0], []
    for row in range(count):
        other = windows.copy()
        other[row, changed] += 3.0
        seen.append(bool(loss(PARAMS, other, key)[0] != before))
    return seen


def test_every_second_window_of_a_step_has_a_shorter_history(tmp_path: Path) -> None:
    """The target would be trained on whole contexts alone, or on one patch that tells no std."""
    whole = whole_rows(tmp_path, 32, slice(0, P))
    assert all(whole[::2])
    assert 0 < sum(whole[1::2]) < 16
    assert all(whole_rows(tmp_path, 32, slice(CONTEXT - 2 * P, CONTEXT - P)))


def test_windows_of_the_loss_of_paths_are_generated_and_mirrored(tmp_path: Path) -> None:
    """A training would take its series from the file alone, whatever its config asks for."""
    config = path_config(tmp_path)
    data = dataclasses.replace(config.data, synthetic_share=0.25, mirrored_share=0.5)
    task = path_task(dataclasses.replace(config, data=data), series_of())
    assert task.num_synthetic == config.optim.batch_size // 4
    assert task.synthetic is not None
    drawn = jax.eval_shape(lambda key: task.synthetic(key, 3), jax.random.key(0))
    assert drawn.shape == (3, *WINDOW.shape)
    assert task.mirrored == 0.5


def test_the_validation_error_is_the_score_of_the_whole_history(tmp_path: Path) -> None:
    """The best parameters would be those that predict the largest errors, or of another history."""
    task = path_task(path_config(tmp_path), series_of())
    process = make_target(Checkpoint(GAUSSIAN, PARAMS, CONTEXT), "cached", None, 1)
    of_one, whole = jax.random.split(jax.random.key(VALIDATION_KEY), 1)[0], jnp.int32(CONTEXT)
    alone = path_crps(process, of_one, WINDOW, whole, ahead=AHEAD, correlation=None)
    found = jax.jit(task.validation_error)(PARAMS, jnp.asarray(WINDOW)[None])
    np.testing.assert_allclose(found, [alone.crps], rtol=1e-5)
