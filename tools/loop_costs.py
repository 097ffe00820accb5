"""What the decoder's two choices cost: one loop around a round of all paths, and scatters.

`python tools/loop_costs.py --out docs/results/loop_costs.json` (about 3 minutes) times the same
decode as it is, with a loop of its own for each series (`jax.vmap` of the decoder, which selects
over the whole carry for finished series), and with masked writes into the caches instead of
scatters. New models, cached process, rule `maximal`, acceptance as it falls.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import DecodeConfig
from stride_jax.evaluation.bench import time_in_turns
from stride_jax.evaluation.config import LatencyConfig
from stride_jax.evaluation.latency import Cell, build, contexts
from stride_jax.evaluation.results import write_rows

UPDATE = jax.lax.dynamic_update_slice_in_dim
SIZES = ((1, 1024), (8, 256))


def masked_write(buffer: jax.Array, new: jax.Array, start: jax.Array, axis: int) -> jax.Array:
    """`dynamic_update_slice_in_dim` that rewrites the whole buffer by selecting."""
    size = new.shape[axis]
    place = jnp.arange(buffer.shape[axis]) - start
    taken = jnp.take(new, jnp.clip(place, 0, size - 1), axis=axis).astype(buffer.dtype)
    shape = [-1 if i == axis else 1 for i in range(buffer.ndim)]
    inside = ((place >= 0) & (place < size)).reshape(shape)
    return jnp.where(inside, taken, buffer)


def times(layers: int, width: int, batch: int, masked: bool, apart: bool) -> dict[str, Any]:
    """One row."""
    jax.lax.dynamic_update_slice_in_dim = masked_write if masked else UPDATE
    jax.clear_caches()
    config = LatencyConfig(d_model=width, d_ff=2 * width, num_heads=4)
    cell = Cell(layers, 1, batch, "cached")
    pair, context = build(config, cell), contexts(config, cell)
    sizes = DecodeConfig(16 * config.patch_len, 3, compactions=0)
    index = jnp.arange(batch)

    def together(key: jax.Array, context: jax.Array, index: jax.Array) -> Any:
        options = {"target": pair.target, "draft": pair.draft, "sigma": 8.0, "config": sizes}
        return decode(key, context, series_index=index, **options)

    run = jax.jit(jax.vmap(together, in_axes=(None, 0, 0))) if apart else together
    keys = [jax.random.key(n) for n in range(6)]
    (times,) = time_in_turns([lambda n: run(keys[n], context, index)], 5)
    seconds = statistics.median(times)
    _, info = run(keys[0], context, index)
    return {
        "layers": layers,
        "width": width,
        "batch": batch,
        "loop": "one per series" if apart else "one for all",
        "writes": "masked" if masked else "scatter",
        "rounds": float(jnp.mean(info.rounds)),
        "most rounds": int(jnp.max(info.rounds)),
        "milliseconds": 1000 * seconds,
    }


def main() -> None:
    """Prints the rows and writes them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = []
    for layers, width in SIZES:
        for batch in (8, 64):
            for masked, apart in ((False, False), (False, True), (True, False)):
                rows.append(times(layers, width, batch, masked, apart))
                print(rows[-1], flush=True)
    write_rows(args.out, rows)


if __name__ == "__main__":
    main()
