"""Trains small models that each lack one thing, and scores them beside the one that has all.

    taskset -c 1 nice python tools/ablation.py --real runs/real.npy --foreign runs/foreign.npz \
        --out docs/results/zero_shot/ablation.json

(about an hour on one busy CPU core) gives each model as many steps: the data and the loss of
`configs/train/zero_shot.py` at a small scale, without one family of synthetic series, without real
series, with other patches, another loss, or one sigma. The synthetic windows are drawn once, and
models of one seed see the same ones as far as they can. Every tenth real series is held out of the
training, and judges together with synthetic windows that no training draws; the foreign suite is
only shown beside them. A row is written as each model is done, and rows in the file are not trained
again.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import stride_jax as sj
from stride_jax.checkpoints.build import make_pair
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.cli.flags import load_config
from stride_jax.data import synthetic_parts as parts
from stride_jax.data.config import DataConfig
from stride_jax.data.splits import prepare
from stride_jax.data.synthetic_series import FAMILIES, draw, shares
from stride_jax.errors import InputError
from stride_jax.evaluation.results import read_results, write_rows
from stride_jax.evaluation.suites import (
    Foreign,
    Quantiles,
    cutoffs,
    every_history,
    histories,
    load,
    naive,
    of_paths,
    scores,
    shortened,
    summary,
)
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import Params, init_params
from stride_jax.training.config import TrainConfig
from stride_jax.training.step import make_optimizer, next_patch_task
from stride_jax.types import Series

CONTEXT, AHEAD = 480, 96
"""Steps of a context, whole patches of 8, 16, 24 and 32; steps that are forecast, at most."""
LENGTH = CONTEXT + 32
"""Steps of a training window, cut to the context and one patch."""
BATCH, SYNTHETIC, CHUNK = 32, 24, 50
"""Windows of a step, how many of them are synthetic, and steps of one dispatch."""
EVERY = 10
"""One real series in so many is held out."""
MIXED = 0.3
"""Share of the synthetic windows that are mixtures of two, as in `draw_windows`."""
POOL_KEY = 0x504F4F4C
"""Seed of the synthetic windows."""
HELD_OUT = 256
"""Synthetic windows that are not trained on."""
NUM_PATHS = 32
REFERENCE = "all of it"
FULL: TrainConfig = load_config(
    "zero_shot", Path(__file__).parents[1] / "configs" / "train", TrainConfig
)
SMALL = dataclasses.replace(FULL.model, d_model=64, num_heads=4, d_ff=192, num_layers=2)
Loss = Literal["crps", "likelihood"]


class Arm(NamedTuple):
    """One model of the table.

    Attributes:
        name: what it lacks, or has in place of the reference's.
        synthetic: windows of a step that are synthetic.
        without: a family of synthetic series that is left out; empty for none.
        model: its config.
        loss: as in `TrainConfig`.
        seed: of parameters and windows.
    """

    name: str
    synthetic: int = SYNTHETIC
    without: str = ""
    model: TimerXLConfig = SMALL
    loss: Loss = "crps"
    seed: int = 0


def arms() -> list[Arm]:
    """All models, those that matter most first; the reference with several seeds."""

    def changed(**fields: Any) -> TimerXLConfig:
        return dataclasses.replace(SMALL, **fields)

    return [
        Arm(REFERENCE),
        Arm(REFERENCE, seed=1),
        Arm("without real series", synthetic=BATCH),
        Arm("without synthetic series", synthetic=0),
        Arm("loss: likelihood", loss="likelihood"),
        Arm("head: a mean, one sigma", model=changed(head="mean"), loss="likelihood"),
        *(Arm(f"patches of {size}", model=changed(patch_len=size)) for size in (8, 24, 32)),
        *(Arm(f"without {name}", without=name) for name in FAMILIES),
        Arm(REFERENCE, seed=2),
        Arm("mean counted from the running mean", model=changed(anchor="mean")),
    ]


# --- windows to train on -------------------------------------------------------------------------


class Source(NamedTuple):
    """What the windows of a step are taken from.

    Attributes:
        pool: `[N, CONTEXT + AHEAD]` float32, synthetic series, standardised.
        kinds: `[N]`, the family of each, an index of `FAMILIES`.
        real: `[T, C]` float32, the training rows of the real series, standardised.
    """

    pool: np.ndarray
    kinds: np.ndarray
    real: np.ndarray


def make_pool(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Synthetic series and their families, see `Source`; about 2 ms each."""
    keys = jax.random.split(jax.random.key(POOL_KEY), count)
    series = jax.jit(
        lambda keys: jax.lax.map(functools.partial(draw, length=CONTEXT + AHEAD), keys)
    )
    kinds = jax.vmap(lambda key: parts.pick(parts.draws(key, 1, 2)[0][0], list(shares().values())))
    return np.asarray(series(keys)), np.asarray(kinds(keys))


