"""How long decoding takes by size, batch, process and K: the rows of a latency table."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from stride_jax.checkpoints.build import Pair, ProcessKind, make_pair
from stride_jax.checkpoints.checkpoint import Checkpoint
from stride_jax.config import to_dict
from stride_jax.decoding.base import DecodeConfig, Draft, Outcome, Process, Round, Rule
from stride_jax.decoding.batching import over_lanes
from stride_jax.decoding.drafts import as_draft, propose
from stride_jax.decoding.rules import Maximal
from stride_jax.decoding.rules.common import target_draw
from stride_jax.decoding.speculative import decode
from stride_jax.evaluation.benchmark import environment, time_in_turns
from stride_jax.evaluation.config import LatencyConfig
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
    """New target and draft."""
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
    """A rough time of the autoregressive decode: two operations a weight and row."""
    weights = cell.layers * (4 * config.d_model**2 + 2 * config.d_model * config.d_ff)
    seen = config.context_patches if cell.process == "window" else 1
    rows = cell.batch * cell.num_vars * (patches * seen + config.context_patches)
    return 2 * weights * rows / (config.gflops * 1e9)


def model_calls(
    pair: Pair, context: jax.Array, num_draft: int, room: int
) -> Callable[[int, int], None]:
    """The calls a decode is made of, each a program of its own: the yardstick of `over_calls`.

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
    sigma, target, draft = jnp.ones(patch), pair.target, as_draft(pair.draft)

    @jax.jit
    def prepare(target: Process, draft: Draft, context: jax.Array) -> Any:
        def one(_: None, context: jax.Array) -> Any:
            return target.prepare(context), draft.prepare(context)

        memory = over_lanes(one, lanes)(None, context[:, None])
        return jax.tree.map(lambda x: x[:, 0], memory)  # [B, 1, ...] -> [B, ...]

    @functools.partial(jax.jit, donate_argnums=2)
    def verify(target: Process, memory: Any, state: Any, proposals: jax.Array) -> Any:
        def one(memory: Any, path: Any) -> Any:
            return target.verify(memory[0], *path)

        return over_lanes(one, lanes)(memory, (state, proposals))

    @functools.partial(jax.jit, donate_argnums=2)
    def draft_round(
        draft: Draft, memory: Any, state: Any, noise: jax.Array, count: int | jax.Array
    ) -> Any:
        def one(memory: Any, path: Any) -> Any:
            state, noise = path
            return propose(draft, memory[1], state, noise, sigma, count, learned=False)

        return over_lanes(one, lanes)(memory, (state, noise))

    memory = prepare(target, draft, context)
    empty = jnp.zeros(lanes)
    states = [
        over_lanes(lambda m, _: target.start(m[0], room), lanes)(memory, empty),
        over_lanes(lambda m, _: draft.start(m[1], room), lanes)(memory, empty),
    ]

    def run(patches: int, repeat: int) -> None:
        jax.block_until_ready(prepare(target, draft, context))
        for missing in range(patches, 0, -num_draft - 1):
            count = min(num_draft, missing)
            made, states[1] = draft_round(draft, memory, states[1], proposals, count)
            jax.block_until_ready(made)
            laws, states[0] = verify(target, memory, states[0], proposals)
            jax.block_until_ready(laws)

    return run


Plan = tuple[int, Rule]
"""K and the rule of a row; K = 0 is the autoregressive decode."""


