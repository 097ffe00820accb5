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

from stride_jax.checkpoints.build import make_pair, make_target
from stride_jax.checkpoints.store import find_any, find_model
from stride_jax.data.config import DataConfig
from stride_jax.data.splits import load_data
from stride_jax.data.windows import Windows, make_windows, padded_batches
from stride_jax.decoding import gaussian
from stride_jax.decoding.drafts import as_draft
from stride_jax.evaluation.results import write_rows
from stride_jax.forecasting.sigma import calibrate_sigma

BATCH = 32


def next_mean(draft: Any, series: jax.Array) -> jax.Array:
    """The mean of the patch after a series `[L, C]`, `[P, C]`."""
    memory, shape = draft.prepare(series), (1, draft.patch_len, series.shape[1])
    return draft.predict_next(memory, draft.start(memory, 1), shape)[0].mean[0]


@functools.partial(jax.jit, static_argnames="windows")
def sums(
    drafts: tuple[Any, Any],
    values: jax.Array,
    sigma: jax.Array,
    batch: tuple[jax.Array, jax.Array],
    *,
    windows: Windows,
) -> jax.Array:
    """Weighted sums over a batch: squared gap, squared gap over the variance, acceptance."""
    context = windows.gather(values, batch[0])  # [B, L, C]

    def one(series: jax.Array) -> jax.Array:
        mean_p, mean_q = (next_mean(draft, series) for draft in drafts)
        gap = jnp.square(mean_p - mean_q)  # [P, C]
        spread = jnp.std(series, axis=0)
        delta = jnp.sqrt(jnp.sum(gap)) / sigma
        scaled = jnp.mean(gap / jnp.square(jnp.maximum(spread, 1e-6)))
        return jnp.stack([jnp.mean(gap), scaled, gaussian.acceptance(delta)])

    return jnp.tensordot(batch[1], jax.vmap(one)(context), axes=1)


def row(
    drafts: tuple[Any, Any], values: jax.Array, windows: Windows, sigma: float
) -> dict[str, float]:
    """The figures of the second draft on one split; the first is the target."""
    total = jnp.zeros(3)
    for batch in zip(*padded_batches(windows.count, BATCH), strict=True):
        total += sums(drafts, values, jnp.asarray(sigma), batch, windows=windows)
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
    parser.add_argument("--variables", choices=("joint", "separate"), default="joint")
    parser.add_argument("--stride", type=int, default=16)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    data = load_data(DataConfig(source=args.source, context_len=args.context))
    target, separate = find_model(args.target), args.variables == "separate"
    values, num_vars = jnp.asarray(data.values), len(data.names)
    size = 1 if separate else num_vars
    process = make_target(target, "window", args.context, size)
    length = args.context + process.patch_len
    rows_of = data.splits.validation
    windows = make_windows(rows_of, length, num_vars, separate=separate, stride=7)
    sigma = calibrate_sigma(process, values, windows, 64)
    rows = []
    for name in args.drafts:
        draft = find_any(name, "draft")
        parameters = sum(x.size for x in jax.tree.leaves(draft.params))
        pair = make_pair(target, draft, "window", args.context, size)
        drafts = as_draft(pair.target), pair.proposer()
        for split in ("train", "validation", "test"):
            rows_of = getattr(data.splits, split)
            windows = make_windows(
                rows_of, args.context, num_vars, separate=separate, stride=args.stride
            )
            found = row(drafts, values, windows, sigma)
            about = {"draft": Path(name).name, "parameters": parameters, "split": split}
            rows.append({**about, **found})
            print(rows[-1], flush=True)
    write_rows(args.out, rows, sigma=sigma, target=args.target)


if __name__ == "__main__":
    main()
