"""Training and distillation: schedules, resumption to the bit, early stopping, objectives."""

import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import toy_runs
from helpers.models import params_of
from helpers.training import MODEL, series_of, train_config

from stride_jax import metrics as scores
from stride_jax.checkpoints import checkpoint as checkpoints
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.checkpoints.run_store import RunStore
from stride_jax.config import to_dict
from stride_jax.data.config import DataConfig
from stride_jax.errors import InputError
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import TimerXL, init_params
from stride_jax.training import dispatch, distillation, losses, objectives
from stride_jax.training import loop as trainer
from stride_jax.training import step as training
from stride_jax.training.config import DistillConfig, OptimConfig, RunConfig, TrainConfig
from stride_jax.training.hooks import Hook, Step


def equal(a: object, b: object) -> bool:
    """Whether two trees agree bit for bit."""
    return jax.tree.all(jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), a, b))


@functools.partial(jax.jit, static_argnums=0)
def forward(model: TimerXLConfig, params: Any, x: jax.Array) -> jax.Array:
    """All outputs of a model without dropout."""
    return TimerXL(model).apply({"params": params}, x)


def records_of(out: Path) -> list[dict[str, Any]]:
    """The lines of a log."""
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


class Trained(NamedTuple):
    """A finished run: its config, its directory, what it returned, and its jitted steps."""

    config: TrainConfig
    out: Path
    last: Checkpoint
    compiled: list[Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run of three epochs."""
    out = tmp_path_factory.mktemp("whole")
    config, compiled = train_config(out, epochs=3), []

    def make_steps(*args: Any) -> Any:
        compiled.append(dispatch.make_steps(*args))
        return compiled[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "make_steps", make_steps)
        return Trained(config, out, trainer.train(config, series_of()), compiled)


START = Checkpoint(MODEL, params_of(MODEL), 32)


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run from START whose rate is too small to change anything."""
    out = tmp_path_factory.mktemp("still")
    config = train_config(out, epochs=9, patience=2, learning_rate=1e-30)
    return Trained(config, out, trainer.train(config, series_of(), START), [])


def test_type1_is_a_tenth_each_epoch() -> None:
    """A wrong exponent trains the original's recipe at another rate."""
    schedule = training.learning_rate(OptimConfig(learning_rate=0.5, schedule="type1"), 10)
    got = [float(schedule(s)) for s in (0, 9, 10, 25)]
    np.testing.assert_allclose(got, [0.5, 0.5, 0.05, 0.005], rtol=1e-6)


def test_cosine_matches_its_formula_and_rises_again() -> None:
    """The original's t_max of 10 in 15 epochs must reproduce the rise in epochs 11 to 15."""
    optim = OptimConfig(learning_rate=2.0, schedule="cosine", epochs=15, t_max=10)
    schedule = training.learning_rate(optim, 4)
    for epoch in (0, 2.5, 5, 10, 15):
        expected = 1 + np.cos(np.pi * epoch / 10)
        np.testing.assert_allclose(float(schedule(int(epoch * 4))), expected, atol=1e-6)
    assert float(schedule(60)) > float(schedule(40))


def test_loss_scores_every_position_against_the_next_patch(tmp_path: Path) -> None:
    """A slice that is one patch off trains the model to repeat its input."""
    data = series_of()
    task = training.next_patch_task(train_config(tmp_path), data)
    still = dataclasses.replace(MODEL, dropout=0.0)
    task = training.next_patch_task(dataclasses.replace(train_config(tmp_path), model=still), data)
    params = init_params(jax.random.key(0), still)
    windows = task.train.gather(jnp.asarray(data.values), jnp.arange(3))
    loss, _ = jax.jit(task.loss)(params, windows, jax.random.key(1))
    forecast = forward(still, params, windows[:, :32])
    expected = np.mean((np.asarray(forecast) - np.asarray(windows[:, 8:40])) ** 2)
    np.testing.assert_allclose(float(loss), expected, rtol=1e-5)


def test_validation_is_on_the_last_patch_of_every_window(tmp_path: Path) -> None:
    """A dropped last batch or another position changes which epoch is called the best."""
    data = series_of()
    task = training.next_patch_task(train_config(tmp_path), data)
    params = init_params(jax.random.key(0), MODEL)
    values = jnp.asarray(data.values)
    got = training.make_validate(task, 16)(params, values)
    assert task.validation.count % 16  # the last batch is not full
    windows = task.validation.gather(values, jnp.arange(task.validation.count))
    forecast = forward(MODEL, params, windows[:, :32])[:, -8:]
    np.testing.assert_allclose(float(got), np.mean((forecast - windows[:, 32:]) ** 2), rtol=1e-5)


def test_training_learns_logs_and_keeps_the_best(whole: Trained) -> None:
    """The loss must fall, the log must hold what is promised, the best checkpoint must load."""
    data, records = series_of(), records_of(whole.out)
    steps = [r for r in records if "loss" in r]
    names = {"step", "epoch", "loss", "grad_norm", "learning_rate", "steps_per_second"}
    assert names <= set(steps[0])
    assert steps[-1]["loss"] < 0.5 * steps[0]["loss"]
    epochs = [r for r in records if "val_mse" in r]
    best = checkpoints.load(whole.out)
    assert best.model == whole.last.model == MODEL
    assert best.context_len == 32
    task = training.next_patch_task(whole.config, data)
    error = training.make_validate(task, 16)(best.params, jnp.asarray(data.values))
    np.testing.assert_allclose(float(error), min(e["val_mse"] for e in epochs), rtol=1e-6)


def test_early_stopping_waits_for_patience(still: Trained) -> None:
    """A wrong count stops too early or never; a rate of 1e-30 never gets better after epoch 0."""
    records = records_of(still.out)
    assert [r["best"] for r in records if "val_mse" in r] == [True, False, False]


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from helpers.training import series_of, train_config
from stride_jax.training import loop as trainer
import dataclasses
config = train_config(Path({out!r}), epochs=3)
config = dataclasses.replace(config, run=dataclasses.replace(config.run, resume={resume}))
trainer.train(config, series_of())
"""


def run_training(out: Path, resume: bool) -> subprocess.Popen[bytes]:
    """The three-epoch run in a process of its own."""
    code = KILLED.format(tests=str(Path(__file__).parents[1]), out=str(out), resume=resume)
    env = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # as in conftest, to the bit
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, env=env)


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path: Path) -> None:
    """A resumed run that drifts from the uninterrupted one is not reproducible."""
    whole = trainer.train(train_config(tmp_path / "whole", epochs=3), series_of())
    process = run_training(tmp_path / "killed", resume=False)
    log = tmp_path / "killed" / "log.jsonl"
    stop_at = int(np.random.default_rng(time.time_ns()).integers(7, 40))
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        lines = log.read_text().splitlines() if log.exists() else []
        if lines and json.loads(lines[-1])["step"] >= stop_at:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    process.communicate()
    store = RunStore(tmp_path / "killed")
    saved = store.last_config() is not None  # else killed before the first save was complete
    store.close()
    run = run_training(tmp_path / "killed", resume=saved)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors.decode()
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == sorted(steps), "steps that were done twice are logged twice"
    for part in ("best", "last"):
        names = [
            sorted(p.name for p in (tmp_path / r / part).glob("[0-9]*"))
            for r in ("whole", "killed")
        ]
        assert names[0] == names[1], f"{part} after being killed at step {stop_at}"
    config = train_config(tmp_path / "killed", epochs=3)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, resume=True))
    again = trainer.train(config, series_of())  # nothing left to do: the last state
    assert equal(again.params, whole.params), f"killed at step {stop_at}"


class StoppedAt(Hook):
    """Saves the state after a step, and nothing else, and stops there."""

    def __init__(self, number: int, out: str, config: dict[str, Any]) -> None:
        self.number, self.out, self.config = number, out, config

    def on_step(self, step: Step) -> None:
        """Stops after its step."""
        if step.number == self.number:
            with RunStore(Path(self.out)) as store:
                store.save_last(step.number, checkpoints.host_copy(step.state), self.config)
            raise KeyboardInterrupt


def test_resume_in_the_middle_of_an_epoch_is_bitwise(tmp_path: Path, whole: Trained) -> None:
    """The order of the windows and the dropout must follow from the step alone."""
    data = series_of()
    other = train_config(tmp_path, epochs=whole.config.optim.epochs)
    task = training.next_patch_task(other, data)
    start = init_params(jax.random.key(other.run.seed), MODEL)
    stop = StoppedAt(7, other.run.out, to_dict(other))
    epoch_steps = training.steps_per_epoch(task, other.optim)
    state = training.initial_state(start, other.optim, epoch_steps)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(task, other.optim, state, data.values, seed=other.run.seed, hooks=[stop])
    resumed = dataclasses.replace(other, run=dataclasses.replace(other.run, resume=True))
    assert equal(trainer.train(resumed, data).params, whole.last.params)


def test_a_run_is_not_overwritten_and_not_mixed_with_another(
    tmp_path: Path, whole: Trained
) -> None:
    """Two recipes in one directory, or a silent restart, lose work."""
    data, config = series_of(), train_config(tmp_path, epochs=1)
    with pytest.raises(InputError, match="nothing to resume"):
        trainer.train(
            dataclasses.replace(config, run=dataclasses.replace(config.run, resume=True)), data
        )
    config = whole.config
    with pytest.raises(InputError, match="already holds a run"):
        trainer.train(config, data)
    changed = dataclasses.replace(
        config,
        optim=dataclasses.replace(config.optim, learning_rate=0.5),
        run=dataclasses.replace(config.run, resume=True),
    )
    with pytest.raises(InputError, match=r"another optim.*0\.01"):
        trainer.train(changed, data)


def test_bad_starts_are_refused(tmp_path: Path) -> None:
    """A batch larger than the split, or a start from another model, must not train silently."""
    data = series_of()
    with pytest.raises(InputError, match="batch_size 4096 exceeds"):
        trainer.train(train_config(tmp_path, batch_size=4096), data)
    other = dataclasses.replace(MODEL, d_model=32)
    init = START._replace(model=other)
    with pytest.raises(InputError, match="init_from holds"):
        trainer.train(train_config(tmp_path / "b"), data, init)


def test_fine_tuning_starts_from_the_checkpoint(still: Trained) -> None:
    """A start that ignores the checkpoint would be training from scratch."""
    tuned, params = still.last.params, START.params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-20), tuned, params)


def test_a_loss_that_is_not_finite_stops_with_a_message(tmp_path: Path) -> None:
    """Training on NaN for hours helps nobody."""
    settings = {"learning_rate": 1e30, "epochs": 9, "steps_per_epoch": 8}
    with pytest.raises(InputError, match=r"Lower optim\.learning_rate"):
        toy_runs.toy_run(tmp_path, log_every=5, save_every=5, **settings)
    for path in (tmp_path / "last").glob("[0-9]*/state"):  # nothing diverged was saved
        assert int(path.parent.name) < 5


def test_the_step_compiles_once(whole: Trained) -> None:
    """A step that retraces per epoch, per batch or per number of steps in a dispatch is slow."""
    assert [steps._cache_size() for steps in whole.compiled] == [1]


@pytest.mark.parametrize("seed", [-1, 2**32, 2**70])
def test_seeds_that_jax_would_change_are_refused(tmp_path: Path, seed: int) -> None:
    """A run would have the order and the draws of another seed."""
    task, (optim, _, _) = toy_runs.toy_task(), toy_runs.settings(tmp_path, epochs=1)
    state = training.initial_state(toy_runs.parameters(), optim, 3)
    with pytest.raises(InputError, match=f"seed.*{seed}"):
        trainer.fit(task, optim, state, toy_runs.VALUES, seed=seed)


def test_the_state_that_fit_begins_with_is_left_alone(tmp_path: Path) -> None:
    """The step donates its state: a caller could not start twice from the same parameters."""
    task, (optim, _, _) = toy_runs.toy_task(), toy_runs.settings(tmp_path, epochs=1)
    state = training.initial_state(toy_runs.parameters(), optim, 3)
    ends = [trainer.fit(task, optim, state, toy_runs.VALUES, seed=3) for _ in range(2)]
    assert equal(ends[0].params, ends[1].params)
    assert not equal(ends[0].params, state.params)


TARGET = Checkpoint(MODEL, init_params(jax.random.key(5), MODEL), 32)


def distill_config(out: Path, **fields: object) -> DistillConfig:
    """A distillation of a few seconds."""
    return DistillConfig(
        data=DataConfig(source="x.csv", context_len=32),
        factor=0.5,
        optim=OptimConfig(learning_rate=1e-2, batch_size=16, epochs=2),
        run=RunConfig(out=str(out), log_every=5, save_every=50),
        **fields,
    )


def test_a_resumed_distillation_has_the_target_that_it_began_with(tmp_path: Path) -> None:
    """A draft would follow one target for some steps and another one, of the same name, after."""
    config = distill_config(tmp_path, objective="mean", head="mean")
    constant = dataclasses.replace(config.optim, schedule="constant")
    config = dataclasses.replace(config, optim=constant)
    short = dataclasses.replace(config, optim=dataclasses.replace(config.optim, epochs=1))
    distillation.distill(short, series_of(), TARGET)
    resumed = dataclasses.replace(config, run=dataclasses.replace(config.run, resume=True))
    moved = TARGET._replace(params=jax.tree.map(lambda x: x + 1e-6, TARGET.params))
    with pytest.raises(InputError, match=r"started with another target: .*'runs/target'"):
        distillation.distill(resumed, series_of(), moved)
    distillation.distill(resumed, series_of(), TARGET)
    assert records_of(tmp_path)[-1]["epoch"] == 1


on_policy_contexts = jax.jit(distillation.on_policy_contexts, static_argnums=(2, 4, 5))


@pytest.mark.parametrize(
    ("head", "objective"),
    [
        ("mean", "mean"),
        pytest.param("gaussian", "nll", marks=pytest.mark.slow),
        pytest.param("gaussian", "kl_mse", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("short", [None, pytest.param(16, marks=pytest.mark.slow)])
def test_every_objective_brings_the_draft_closer(
    tmp_path: Path, head: str, objective: str, short: int | None
) -> None:
    """An objective with a wrong sign or a misaligned context would not shrink the gap."""
    on_policy = 0.0 if objective == "kl_mse" else 0.5
    config = distill_config(
        tmp_path, head=head, objective=objective, on_policy=on_policy, draft_context_len=short
    )
    draft = distillation.distill(config, series_of(), TARGET)
    assert draft.context_len == (short or 32)
    records = records_of(tmp_path)
    gaps = [r["rms_gap"] for r in records if "rms_gap" in r]
    # kl_mse also pulls towards the truth, of which this untrained target knows nothing
    assert gaps[-1] < (0.85 if objective == "kl_mse" else 0.7) * gaps[0]


def test_on_policy_contexts_hold_the_draft_s_own_proposals(tmp_path: Path) -> None:
    """Contexts shifted by a wrong number of steps teach the draft nothing about decoding."""
    data = series_of()
    config = distill_config(tmp_path, on_policy=1.0, sigma=1e-6, num_draft=2)
    draft = distillation.draft_config(config, MODEL)
    params = init_params(jax.random.key(0), draft)
    task = distillation.distillation_task(config, data, TARGET, draft)
    windows = task.train.gather(jnp.asarray(data.values), jnp.arange(12))
    mixed = on_policy_contexts(jax.random.key(1), windows, draft, params, config, 32)
    seen = set()
    for real, context in zip(np.asarray(windows), np.asarray(mixed), strict=True):
        grown = real[:32]
        for count in (1, 2):
            mean = forward(draft, params, grown[None, -32:])[0, -8:]
            grown = np.concatenate([grown, mean])
            if np.allclose(context, grown[-32:], atol=1e-4):
                seen.add(count)
                break
        else:
            pytest.fail("a context is neither one nor two proposals long")
    assert seen == {1, 2}


def test_off_policy_contexts_are_the_real_ones(tmp_path: Path) -> None:
    """A share of 0.25 must leave about three quarters of the contexts untouched."""
    data = series_of()
    config = distill_config(tmp_path, on_policy=0.25)
    draft = distillation.draft_config(config, MODEL)
    params = init_params(jax.random.key(0), draft)
    task = distillation.distillation_task(config, data, TARGET, draft)
    windows = task.train.gather(jnp.asarray(data.values), jnp.arange(200))
    mixed = on_policy_contexts(jax.random.key(1), windows, draft, params, config, 32)
    same = np.all(np.asarray(mixed) == np.asarray(windows[:, :32]), axis=(1, 2)).mean()
    assert 0.65 < same < 0.85


def test_kl_objective_is_the_divergence_plus_the_error(tmp_path: Path) -> None:
    """The weighted sum must be what the config says."""
    rng = np.random.default_rng(0)
    mean, logvar, teacher, truth = (
        jnp.asarray(rng.normal(size=(2, 8, 2)), jnp.float32) for _ in range(4)
    )
    config = distill_config(
        tmp_path, objective="kl_mse", head="gaussian", on_policy=0.0, mse_weight=0.3
    )
    loss, metrics = objectives.objective(
        config, jax.random.key(0), (mean, logvar), teacher, truth, patch_len=4
    )
    expected = losses.gaussian_kl(teacher, 0.5, mean, logvar).mean()
    expected += 0.3 * scores.mse(mean, truth) + 0.01 * losses.variance_regulariser(logvar).mean()
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    distance = np.sqrt(np.mean((mean - teacher) ** 2))
    np.testing.assert_allclose(metrics["rms_gap"], distance, rtol=1e-5)


@pytest.mark.slow
def test_teacher_dropout_changes_the_teacher(tmp_path: Path) -> None:
    """The flag must reach the target's forward pass."""
    data = series_of()
    values = []
    for flag in (False, True):
        config = distill_config(tmp_path, on_policy=0.0, teacher_dropout=flag)
        draft = distillation.draft_config(config, MODEL)
        task = distillation.distillation_task(config, data, TARGET, draft)
        windows = task.train.gather(jnp.asarray(data.values), jnp.arange(4))
        params = init_params(jax.random.key(0), draft)
        values.append(float(task.loss(params, windows, jax.random.key(1))[0]))
    assert values[0] != values[1]


def test_distillation_refuses_what_cannot_work(tmp_path: Path) -> None:
    """Each mistake has its own message before any compilation."""
    data = series_of()
    with pytest.raises(InputError, match="needs a draft with head 'gaussian'"):
        distillation.distill(distill_config(tmp_path / "a", objective="nll"), data, TARGET)
    config = distill_config(tmp_path / "b", objective="kl_mse", head="gaussian")
    with pytest.raises(InputError, match="set on_policy 0"):
        distillation.distill(config, data, TARGET)
    with pytest.raises(InputError, match="multiple of patch_len"):
        distillation.distill(distill_config(tmp_path / "c", draft_context_len=12), data, TARGET)
    other = dataclasses.replace(MODEL, patch_len=16)
    init = TARGET._replace(model=other)
    with pytest.raises(InputError, match="share a patch length"):
        distillation.distill(distill_config(tmp_path / "d"), data, TARGET, init)
    with pytest.raises(InputError, match="trained on a context of 64"):
        distillation.distill(distill_config(tmp_path / "e"), data, TARGET._replace(context_len=64))
