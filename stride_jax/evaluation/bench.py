"""The bench: decoders compiled in parallel and timed in turns, by the only clock of evaluation."""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from stride_jax.decoding.base import Draft, Process, Rule
from stride_jax.decoding.compiled import Structure
from stride_jax.decoding.draft_length import DraftLength, Fixed
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import DecodeConfig, DecodeInfo
from stride_jax.evaluation.scoring import Tally
from stride_jax.sharding import decoding_mesh, place

Progress = Callable[[str], object]
"""A function that is called with a line on the work in progress."""


def silent(_: str) -> None:
    """A `Progress` that prints nothing."""


class Label(NamedTuple):
    """The names of a decoder in a table, beside its settings.

    Attributes:
        process: window or cached.
        draft: name of the draft; None for the target only.
    """

    process: str
    draft: str | None = None


class Decoder(NamedTuple):
    """Everything that decodes: a target, a draft, or both with a rule.

    Attributes:
        target: the target's process; None for the draft only.
        draft: what proposes; None for the target only.
        sigma: std of a patch, traced; 0 gives the mean path of one model only.
        rule: the acceptance rule with its settings, traced; None for one model only.
        config: horizon, K and paths; static.
        label: names for the tables.
        draft_length: how many are proposed, traced.
    """

    target: Process | None
    draft: Draft | Process | None
    sigma: Any
    rule: Rule | None
    config: DecodeConfig
    label: Label
    draft_length: DraftLength = Fixed()

    @property
    def method(self) -> str:
        """`target`, `draft` or `speculative`."""
        if self.draft is None:
            return "target"
        return "draft" if self.target is None else "speculative"

    @property
    def samples(self) -> bool:
        """Whether it draws sample paths rather than the mean path."""
        if self.rule is not None:
            return self.rule.proposes != "mean"
        return bool(np.any(np.asarray(self.sigma) > 0))

    def with_config(self, **changes: Any) -> Decoder:
        """The decoder with other fields of its config."""
        return self._replace(config=dataclasses.replace(self.config, **changes))


class Batch(NamedTuple):
    """Windows that are decoded together.

    Attributes:
        key: of the decode; folded with the series index, not consumed.
        context: `[B, L, C]`.
        truth: `[B, H, C]`.
        series_index: `[B]` int32.
        weight: `[B]`, 1, or 0 for a window that only fills the batch.
    """

    key: jax.Array
    context: jax.Array
    truth: jax.Array
    series_index: jax.Array
    weight: jax.Array


class Program(NamedTuple):
    """A compiled decode of one batch shape.

    Attributes:
        call: `(models, key, context, index) -> (forecast [B, S, H, C], info)`.
        compile_seconds: seconds of tracing and compiling it.
        memory_bytes: bytes the compiler planned: inputs (parameters among them), results, scratch.
    """

    call: Callable[..., Any]
    compile_seconds: float
    memory_bytes: int

    def decode(self, decoder: Decoder, batch: Batch) -> tuple[jax.Array, DecodeInfo]:
        """`(forecast [B, S, H, C], info)` of a batch."""
        out: tuple[jax.Array, DecodeInfo] = self.call(*_inputs(decoder, batch))
        return out


class Measured(NamedTuple):
    """One decoder after a measurement.

    Attributes:
        decoder: what decoded.
        program: its compiled decode.
        times: seconds of each timed batch.
        tally: its scores over the timed batches.
    """

    decoder: Decoder
    program: Program
    times: list[float]
    tally: Tally

    @property
    def seconds(self) -> float:
        """Median seconds of a batch."""
        return statistics.median(self.times)


def measure(
    decoders: Sequence[Decoder], batches: Sequence[Batch], progress: Progress = silent
) -> list[Measured]:
    """Times and scores every decoder on the same batches, one result per decoder.

    The decoders take turns: a machine that slows down for a while slows all of them. The first
    batch warms up and does not count; compilation is timed apart.

    Args:
        decoders: what decodes.
        batches: of one shape; how long a speculative decode takes depends on the series and on its
            draws, so that every repeat should have other windows and another key.
        progress: called with a line on what is being done.
    """
    return time_programs(decoders, compile_all(decoders, batches[0], progress), batches, progress)


def time_programs(
    decoders: Sequence[Decoder],
    programs: Sequence[Program],
    batches: Sequence[Batch],
    progress: Progress = silent,
) -> list[Measured]:
    """Times and scores decoders that are compiled already; see `measure`."""
    tallies = [Tally() for _ in decoders]

    def call(i: int) -> Callable[[int], Any]:
        return lambda number: programs[i].decode(decoders[i], batches[number])

    def receive(i: int, number: int, out: tuple[jax.Array, DecodeInfo]) -> None:
        forecast, info = out
        tallies[i].add(forecast, info, batches[number].truth, batches[number].weight)

    progress(f"timing {len(decoders)} decoders on {len(batches) - 1} batches each")
    calls = [call(i) for i in range(len(decoders))]
    times = time_in_turns(calls, len(batches) - 1, receive)
    return [Measured(*parts) for parts in zip(decoders, programs, times, tallies, strict=True)]


