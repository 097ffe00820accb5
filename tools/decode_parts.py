"""What a decode is made of on this machine, by the size of the target.

`python tools/decode_parts.py --out docs/results/decode_parts.json` (about five minutes on 2 CPU
cores) decodes one series with the target in the package and its drafts, and with untrained targets
of 8 layers and other widths and the first of these drafts. Every target decodes one patch, one week
and two by itself, and one and two weeks with a draft whose proposals are all accepted, so that
K = 6 makes one round a week. Parts are differences: of two weeks and one, divided by the passes or
rounds between them; the prefill is a decode of one patch less a pass.
"""

import argparse
import functools
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from stride_jax import DecodeConfig, Mean, decode, load_pair
from stride_jax.data import embedded_series
from stride_jax.decoding.base import Draft, Process
from stride_jax.evaluation.bench import time_in_turns
from stride_jax.evaluation.programs import untrained_process
from stride_jax.evaluation.results import Row, write_rows

CONTEXT, PATCH, WEEK, NUM_DRAFT, REPEATS = 504, 24, 7, 6, 31
TARGET = "beijing_target.safetensors"
DRAFTS = ("beijing_draft.safetensors", "beijing_linear.safetensors", f"seasonal:{PATCH}")
WIDTHS = (256, 512, 768, 1024)


Drafts = dict[str, Draft | Process]
"""Drafts by the names of their files."""


def decoder(
    target: Process, draft: Draft | Process | None, patches: int, context: jax.Array
) -> Callable[[int], Any]:
    """A decode of so many patches by the target alone, or with a draft that is always accepted."""
    config = DecodeConfig(patches * PATCH, 0 if draft is None else NUM_DRAFT)
    options = {} if draft is None else {"draft": draft, "rule": Mean(tolerance=1e6)}
    call = functools.partial(decode, context=context, target=target, sigma=0.5, config=config)
    return lambda number: call(jax.random.key(number), **options)


def rows(name: str, target: Process, drafts: Drafts, context: jax.Array) -> Iterator[Row]:
    """A row for each draft of a target, all decoders timed in turns."""
    cases = [("", 1), *((draft, n * WEEK) for draft in ("", *drafts) for n in (1, 2))]
    calls = [decoder(target, drafts.get(draft), count, context) for draft, count in cases]
    times = time_in_turns(calls, REPEATS)
    taken = {case: 1000 * statistics.median(one) for case, one in zip(cases, times, strict=True)}

    one_pass = (taken["", 2 * WEEK] - taken["", WEEK]) / WEEK
    for draft in drafts:
        one_round = taken[draft, 2 * WEEK] - taken[draft, WEEK]
        yield {
            "target": name,
            "MB": megabytes(target),
            "draft": draft.removesuffix(".safetensors"),
            "prefill, ms": taken["", 1] - one_pass,
            "pass, ms": one_pass,
            "round of six, ms": one_round,
            "passes a round": one_round / one_pass,
            "week alone, ms": taken["", WEEK],
            "in one round, ms": taken[draft, WEEK],
            "speedup": taken["", WEEK] / taken[draft, WEEK],
            "of two weeks": taken["", 2 * WEEK] / taken[draft, 2 * WEEK],
        }


def megabytes(target: Process) -> float:
    """The size of the weights that a pass reads."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(target)) / 1e6


def targets(widths: Sequence[int]) -> Iterator[tuple[str, Process, Drafts]]:
    """The target in the package with each draft, and untrained ones with the first draft."""
    pairs = {name: load_pair(TARGET, name, context_len=CONTEXT) for name in DRAFTS}
    drafts = {name: pair.draft for name, pair in pairs.items() if pair.draft is not None}
    yield TARGET.removesuffix(".safetensors"), pairs[DRAFTS[0]].target, drafts
    first = {DRAFTS[0]: drafts[DRAFTS[0]]}
    for width in widths:
        sizes = {"num_layers": 8, "patch_len": PATCH, "d_model": width, "num_heads": width // 64}
        yield f"untrained, width {width}", untrained_process(**sizes), first


def main() -> None:
    """Times the decoders of each target in turns and writes the parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--widths", type=int, nargs="*", default=WIDTHS)
    args = parser.parse_args()
    values = embedded_series().values[:CONTEXT, :1]
    context = jnp.asarray((values - values.mean()) / values.std(), jnp.float32)
    write_rows(args.out, [row for case in targets(args.widths) for row in rows(*case, context)])


if __name__ == "__main__":
    main()
