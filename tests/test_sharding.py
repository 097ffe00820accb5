"""Data parallel training: many devices, several processes, gradient accumulation, remat."""

import dataclasses
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import sharded

from stride_jax import sharding
from stride_jax.errors import InputError
from stride_jax.models.timer_xl import TimerXL, init_params
from stride_jax.training import step as training

SCRIPT = Path(sharded.__file__)


def start(*args: str, devices: int = 1, **env: str) -> subprocess.Popen[str]:
    """`sharded.py` in a process with so many devices."""
    flags = os.environ.get("XLA_FLAGS", "")
    flags += f" --xla_force_host_platform_device_count={devices}"
    settings = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *args],
        env={**os.environ, **settings, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    """Waits for success."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-3000:]


@pytest.mark.slow
def test_eight_devices_do_what_one_does(tmp_path: Path) -> None:
    """Another loss or gradient on a mesh would train another model than on one device."""
    paths = {n: tmp_path / f"{n}.npz" for n in (1, 8)}
    running = [start("steps", str(path), devices=n) for n, path in paths.items()]
    for process in running:
        finish(process)
    one, eight = (np.load(path) for path in paths.values())
    assert (one["devices"], eight["devices"]) == (1, 8)
    assert np.abs(np.diff(one["losses"])).max() > 1e-3, "the steps must do something"
    for name in set(one.files) - {"devices"}:
        np.testing.assert_allclose(eight[name], one[name], rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_eight_devices_forecast_what_one_does(tmp_path: Path) -> None:
    """An evaluation on eight devices would score other forecasts, or mix up the windows."""
    paths = {n: tmp_path / f"{n}.npz" for n in (1, 8)}
    running = [start("score", str(path), devices=n) for n, path in paths.items()]
    for process in running:
        finish(process)
    one, eight = (np.load(path) for path in paths.values())
    assert (one["devices"], eight["devices"]) == (1, 8)
    assert len(one.files) == 1 + 2 * 2 * 6  # two arrays, two processes, six rows
    for name in set(one.files) - {"devices"}:
        np.testing.assert_allclose(eight[name], one[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(("batch", "count"), [(16, 8), (12, 6), (7, 7), (11, 1), (1, 1)])
def test_a_batch_is_split_over_as_many_devices_as_divide_it(
    monkeypatch: pytest.MonkeyPatch, batch: int, count: int
) -> None:
    """A batch of odd size would be refused, or leave all devices but one idle."""
    monkeypatch.setattr(jax, "local_devices", lambda: list(range(8)))
    seen = []
    monkeypatch.setattr(jax, "make_mesh", lambda shape, *_, devices, **__: seen.append(devices))
    sharding.decoding_mesh(batch)
    assert seen == ([] if count == 1 else [list(range(count))])


def test_a_batch_that_does_not_split_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jax would say something about shardings after the data is loaded."""
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    with pytest.raises(InputError, match=r"20 windows.*8 devices"):
        sharding.make_mesh(20)


def test_half_set_environments_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without its number would wait for the others for minutes."""
    for name in sharding.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "localhost:1")
    with pytest.raises(InputError, match="JAX_NUM_PROCESSES"):
        sharding.connect()
    monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
    monkeypatch.setenv("JAX_PROCESS_ID", "0")
    with pytest.raises(InputError, match="two"):
        sharding.connect()


def test_parts_of_a_batch_have_its_gradient() -> None:
    """A sum instead of a mean, or a part left out, would change the learning rate silently."""
    data = sharded.series()
    still = dataclasses.replace(sharded.MODEL, dropout=0.0)
    updates = []
    for accumulate in (1, 4):
        settings = sharded.config("unused", accumulate=accumulate)
        settings = dataclasses.replace(settings, model=still)
        task = training.next_patch_task(settings, data)
        optimizer = optax.sgd(1.0)
        params = init_params(jax.random.key(0), still)
        zeros = [jnp.zeros((), jnp.int32) for _ in range(2)]  # each is donated
        best = jnp.zeros(())
        state = training.TrainState(params, optimizer.init(params), zeros[0], best, zeros[1])
        before = jax.tree.map(np.asarray, params)
        order = jnp.arange(task.train.count)
        step = jax.jit(training.make_step(task, optimizer, settings.optim, 6))
        state, metrics = step(state, jnp.asarray(data.values), order, jax.random.key(2))
        updates.append((metrics["loss"], jax.tree.map(lambda a, b: a - b, before, state.params)))
    for one, other in zip(*map(jax.tree.leaves, updates), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_remat_changes_no_value() -> None:
    """Saving memory must not change the model, its gradient or the names of its parameters."""
    plain = dataclasses.replace(sharded.MODEL, num_layers=2, dropout=0.0)
    x = jax.random.normal(jax.random.key(0), (2, 32, 2))
    results = []
    for config in (plain, dataclasses.replace(plain, remat=True)):
        params = init_params(jax.random.key(1), config)

        def loss(params: object, config: object = config) -> jax.Array:
            return jnp.mean(jnp.square(TimerXL(config).apply({"params": params}, x)))

        results.append(jax.value_and_grad(loss)(params))
        text = str(jax.make_jaxpr(jax.grad(loss))(params))
        assert ("remat" in text or "checkpoint" in text) == config.remat
    assert jax.tree.structure(results[0]) == jax.tree.structure(results[1])
    for one, other in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-7)


def together(out: Path, epochs: int, how: str) -> list[subprocess.Popen[str]]:
    """Two processes of two devices each on this machine."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    env = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": "2"}
    args = "train", str(out), str(epochs), how
    return [start(*args, devices=2, **env, JAX_PROCESS_ID=str(i)) for i in range(2)]


@pytest.mark.slow
def test_two_processes_train_stop_and_resume_together(tmp_path: Path) -> None:
    """A pod that cannot go on after a kill, or goes on with other parameters, loses its work."""
    for process in together(tmp_path / "whole", 4, "new"):
        finish(process)
    pod = tmp_path / "pod"
    running = together(pod, 4, "new")
    deadline = time.monotonic() + 200
    while not any(path.name.isdigit() for path in pod.glob("last/*")):
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in running), "ended before the kill"
        time.sleep(0.05)
    for process in running:
        process.kill()
        process.communicate()
    stopped = max(int(path.name) for path in pod.glob("last/*") if path.name.isdigit())
    assert stopped < 24
    for process in together(pod, 4, "resume"):
        finish(process)
    whole, resumed = (np.load(where / "last4.npz") for where in (tmp_path / "whole", pod))
    for name in whole.files:
        np.testing.assert_array_equal(resumed[name], whole[name])
