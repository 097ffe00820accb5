"""Distillation of drafts that forecast several patches in one pass."""

import dataclasses
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.toys import draft_steps

from stride_jax.checkpoints import checkpoint as checkpoints
from stride_jax.checkpoints.build import make_pair
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.data.config import DataConfig
from stride_jax.data.splits import ForecastData, prepare
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import DecodeConfig
from stride_jax.errors import InputError
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import TimerXL, init_params
from stride_jax.training import distillation
from stride_jax.training import step as training
from stride_jax.training.config import DistillConfig, OptimConfig, RunConfig, TrainConfig
from stride_jax.training.distillation import following
from stride_jax.types import Series

MODEL = TimerXLConfig(patch_len=4, d_model=16, num_heads=2, d_ff=16, dropout=0.0)
TARGET = Checkpoint(MODEL, init_params(jax.random.key(5), MODEL), 16)
PINNED = dataclasses.replace(MODEL, variable_stride=4, max_patches=4)
"""The target on longer series: variables stand as far apart as in training, 16 / 4 patches, and a
patch sees no further than that, so that no two of them meet."""


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


def test_one_patch_labels_are_the_array_itself() -> None:
    """Distillation of ordinary drafts would be shifted by a patch."""
    values = np.random.default_rng(0).normal(size=(2, 12, 3)).astype(np.float32)
    np.testing.assert_array_equal(following(jnp.asarray(values), 4, 1), values)


@pytest.mark.parametrize("count", [2, 3])
def test_labels_stand_for_the_patch_that_is_proposed(count: int) -> None:
    """A draft would be taught to say the second patch where it should say the first."""
    size, num = 2, 4
    teacher = np.random.default_rng(0).normal(size=(2, (num + count - 1) * size, 3))
    wanted = []
    for position in range(num):
        for ahead in range(count):
            wanted.extend(teacher[:, (position + ahead) * size + step] for step in range(size))
    got = following(jnp.asarray(teacher, jnp.float32), size, count)
    np.testing.assert_array_equal(got, np.stack(wanted, axis=1).astype(np.float32))


def apply(model: TimerXLConfig, params: object, x: np.ndarray) -> np.ndarray:
    """What a model says at every position."""
    return np.asarray(jax.jit(TimerXL(model).apply)({"params": params}, jnp.asarray(x)))


def patches(values: np.ndarray, patch_len: int = 4) -> np.ndarray:
    """`[B, T, C] -> [B, T / P, P, C]`."""
    return values.reshape(len(values), -1, patch_len, values.shape[-1])


@pytest.mark.parametrize(
    ("short", "share"), [pytest.param(None, 0.0, marks=pytest.mark.slow), (12, 0.25)]
)
def test_the_loss_is_the_distance_from_the_target(
    tmp_path: Path, data: ForecastData, short: int | None, share: float
) -> None:
    """A draft would be compared with the wrong patches, or with a target that saw others."""
    config = distill_config(
        tmp_path, output_patches=2, draft_context_len=short, on_policy=share, sigma=1e-9
    )
    draft = distillation.draft_config(config, MODEL)
    params = init_params(jax.random.key(1), draft)
    task = distillation.distillation_task(config, data, TARGET, draft)
    windows = np.asarray(task.train.gather(jnp.asarray(data.values), jnp.arange(5)))
    seen = (short or 16) // 4
    teacher = patches(apply(PINNED, TARGET.params, windows[:, :20]))[:, 4 - seen :]
    student = patches(apply(draft, params, windows[:, 16 - 4 * seen : 16]), 8)
    labels = np.concatenate([teacher[:, :seen], teacher[:, 1 : seen + 1]], axis=2)
    wanted = gap = np.mean((student - labels) ** 2)
    if share:  # the last position alone, each patch after the proposals before it
        own = np.concatenate([windows[:, :16], student[:, -1, :4]], axis=1)
        labels = apply(PINNED, TARGET.params, own)[:, -8:]
        gap = np.mean((student[:, -1] - labels) ** 2)
        wanted = (1 - share) * wanted + share * gap
    loss, metrics = jax.jit(task.loss)(params, jnp.asarray(windows), jax.random.key(0))
    np.testing.assert_allclose(loss, wanted, rtol=1e-4)
    np.testing.assert_allclose(metrics["rms_gap"], np.sqrt(gap), rtol=1e-4)