def cell_rows(config: LatencyConfig, cell: Cell) -> Iterator[dict[str, Any]]:
    """The autoregressive row and the speculative rows of a cell, for every number of patches."""
    pair, context = build(config, cell), contexts(config, cell)
    forced: list[Plan] = [(k, AcceptAll()) for k in config.num_drafts]
    for patches in config.patches:
        if estimated_seconds(config, cell, patches) > config.max_seconds:
            yield {**cell._asdict(), "patches": patches, "num_draft": None, "seconds": None}
            continue
        measured = (config.measured_num_draft, Maximal())
        plans: list[Plan] = [(0, Maximal()), *(p for p in [*forced, measured] if p[0] < patches)]
        decoders = [_decoder(config, pair, context, patches, plan) for plan in plans]
        longest = max((k for k, rule in plans if isinstance(rule, AcceptAll)), default=0)
        apart: list[Callable[[int], Any]] = []
        if longest and patches == max(config.patches):
            calls = model_calls(pair, context, longest, patches + longest)
            apart = [functools.partial(calls, patches)]
        times = time_in_turns([*decoders, *apart], config.repeats)
        for plan, decoder, took in zip(plans, decoders, times, strict=False):
            row = _row(cell, patches, plan, decoder(0)[1], took, times[0][0])
            if apart and plan == (longest, AcceptAll()):
                row["over_calls"] = took[0] / times[-1][0]
            yield row


def _decoder(
    config: LatencyConfig, pair: Pair, context: jax.Array, patches: int, plan: Plan
) -> Callable[[int], Any]:
    """Decodes with the key of a repeat."""
    num_draft, rule = plan
    sizes = DecodeConfig(patches * config.patch_len, num_draft)
    key = jax.random.key(config.seed)

    def once(repeat: int) -> Any:
        chosen = jax.random.fold_in(key, repeat)
        return decode(
            chosen,
            context,
            target=pair.target,
            draft=pair.draft,
            sigma=config.sigma,
            rule=rule,
            config=sizes,
        )

    return once


def _row(
    cell: Cell, patches: int, plan: Plan, info: Any, took: tuple[float, float], base: float
) -> dict[str, Any]:
    """One row; `took` is `(median seconds, seconds of the first call)`."""
    num_draft, rule = plan
    forced = "forced" if isinstance(rule, AcceptAll) else "measured"
    tested = int(jnp.sum(info.proposed))
    return {
        **cell._asdict(),
        "patches": patches,
        "num_draft": num_draft,
        "acceptance": forced if num_draft else None,
        "accepted": float(jnp.sum(info.accepted)) / tested if tested else None,
        "seconds": took[0],
        "compile_seconds": took[1] - took[0],
        "speedup": base / took[0],
        "over_calls": None,
    }


def contexts(config: LatencyConfig, cell: Cell) -> jax.Array:
    """Standard normal contexts `[B, L, C]`."""
    shape = (cell.batch, config.context_patches * config.patch_len, cell.num_vars)
    key = jax.random.fold_in(jax.random.key(config.seed), 2)  # the weights have two keys of it
    return jax.random.normal(key, shape, jnp.float32)


def measure(
    config: LatencyConfig, progress: Callable[[str], object] = lambda _: None
) -> dict[str, Any]:
    """All rows, with the hardware, versions and config; speedups are over the same process.

    `over_fastest` compares with the faster autoregressive decode of the two processes;
    `over_calls`, of the largest K and the most patches, is the whole decode over its model calls
    made one by one, see `model_calls`.
    """
    rows: list[dict[str, Any]] = []
    machine = environment()
    grid = itertools.product(config.layers, config.num_vars, config.batches, config.processes)
    for sizes in grid:
        cell = Cell(*sizes)
        progress(
            f"{cell.layers} layers, {cell.num_vars} variables, batch {cell.batch}, {cell.process}"
        )
        rows += cell_rows(config, cell)
        jax.clear_caches()  # hundreds of compiled decoders would fill the memory
    for row in rows:
        others = [r for r in rows if _alike(r, row) and r["num_draft"] == 0]
        known = [r["seconds"] for r in others]
        row["over_fastest"] = (
            min(known) / row["seconds"] if row["seconds"] is not None and known else None
        )
        window = [r["seconds"] for r in others if r["process"] == "window"]
        row["over_window"] = (
            window[0] / row["seconds"] if row["seconds"] is not None and window else None
        )
    return {
        "table": "latency",
        "rows": rows,
        **machine,
        "config": to_dict(config),
        "key": config.seed,
    }


def _alike(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(a[name] == b[name] for name in ("layers", "num_vars", "batch", "patches"))
