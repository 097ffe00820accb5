"""Draft and target in two processes: time by the latency of the link, exactness, and placement.

`python tools/apart.py --out docs/results/apart.json` (about 10 minutes) decodes test windows of the
embedded series with the shipped pair, one window at a time. Passes and round trips are counted in
one process, on a link whose way takes 1 and nothing else takes time. Then a server is started on
this machine, and forecasts are timed over links of 0 to 200 ms for a round trip, programs in turns.
The whole latency is put on the way to the server. `--latencies` without a number leaves the times
out.

`--exactness` writes p-values of decodes apart instead (`docs/results/apart_exactness.json`, about
2 minutes), `--placement` assigns many clients to servers (`docs/results/apart_placement.json`).
"""

import argparse
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stride_jax.decoding.draft_length import DraftLength, LengthState
from stride_jax.decoding.rules import Block, Maximal, Mean, Rule, WithoutBonus
from stride_jax.decoding.speculative import decode
from stride_jax.decoding.types import DecodeConfig
from stride_jax.evaluation.config import Setup
from stride_jax.evaluation.results import write_rows
from stride_jax.evaluation.subject import Subject, build, load, timing_batches
from stride_jax.remote.client import ApartForecast, decode_apart
from stride_jax.remote.link import Conditions, DirectLink, SocketLink, connect
from stride_jax.remote.messages import Message
from stride_jax.remote.placement import (
    Clients,
    assign,
    round_seconds,
    saved_by_speculation,
    simulate,
)
from stride_jax.remote.server import conversation
from stride_jax.testing.analytic import make_problem
from stride_jax.testing.exactness import check

HORIZON, NUM_DRAFT = 168, 3
MODEL = "beijing"
TOLERANCE = 0.5
"""Of `mean`, in sigmas."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NoProposals(DraftLength):
    """Rounds without a proposal: the target draws every patch, and answers each of them."""

    def init(self, num_draft: int) -> LengthState:
        """See `DraftLength`."""
        return super().init(num_draft)._replace(length=jnp.zeros((), jnp.int32))

    def update(
        self, state: LengthState, num_accepted: Any, num_draft: int, chances: Any = None
    ) -> LengthState:
        """See `DraftLength`."""
        return state


class Program(NamedTuple):
    """A way to decode with the target at the other end of a link.

    Attributes:
        name: in the table.
        num_draft: K.
        rule: decides.
        ahead: blocks under way beside the one that is waited for.
        options: further arguments of `decode_apart`.
    """

    name: str
    num_draft: int
    rule: Rule
    ahead: int = 0
    options: dict[str, Any] = {}  # noqa: RUF012  it is never changed


BY_PATCH = "target, patch by patch"
APART = (
    Program(BY_PATCH, 1, Maximal(), options={"draft_length": NoProposals()}),
    Program("maximal, K 3", NUM_DRAFT, Maximal()),
    Program("block, K 3", NUM_DRAFT, Block()),
    Program("block, K 6", 6, Block()),
    Program("block, K 3, 1 ahead", NUM_DRAFT, WithoutBonus(Block()), 1),
    Program("maximal, K 3, 2 ahead", NUM_DRAFT, WithoutBonus(Maximal()), 2),
    Program("maximal, K 1, 6 ahead", 1, WithoutBonus(Maximal()), 6),
    Program("mean, K 3", NUM_DRAFT, Mean(TOLERANCE)),
    Program("mean, K 3, 2 ahead", NUM_DRAFT, WithoutBonus(Mean(TOLERANCE)), 2),
)
"""Programs with the draft at the client."""


def main() -> None:
    """Prints the rows and writes them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    latencies = [0.0, 10.0, 50.0, 100.0, 200.0]
    parser.add_argument("--latencies", type=float, nargs="*", default=latencies, help="in ms")
    parser.add_argument("--windows", type=int, default=64, help="for the counts")
    parser.add_argument("--timed", type=int, default=16, help="windows for the times")
    parser.add_argument("--exactness", action="store_true")
    parser.add_argument("--placement", action="store_true")
    args = parser.parse_args()
    if args.exactness:
        rows = exactness_rows()
    elif args.placement:
        rows = placement_rows()
    else:
        rows = latency_rows(args.latencies, args.windows, args.timed)
    for row in rows:
        print(row, flush=True)
    write_rows(args.out, rows)


# --- time by latency -----------------------------------------------------------------------------


@contextmanager
def serving() -> Iterator[tuple[str, int]]:
    """The address of a server of the shipped target, in a process of its own."""
    command = [sys.executable, "-m", "stride_jax.cli.main", "serve", "--model", MODEL]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        host, port = server.stdout.readline().strip().rsplit(":", 1)
        yield host, int(port)
    finally:
        server.terminate()
        server.wait()


