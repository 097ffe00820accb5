"""What a decode is made of on this machine: prefill, passes, verifications and draft steps.

`python tools/decode_parts.py --out docs/results/decode_parts.json` (about two minutes) decodes one
series with the target in the package (8 layers, D 256), alone over one patch, one week and two, and
over one and two weeks with three drafts whose proposals are all accepted, so that K = 6 makes one
round a week. Parts are differences: of two weeks and one, divided by the passes or rounds between
them; the prefill is a decode of one patch less a pass.
"""

import argparse
import functools
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from stride_jax import DecodeConfig, Mean, decode, load_pair
from stride_jax.data import embedded_series
from stride_jax.evaluation.bench import time_in_turns
from stride_jax.evaluation.results import write_rows

PATCH, WEEK, NUM_DRAFT, REPEATS = 24, 7, 6, 31
TARGET = "beijing_target.safetensors"
DRAFTS = ("beijing_draft.safetensors", "beijing_linear.safetensors", f"seasonal:{PATCH}")


def decoder(target: Any, draft: Any, patches: int, context: jax.Array) -> Callable[[int], Any]:
    """A decode of so many patches by the target alone, or with a draft that is always accepted."""
    config = DecodeConfig(patches * PATCH, 0 if draft is None else NUM_DRAFT)
    options = {} if draft is None else {"draft": draft, "rule": Mean(tolerance=1e6)}
    call = functools.partial(decode, context=context, target=target, sigma=0.5, config=config)
    return lambda number: call(jax.random.key(number), **options)


def main() -> None:
    """Times all decoders in turns and writes the parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    values = embedded_series().values[:504, :1]
    context = jnp.asarray((values - values.mean()) / values.std(), jnp.float32)
    pairs = {name: load_pair(TARGET, name, context_len=len(context)) for name in (None, *DRAFTS)}
    target = pairs[None].target  # one for all, so that the caches of the machine hold it once
    cases = [(None, 1), *((draft, n * WEEK) for draft in (None, *DRAFTS) for n in (1, 2))]
    calls = [decoder(target, pairs[name].draft, count, context) for name, count in cases]
    times = time_in_turns(calls, REPEATS)
    taken = {case: 1000 * statistics.median(one) for case, one in zip(cases, times, strict=True)}

    one_pass = (taken[None, 2 * WEEK] - taken[None, WEEK]) / WEEK
    rows: list[dict[str, Any]] = [
        {"part": "prefill, 21 patches", "milliseconds": taken[None, 1] - one_pass},
        {"part": "pass of the target", "milliseconds": one_pass},
        {"part": "week by the target alone", "milliseconds": taken[None, WEEK]},
    ]
    for draft in DRAFTS:
        name, week = draft.removesuffix(".safetensors"), taken[draft, WEEK]
        one_round = taken[draft, 2 * WEEK] - week
        rows.append({"part": f"round of six proposals, {name}", "milliseconds": one_round})
        rows.append({"part": f"week in one round, {name}", "milliseconds": week})
    for row in rows:
        row["passes"] = row["milliseconds"] / one_pass
        row["speedup"] = taken[None, WEEK] / row["milliseconds"] if "week" in row["part"] else None
    write_rows(out, rows)


if __name__ == "__main__":
    main()
