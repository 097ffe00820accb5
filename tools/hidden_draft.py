"""Would a draft be closer to its target if it also saw the target's last hidden state?

`python tools/hidden_draft.py --out docs/results/hidden_draft.json` (about 3 minutes on 2 CPU
cores), after `train.py etth1_672` and `etth1_672_pretrain`. The draft's features and the hidden
state with which the target forecast the last patch (known once that patch is out) go through a
small network into the draft's head. Off-policy mean matching for one epoch; its counterpart is
`distill.py etth1_672 --on_policy 0 --dropout 0 --optim.learning_rate 2e-3
--optim.epochs 1`. Only the first proposal of a round can see a fresh hidden state, and only that
one is measured.
"""

import argparse
import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from stride_jax import load_model, metrics
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.data.config import DataConfig
from stride_jax.data.splits import load_data
from stride_jax.data.windows import make_windows, padded_batches
from stride_jax.evaluation.results import write_rows
from stride_jax.models.attention import full_layout
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import Params, TimerXL, instance_stats
from stride_jax.training.config import OptimConfig, RunConfig
from stride_jax.training.loop import run_training
from stride_jax.training.step import Metrics, Task, training_windows

DATA = DataConfig(source="ETTh1", context_len=672)
BATCH = 32


def features(config: TimerXLConfig, params: Params, patches: jax.Array, **rest: Any) -> jax.Array:
    """The input of the head, `[B, C * N, D]`, for normalised patches `[B, N, P, C]`."""
    layout = full_layout(config, patches.shape[3], patches.shape[1])
    model = TimerXL(config)
    return model.apply({"params": params}, patches, layout, method=TimerXL.features, **rest)


def both_means(
    target: Checkpoint, model: TimerXLConfig, params: Params, x: jax.Array, key: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """The draft's and the target's next-patch means at every position, `[B, N, P, C]` each."""
    batch, _, num_vars = x.shape
    patches = x.reshape(batch, -1, model.patch_len, num_vars)  # [B, L, C] -> [B, N, P, C]
    center, scale, origin = instance_stats(model, patches)
    normal = (patches - origin - center) / scale
    seen = jax.lax.stop_gradient(features(target.model, target.params, normal))
    # [B, C * N, D] -> [B, C, N, D], one position later, and back
    by_patch = seen.reshape(batch, num_vars, -1, seen.shape[-1])
    late = jnp.pad(by_patch, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1].reshape(seen.shape)
    noisy = {} if key is None else {"deterministic": False, "rngs": {"dropout": key}}
    drafted = features(model, params["draft"], normal, **noisy)
    mixed = jax.nn.relu(jnp.concatenate([drafted, late], axis=-1) @ params["in"]) @ params["out"]

    def mean(config: TimerXLConfig, weights: Params, read: jax.Array) -> jax.Array:
        arguments = (read, num_vars, normal)
        out = TimerXL(config).apply({"params": weights}, *arguments, method=TimerXL.predictions)
        return out.mean * scale + center + origin

    return mean(model, params["draft"], drafted + mixed), mean(target.model, target.params, seen)


def main() -> None:
    """Trains, and writes the gap on every split."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--run", default="runs/hidden_draft")
    args = parser.parse_args()
    data, target = load_data(DATA), load_model("runs/etth1_672_target")
    start = load_model("runs/etth1_672_pretrain")
    model = dataclasses.replace(start.model, dropout=0.0)
    width, wide = model.d_model, target.model.d_model
    mixing = jax.random.normal(jax.random.key(1), (width + wide, width)) * (width + wide) ** -0.5
    params = {"draft": start.params, "in": mixing, "out": jnp.zeros((width, width))}
    means = functools.partial(both_means, target, model)

    def loss(params: Params, windows: jax.Array, key: jax.Array) -> tuple[jax.Array, Metrics]:
        return metrics.mse(*means(params, windows[:, : DATA.context_len], key)), {}

    def error(params: Params, windows: jax.Array) -> jax.Array:
        ours, theirs = means(params, windows[:, : DATA.context_len], None)
        return jnp.mean(jnp.square(ours - theirs)[:, -1], axis=(1, 2))

    windows = training_windows(DATA, data, model.patch_len)
    task = Task(model, DATA.context_len, *windows, loss, error)
    optim = OptimConfig(learning_rate=2e-3, schedule="cosine", batch_size=BATCH, epochs=1)
    trained = run_training(task, optim, RunConfig(out=args.run), params, data.values, {})
    rows, values = [], data.on_device
    for split in ("train", "validation", "test"):
        part = make_windows(
            getattr(data.splits, split), DATA.context_len, 7, separate=False, stride=16
        )
        total, score = 0.0, jax.jit(error)
        for index, weight in zip(*padded_batches(part.count, BATCH), strict=True):
            total += float(weight @ score(trained.params, part.gather(values, index)))
        rows.append({"draft": "hidden state", "split": split, "RMSE": (total / part.count) ** 0.5})
    write_rows(args.out, rows)


if __name__ == "__main__":
    main()
