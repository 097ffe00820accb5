"""Time of decoding a foundation model: autoregressive, from caches, speculative, and the original.

    python tools/family_speed.py --family timesfm --out docs/results/families/timesfm.json \
        --original PYTHON

The model has its released sizes, or those of the flags, and random weights, so all proposals are
accepted by force (a tolerance without end): the numbers are those of perfect drafts. PYTHON is the
interpreter of an environment with the original code (see tools/golden_timesfm.py,
tools/golden_timer.py, tools/golden_patchfm.py and tools/golden_toto.py); without it the rows of the
original are left out. One run at a time, on a quiet machine. Rows of one batch and one horizon are
timed in turns; each is written as soon as it is there, and a second call goes on where the first
one stopped. A toy, in a minute: `--layers 2 --d-model 64 --heads 4 --d-ff 64 --batch 1 --horizon
512`.

What the rows are:

- native: each patch by a pass over the whole sequence so far, without caches (of PatchFM over the
  last 1,024 steps of it, and none of its nine paths);
- cached: the target alone, from its caches;
- forced K: K proposals of the last value per round, all accepted;
- a draft inside the weights, with as many proposals as fill the horizon, all accepted;
- original: the original PyTorch code's own decode (of PatchFM that of nine paths).

`patchfm_nine` is the released decode of PatchFM, `patchfm` its median path. Fracast-0 has no
caches, so its rows *native* would be those of *cached*: `--without native`.

Passes count the prefill. Memory is what the program holds at its highest by the compiler's count,
parameters included; of the original it is that of its process so far.
"""

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from stride_jax import DecodeConfig, build_decoder
from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding.naive_drafts import last_value_draft
from stride_jax.decoding.rules import Mean
from stride_jax.decoding.types import num_patches
from stride_jax.evaluation.released import SUBJECTS, Subject
from stride_jax.evaluation.results import write_rows
from stride_jax.models.patchfm.nine_paths import nine_times

DRAFT_LENGTHS = (1, 2, 4, 7)
FORCED = Mean(1e30)


class Timed(NamedTuple):
    """One row to time: a run that returns the milliseconds it took, and what is known of it."""

    run: Callable[[], float]
    facts: dict[str, Any]


def native(process: Any, context: jax.Array, patches: int) -> jax.Array:
    """The mean path `[B, N, P, C]`, each patch by a pass over all before it."""
    size = process.patch_len
    nothing = jnp.zeros((0, size, context.shape[2]))

    def one(series: jax.Array) -> jax.Array:
        room = jnp.zeros((patches * size, series.shape[1]))

        def step(buffer: jax.Array, number: jax.Array) -> tuple[jax.Array, jax.Array]:
            length = len(series) + number * size
            memory = process.prepare(buffer, length.astype(jnp.int32))
            predictions, _ = process.verify(memory, process.start(memory, 1), nothing)
            patch = predictions.mean[0]
            return jnp.concatenate([buffer[size:], patch]), patch

        _, path = jax.lax.scan(step, jnp.concatenate([room, series]), jnp.arange(patches))
        return path

    return jax.vmap(one)(context)


def peak_mb(compiled: Any) -> float:
    """Memory of a program at its highest, in MiB."""
    sizes = compiled.memory_analysis()
    parts = "argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes"
    return float(sum(getattr(sizes, part) for part in parts)) / 2**20


