r"""Every kind of draft for two targets: how close it is, what it costs, what it brings.

    python tools/draft_table.py --runs runs --out docs/results/draft_table.json
    PYTHONPATH=. venv_cuda/bin/python tools/draft_table.py --launches --out FILE

The first command (about 15 minutes on 2 CPU cores) decodes test windows of the embedded pair and of
a pair for ETTh1 with each draft, counts, and times one window at a time, the decoders of a pair in
turns; `--counts` leaves the times out. It reads these trained models in `--runs`:

    python distill.py beijing_linear --target beijing_target.safetensors
    python distill.py beijing_multi --target beijing_target.safetensors \
        --optim.epochs 1 --optim.steps_per_epoch 600
    python distill.py beijing --num_layers 1 --target beijing_target.safetensors \
        --optim.epochs 1 --optim.steps_per_epoch 600 --run.out runs/beijing_one
    python train.py etth1_672_causal
    python distill.py etth1_672 --target runs/etth1_causal_target --init_from "" --dropout 0 \
        --optim.learning_rate 2e-3 --optim.epochs 1 --run.out runs/etth1_draft
    (the same with --optim.steps_per_epoch 60 --output_patches 5 --run.out runs/etth1_multi)
    python distill.py etth1_672 --target runs/etth1_causal_target --objective ridge \
        --ridge.maps per_variable --run.out runs/etth1_linear

An epoch of `etth1_draft` has 246 steps. `beijing_multi` is trained for 600 steps here; without the
flags it has 1,800, as in the first table of docs/results/drafts.md. Keep the two in different
directories.

The second command adds the launches of K proposals and of a round on an H100, compiled without one
(see `tools/launches.py`), to the rows of the file. Programs of the pairs' layers and widths are
counted, with patches of 96 steps.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.checkpoints.pair import Pair
from stride_jax.data.config import DataConfig
from stride_jax.decoding.drafts import propose
from stride_jax.decoding.rules import parse_rule
from stride_jax.decoding.traits import prepare_draft
from stride_jax.decoding.types import DecodeConfig
from stride_jax.evaluation import bench
from stride_jax.evaluation.config import Setup
from stride_jax.evaluation.results import Row, read_results, write_rows
from stride_jax.evaluation.scoring import Tally
from stride_jax.evaluation.subject import (
    Subject,
    build,
    load,
    scoring_batches,
    speculative,
    target_only,
    timing_batches,
)
from stride_jax.training.responses import fit_responses

RULES = {"mean": "mean:tolerance=0.2", "maximal": "maximal", "block": "block"}
REPEATS, CONTEXTS = 15, 128


class Case(NamedTuple):
    """A target with its drafts.

    Attributes:
        data: the series.
        target: the checkpoint; a bare name is a directory of `--runs`.
        drafts: names or checkpoints by the kind of draft.
        num_draft: K.
        num_patches: N, the patches of the horizon.
        patch_len: P.
        stride: steps between two scored windows.
        setting: fields of `programs.Setting`, for the launches.
    """

    data: DataConfig
    target: str
    drafts: dict[str, str]
    num_draft: int
    num_patches: int
    patch_len: int
    stride: int
    setting: dict[str, Any]


NO_TRAINING = {"seasonal": "seasonal:24", "last value": "last-value", "nearest": "nearest"}
CASES = {
    "beijing": Case(
        DataConfig(context_len=504, variables="separate"),
        "beijing_target.safetensors",
        {
            "autoregressive, 3 layers": "beijing_draft.safetensors",
            "autoregressive, 1 layer": "beijing_one",
            "multi-patch": "beijing_multi",
            "linear": "beijing_linear",
            "layer-skip": "layer-skip:2",
            **NO_TRAINING,
        },
        num_draft=5,
        num_patches=7,
        patch_len=24,
        stride=429,
        setting={"layers": 8, "d_model": 256, "num_vars": 1, "num_draft": 5},
    ),
    "ETTh1": Case(
        DataConfig(source="ETTh1", context_len=672),
        "etth1_causal_target",
        {
            "autoregressive, 1 layer": "etth1_draft",
            "multi-patch": "etth1_multi",
            "linear": "etth1_linear",
            **NO_TRAINING,
        },
        num_draft=4,
        num_patches=5,
        patch_len=96,
        stride=71,
        setting={"layers": 1, "d_model": 1024, "num_vars": 7, "num_draft": 4},
    ),
}
LAUNCHES: dict[str, dict[str, Any]] = {
    "autoregressive, 3 layers": {"draft": "autoregressive", "draft_layers": 3},
    "autoregressive, 1 layer": {"draft": "autoregressive"},
    "multi-patch": {"draft": "multi-patch"},
    "linear": {"draft": "linear"},
    "layer-skip": {"draft": "layer-skip:2"},
    "seasonal": {"draft": "seasonal:96"},
    "last value": {"draft": "last-value"},
    "nearest": {"draft": "nearest"},
}
"""Fields of `programs.Setting` of each kind of draft."""


def main() -> None:
    """Prints the rows and writes them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--only", choices=tuple(CASES), nargs="+", default=tuple(CASES))
    parser.add_argument("--counts", action="store_true", help="no times")
    parser.add_argument("--launches", action="store_true", help="add launches to the file's rows")
    args = parser.parse_args()
    rows: list[Row] = []
    if args.launches:
        add_launches(args.out)
        return
    for name in args.only:
        rows += case_rows(name, CASES[name], args.runs, timed=not args.counts)
        write_rows(args.out, rows, table="drafts")


