"""Distillation of drafts that forecast several patches in one pass."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stride_jax import checkpoints, distillation, training
from stride_jax.checkpoints import Checkpoint
from stride_jax.config import (
    DataConfig,
    DecodeConfig,
    DistillConfig,
    OptimConfig,
    RunConfig,
    TimerXLConfig,
    TrainConfig,
)
from stride_jax.data.splits import ForecastData, prepare
from stride_jax.errors import InputError
from stride_jax.models.timer_xl import TimerXL, init_params
from stride_jax.pairs import make_pair
from stride_jax.speculative import decode_speculative
from stride_jax.types import Series

MODEL = TimerXLConfig(patch_len=4, d_model=16, num_heads=2, d_ff=16, dropout=0.0)
TARGET = Checkpoint(MODEL, init_params(jax.random.key(5), MODEL), 16)


@pytest.fixture(scope="module")
def data() -> ForecastData:
    """Two noisy sines."""
    t = np.arange(160)
    rng = np.random.default_rng(0)
    waves = np.stack([np.sin(t / 4), np.cos(t / 7)], axis=1) + 0.1 * rng.normal(size=(160, 2))
    return prepare(DataConfig(source="x.csv", context_len=16), Series(waves, ("a", "b")))


def distill_config(out: Path, **fields: object) -> DistillConfig:
    """Two steps."""
    values = {"factor": 0.5, "dropout": 0.0, "on_policy": 0.0, "output_patches": 3, **fields}
    return DistillConfig(
        data=DataConfig(source="x.csv", context_len=16),
        optim=OptimConfig(learning_rate=1e-3, batch_size=16, epochs=1, steps_per_epoch=2),
        run=RunConfig(out=str(out), log_every=1),
        **values,
    )


def test_one_patch_pairs_are_the_arrays_themselves() -> None:
    """Distillation of ordinary drafts would be shifted by a patch."""
    out, teacher = np.random.default_rng(0).normal(size=(2, 2, 12, 3)).astype(np.float32)
    ours, theirs = distillation.several_patches(jnp.asarray(out), jnp.asarray(teacher), 4, 1)
    np.testing.assert_array_equal(ours, out)
    np.testing.assert_array_equal(theirs, teacher)


@pytest.mark.parametrize("count", [2, 3])
def test_pairs_stand_for_the_same_patch(count: int) -> None:
    """A draft would be taught to say the second patch where it should say the first."""
    rng = np.random.default_rng(0)
    size, num = 2, 4
    out = rng.normal(size=(2, num * count * size, 3)).astype(np.float32)
    teacher = rng.normal(size=(2, num * size, 3)).astype(np.float32)
    ours, theirs = [], []
    for ahead in range(count):
        for position in range(num):
            if position + ahead >= num:
                continue  # the teacher has no such position
            for step in range(size):
                ours.append(out[:, (position * count + ahead) * size + step])
                theirs.append(teacher[:, (position + ahead) * size + step])
    got = distillation.several_patches(jnp.asarray(out), jnp.asarray(teacher), size, count)
    np.testing.assert_array_equal(got[0], np.stack(ours, axis=1))
    np.testing.assert_array_equal(got[1], np.stack(theirs, axis=1))


def apply(model: TimerXLConfig, params: object, x: np.ndarray) -> np.ndarray:
    """What a model says at every position."""
    return np.asarray(jax.jit(TimerXL(model).apply)({"params": params}, jnp.asarray(x)))


@pytest.mark.slow
@pytest.mark.parametrize("short", [None, 12])
def test_the_loss_is_the_distance_of_all_pairs(
    tmp_path: Path, data: ForecastData, short: int | None
) -> None:
    """A draft with a short context would be compared with the wrong patches of its teacher."""
    config = distill_config(tmp_path, output_patches=2, draft_context_len=short)
    draft = distillation.draft_config(config, MODEL)
    params = init_params(jax.random.key(1), draft)
    task = distillation.distillation_task(config, data, TARGET, draft)
    windows = np.asarray(task.train.gather(jnp.asarray(data.values), jnp.arange(5)))
    seen = short or 16
    teacher = apply(MODEL, TARGET.params, windows[:, :16])[:, 16 - seen :]
    student = apply(draft, params, windows[:, 16 - seen : 16]).reshape(5, seen // 4, 2, 4, 2)
    squares = []
    for position in range(seen // 4):
        for ahead in range(2):
            if position + ahead < seen // 4:
                theirs = teacher[:, 4 * (position + ahead) : 4 * (position + ahead + 1)]
                squares.append((student[:, position, ahead] - theirs) ** 2)
    loss, metrics = jax.jit(task.loss)(params, jnp.asarray(windows), jax.random.key(0))
    np.testing.assert_allclose(loss, np.mean(squares), rtol=1e-4)
    np.testing.assert_allclose(metrics["gap"], np.sqrt(np.mean(squares)), rtol=1e-4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data: ForecastData) -> Path:
    """The directory of a draft of three patches."""
    out = tmp_path_factory.mktemp("multi") / "run"
    last = distillation.distill(distill_config(out), data, TARGET)
    assert last.model.output_patches == 3
    assert last.context_len == 16
    return out


def test_the_validation_error_is_on_the_last_patches(trained: Path, data: ForecastData) -> None:
    """The epoch that is called the best would be chosen by patches that nobody forecasts."""
    draft = checkpoints.load(trained)
    assert draft.model == dataclasses.replace(MODEL.scaled(0.5), output_patches=3)
    task = distillation.distillation_task(distill_config(trained), data, TARGET, draft.model)
    values = jnp.asarray(data.values)
    got = training.make_validate(task, 16)(draft.params, values)
    assert task.validation.count % 16
    windows = task.validation.gather(values, jnp.arange(task.validation.count))
    teacher = apply(MODEL, TARGET.params, windows[:, :16])
    student = apply(draft.model, draft.params, windows[:, :8])  # two patches, three more to come
    squares = []
    for row in range(len(windows)):
        for ahead in range(3):
            ours = student[row, (1 * 3 + ahead) * 4 :][:4]
            theirs = teacher[row, (1 + ahead) * 4 :][:4]  # after the true patches before
            squares.append(np.mean((ours - theirs) ** 2))
    np.testing.assert_allclose(float(got), np.mean(squares), rtol=1e-4)


def test_the_distilled_draft_decodes(trained: Path, data: ForecastData) -> None:
    """A draft that was trained for hours could not be used."""
    pair = make_pair(TARGET, str(trained), "window", 16, 2)
    assert pair.alone is None
    context = jnp.asarray(data.values[:16])
    decode = {"target": pair.target, "draft": pair.draft, "sigma": 0.5}
    config = DecodeConfig(20, 3)
    forecast, info = decode_speculative(jax.random.key(0), context, config=config, **decode)
    assert forecast.shape == (20, 2)
    assert np.isfinite(forecast).all()
    assert int(info.drafted) == 3 * int(info.rounds)
    with pytest.raises(InputError, match=r"forecasts 12 steps at once, a round needs 16"):
        decode_speculative(jax.random.key(0), context, config=DecodeConfig(20, 4), **decode)


def test_configs_that_cannot_work_are_refused() -> None:
    """Contexts with a draft's own proposals would be made for a draft that never sees any."""
    with pytest.raises(InputError, match="never sees its own proposals; set on_policy 0"):
        DistillConfig(output_patches=2)
    with pytest.raises(InputError, match="output_patches must be at least 1, got 0"):
        DistillConfig(output_patches=0, on_policy=0.0)
    with pytest.raises(InputError, match="output_patches must be at least 1, got 0"):
        dataclasses.replace(MODEL, output_patches=0)
    several = dataclasses.replace(MODEL, output_patches=2)
    with pytest.raises(InputError, match=r"made by distill\.py"):
        TrainConfig(data=DataConfig(context_len=16), model=several)


def test_a_pretrained_multi_patch_draft_is_not_distilled_on_policy(
    tmp_path: Path, data: ForecastData
) -> None:
    """The default on_policy would end in a traceback about the carry of a scan."""
    several = dataclasses.replace(MODEL, output_patches=2)
    init = Checkpoint(several, init_params(jax.random.key(0), several), 16)
    config = distill_config(tmp_path / "a", output_patches=1, on_policy=0.5)
    with pytest.raises(InputError, match="on_policy"):
        distillation.distill(config, data, TARGET, init)


def test_a_context_too_short_for_its_patches_is_named(tmp_path: Path, data: ForecastData) -> None:
    """The message would speak of arrays the user never gave."""
    config = distill_config(tmp_path / "a", output_patches=3, draft_context_len=8)
    with pytest.raises(InputError, match="output_patches"):
        distillation.distill(config, data, TARGET)
