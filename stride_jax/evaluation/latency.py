"""Latency by size, batch, process and K, with untrained models: the rows of a latency table."""

from __future__ import annotations

import functools
import itertools
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from stride_jax.checkpoints.build import (
    ProcessKind,
    make_pair,
)
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.checkpoints.pair import Pair
from stride_jax.decoding.base import Outcome, Round, Rule
from stride_jax.decoding.batching import over_lanes
from stride_jax.decoding.drafts import propose as propose_with
from stride_jax.decoding.rules import Maximal
from stride_jax.decoding.rules.common import target_draw
from stride_jax.decoding.types import DecodeConfig
from stride_jax.evaluation.bench import (
    Batch,
    Decoder,
    Label,
    Measured,
    Progress,
    measure,
    silent,
    time_in_turns,
)
from stride_jax.evaluation.config import LatencyConfig
from stride_jax.evaluation.experiments import Report, run
from stride_jax.evaluation.results import Row, content
from stride_jax.models.config import TimerXLConfig
from stride_jax.models.timer_xl import init_params


class Cell(NamedTuple):
    """One pair in one situation.

    Attributes:
        layers: of the target.
        num_vars: C.
        batch: B.
        process: window or cached.
    """

    layers: int
    num_vars: int
    batch: int
    process: ProcessKind


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AcceptAll(Rule):
    """Accepts every proposal: the fastest that any rule can be."""

    def decide(self, key: jax.Array, current: Round) -> Outcome:
        """See `Rule`."""
        return Outcome(current.length, target_draw(current, current.length))


def build(config: LatencyConfig, cell: Cell) -> Pair:
    """A target and a draft without training."""
    model = TimerXLConfig(
        patch_len=config.patch_len,
        d_model=config.d_model,
        num_heads=config.num_heads,
        d_ff=config.d_ff,
        num_layers=cell.layers,
        instance_norm="causal",
        variable_stride=0,
    )
    length = config.context_patches * config.patch_len
    keys = jax.random.split(jax.random.key(config.seed))
    target, draft = (
        Checkpoint(m, init_params(k, m), length)
        for m, k in zip((model, model.scaled(config.draft_factor)), keys, strict=True)
    )
    return make_pair(target, draft, cell.process, length, cell.num_vars)


def estimated_seconds(config: LatencyConfig, cell: Cell, patches: int) -> float:
    """A rough time of the decode by the target only: two operations per weight and row."""
    weights = cell.layers * (4 * config.d_model**2 + 2 * config.d_model * config.d_ff)
    context = config.context_patches if cell.process == "window" else 1
    rows = cell.batch * cell.num_vars * (patches * context + config.context_patches)
    return 2 * weights * rows / (config.gflops * 1e9)


def model_calls(
    pair: Pair, context: jax.Array, num_draft: int, room: int
) -> Callable[[int, int], None]:
    """The model calls of a decode, each a program of its own: the yardstick of `over_calls`.

    Args:
        pair: target and draft.
        context: `[B, L, C]`.
        num_draft: K.
        room: patches that the caches have room for.

    Returns:
        A function of the number of patches and of a repeat that it does not look at. It prepares
        the context, then for every K + 1 of them proposes K patches (those that are missing, if
        fewer) and verifies K + 1 rows, for the whole batch, each result awaited; the caches are
        donated and handed on.
    """
    patch = (pair.target.patch_len, context.shape[-1])
    lanes = (len(context), 1)
    proposals = jnp.zeros((*lanes, num_draft, *patch))
    sigma = jnp.ones(patch)

    @jax.jit
    def prepare(pair: Pair, context: jax.Array) -> Any:
        def one(_: None, context: jax.Array) -> Any:
            return pair.target.prepare(context), pair.proposer().prepare(context)

        memory = over_lanes(one, lanes)(None, context[:, None])
        return jax.tree.map(lambda x: x[:, 0], memory)  # [B, 1, ...] -> [B, ...]

    @functools.partial(jax.jit, donate_argnums=2)
    def verify(pair: Pair, memory: Any, state: Any, proposals: jax.Array) -> Any:
        def one(memory: Any, path: Any) -> Any:
            return pair.target.verify(memory[0], *path)

        return over_lanes(one, lanes)(memory, (state, proposals))

    @functools.partial(jax.jit, donate_argnums=2)
    def propose(
        pair: Pair, memory: Any, state: Any, noise: jax.Array, count: int | jax.Array
    ) -> Any:
        def one(memory: Any, path: Any) -> Any:
            state, noise = path
            return propose_with(
                pair.proposer(), memory[1], state, noise, sigma, count, learned=False
            )

        return over_lanes(one, lanes)(memory, (state, noise))

    memory = prepare(pair, context)
    empty = jnp.zeros(lanes)
    states = [
        over_lanes(lambda m, _: pair.target.start(m[0], room), lanes)(memory, empty),
        over_lanes(lambda m, _: pair.proposer().start(m[1], room), lanes)(memory, empty),
    ]

    def run(patches: int, repeat: int) -> None:
        jax.block_until_ready(prepare(pair, context))
        for missing in range(patches, 0, -num_draft - 1):
            count = min(num_draft, missing)
            drafted, states[1] = propose(pair, memory, states[1], proposals, count)
            jax.block_until_ready(drafted)
            predictions, states[0] = verify(pair, memory, states[0], proposals)
            jax.block_until_ready(predictions)

    return run


