"""What compiling a decoder costs, by depth and by the options of the compiler.

`python tools/compile_times.py --out docs/results/compile_times.json --label after` (about 5 minutes
on 2 quiet cores) compiles speculative decoders, one after the other, with the compiler's own
settings, and with the label `after` the one of 8 layers with others too. It counts seconds of the
processor, which other work on the machine moves less than seconds of the clock. Runs of the
programs of one decoder take turns; a row holds the lowest tenth. Rows with other labels stay in the
file: run it on an earlier checkout with `--label before`.

A kernel is one fused computation; kernels that differ in names alone count once, because the
compiler makes them once. So depth adds few kernels: what it adds is the work of the passes over the
whole program.
"""

import argparse
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import stride_jax as sj
from stride_jax.evaluation.bench import time_in_turns
from stride_jax.evaluation.programs import untrained_process
from stride_jax.evaluation.results import write_labelled_rows

PATCH_LEN, PATCHES, CONFIG = 24, 21, sj.DecodeConfig(168, 6)
LEVEL, EMITTERS = "xla_backend_optimization_level", "xla_cpu_use_fusion_emitters"
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "level 1": {LEVEL: 1},
    "level 0": {LEVEL: 0},
    "old emitters": {EMITTERS: False},
    "old emitters, level 0": {EMITTERS: False, LEVEL: 0},
    "one part": {"xla_cpu_parallel_codegen_split_count": 1},
    "no expensive passes": {"xla_llvm_disable_expensive_passes": True},
}


class Compiled(NamedTuple):
    """A program and what it cost.

    Attributes:
        program: the compiled decode of `(pair, key, context)`.
        row: its figures.
    """

    program: Callable[..., Any]
    row: dict[str, Any]


def pair(layers: int, d_model: int) -> sj.Pair:
    """A target of new parameters and a draft of at most two layers of the same width."""
    sizes = {"patch_len": PATCH_LEN, "d_model": d_model, "num_heads": 4}
    target = untrained_process(num_layers=layers, **sizes)
    return sj.Pair(target, untrained_process(seed=1, num_layers=min(2, layers), **sizes))


def num_kernels(text: str) -> int:
    """Fused computations of a compiled program that differ in more than names."""
    computations = text.split("\n\n")
    fused = [c for c in computations if "fused_computation" in c.lstrip().split("(")[0]]
    return len({nameless(computation) for computation in fused})


def nameless(computation: str) -> str:
    """A computation with numbers in place of its names, in the order they come."""
    names: dict[str, str] = {}
    bare = re.sub(r", metadata=\{[^}]*\}", "", computation)
    bare = re.sub(r"param_[\d.]+", "param", bare)
    return re.sub(r"%[\w.\-]+", lambda m: names.setdefault(m[0], f"%{len(names)}"), bare)


def compile_decoder(models: sj.Pair, context: jax.Array, options: dict[str, Any]) -> Compiled:
    """Traces, lowers and compiles a decode, from nothing."""

    def decode(models: sj.Pair, key: jax.Array, context: jax.Array) -> Any:
        parts = {"target": models.target, "draft": models.draft}
        return sj.decode(key, context, sigma=0.5, config=CONFIG, **parts)

    jax.clear_caches()
    start = time.process_time()
    lowered = jax.jit(decode).lower(models, jax.random.key(0), context)
    middle, clock = time.process_time(), time.perf_counter()
    program = lowered.compile(compiler_options=options or None)
    seconds = time.process_time() - middle
    row = {
        "lower": round(middle - start, 2),
        "compile": round(seconds, 2),
        "clock": round(time.perf_counter() - clock, 2),
        "lines lowered": lowered.as_text().count("\n"),
        "kernels": num_kernels(program.as_text()),
    }
    return Compiled(program, row)


def runs(program: Any, models: sj.Pair, context: jax.Array) -> Callable[[int], Any]:
    """Runs a program with the key of a number."""
    return lambda number: program(models, jax.random.key(number), context)


def rows(label: str, turns: int) -> Iterator[dict[str, Any]]:
    """A row for every decoder and setting of the compiler."""
    pairs = {"beijing": sj.load_pair("beijing"), "8 layers, D 512": pair(8, 512)}
    pairs |= {f"{n} layers, D 256": pair(n, 256) for n in (1, 8)}
    values = np.random.default_rng(0).normal(size=(1, PATCHES * PATCH_LEN, 1))
    context = jnp.asarray(values, jnp.float32)
    compile_decoder(pairs["1 layers, D 256"], context, {})  # loads what is loaded once
    for name, models in pairs.items():
        levers = label == "after" and name == "8 layers, D 256"
        every = OPTIONS if levers else {"default": {}}
        done = {o: compile_decoder(models, context, options) for o, options in every.items()}
        calls = [runs(one.program, models, context) for one in done.values()]
        times = time_in_turns(calls, turns)
        for (option, one), seconds in zip(done.items(), times, strict=True):
            tenth = round(1000 * float(np.quantile(seconds, 0.1)), 2)
            head = {"label": label, "decoder": name, "options": option}
            yield {**head, **one.row, "run milliseconds": tenth}


def main() -> None:
    """Prints the rows and adds them to those of other labels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--label", required=True)
    parser.add_argument("--turns", type=int, default=40)
    args = parser.parse_args()
    write_labelled_rows(args.out, args.label, rows(args.label, args.turns))


if __name__ == "__main__":
    main()