# --- counts and times ----------------------------------------------------------------------------


def case_rows(pair: str, case: Case, runs: Path, *, timed: bool) -> list[Row]:
    """One row for each draft of a target."""

    def place(name: str) -> str:
        trained = name.startswith(("beijing_", "etth1_")) and "." not in name
        return str(runs / name) if trained else name

    drafts = {kind: place(name) for kind, name in case.drafts.items()}
    setup = Setup(
        data=case.data,
        target=place(case.target),
        drafts=tuple(drafts.values()),
        process="cached",
        horizons=(case.num_patches * case.patch_len,),
        stride=case.stride,
        batch_size=32,
    )
    subject = build(setup, load(setup), [case.num_draft])
    subject.pairs["corrected"] = corrected(subject, case, subject.pairs[drafts["multi-patch"]])
    drafts["multi-patch, corrected"] = "corrected"
    facts = {"pair": pair, "num_draft": case.num_draft, "sigma": subject.sigma}
    rows = []
    for kind, name in drafts.items():
        rows.append({**facts, "draft": kind, **counted(subject, case, name)})
        print(rows[-1], flush=True)
    for row, time in zip(rows, timings(subject, case) if timed else [], strict=timed):
        row |= time
        print(row["draft"], time, flush=True)
    return rows


def corrected(subject: Subject, case: Case, pair: Pair) -> Pair:
    """The pair with a draft that is corrected on contexts spread over the training split."""
    (horizon,), size = subject.setup.horizons, subject.setup.batch_size
    windows = subject.windows(horizon, "train")
    numbers = np.linspace(0, windows.count - 1, CONTEXTS).astype(int).reshape(-1, size)
    contexts = [windows.gather(subject.values, jnp.asarray(row))[:, :-horizon] for row in numbers]
    key, sigma = jax.random.key(0), subject.sigma
    draft = fit_responses(
        key, pair.target, pair.proposer(), contexts, sigma, num_draft=case.num_draft
    )
    return dataclasses.replace(pair, draft=draft)


def sizes(case: Case, num_paths: int = 1, **changes: Any) -> DecodeConfig:
    """The config of a decode."""
    horizon = case.num_patches * case.patch_len
    return DecodeConfig(horizon, case.num_draft, num_paths=num_paths, **changes)