def score(
    decoders: Sequence[Decoder], batches: Sequence[Batch], progress: Progress = silent
) -> Iterator[Tally]:
    """Scores one decoder after the other on all batches, without a clock.

    Each batch is split over as many devices of the process as divide it. There are too few batches
    for smaller sizes of the loop to pay for their compilation.
    """
    decoders = [decoder.with_config(compactions=0) for decoder in decoders]
    programs = compile_all(decoders, batches[0], progress)
    for number, (decoder, program) in enumerate(zip(decoders, programs, strict=True), 1):
        progress(f"scoring decoder {number} of {len(decoders)}")
        tally = Tally()
        for batch in batches:
            forecast, info = program.decode(decoder, batch)
            tally.add(forecast, info, batch.truth, batch.weight)
        yield tally


def time_in_turns(
    calls: Sequence[Callable[[int], Any]],
    repeats: int,
    receive: Callable[[int, int, Any], None] = lambda *_: None,
) -> list[list[float]]:
    """Seconds of `call(1), ..., call(repeats)` of each call, after a `call(0)` that warms up.

    A result is let go before the next call: on a GPU a call whose results lie elsewhere than those
    of the call before has to change its recorded launches (docs/results/accelerator.md).

    Args:
        calls: functions of the number of a repeat; their results are awaited.
        repeats: timed calls of each; they take turns.
        receive: gets `(number of the call, repeat, result)` of every timed repeat, off the clock.
    """
    times: list[list[float]] = [[] for _ in calls]
    for repeat in range(repeats + 1):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            out = jax.block_until_ready(call(repeat))
            seconds = time.perf_counter() - start
            if repeat > 0:
                times[i].append(seconds)
                receive(i, repeat, out)
            del out
    return times


def compile_all(
    decoders: Sequence[Decoder],
    batch: Batch,
    progress: Progress = silent,
    *,
    threads: int | None = None,
) -> list[Program]:
    """The programs of all decoders for batches of one shape, compiled in parallel threads.

    Decoders that differ only in values (parameters, sigma, settings of a rule) share a program.
    There is a thread for each core of the machine, or as many as `threads` says.
    """
    keys = [_signature(decoder, batch) for decoder in decoders]
    different = dict(zip(keys, decoders, strict=True))
    progress(f"compiling {len(different)} programs for {len(decoders)} decoders")
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        compiled = pool.map(lambda decoder: _compile(decoder, batch), different.values())
        programs = dict(zip(different, compiled, strict=True))
    return [programs[key] for key in keys]


def _compile(decoder: Decoder, batch: Batch) -> Program:
    """Traces and compiles one decode."""

    def decode_windows(models: Any, key: jax.Array, context: jax.Array, index: jax.Array) -> Any:
        target, draft, sigma, rule, draft_length = models
        return decode(
            key,
            context,
            target=target,
            draft=draft,
            sigma=sigma,
            config=config,
            rule=rule,
            draft_length=draft_length,
            series_index=index,
        )

    config = decoder.config
    if decoding_mesh(len(batch.series_index)) is not None:
        config = dataclasses.replace(config, compactions=0)  # lanes stay on their devices
    start = time.perf_counter()
    call = jax.jit(decode_windows).lower(*_inputs(decoder, batch)).compile()
    planned = call.memory_analysis()
    sizes = "argument_size_in_bytes", "output_size_in_bytes", "temp_size_in_bytes"
    memory = sum(getattr(planned, size) for size in sizes)
    return Program(call, time.perf_counter() - start, memory)


def _inputs(decoder: Decoder, batch: Batch) -> tuple[Any, ...]:
    """The arguments of a program: replicated models and key, and windows split over the devices."""
    mesh = decoding_mesh(len(batch.series_index))
    models = decoder.target, decoder.draft, decoder.sigma, decoder.rule, decoder.draft_length
    models, key = place((models, batch.key), mesh, split=False)
    return models, key, *place((batch.context, batch.series_index), mesh, split=True)


def _signature(decoder: Decoder, batch: Batch) -> tuple[Any, ...]:
    """Equal for decoders that share a program: structure, shapes and config.

    Two structures are compared as in `decoding.compiled`.
    """
    leaves, structure = jax.tree.flatten(_inputs(decoder, batch))
    return Structure(structure), tuple(jax.typeof(leaf) for leaf in leaves), decoder.config