def took(run: Callable[[], Any]) -> float:
    """Milliseconds of one run."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return 1000 * (time.perf_counter() - start)


def native_row(process: Any, context: jax.Array, horizon: int) -> Timed:
    """The row without caches."""
    patches = num_patches(horizon, process.patch_len)
    program = jax.jit(native, static_argnums=2).lower(process, context, patches).compile()
    facts = {"passes": patches, "peak_mb": peak_mb(program)}
    return Timed(lambda: took(lambda: program(process, context)), facts)


def decode_row(process: Any, draft: Any, context: jax.Array, horizon: int, count: int) -> Timed:
    """A row of `decode`, with or without a draft."""
    config = DecodeConfig(horizon=horizon, num_draft=count)
    pair = Pair(process, draft)
    decoder = build_decoder(pair, config, FORCED, context_shape=context.shape)
    key, sigma = jax.random.key(0), jnp.float32(1.0)
    _, info = decoder(key, context, sigma)
    passes = float(info.target_passes.mean()) + 1
    facts = {"passes": passes, "peak_mb": decoder.cost().peak_bytes / 2**20}
    return Timed(lambda: took(lambda: decoder(key, context, sigma)), facts)


def original_row(worker: Any, shape: tuple[int, ...], horizon: int, passes: int) -> Timed:
    """The row of the original code, which a process of its own decodes."""
    facts: dict[str, Any] = {"passes": passes}
    cell = {"batch": shape[0], "context": shape[1], "horizon": horizon}

    def run() -> float:
        worker.stdin.write(json.dumps(cell) + "\n")
        worker.stdin.flush()
        line = worker.stdout.readline()
        if not line:
            sys.exit("error: the original code stopped; its message stands above.")
        answer = json.loads(line)
        facts["peak_mb"] = answer["peak_mb"]
        return float(answer["ms"])

    return Timed(run, facts)


def makers(
    subject: Subject, process: Any, context: jax.Array, horizon: int, worker: Any
) -> dict[str, Callable[[], Timed]]:
    """Everything that is timed for one batch and horizon, by the name of its row."""
    patches = num_patches(horizon, process.patch_len)
    rows: dict[str, Callable[[], Timed]] = {
        "native": lambda: native_row(process, context, horizon),
        "cached": lambda: decode_row(process, None, context, horizon, 0),
    }
    if subject.nine_paths:  # a longer context has one path only
        del rows["native"]
    last = last_value_draft(process.patch_len)
    for count in DRAFT_LENGTHS:
        rows[f"forced {count}"] = lambda k=count: decode_row(process, last, context, horizon, k)
    for name, make in subject.family.drafts.items():
        rows[name] = lambda m=make: decode_row(
            process, m(process), context, horizon, max(1, patches - 1)
        )
    if worker is not None:
        rows["original"] = lambda: original_row(worker, context.shape, horizon, patches)
    return rows


def timed(rows: dict[str, Timed], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of every row, `repeats` times in turns, after one run that does not count."""
    for row in rows.values():
        row.run()
    times: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(repeats):
        for name, row in rows.items():
            times[name].append(row.run())
    return times


def parse() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", choices=SUBJECTS, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--original", help="interpreter with the original code")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--d-model", type=int)
    parser.add_argument("--heads", type=int)
    parser.add_argument("--d-ff", type=int)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--horizon", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--without", nargs="*", default=[], help="rows to leave out")
    return parser.parse_args()


def sized(subject: Subject, args: argparse.Namespace) -> Any:
    """The config of the model: released sizes, but for those that flags give."""
    flags = {"num_layers": args.layers, "d_model": args.d_model}
    flags |= {"num_heads": args.heads, "d_ff": args.d_ff}
    return subject.config(**{name: value for name, value in flags.items() if value is not None})


def before(path: Path, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of an earlier call; those of another model end this one."""
    if not path.exists():
        return []
    content = json.loads(path.read_text())
    if content["model"] != facts["model"]:
        sys.exit(f"error: {path} holds rows of another model; give another file.")
    return list(content["rows"])


def main() -> None:
    """Times every batch and horizon that the file has not yet."""
    args = parse()
    subject = SUBJECTS[args.family]
    config = sized(subject, args)
    sizes = dataclasses.asdict(config)
    facts = {"model": {"family": args.family, "context": subject.context, **sizes}}
    rows, worker = before(args.out, facts), None
    if args.original:
        command = [args.original, str(Path(__file__).with_name("family_original.py"))]
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        worker.stdin.write(json.dumps({"family": args.family, "sizes": sizes}) + "\n")
    params = jax.jit(subject.init, static_argnums=1)(jax.random.key(0), config)
    process = subject.process(config, params)
    for batch in args.batch:
        context = jax.random.normal(jax.random.key(1), (batch, subject.context, 1))
        context = nine_times(context) if subject.nine_paths else context
        for horizon in args.horizon:
            cell = {"batch": batch, "horizon": horizon}
            known = {row["what"] for row in rows if cell.items() <= row.items()}
            known |= set(args.without)
            wanted = makers(subject, process, context, horizon, worker)
            ready = {name: make() for name, make in wanted.items() if name not in known}
            for name, times in timed(ready, args.repeats).items():
                median, least = statistics.median(times), min(times)
                row = {**cell, "what": name, "ms": median, "least_ms": least, **ready[name].facts}
                print(row, flush=True)
                rows.append(row)
                write_rows(args.out, rows, **facts)
    if worker is not None:
        worker.stdin.close()
        worker.wait()


if __name__ == "__main__":
    main()
