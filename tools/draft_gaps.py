"""How far drafts are from their target's next patch, split by split.

`python tools/draft_gaps.py --target runs/etth1_672_target --drafts runs/a runs/b --out FILE.json`
(a minute a draft on 2 CPU cores) takes one window in `--stride` of every split and compares the two
means of the patch after it: RMS distance in units of the calibrated sigma and of the window's std,
and the acceptance 2 Phi(-delta / 2) that an exact rule has there.
"""

import argparse
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from stride_jax.checkpoints.build import make_target
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.checkpoints.store import find_model
from stride_jax.data.config import DataConfig
from stride_jax.data.splits import load_data
from stride_jax.data.windows import Windows, make_windows, padded_batches
from stride_jax.decoding import gaussian
from stride_jax.evaluation.results import write_rows
from stride_jax.forecasting.sigma import calibrate_sigma
from stride_jax.models.timer_xl import make_predict

BATCH = 32


@functools.partial(jax.jit, static_argnames=("target", "draft", "windows"))
def sums(
    params: Any,
    values: jax.Array,
    sigma: jax.Array,
    batch: tuple[jax.Array, jax.Array],
    *,
    target: Any,
    draft: Any,
    windows: Windows,
) -> jax.Array:
    """Weighted sums over a batch: squared gap, squared gap over the variance, acceptance."""
    context = windows.gather(values, batch[0])  # [B, L, C]

    def one(series: jax.Array) -> jax.Array:
        models = zip((target, draft), params, strict=True)
        mean_p, mean_q = (make_predict(config, own)(series).mean for config, own in models)
        gap = jnp.square(mean_p - mean_q)  # [P, C]
        spread = jnp.std(series, axis=0)
        delta = jnp.sqrt(jnp.sum(gap)) / sigma
        scaled = jnp.mean(gap / jnp.square(jnp.maximum(spread, 1e-6)))
        return jnp.stack([jnp.mean(gap), scaled, gaussian.acceptance(delta)])

    return jnp.tensordot(batch[1], jax.vmap(one)(context), axes=1)


def row(
    target: Checkpoint, draft: Checkpoint, values: jax.Array, windows: Windows, sigma: float
) -> dict[str, float]:
    """The figures of one draft on one split."""
    total, params = jnp.zeros(3), (target.params, draft.params)
    for batch in zip(*padded_batches(windows.count, BATCH), strict=True):
        models = {"target": target.model, "draft": draft.model}
        total += sums(params, values, jnp.asarray(sigma), batch, **models, windows=windows)
    gap, scaled, acceptance = (float(x) for x in total / windows.count)
    return {
        "RMSE": gap**0.5,
        "RMSE / sigma": gap**0.5 / sigma,
        "RMSE / window std": scaled**0.5,
        "2 Phi(-delta/2)": acceptance,
    }


def main() -> None:
    """Prints the rows and writes them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True)
    parser.add_argument("--drafts", nargs="+", required=True)
    parser.add_argument("--source", default="ETTh1")
    parser.add_argument("--context", type=int, default=672)
    parser.add_argument("--stride", type=int, default=16)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    data = load_data(DataConfig(source=args.source, context_len=args.context))
    target = find_model(args.target)
    values, num_vars = jnp.asarray(data.values), len(data.names)
    process = make_target(target, "window", args.context, num_vars)
    length = args.context + process.patch_len
    rows_of = data.splits.validation
    windows = make_windows(rows_of, length, num_vars, separate=False, stride=7)
    sigma = calibrate_sigma(process, values, windows, 64)
    rows = []
    for name in args.drafts:
        draft = find_model(name)
        size = sum(x.size for x in jax.tree.leaves(draft.params))
        for split in ("train", "validation", "test"):
            rows_of = getattr(data.splits, split)
            windows = make_windows(
                rows_of, args.context, num_vars, separate=False, stride=args.stride
            )
            found = row(target, draft, values, windows, sigma)
            rows.append({"draft": Path(name).name, "parameters": size, "split": split, **found})
            print(rows[-1], flush=True)
    write_rows(args.out, rows, sigma=sigma, target=args.target)


if __name__ == "__main__":
    main()
