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
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import stride_jax as sj
from stride_jax.evaluation.results import write_rows
from stride_jax.models import init_params
from stride_jax.models.cached import CachedTimerXL
from stride_jax.models.config import TimerXLConfig

PATCH_LEN, PATCHES, HORIZON = 24, 10, 48
LAYERS, D_MODEL = {"target": 8, "draft": 1}, 16
SIGMA = 0.5


def process(layers: int, seed: int) -> Any:
    """A cached process of new parameters."""
    config = TimerXLConfig(
        patch_len=PATCH_LEN,
        num_layers=layers,
        d_model=D_MODEL,
        d_ff=2 * D_MODEL,
        num_heads=2,
        instance_norm="causal",
        dropout=0.0,
    )
    params = init_params(jax.random.key(seed), config)
    return sj.cached_process(CachedTimerXL(config), params, PATCH_LEN, norm="causal")


def calls(models: dict[str, Any], config: sj.DecodeConfig) -> dict[str, Callable[[], Any]]:
    """The compiled program, and what is called instead of it."""
    key, sigma = jax.random.key(0), jnp.float32(SIGMA)
    values = np.random.default_rng(0).normal(size=(1, PATCHES * PATCH_LEN, 1))
    context = jnp.asarray(values, jnp.float32)
    leaves, structure = jax.tree.flatten(models)

    def program(leaves: list[jax.Array], key: Any, context: Any, sigma: Any) -> Any:
        given = jax.tree.unflatten(structure, leaves)
        return sj.decode(key, context, sigma=sigma, config=config, **given)

    compiled = jax.jit(program)
    timed = {
        "program": lambda: compiled(leaves, key, context, sigma),
        "decode": lambda: sj.decode(key, context, sigma=sigma, config=config, **models),
    }
    if hasattr(sj, "build_decoder"):
        decoder = sj.build_decoder(sj.Pair(**models), config, context_shape=context.shape)
        timed["Decoder"] = lambda: decoder(key, context, sigma)
    return timed


def milliseconds(timed: dict[str, Callable[[], Any]], turns: int) -> dict[str, list[float]]:
    """Times of every call, in turns; a tenth of the turns warms up."""
    times: dict[str, list[float]] = {name: [] for name in timed}
    for turn in range(turns + turns // 10):
        for name, call in timed.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            if turn >= turns // 10:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def rows(label: str, turns: int) -> list[dict[str, Any]]:
    """A row for every decoder and call."""
    out = []
    target, draft = process(LAYERS["target"], 0), process(LAYERS["draft"], 1)
    for name, num_draft in (("speculative", 2), ("target only", 0)):
        models = {"target": target} if num_draft == 0 else {"target": target, "draft": draft}
        timed = calls(models, sj.DecodeConfig(HORIZON, num_draft))
        times = milliseconds(timed, turns)
        tenth = {call: float(np.quantile(times[call], 0.1)) for call in timed}
        for call in timed:
            out.append(
                {
                    "label": label,
                    "decoder": name,
                    "call": call,
                    "parameter arrays": len(jax.tree.leaves(models)),
                    "milliseconds": round(tenth[call], 4),
                    "overhead": round(tenth[call] - tenth["program"], 4),
                }
            )
            print(out[-1], flush=True)
    return out


def main() -> None:
    """Prints the rows and adds them to those of other labels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--label", required=True)
    parser.add_argument("--turns", type=int, default=1000)
    args = parser.parse_args()
    before = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    others = [row for row in before if row["label"] != args.label]
    write_rows(args.out, [*others, *rows(args.label, args.turns)])


if __name__ == "__main__":
    main()