def training_windows(source: Source, arm: Arm, step: int) -> np.ndarray:
    """The windows of a step, `[BATCH, LENGTH]`, a function of the arm's seed and the step.

    Windows of a family that is left out are replaced by others, and all others stay.
    """
    rng = np.random.default_rng([arm.seed, step])
    picks = rng.integers(len(source.pool), size=(2, BATCH))
    weight = rng.uniform(size=(BATCH, 1)) * (rng.uniform(size=(BATCH, 1)) < MIXED)
    starts = rng.integers(len(source.real) - LENGTH + 1, size=BATCH)
    columns = rng.integers(source.real.shape[1], size=BATCH)

    # a mixture is of two series whose families are both in
    if arm.without:
        left_out = list(FAMILIES).index(arm.without)
        others = np.flatnonzero(source.kinds != left_out)
        instead = others[rng.integers(len(others), size=picks.shape)]
        picks = np.where(source.kinds[picks] == left_out, instead, picks)
    first, second = source.pool[picks[0], :LENGTH], source.pool[picks[1], :LENGTH]
    synthetic = standardised(first + weight * second)
    steps = starts[:, None] + np.arange(LENGTH)  # [BATCH, LENGTH]
    real = source.real[steps, columns[:, None]]
    return np.where(np.arange(BATCH)[:, None] < arm.synthetic, synthetic, real)


def standardised(series: np.ndarray) -> np.ndarray:
    """Rows of mean 0 and std 1; 0 where constant."""
    series = series - series.mean(axis=1, keepdims=True)
    return series / np.sqrt(np.square(series).mean(axis=1, keepdims=True) + 1e-12)


# --- training ------------------------------------------------------------------------------------


@functools.cache
def training_program(
    model: TimerXLConfig, loss: Loss, steps: int
) -> tuple[optax.GradientTransformation, Callable[..., Any]]:
    """The optimiser, and a jitted `(state, windows [n, B, L, 1]) -> (state, losses [n])`."""
    data = DataConfig(source="x.npy", context_len=CONTEXT, variables="separate")
    optim = dataclasses.replace(
        FULL.optim, learning_rate=2e-3, schedule="cosine", epochs=1, warmup_steps=100
    )
    config = TrainConfig(data=data, model=model, loss=loss, optim=optim)
    series = Series(np.zeros((4 * LENGTH, 1), np.float32), ("x",), None)
    task = next_patch_task(config, prepare(data, series))
    optimizer = make_optimizer(optim, steps)

    def step(state: tuple[Params, Any], windows: jax.Array) -> tuple[tuple[Params, Any], jax.Array]:
        params, moments = state
        (value, _), grads = jax.value_and_grad(task.loss, has_aux=True)(
            params, windows, jax.random.key(0)
        )
        updates, moments = optimizer.update(grads, moments, params)
        return (optax.apply_updates(params, updates), moments), value

    return optimizer, jax.jit(lambda state, windows: jax.lax.scan(step, state, windows))


def trained(arm: Arm, source: Source, steps: int) -> Checkpoint:
    """The model of an arm after its steps, a multiple of `CHUNK`."""
    optimizer, run = training_program(arm.model, arm.loss, steps)
    params = init_params(jax.random.key(arm.seed), arm.model)
    state = params, optimizer.init(params)
    length = CONTEXT + arm.model.patch_len
    for first in range(0, steps, CHUNK):
        batches = [training_windows(source, arm, first + i)[:, :length] for i in range(CHUNK)]
        state, losses = run(state, jnp.asarray(np.stack(batches)[..., None], jnp.float32))
    if not np.isfinite(losses).all():
        raise InputError(f"the loss of {arm.name!r} is not finite; lower the learning rate.")
    return Checkpoint(arm.model, jax.device_get(state[0]), CONTEXT)


