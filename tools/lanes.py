"""What the slowest path of a batch costs: lanes x rounds played, over those that are needed.

`python tools/lanes.py --out docs/results/lanes.json` (about 3 minutes) decodes 1,024 test windows
of the embedded series with the shipped pair, horizon 168 and K = 6. From the rounds of each window
it counts what batches of 64 and 512 play, for every number of smaller sizes (`DecodeConfig
.compactions`). `--repeats 9` also compiles and times those decodes, in turns; do that on a machine
that does nothing else.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from stride_jax.decoding.lanes import lane_sizes, lanes_played
from stride_jax.decoding.types import DecodeConfig, num_patches
from stride_jax.evaluation import bench
from stride_jax.evaluation.config import Setup
from stride_jax.evaluation.results import write_rows
from stride_jax.evaluation.subject import build, load, parse_rules, speculative, timing_batches

HORIZON, NUM_DRAFT, WINDOWS = 168, 6, 1024
RULES = ("mean:tolerance=0.2", "maximal", "block", "shared_noise:tolerance=0.2")
BATCHES, COMPACTIONS = (64, 512), (0, 1, 2, 4)


def main() -> None:
    """Prints the rows and writes them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=0)
    args = parser.parse_args()
    setup = Setup()
    subject = build(setup, load(setup), [NUM_DRAFT])
    windows = subject.windows(HORIZON)
    rows: list[dict[str, Any]] = []
    for text in RULES:
        (rule,), (name,) = parse_rules([text], 1), setup.drafts
        config = DecodeConfig(HORIZON, NUM_DRAFT, num_paths=1, compactions=0)
        decoder = speculative(subject, config, subject.sigma, name, rule)

        # The rounds of each window do not depend on its batch.
        batches = timing_batches(subject, windows, HORIZON, 64, WINDOWS // 64 - 1)
        (program,) = bench.compile_all([decoder], batches[0])
        rounds = [np.asarray(program.decode(decoder, b)[1].rounds) for b in batches]
        needed = np.concatenate(rounds)  # [WINDOWS, 1]
        for batch in BATCHES:
            decoders = [decoder.with_config(compactions=n) for n in COMPACTIONS]
            timed = timing_batches(subject, windows, HORIZON, batch, max(args.repeats, 1))
            programs = bench.compile_all(decoders, timed[0]) if args.repeats else []
            times = _times(decoders, programs, timed) if args.repeats else [{}] * len(decoders)
            for count, measured in zip(COMPACTIONS, times, strict=True):
                row = {"rule": text, "batch": batch, "compactions": count}
                rows.append(row | {"played over needed": _ratio(needed, batch, count)} | measured)
                print(rows[-1], flush=True)
    write_rows(args.out, rows)


def _ratio(needed: np.ndarray, batch: int, compactions: int) -> float:
    """Lanes x rounds played over needed, of all batches together."""
    patches = num_patches(HORIZON, 24)
    sizes = lane_sizes((batch, 1), patches, compactions)
    parts = needed.reshape(-1, batch, 1)  # [WINDOWS, 1] -> [WINDOWS / B, B, 1]
    return sum(lanes_played(part, sizes) for part in parts) / int(needed.sum())


def _times(decoders: Any, programs: Any, batches: Any) -> list[dict[str, float]]:
    """Milliseconds of a batch, and seconds of the compilation."""

    def call(i: int) -> Any:
        return lambda number: programs[i].decode(decoders[i], batches[number])

    calls = [call(i) for i in range(len(decoders))]
    seconds = bench.time_in_turns(calls, len(batches) - 1)
    return [
        {
            "milliseconds": 1000 * statistics.median(times),
            "compile seconds": program.compile_seconds,
        }
        for program, times in zip(programs, seconds, strict=True)
    ]


if __name__ == "__main__":
    main()