def test_no_gradient_flows_through_proposals(tmp_path: Path, data: ForecastData) -> None:
    """The draft would learn to propose what its target finds easy to agree with."""
    config = distill_config(tmp_path, output_patches=2, on_policy=1.0, sigma=1e-9)
    draft = distillation.draft_config(config, MODEL)
    params = init_params(jax.random.key(1), draft)
    task = distillation.distillation_task(config, data, TARGET, draft)
    windows = task.train.gather(jnp.asarray(data.values), jnp.arange(5))
    own = apply(draft, params, np.asarray(windows[:, :16]))[:, -8:]
    series = jnp.concatenate([windows[:, :16], own[:, :4]], axis=1)
    labels = apply(PINNED, TARGET.params, np.asarray(series))[:, -8:]

    def distance(params: object) -> jax.Array:
        said = TimerXL(draft).apply({"params": params}, windows[:, :16])
        return jnp.mean(jnp.square(said[:, -8:] - labels))

    wanted = jax.jit(jax.grad(distance))(params)
    got = jax.jit(jax.grad(lambda p: task.loss(p, windows, jax.random.key(0))[0]))(params)
    chex.assert_trees_all_close(got, wanted, rtol=1e-3, atol=1e-6)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data: ForecastData) -> Path:
    """The directory of a draft of three patches."""
    out = tmp_path_factory.mktemp("multi") / "run"
    last = distillation.distill(distill_config(out, on_policy=0.5), data, TARGET)
    assert last.model.output_patches == 3
    assert last.context_len == 16
    return out


def test_the_validation_error_is_that_of_decoding(trained: Path, data: ForecastData) -> None:
    """The epoch that is called the best would be chosen by what no decode meets."""
    draft = checkpoints.load(trained)
    assert draft.model == dataclasses.replace(MODEL.scaled(0.5), output_patches=3)
    task = distillation.distillation_task(distill_config(trained), data, TARGET, draft.model)
    values = jnp.asarray(data.values)
    got = training.make_validate(task, 16)(draft.params, values)
    assert task.validation.count % 16
    context = np.asarray(task.validation.gather(values, jnp.arange(task.validation.count)))[:, :16]
    student = apply(draft.model, draft.params, context)[:, -12:]
    own = np.concatenate([context, student[:, :8]], axis=1)
    teacher = apply(PINNED, TARGET.params, own)[:, -12:]
    np.testing.assert_allclose(float(got), np.mean((student - teacher) ** 2), rtol=1e-4)


def test_the_distilled_draft_decodes(trained: Path, data: ForecastData) -> None:
    """A draft that was trained for hours could not be used."""
    pair = make_pair(TARGET, str(trained), "window", 16, 2)
    assert not hasattr(pair.draft, "verify")  # proposes several patches at once
    context = jnp.asarray(data.values[:16])
    models = {"target": pair.target, "draft": pair.draft, "sigma": 0.5}
    config = DecodeConfig(20, 3)
    forecast, info = decode(jax.random.key(0), context, config=config, **models)
    assert forecast.shape == (20, 2)
    assert np.isfinite(forecast).all()
    assert int(info.drafted) == draft_steps(info.origin.tolist(), 3)
    with pytest.raises(InputError, match=r"forecasts 12 steps at once, a round needs 16"):
        decode(jax.random.key(0), context, config=DecodeConfig(20, 4), **models)


def test_configs_that_cannot_work_are_refused() -> None:
    """A model without patches would be built, or one trained that proposes nothing."""
    with pytest.raises(InputError, match="output_patches must be at least 1, got 0"):
        DistillConfig(output_patches=0)
    with pytest.raises(InputError, match="output_patches must be at least 1, got 0"):
        dataclasses.replace(MODEL, output_patches=0)
    several = dataclasses.replace(MODEL, output_patches=2)
    with pytest.raises(InputError, match=r"trained by distill\.py"):
        TrainConfig(data=DataConfig(context_len=16), model=several)
