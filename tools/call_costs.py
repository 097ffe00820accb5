r"""What a whole call of a decoder costs on a GPU, its results kept or let go, by compiler settings.

    python tools/call_costs.py --out docs/results/call_costs.json --label default

On a GPU (2 to 3 minutes, most of them the compiler's; `--small` tries it anywhere). A call whose
results lie elsewhere in memory than those of the call before has to change the launches that the
runtime has recorded. So a decoder is timed with the results of all calls kept, and with each result
let go before the next call. The settings are those of `XLA_FLAGS`; rows with other labels stay in
the file:

    XLA_FLAGS=--xla_gpu_enable_command_buffer=+WHILE,+CONDITIONAL python tools/call_costs.py \
        --out docs/results/call_costs.json --label loops

records whole loops, too.
"""

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, median
from typing import Any

from stride_jax.evaluation.bench import Batch, Decoder, Program, compile_all, time_in_turns
from stride_jax.evaluation.config import AcceleratorConfig, Setup
from stride_jax.evaluation.results import write_labelled_rows
from stride_jax.testing.accelerator_decoders import trained_decoders, untrained_decoders

DRAFT = "beijing_linear.safetensors"
HORIZON = 672
UNTRAINED, TRAINED = (17, 34), (6, 13, 16)
"""K of the linear draft of each pair."""
Cell = tuple[str, str, list[Decoder], list[Batch]]
"""Names of a pair and of its rule, decoders with the target alone first, and what they decode."""


def cells(config: AcceleratorConfig) -> Iterator[Cell]:
    """The untrained pair, and the trained one by each K."""
    drafts = [["linear", num_draft] for num_draft in UNTRAINED]
    sizes = {"layers": max(config.layers), "num_vars": 1, "batch": 1, "dtype": "float32"}
    decoders, batches = untrained_decoders(config, {**sizes, "drafts": drafts})
    yield "untrained", "all accepted", decoders, batches
    for num_draft in TRAINED:
        one = dataclasses.replace(config, pair_num_draft=num_draft)
        (alone, *others), batches = trained_decoders(one, {"horizon": HORIZON, "batch": 1})
        for rule, decoder in zip(config.rules, others, strict=True):
            yield "trained", rule, [alone, decoder], batches


def times(
    program: Program, decoder: Decoder, batches: list[Batch], keep: bool
) -> tuple[float, float]:
    """The median milliseconds of a call, and the mean target passes of a series."""
    kept, passes = [], []

    def call(number: int) -> Any:
        out = program.decode(decoder, batches[number])
        if keep:
            kept.append(out)
        return out

    def receive(_: int, number: int, out: Any) -> None:
        passes.append(float(out[1].target_passes.mean()))

    (seconds,) = time_in_turns([call], len(batches) - 1, receive)
    return 1000 * median(seconds), fmean(passes)


def rows(label: str, config: AcceleratorConfig) -> Iterator[dict[str, Any]]:
    """A row for each decoder and each way to treat its results; a target alone has one once."""
    done: dict[str, dict[bool, float]] = {}
    for pair, rule, (alone, *others), batches in cells(config):
        decoders = others if pair in done else [alone, *others]
        programs = compile_all(decoders, batches[0])
        for decoder, program in zip(decoders, programs, strict=True):
            for keep in (False, True):
                milliseconds, passes = times(program, decoder, batches, keep)
                if decoder.draft is None:
                    done.setdefault(pair, {})[keep] = milliseconds
                yield {
                    "label": label,
                    "pair": pair,
                    "method": decoder.method,
                    "rule": rule if decoder.draft else "",
                    "K": decoder.config.num_draft if decoder.draft else 0,
                    "results": "kept" if keep else "let go",
                    "target passes": round(passes, 2),
                    "ms": round(milliseconds, 2),
                    "speedup": round(done[pair][keep] / milliseconds, 2),
                }


def main() -> None:
    """Prints the rows and adds them to those of other labels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--label", required=True)
    parser.add_argument("--small", action="store_true", help="a target of one layer of width 64")
    args = parser.parse_args()
    setup = Setup(drafts=(DRAFT,), horizons=(HORIZON,), out=str(args.out.parent))
    config = AcceleratorConfig(setup=setup, rules=("mean:tolerance=0.2", "block"), repeats=12)
    if args.small:
        config = dataclasses.replace(config, d_model=64, layers=(1,), repeats=2)
    write_labelled_rows(args.out, args.label, rows(args.label, config))


if __name__ == "__main__":
    main()