COUNTS = ("passes", "void", "round trips", "saved", "predicted")
"""Columns of a row that do not depend on the clock."""


class VirtualLink(DirectLink):
    """A link of one process on which only the way takes time: 1 there and back.

    Attributes:
        now: round trips since the link was made, of those that nothing else went beside.
    """

    def __init__(self, reply: Callable[[Message], Message | None]) -> None:
        super().__init__(reply)
        self.now = 0.0
        self._arrivals: deque[float] = deque()

    def send(self, message: Message) -> None:
        """See `Link`."""
        before = self.received_next()
        super().send(message)
        self._arrivals.extend([self.now + 1] * (self.received_next() - before))

    def receive(self, timeout: float | None) -> Message | None:
        """See `Link`."""
        if self._arrivals:
            self.now = max(self.now, self._arrivals.popleft())
        return super().receive(timeout)

    def received_next(self) -> int:
        """Answers that have not been received yet."""
        return len(self._answers)


def latency_rows(latencies: list[float], windows: int, timed_windows: int) -> list[dict[str, Any]]:
    """One row for each program: counts, and milliseconds per forecast at each latency."""
    setup = Setup()
    subject = build(setup, load(setup), [NUM_DRAFT])
    local = local_programs(subject)
    apart = {program.name: runner(subject, program) for program in APART}

    # Counts, which do not depend on the clock.
    series = series_of(subject, windows)
    rows = {name: local_counts([run(*each) for each in series]) for name, run in local.items()}
    for name, run in apart.items():
        link = VirtualLink(conversation(subject.target))
        results = [run(link, *each) for each in series]
        rows[name] = apart_counts(results, link.now / windows)
    by_patch = rows[BY_PATCH]["round trips"]
    for program in APART[1:]:
        row = rows[program.name]
        row["saved"] = round(by_patch - row["round trips"], 2)
        per_round = by_patch / row["passes"]
        row["predicted"] = round(saved_by_speculation(by_patch, 1.0, per_round), 2)

    # Times, in turns.
    times = times_of(local, apart, latencies, series_of(subject, timed_windows))
    return [
        {"program": name, **{count: row.get(count) for count in COUNTS}, **times[name]}
        for name, row in rows.items()
    ]


def series_of(subject: Subject, windows: int) -> list[tuple[Any, Any]]:
    """Context and series index of so many windows of the test split."""
    (batch,) = timing_batches(subject, subject.windows(HORIZON), HORIZON, windows, 0)
    return list(zip(np.asarray(batch.context), np.asarray(batch.series_index), strict=True))


def local_counts(infos: list[Any]) -> dict[str, Any]:
    """Counts of a program that the server, or the client, plays by itself."""
    passes = float(np.mean([info.target_passes for info in infos]))
    return {"passes": round(passes, 2), "void": 0.0, "round trips": float(passes > 0)}


def apart_counts(results: list[ApartForecast], round_trips: float) -> dict[str, Any]:
    """Counts of a program with the draft at the client."""
    return {
        "passes": round(float(np.mean([each.info.target_passes for each in results])), 2),
        "void": round(float(np.mean([each.void_blocks for each in results])), 2),
        "round trips": round(round_trips, 2),
    }


def times_of(
    local: dict[str, Callable[..., Any]],
    apart: dict[str, Callable[..., Any]],
    latencies: list[float],
    series: list[tuple[Any, Any]],
) -> dict[str, dict[str, float]]:
    """Median milliseconds of a forecast by program and latency; one program after the other.

    A whole request takes what the server takes by itself, and one round trip.
    """
    names = [*local, *apart]
    times: dict[str, dict[str, float]] = {name: {} for name in names}
    if not latencies:
        return times
    with serving() as address:
        # Compile everything first.
        links = {ms: connect(*address, Conditions(latency=ms / 1000)) for ms in latencies}
        for run in apart.values():
            run(links[min(latencies)], *series[0])
        for run in local.values():
            jax.block_until_ready(run(*series[0]))
        for ms, link in links.items():
            taken: dict[str, list[float]] = {name: [] for name in names}
            for each in series:
                for name, run in apart.items():
                    taken[name].append(timed(run, link, *each))
                for name, run in local.items():
                    way = 0.0 if name == DRAFT_ONLY else ms / 1000
                    taken[name].append(timed(run, *each) + way)
            for name in names:
                times[name][f"{ms:g} ms"] = round(1000 * float(np.median(taken[name])), 1)
    return times


def timed(call: Callable[..., Any], *args: Any) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    jax.block_until_ready(call(*args))
    return time.perf_counter() - start


DRAFT_ONLY, WHOLE, BOTH = "draft only, no server", "target, whole request", "both at the server"


