"""Training of the zero-shot pair: mirrored windows, the objective gap, a deeper target."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.models import forward
from helpers.tools import load_tool
from helpers.training import MODEL, series_of, train_config

from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.data.config import DataConfig
from stride_jax.data.synthetic_series import FAMILIES
from stride_jax.errors import InputError
from stride_jax.models.timer_xl import init_params
from stride_jax.training import distillation, losses, objectives
from stride_jax.training import step as training
from stride_jax.training.config import DistillConfig, OptimConfig, RunConfig

GAUSSIAN = dataclasses.replace(
    MODEL, head="gaussian", instance_norm="causal", variable_stride=0, dropout=0.0
)
WAVES = tuple(name for name in FAMILIES if name != "waves")
TARGET = Checkpoint(GAUSSIAN, init_params(jax.random.key(5), GAUSSIAN), 32)


def distill_config(out: Path, **fields: object) -> DistillConfig:
    """A distillation of a few seconds with the objective gap."""
    data = DataConfig(source="x.csv", context_len=32, variables="separate")
    return DistillConfig(
        data=fields.pop("data", data),
        factor=0.5,
        objective="gap",
        on_policy=0.0,
        optim=OptimConfig(learning_rate=1e-2, batch_size=16, epochs=2),
        run=RunConfig(out=str(out), log_every=5, save_every=50),
        **fields,
    )


# --- mirrored windows ----------------------------------------------------------------------------


def signs(tmp_path: Path, share: float, *steps: int) -> list[np.ndarray]:
    """Of each step: +1 for each window that the loss sees as it is, -1 for a mirrored one."""
    config = train_config(tmp_path)
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, mirrored_share=share)
    )
    data, seen = series_of(), []
    data = data._replace(values=np.ones_like(data.values))
    task = training.next_patch_task(config, data)

    def loss(params, windows, key):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), windows)
        return jnp.sum(params["x"]), {}

    optimizer = training.make_optimizer(config.optim, 10)
    state = training.initial_state({"x": jnp.zeros(())}, config.optim, 10)
    run = jax.jit(training.make_step(task._replace(loss=loss), optimizer, config.optim, 10))
    for step in steps:
        state = state._replace(step=jnp.asarray(step, jnp.int32))
        run(state, jnp.asarray(data.values), jnp.arange(task.train.count), jax.random.key(1))
        jax.effects_barrier()
    assert len(seen) == len(steps)
    windows = [x.reshape(len(x), -1) for x in seen]  # [B, T, C] -> [B, T * C]
    assert all((np.ptp(x, axis=1) == 0).all() for x in windows)  # each is mirrored as a whole
    return [x[:, 0] for x in windows]


def test_a_share_of_the_windows_is_mirrored(tmp_path: Path) -> None:
    """A model would be trained on other windows than the config says."""
    np.testing.assert_array_equal(signs(tmp_path, 0.0, 0), 1)
    np.testing.assert_array_equal(signs(tmp_path, 1.0, 0), -1)
    several = np.concatenate(signs(tmp_path, 0.25, *range(8)))
    assert 0.1 < np.mean(several == -1) < 0.4


def test_mirrored_windows_follow_the_step_alone(tmp_path: Path) -> None:
    """A resumed run must mirror what it would have mirrored, and not the same in every step."""
    (first,) = signs(tmp_path, 0.5, 3)
    other, again = signs(tmp_path, 0.5, 4, 3)
    np.testing.assert_array_equal(again, first)
    assert (other != first).any()


# --- the objective gap ---------------------------------------------------------------------------


def test_the_gap_is_the_distance_in_stds_of_the_target() -> None:
    """Acceptance is `2 Phi(-gap / 2)` of this number, so a draft would be trained for another."""
    rng = np.random.default_rng(0)
    mean_q, mean_p, logvar = rng.normal(size=(3, 5, 4, 2))
    expected = np.sqrt(np.square((mean_q - mean_p) / np.exp(logvar / 2)).sum(axis=(1, 2)))
    gaps = losses.patch_gaps(*(jnp.asarray(x, jnp.float32) for x in (mean_q, mean_p, logvar)))
    np.testing.assert_allclose(gaps, expected, rtol=1e-5)
    slope = jax.grad(lambda m: losses.patch_gaps(m, m * 0 + 1, m * 0).sum())(jnp.ones((2, 4, 1)))
    assert (np.asarray(slope) == 0).all()  # and not NaN where the means are equal


@pytest.mark.parametrize(
    ("patches", "share"),
    [
        (1, 0.5),
        pytest.param(1, 0.0, marks=pytest.mark.slow),
        pytest.param(2, 0.5, marks=pytest.mark.slow),
    ],
)
def test_the_objective_gap_brings_the_draft_closer(
    tmp_path: Path, patches: int, share: float
) -> None:
    """A wrong sign, misaligned labels, or generated windows that come too short."""
    data = DataConfig(
        source="x.csv",
        context_len=32,
        variables="separate",
        synthetic_share=share,
        synthetic_without=WAVES,
    )
    config = distill_config(tmp_path, data=data, output_patches=patches, num_layers=2)
    draft = distillation.distill(config, series_of(), TARGET)
    assert (draft.model.num_layers, draft.model.d_model) == (2, 16)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    gaps = [r["loss"] for r in records if "loss" in r]
    assert gaps[-1] < 0.8 * gaps[0]


def test_several_patches_are_validated_by_their_mean_gap(tmp_path: Path) -> None:
    """The best parameters of a multi-patch draft would be those of another objective."""
    config = distill_config(tmp_path, output_patches=2)
    draft = distillation.draft_config(config, GAUSSIAN)
    task = distillation.distillation_task(config, series_of(), TARGET, draft)
    assert task.validation_name == "val_gap"
    rng = np.random.default_rng(0)
    mean_q, mean_p, logvar = (
        jnp.asarray(rng.normal(size=(3, 16, 1)), jnp.float32) for _ in range(3)
    )
    found = objectives.window_error(config, mean_q, (mean_p, logvar), 8)
    squared = np.square(mean_q - mean_p) * np.exp(-np.asarray(logvar))
    gaps = np.sqrt(squared.reshape(3, 2, 8).sum(axis=2))  # of each of the two patches
    np.testing.assert_allclose(found, np.log1p(gaps).mean(axis=1), rtol=1e-5)


def test_the_gap_is_validated_in_stds_of_the_target(tmp_path: Path) -> None:
    """The best parameters would be those closest in the units of the series."""
    config, data = distill_config(tmp_path), series_of()
    draft = distillation.draft_config(config, GAUSSIAN)
    task = distillation.distillation_task(config, data, TARGET, draft)
    assert task.validation_name == "val_gap"
    params = init_params(jax.random.key(1), draft)
    windows = task.train.gather(jnp.asarray(data.values), jnp.arange(3))
    mean, logvar = forward(GAUSSIAN, windows[:, :32], TARGET.params)
    proposal = forward(draft, windows[:, :32], params)
    expected = losses.patch_gaps(proposal[:, -8:], mean[:, -8:], logvar[:, -8:])
    error = jax.jit(task.validation_error)(params, windows)
    np.testing.assert_allclose(error, np.log1p(expected), rtol=1e-4)


def test_the_gap_needs_a_target_with_a_std(tmp_path: Path) -> None:
    """Without it the run would stop in the middle of a compilation."""
    point = dataclasses.replace(GAUSSIAN, head="mean")
    target = Checkpoint(point, init_params(jax.random.key(0), point), 32)
    with pytest.raises(InputError, match="this target has none"):
        distillation.distill(distill_config(tmp_path), series_of(), target)


# --- a deeper target -----------------------------------------------------------------------------


def test_a_deeper_target_forecasts_almost_the_same() -> None:
    """Training would begin from blocks that destroy what the trained ones know."""
    script = load_tool("deepen")
    model = dataclasses.replace(GAUSSIAN, d_model=32, num_layers=2)
    target = Checkpoint(model, init_params(jax.random.key(0), model), 32)
    windows = jax.random.normal(jax.random.key(1), (20, 32, 1)).cumsum(axis=1)
    deeper = script.deepened(target, windows, seed=0)
    assert deeper.model.num_layers == 4
    for number in range(2):
        for new, old in zip(
            jax.tree.leaves(deeper.params[f"block_{2 * number}"]),
            jax.tree.leaves(target.params[f"block_{number}"]),
            strict=True,
        ):
            np.testing.assert_array_equal(new, old)
    before, after = (forward(x.model, windows, x.params)[0] for x in (target, deeper))
    other = forward(deeper.model, windows, init_params(jax.random.key(0), deeper.model))[0]
    moved = np.abs(after - before).mean()
    assert moved < 0.2 * np.abs(other - before).mean()


# --- the share of an average ---------------------------------------------------------------------


def test_a_share_is_chosen_on_rows_that_were_not_trained_on() -> None:
    """The share would be that of the target which remembers best."""
    script = load_tool("average_shares")
    values = np.random.default_rng(0).normal(size=(16_000, 3)).astype(np.float32)
    values[: int(0.8 * len(values))] = np.nan
    windows = script.real_windows(values, 40, 96, np.random.default_rng(1))
    assert len(windows) == 40
    for window in windows:
        assert np.isfinite(window.past).all()
        assert len(window.truth) == 96
        np.testing.assert_allclose(window.past.std(), 1)
