"""Programs that `test_sharding` runs in processes with another number of devices.

`python sharded.py steps OUT.npz` takes 20 SGD steps on all devices;
`python sharded.py score OUT.npz` scores decoders on all devices;
`python sharded.py train DIRECTORY EPOCHS RESUME` trains, in one process or as one of several.
"""

import dataclasses
import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stride_jax import sharding
from stride_jax.checkpoints.build import make_pair
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.data.config import DataConfig
from stride_jax.data.splits import ForecastData, prepare
from stride_jax.decoding.rules import Maximal, Mean
from stride_jax.decoding.types import DecodeConfig
from stride_jax.evaluation.bench import score
from stride_jax.evaluation.config import Setup
from stride_jax.evaluation.subject import Subject, pair_decoders, scoring_batches
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import init_params
from stride_jax.training import loop as trainer
from stride_jax.training import step as training
from stride_jax.training.config import OptimConfig, RunConfig, TrainConfig
from stride_jax.types import Series

MODEL = TimerXLConfig(patch_len=8, d_model=16, num_heads=2, d_ff=32, dropout=0.1)


def series() -> ForecastData:
    """Two noisy sines."""
    t = np.arange(400)
    noise = 0.1 * np.random.default_rng(0).normal(size=(400, 2))
    waves = np.stack([np.sin(t / 4), np.cos(t / 7)], axis=1) + noise
    return prepare(DataConfig(source="x.csv", context_len=32), Series(waves, ("a", "b")))


def config(out: str, epochs: int = 2, resume: bool = False, accumulate: int = 1) -> TrainConfig:
    """Batches of 16 windows, 6 steps per epoch."""
    return TrainConfig(
        data=DataConfig(source="x.csv", context_len=32),
        model=MODEL,
        optim=OptimConfig(
            learning_rate=1e-3,
            batch_size=16,
            epochs=epochs,
            patience=9,
            steps_per_epoch=6,
            accumulate=accumulate,
        ),
        run=RunConfig(out=out, resume=resume, save_every=4, log_every=2),
    )


def steps(out: str) -> None:
    """Losses and parameters of 20 SGD steps, validation errors before and after."""
    data, settings = series(), config("unused")
    task = training.next_patch_task(settings, data)
    mesh = sharding.make_mesh(16)
    optimizer = optax.sgd(0.05)
    step = jax.jit(training.make_step(task, optimizer, settings.optim, 6))
    params = init_params(jax.random.key(0), MODEL)
    zero = jnp.zeros((), jnp.int32)
    state = training.TrainState(params, optimizer.init(params), zero, jnp.zeros(()), zero)
    state = sharding.everywhere(jax.tree.map(np.asarray, state), mesh)
    values = sharding.everywhere(data.values, mesh)
    order = jax.random.permutation(jax.random.key(1), task.train.count)
    validate = training.make_validate(task, 16)
    arrays = {"before": validate(state.params, values)}
    losses, norms = [], []
    for _ in range(20):
        state, metrics = step(state, values, order, jax.random.key(2))
        losses.append(metrics["loss"])
        norms.append(metrics["grad_norm"])
    arrays |= {"after": validate(state.params, values), "losses": jnp.stack(losses)}
    arrays["norms"] = jnp.stack(norms)
    leaves = jax.tree_util.tree_flatten_with_path(state.params)[0]
    arrays |= {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    np.savez(out, devices=jax.device_count(), **{k: np.asarray(v) for k, v in arrays.items()})


def scored(out: str) -> None:
    """Forecasts and scores of the target only and of two rules, on both processes."""
    data = series()
    model = dataclasses.replace(MODEL, dropout=0.0, instance_norm="causal", variable_stride=0)
    names = jax.random.split(jax.random.key(0))
    target, draft = (Checkpoint(model, init_params(key, model), 32) for key in names)
    arrays = {}
    source = DataConfig(source="x.csv", context_len=32)
    setup = Setup(data=source, horizons=(24,), batch_size=16, stride=3, seed=1)
    for process in ("cached", "window"):
        pair = make_pair(target, draft, process, 32, 2)
        values = jnp.asarray(data.values)
        subject = Subject(setup, data, values, {"draft": pair}, {process: pair.target}, 0.5)
        sizes = DecodeConfig(24, 3, num_paths=2)
        decoders = pair_decoders(subject, [Mean(0.5), Maximal()], sizes)
        batches = scoring_batches(subject, subject.windows(24), 24)
        for decoder, tally in zip(decoders, score(decoders, batches), strict=True):
            scores = tally.scores()
            name = f"{process} {decoder.method} {type(decoder.rule).__name__} {decoder.samples}"
            arrays |= {name: tally.forecasts()}
            arrays |= {f"{name} scores": [scores["mse"], scores["target_passes"]]}
    np.savez(out, devices=jax.device_count(), **arrays)


def main(argv: list[str]) -> None:
    """See the module."""
    if argv[0] == "score":
        scored(argv[1])
        return
    if argv[0] == "steps":
        steps(argv[1])
        return
    if "JAX_NUM_PROCESSES" in os.environ:
        sharding.connect()
    out, epochs, resume = argv[1], int(argv[2]), argv[3] == "resume"
    last = trainer.train(config(out, epochs, resume), series())
    if sharding.first_process():
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(last.params)]
        np.savez(Path(out) / f"last{epochs}.npz", *leaves)


if __name__ == "__main__":
    main(sys.argv[1:])