def local_programs(subject: Subject) -> dict[str, Callable[..., Any]]:
    """Decodes of one process: the draft alone, and what a server may do by itself."""
    pair = subject.pairs[subject.setup.drafts[0]]
    key, config = jax.random.key(0), DecodeConfig(HORIZON, NUM_DRAFT)
    models: dict[str, dict[str, Any]] = {
        DRAFT_ONLY: {"target": None, "draft": pair.draft},
        WHOLE: {"target": pair.target},
        BOTH: {"target": pair.target, "draft": pair.draft, "rule": Block()},
    }

    def program(parts: dict[str, Any]) -> Callable[..., Any]:
        def run(context: Any, index: Any) -> Any:
            options = {**parts, "sigma": subject.sigma, "config": config, "series_index": index}
            return decode(key, context, **options)[1]

        return run

    return {name: program(parts) for name, parts in models.items()}


def runner(subject: Subject, program: Program) -> Callable[..., ApartForecast]:
    """A function of a link and a window that decodes with the target at the other end."""
    draft = subject.pairs[subject.setup.drafts[0]].draft
    config = DecodeConfig(HORIZON, program.num_draft)

    def run(link: SocketLink, context: Any, index: Any) -> ApartForecast:
        return decode_apart(
            jax.random.key(0),
            context,
            link=link,
            draft=draft,
            sigma=subject.sigma,
            config=config,
            rule=program.rule,
            series_index=index,
            ahead=program.ahead,
            **program.options,
        )

    return run


# --- exactness -----------------------------------------------------------------------------------


def exactness_rows(paths: int = 100_000) -> list[dict[str, Any]]:
    """p-values of decodes apart on a target of known distribution, one row for each program."""
    rules: list[tuple[str, Rule, int]] = [
        ("maximal", Maximal(), 0),
        ("maximal", WithoutBonus(Maximal()), 2),
        ("block", Block(), 0),
        ("block", WithoutBonus(Block()), 2),
    ]
    rows = []
    for seed, (name, rule, ahead) in enumerate(rules):
        problem = make_problem(num_vars=2, delta=1.0)
        decoder = through_a_link(ahead)
        result = check(problem, rule, kind="cached", num_series=paths, seed=seed, decoder=decoder)
        shown = ("acceptance", "p_direction", "p_projections", "p_covariance")
        row: dict[str, Any] = {"rule": name, "bonus": not ahead, "ahead": ahead}
        rows.append(row | {one.replace("_", " "): float(f"{result[one]:.3g}") for one in shown})
    return rows


def through_a_link(ahead: int) -> Callable[..., Any]:
    """`decode` with the target at the other end of a link."""

    def decoder(key: Any, context: Any, *, target: Any, **rest: Any) -> Any:
        link = DirectLink(conversation(target))
        result = decode_apart(key, context, link=link, ahead=ahead, **rest)
        return result.forecast, result.info

    return decoder


# --- placement -----------------------------------------------------------------------------------

VERIFICATION = np.array([0.005, 0.005, 0.01, 0.02])
"""Seconds of a verification at four servers: two fast ones, and two slower ones."""


def placement_rows() -> list[dict[str, Any]]:
    """Times of a forecast of many clients by policy; nothing here is measured, it is played."""
    rows = []
    for count in (8, 32, 128):
        rng = np.random.default_rng(count)
        # Clients and servers are points of a square that a message crosses in 100 ms, there and
        # back; the acceptance of a client's draft gives it 2 to 7 rounds.
        places, servers = rng.uniform(size=(count, 2)), rng.uniform(size=(len(VERIFICATION), 2))
        link = 0.1 * np.linalg.norm(places[:, None] - servers[None], axis=-1)
        clients = Clients(rng.integers(2, 8, count), rng.uniform(0.001, 0.004, count), link)
        policies = {
            "nearest server": np.argmin(link, axis=1),
            "fewest milliseconds alone": np.argmin(link + VERIFICATION[None], axis=1),
            "in turns": np.arange(count) % len(VERIFICATION),
            "by the cost of a round": assign(clients, VERIFICATION),
        }
        for name, chosen in policies.items():
            played = 1000 * simulate(clients, VERIFICATION, chosen)
            predicted = 1000 * clients.rounds * round_seconds(clients, VERIFICATION, chosen)
            rows.append(
                {
                    "clients": count,
                    "policy": name,
                    "clients per server": " ".join(map(str, np.bincount(chosen, minlength=4))),
                    "mean, ms": round(float(played.mean()), 1),
                    "predicted, ms": round(float(predicted.mean()), 1),
                    "slowest, ms": round(float(played.max()), 1),
                }
            )
    return rows


if __name__ == "__main__":
    main()