# --- what the models are scored on ---------------------------------------------------------------


def real_suite(values: np.ndarray) -> dict[str, Foreign]:
    """Real series that were not trained on, the last fifth of each to forecast."""
    start = len(values) * 4 // 5
    return _varying("real", values, start)


def synthetic_suite(pool: np.ndarray) -> dict[str, Foreign]:
    """Synthetic windows `[N, CONTEXT + AHEAD]`, each with one history."""
    return _varying("synthetic", pool.T, CONTEXT)


def _varying(kind: str, values: np.ndarray, start: int) -> dict[str, Foreign]:
    """Columns of `[T, C]`, but for those that the last value forecasts without an error."""
    columns = [Foreign(kind, 1, AHEAD, x, start) for x in values.T.astype(np.float64)]
    moving = [
        one
        for one in columns
        if any(np.ptp(one.values[end - 1 : end + AHEAD]) > 0 for end in cutoffs(one))
    ]
    return {f"{kind}_{i}": one for i, one in enumerate(moving)}


def scored(pair: sj.Pair, suites: dict[str, dict[str, Foreign]]) -> dict[str, Any]:
    """Errors of a model over those of seasonal-naive, geometric means over each suite.

    All histories are decoded together for `AHEAD` steps, so that a model compiles one decode.
    """
    every = {name: one for suite in suites.values() for name, one in suite.items()}
    past, places = every_history(every)
    paths = sj.forecast(pair, past, AHEAD, num_samples=NUM_PATHS).paths

    row: dict[str, Any] = {}
    for name, suite in suites.items():
        rows = [x for one in suite for x in _rows(one, every[one], paths[places[one]])]
        mean = summary(rows, "model")
        row |= {f"{name}_{score}": mean[score] for score in ("crps", "mae", "cover_80")}
    return row


def _rows(name: str, one: Foreign, paths: np.ndarray) -> list[dict[str, Any]]:
    """The scores of sample paths `[W, S, AHEAD]` and of seasonal-naive on a series."""
    past, truth = histories(one)
    base = np.stack([naive(x, one.season, one.horizon) for x in past])
    forecasts = {"seasonal-naive": Quantiles(base), "model": of_paths(paths[:, :, : one.horizon])}
    return [
        {"series": name, "method": method} | scores(forecast, truth)
        for method, forecast in forecasts.items()
    ]


# --- the program ---------------------------------------------------------------------------------


def main() -> None:
    """Trains, scores and writes the arms that the file does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=Path, required=True, help="[T, C] in a .npy file")
    parser.add_argument("--foreign", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--pool", type=int, default=20_000, help="synthetic windows to draw")
    args = parser.parse_args()

    # what is there
    rows = read_results(args.out)["rows"] if args.out.exists() else []
    if any((row["steps"], row["pool"]) != (args.steps, args.pool) for row in rows):
        raise InputError(f"{args.out} holds rows of other steps or windows; give another file.")
    done = {(row["arm"], row["seed"]) for row in rows}

    # the series
    values = np.load(args.real)
    apart = np.arange(values.shape[1]) % EVERY == EVERY - 1
    train = values[: int(0.7 * len(values)), ~apart]
    pool, kinds = make_pool(HELD_OUT + args.pool)
    source = Source(pool[HELD_OUT:], kinds[HELD_OUT:], standardised(train.T).T)
    suites = {
        "real": real_suite(values[:, apart]),
        "synthetic": synthetic_suite(pool[:HELD_OUT]),
    }
    suites["foreign"] = shortened(load(args.foreign), AHEAD)
    facts = {"series": {name: len(suite) for name, suite in suites.items()}, "paths": NUM_PATHS}

    # the models
    for arm in arms():
        if (arm.name, arm.seed) in done:
            continue
        begun = time.perf_counter()
        checkpoint = trained(arm, source, args.steps)
        seconds = time.perf_counter() - begun
        mean = scored(make_pair(checkpoint, None, "cached", CONTEXT, 1), suites)
        size = {"steps": args.steps, "pool": args.pool}
        rows.append({"arm": arm.name, "seed": arm.seed, **mean, **size})
        write_rows(args.out, rows, table="ablation", **facts)
        took = time.perf_counter() - begun
        print(rows[-1], f"{seconds:.0f} of {took:.0f} s trained", flush=True)


if __name__ == "__main__":
    main()
