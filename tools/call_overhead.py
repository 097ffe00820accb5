"""What a call of `decode` and of a built decoder costs over its compiled program.

`python tools/call_overhead.py --out docs/results/call_overhead.json --label after` (about 2
minutes, on a quiet machine) decodes with a target of 8 layers and a draft of one, so narrow that
the program takes about a millisecond, with every input on the device. The compiled program is
called with its parameters as a flat list. The calls take turns; a row holds the lowest tenth of the
times, which other work on the machine hardly moves, and its distance from that of the program. Rows
with other labels stay in the file: run it on an earlier checkout with `--label before`. There the
row of the built decoder is missing.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import stride_jax as sj
from stride_jax.evaluation.bench import time_in_turns
from stride_jax.evaluation.programs import untrained_process
from stride_jax.evaluation.results import write_labelled_rows

PATCH_LEN, PATCHES, HORIZON = 24, 10, 48
LAYERS, D_MODEL = {"target": 8, "draft": 1}, 16
SIGMA = 0.5


def calls(models: dict[str, Any], config: sj.DecodeConfig) -> dict[str, Callable[[int], Any]]:
    """The compiled program, and what is called instead of it; a call takes the number of a turn."""
    key, sigma = jax.random.key(0), jnp.float32(SIGMA)
    values = np.random.default_rng(0).normal(size=(1, PATCHES * PATCH_LEN, 1))
    context = jnp.asarray(values, jnp.float32)
    leaves, structure = jax.tree.flatten(models)

    def program(leaves: list[jax.Array], key: Any, context: Any, sigma: Any) -> Any:
        given = jax.tree.unflatten(structure, leaves)
        return sj.decode(key, context, sigma=sigma, config=config, **given)

    compiled = jax.jit(program)
    timed = {
        "program": lambda _: compiled(leaves, key, context, sigma),
        "decode": lambda _: sj.decode(key, context, sigma=sigma, config=config, **models),
    }
    if hasattr(sj, "build_decoder"):
        decoder = sj.build_decoder(sj.Pair(**models), config, context_shape=context.shape)
        timed["Decoder"] = lambda _: decoder(key, context, sigma)
    return timed


def rows(label: str, turns: int) -> Iterator[dict[str, Any]]:
    """A row for every decoder and call."""
    sizes = {"patch_len": PATCH_LEN, "d_model": D_MODEL, "num_heads": 2}
    target = untrained_process(num_layers=LAYERS["target"], **sizes)
    draft = untrained_process(seed=1, num_layers=LAYERS["draft"], **sizes)
    for name, num_draft in (("speculative", 2), ("target only", 0)):
        models = {"target": target} if num_draft == 0 else {"target": target, "draft": draft}
        timed = calls(models, sj.DecodeConfig(HORIZON, num_draft))
        times = time_in_turns(list(timed.values()), turns)
        tenths = [1e3 * float(np.quantile(seconds, 0.1)) for seconds in times]
        for call, tenth in zip(timed, tenths, strict=True):
            yield {
                "label": label,
                "decoder": name,
                "call": call,
                "parameter arrays": len(jax.tree.leaves(models)),
                "milliseconds": round(tenth, 4),
                "overhead": round(tenth - tenths[0], 4),
            }


def main() -> None:
    """Prints the rows and adds them to those of other labels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--label", required=True)
    parser.add_argument("--turns", type=int, default=1000)
    args = parser.parse_args()
    write_labelled_rows(args.out, args.label, rows(args.label, args.turns))


if __name__ == "__main__":
    main()
