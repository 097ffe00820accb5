"""What many sample paths of one series cost: they share the prefill.

`python tools/path_costs.py --out docs/results/path_costs.json` (about two minutes) decodes 1 to
1,000 paths of one series of the embedded data with the shipped pair, at once and in chunks of 100,
and beside it the same number of copies of the series, each with a prefill of its own. Memory is
what the compiled program allocates besides its inputs and outputs.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax import Block, DecodeConfig, decode, load_pair
from stride_jax.data import embedded_series
from stride_jax.evaluation.bench import time_in_turns
from stride_jax.evaluation.results import write_rows

COUNTS = (1, 10, 100, 1000)


def row(pair: Any, context: jax.Array, count: int, how: str) -> dict[str, Any]:
    """One way to decode `count` paths."""
    chunk = {"paths in chunks of 100": 100}.get(how)
    if how == "copies of the series":
        context = jnp.broadcast_to(context, (count, *context.shape[1:]))
    config = DecodeConfig(168, 5, num_paths=None if len(context) > 1 else count, path_chunk=chunk)
    models = {"target": pair.target, "draft": pair.draft}

    def run(key: jax.Array, context: jax.Array) -> Any:
        return decode(key, context, sigma=0.5, config=config, rule=Block(), **models)[0]

    program = jax.jit(run).lower(jax.random.key(0), context).compile()
    keys = [jax.random.key(n) for n in range(6)]
    (times,) = time_in_turns([lambda n: program(keys[n], context)], 5)
    seconds = statistics.median(times)
    return {
        "how": how,
        "paths": count,
        "milliseconds": 1000 * seconds,
        "milliseconds per path": 1000 * seconds / count,
        "MB": program.memory_analysis().temp_size_in_bytes / 1e6,
    }


def main() -> None:
    """Prints the rows and writes them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    values = embedded_series(["TEMP"]).values
    normal = (values - np.mean(values)) / np.std(values)
    context = jnp.asarray(normal[None, -504:], jnp.float32)  # [1, L, 1]
    pair = load_pair("beijing")
    rows = []
    for count in COUNTS:
        ways = ["paths of one series", "copies of the series"]
        for how in [*ways, "paths in chunks of 100"] if count > 100 else ways:
            rows.append(row(pair, context, count, how))
            print(rows[-1], flush=True)
    write_rows(args.out, rows)


if __name__ == "__main__":
    main()