def counted(subject: Subject, case: Case, name: str) -> Row:
    """Gap, acceptance and patches of a round of a draft, over all scored windows.

    The gap is the RMS of `(mean_p - mean_q) / sigma` over the first proposals of the rounds of
    `maximal`, whose contexts follow the target's distribution.
    """
    (horizon,) = subject.setup.horizons
    batches = scoring_batches(subject, subject.windows(horizon), horizon)
    row: Row = {}
    for rule, text in RULES.items():
        traced = rule == "maximal"
        config = sizes(case, 1 if rule == "mean" else 2, trace=traced, compactions=0)
        decoder = speculative(subject, config, subject.sigma, name, parse_rule(text))
        (program,), tally, gaps = bench.compile_all([decoder], batches[0]), Tally(), []
        for batch in batches:
            forecast, info = program.decode(decoder, batch)
            tally.add(forecast, info, batch.truth, batch.weight)
            if info.trace is not None:
                used = (np.asarray(info.trace.length) > 0) & (np.asarray(info.trace.start) >= 0)
                used &= np.asarray(batch.weight)[:, None, None] > 0  # [B, S, R]
                gaps.append(np.asarray(info.trace.gap[..., 0])[used])
        scores = tally.scores()
        row[f"acceptance_{rule}"] = scores["acceptance"]
        row[f"patches_{rule}"] = scores["patches_per_round"]
        row |= {"gap": float(np.sqrt(np.mean(np.square(np.concatenate(gaps)))))} if gaps else {}
    return row


def timings(subject: Subject, case: Case) -> list[Row]:
    """Milliseconds of K proposals, and milliseconds and speedup of a decode by each rule."""
    (horizon,) = subject.setup.horizons
    batches = timing_batches(subject, subject.windows(horizon), horizon, 1, REPEATS)
    decoders = [target_only(subject, sizes(case), sigma) for sigma in (0.0, subject.sigma)]
    for name in subject.pairs:
        decoders += [
            speculative(subject, sizes(case), subject.sigma, name, parse_rule(text))
            for text in RULES.values()
        ]
    seconds = [measured.seconds for measured in bench.measure(decoders, batches)]
    base = {"mean": seconds[0], "maximal": seconds[1], "block": seconds[1]}
    drafting = propose_seconds(subject, case, batches)
    rows = []
    for number, draft_seconds in enumerate(drafting):
        row: Row = {"seconds_proposals": draft_seconds}
        for place, rule in enumerate(RULES):
            took = seconds[2 + len(RULES) * number + place]
            row |= {f"seconds_{rule}": took, f"speedup_{rule}": base[rule] / took}
        rows.append(row)
    return rows


def propose_seconds(subject: Subject, case: Case, batches: list[bench.Batch]) -> list[float]:
    """Median seconds in which each draft makes K proposals behind a prepared context."""
    shape = (case.num_draft, case.patch_len, batches[0].context.shape[-1])
    calls = []
    for pair in subject.pairs.values():
        draft = pair.proposer()
        memories = [
            prepare_draft(draft, pair.target, pair.target.prepare(context), context, None)
            for context in (batch.context[0] for batch in batches)
        ]

        @jax.jit
        def drafted(draft: Any, memory: Any, key: jax.Array) -> Any:
            noise = jax.random.normal(key, shape)
            sigma = jnp.full(shape[1:], subject.sigma, jnp.float32)
            state = draft.start(memory, case.num_draft)
            return propose(draft, memory, state, noise, sigma, case.num_draft, learned=False)[0]

        def call(number: int, draft: Any = draft, run: Any = drafted, ready: Any = memories) -> Any:
            return run(draft, ready[number], batches[number].key)

        calls.append(call)
    return [statistics.median(times) for times in bench.time_in_turns(calls, REPEATS)]


# --- launches ------------------------------------------------------------------------------------


def add_launches(out: Path) -> None:
    """Counts what the rows of a file lack, row by row."""
    content = read_results(out)
    program = str(Path(__file__).with_name("launches.py"))
    for row in content["rows"]:
        if "launches_round" in row or row["draft"] not in LAUNCHES:
            continue
        fields = CASES[row["pair"]].setting | LAUNCHES[row["draft"]]
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in fields.items()]
        command = [sys.executable, program, *flags]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        counts = json.loads(done.stdout.splitlines()[-1])
        row |= {f"launches_{name}": counts[name] for name in ("target_pass", "proposals", "round")}
        print(row["pair"], row["draft"], counts, flush=True)
        out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