@run.register
def latency(config: LatencyConfig, progress: Progress = silent, loaded: None = None) -> Report:
    """All cells; speedups are over the target only under the same process.

    `over_fastest` compares with the faster process of the target only, `over_window` with its
    window process; `over_calls`, of the largest K and the most patches, is the decode over its
    model calls made one by one, see `model_calls`.
    """
    rows: list[Row] = []
    grid = itertools.product(config.layers, config.num_vars, config.batches, config.processes)
    for sizes in grid:
        cell = Cell(*sizes)
        progress(", ".join(f"{name} {value}" for name, value in cell._asdict().items()))
        pair, context = build(config, cell), contexts(config, cell)
        for patches in config.patches:
            rows += cell_rows(config, cell, pair, context, patches)
        jax.clear_caches()  # hundreds of compiled decoders would fill the memory
    return Report(content("latency", [{**row, **_ratios(row, rows)} for row in rows], config))


def cell_rows(
    config: LatencyConfig, cell: Cell, pair: Pair, context: jax.Array, patches: int
) -> list[Row]:
    """The rows of a cell and a number of patches: the target only, then each K."""
    if estimated_seconds(config, cell, patches) > config.max_seconds:
        return [{**cell._asdict(), "patches": patches, "num_draft": None, "seconds": None}]
    lengths = [k for k in config.num_drafts if k < patches]
    horizon, sigma = patches * config.patch_len, jnp.float32(config.sigma)

    def decoder(num_draft: int, rule: Rule) -> Decoder:
        sizes = DecodeConfig(horizon, num_draft, num_paths=1)
        return Decoder(pair.target, pair.draft, sigma, rule, sizes, Label(cell.process))

    one = DecodeConfig(horizon, num_paths=1)
    decoders = [Decoder(pair.target, None, sigma, None, one, Label(cell.process))]
    decoders += [decoder(k, AcceptAll()) for k in lengths]
    if config.measured_num_draft < patches:
        decoders.append(decoder(config.measured_num_draft, Maximal()))
    measured = measure(decoders, _batches(config, context, horizon))
    rows = [_row(cell, patches, m, measured[0].seconds) for m in measured]
    longest = max(lengths, default=0)
    if longest and patches == max(config.patches):
        place = 1 + lengths.index(longest)
        rows[place]["over_calls"] = _over_calls(config, pair, context, patches, measured[place])
    return rows


def _over_calls(
    config: LatencyConfig, pair: Pair, context: jax.Array, patches: int, whole: Measured
) -> float:
    """A decode over its model calls, timed in turns."""
    num_draft = whole.decoder.config.num_draft
    batches = _batches(config, context, patches * config.patch_len)
    calls = model_calls(pair, context, num_draft, patches + num_draft)
    decoder, program = whole.decoder, whole.program
    times = time_in_turns(
        [lambda n: program.decode(decoder, batches[n]), functools.partial(calls, patches)],
        config.repeats,
    )
    return statistics.median(times[0]) / statistics.median(times[1])


def _batches(config: LatencyConfig, context: jax.Array, horizon: int) -> list[Batch]:
    """The context with another key for the first call and for each repeat; no truth is known."""
    key, size = jax.random.key(config.seed), len(context)
    truth = jnp.zeros((size, horizon, context.shape[-1]))
    keys = [jax.random.fold_in(key, repeat) for repeat in range(config.repeats + 1)]
    return [Batch(key, context, truth, jnp.arange(size), jnp.ones(size)) for key in keys]


def _row(cell: Cell, patches: int, measured: Measured, base: float) -> Row:
    """One row; `base` is the target's seconds."""
    rule, drafts = measured.decoder.rule, measured.decoder.method == "speculative"
    forced = "forced" if isinstance(rule, AcceptAll) else "measured"
    return {
        **cell._asdict(),
        "patches": patches,
        "num_draft": measured.decoder.config.num_draft if drafts else 0,
        "acceptance": forced if drafts else None,
        "accepted": measured.tally.scores()["acceptance"],
        "seconds": measured.seconds,
        "compile_seconds": measured.program.compile_seconds,
        "speedup": base / measured.seconds,
        "over_calls": None,
    }


def contexts(config: LatencyConfig, cell: Cell) -> jax.Array:
    """Standard normal contexts `[B, L, C]`."""
    shape = (cell.batch, config.context_patches * config.patch_len, cell.num_vars)
    key = jax.random.fold_in(jax.random.key(config.seed), 2)  # the weights have two keys of it
    return jax.random.normal(key, shape, jnp.float32)


def _ratios(row: Row, rows: list[Row]) -> Row:
    """The speedups of a row over other processes; None where they were not run."""
    names = ("layers", "num_vars", "batch", "patches")
    seconds = {
        other["process"]: other["seconds"]
        for other in rows
        if other["num_draft"] == 0 and all(other[name] == row[name] for name in names)
    }
    if row["seconds"] is None or not seconds:
        return {"over_fastest": None, "over_window": None}
    window = seconds.get("window")
    return {
        "over_fastest": min(seconds.values()) / row["seconds"],
        "over_window": window / row["seconds"] if window else None,
    }
