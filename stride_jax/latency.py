"""How long decoding takes by size, batch, process and K: the rows of a latency table."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from stride_jax.autoregressive import decode_autoregressive
from stride_jax.benchmark import environment, median_seconds
from stride_jax.checkpoints import Checkpoint
from stride_jax.config import DecodeConfig, TimerXLConfig
from stride_jax.config_evaluate import LatencyConfig
from stride_jax.config_json import to_dict
from stride_jax.coupling import Decide, Outcome, Round, RuleParams
from stride_jax.coupling.base import target_draw
from stride_jax.decoding import over_lanes
from stride_jax.models.timer_xl import init_params
from stride_jax.pairs import Pair, ProcessKind, make_pair
from stride_jax.speculative import decode_speculative


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


def accept_all(key: jax.Array, current: Round, params: RuleParams) -> Outcome:
    """Keeps every proposal: the fastest that any rule can be."""
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


def call_costs(pair: Pair, context: jax.Array, num_draft: int, repeats: int) -> dict[str, float]:
    """Seconds of the calls a decode is made of, each timed alone, for the whole batch.

    Returns:
        prepare (the context, target and draft), verify (K + 1 rows), and propose (K proposals).
    """
    patch = (pair.target.patch_len, context.shape[-1])
    lanes = (len(context), 1)
    proposals = jnp.zeros((*lanes, num_draft, *patch))
    sigma = jnp.ones(patch)

    def prepare(pair: Pair, context: jax.Array) -> Any:
        def one(_: None, context: jax.Array) -> Any:
            return pair.target.prepare(context), pair.draft.prepare(context)

        memory = over_lanes(one, lanes)(None, context[:, None])
        return jax.tree.map(lambda x: x[:, 0], memory)  # [B, 1, ...] -> [B, ...]

    def verify(pair: Pair, memory: Any, state: Any, proposals: jax.Array) -> Any:
        def one(memory: Any, path: Any) -> Any:
            return pair.target.verify(memory[0], *path)

        return over_lanes(one, lanes)(memory, (state, proposals))

    def propose(pair: Pair, memory: Any, state: Any, noise: jax.Array) -> Any:
        def one(memory: Any, path: Any) -> Any:
            state, noise = path
            return pair.draft.propose(memory[1], state, noise, sigma, num_draft, learned=False)

        return over_lanes(one, lanes)(memory, (state, noise))

    memory = jax.jit(prepare)(pair, context)
    empty = jnp.zeros(lanes)
    room = num_draft + 1
    target = over_lanes(lambda m, _: pair.target.start(m[0], room), lanes)(memory, empty)
    draft = over_lanes(lambda m, _: pair.draft.start(m[1], room), lanes)(memory, empty)
    calls: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "prepare": (jax.jit(prepare), (pair, context)),
        "verify": (jax.jit(verify), (pair, memory, target, proposals)),
        "propose": (jax.jit(propose), (pair, memory, draft, proposals)),
    }
    return {
        name: median_seconds(lambda _, fn=fn, args=args: fn(*args), repeats)[0]  # type: ignore[misc]
        for name, (fn, args) in calls.items()
    }


def cell_rows(config: LatencyConfig, cell: Cell) -> Iterator[dict[str, Any]]:
    """The autoregressive row and the speculative rows of a cell, for every number of patches."""
    pair, context = build(config, cell), contexts(config, cell)
    key = jax.random.key(config.seed)
    measured = config.measured_num_draft
    for patches in config.patches:
        horizon = patches * config.patch_len

        def time_it(num_draft: int, rule: str | Decide, horizon: int = horizon) -> Any:
            decode = DecodeConfig(horizon, num_draft, rule)

            def once(repeat: int) -> Any:
                chosen = jax.random.fold_in(key, repeat)
                if num_draft == 0:
                    return decode_autoregressive(
                        chosen, context, target=pair.target, sigma=config.sigma, config=decode
                    )
                return decode_speculative(
                    chosen,
                    context,
                    target=pair.target,
                    draft=pair.draft,
                    sigma=config.sigma,
                    config=decode,
                )

            seconds, first = median_seconds(once, config.repeats)
            return seconds, first, once(0)[1]

        if estimated_seconds(config, cell, patches) > config.max_seconds:
            yield {**cell._asdict(), "patches": patches, "num_draft": None, "seconds": None}
            continue
        base, first, _ = time_it(0, "maximal")
        yield _row(cell, patches, 0, None, base, first, base, None)
        plans: list[tuple[int, str | Decide]] = [(k, accept_all) for k in config.num_drafts]
        for num_draft, rule in [*plans, (measured, "maximal")]:
            if num_draft >= patches:
                continue
            seconds, first, info = time_it(num_draft, rule)
            row = _row(cell, patches, num_draft, info, seconds, first, base, rule)
            if rule is accept_all:
                calls = call_costs(pair, context, num_draft, config.repeats)
                rounds = float(jnp.max(info.rounds))
                alone = calls["prepare"] + rounds * (calls["verify"] + calls["propose"])
                row.update(over_calls=seconds / alone)
            yield row


def _row(
    cell: Cell,
    patches: int,
    num_draft: int,
    info: Any,
    seconds: float,
    first: float,
    base: float,
    rule: Any,
) -> dict[str, Any]:
    tested = 0 if info is None else int(jnp.sum(info.proposed))
    return {
        **cell._asdict(),
        "patches": patches,
        "num_draft": num_draft,
        "acceptance": "forced" if rule is accept_all else ("measured" if rule else None),
        "accepted": float(jnp.sum(info.accepted)) / tested if tested else None,
        "seconds": seconds,
        "compile_seconds": first - seconds,
        "speedup": base / seconds,
        "over_calls": None,
    }


def contexts(config: LatencyConfig, cell: Cell) -> jax.Array:
    """Standard normal contexts `[B, L, C]`."""
    shape = (cell.batch, config.context_patches * config.patch_len, cell.num_vars)
    return jax.random.normal(jax.random.key(config.seed), shape, jnp.float32)


def measure(
    config: LatencyConfig, progress: Callable[[str], object] = lambda _: None
) -> dict[str, Any]:
    """All rows, with the hardware, versions and config; speedups are over the same process.

    `over_fastest` compares with the faster autoregressive decode of the two processes;
    `over_calls` is the whole decode over the sum of its model calls timed alone.
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
