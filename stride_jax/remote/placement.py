"""Many clients and a few servers: who verifies for whom, by the cost of a round.

A forecast of a client takes R rounds. A round is the draft's time, the way to the server and back,
the time that the round waits at the server, and the verification:

    time = R (draft + link + wait + verification)

A target that answers patch by patch has N round trips in place of R. With k patches per round this
is N = R k, so that speculation saves `N link (k - 1) / k` of the link alone.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np

BUSIEST, REPETITIONS = 0.99, 30
"""The largest share that a server is taken to be busy, and the repetitions of `round_seconds`."""


class Clients(NamedTuple):
    """M clients and their links to the servers.

    Attributes:
        rounds: `[M]` int, R of a forecast.
        draft: `[M]`, seconds of drafting in a round.
        link: `[M, V]`, seconds to each server and back.
    """

    rounds: np.ndarray
    draft: np.ndarray
    link: np.ndarray


def saved_by_speculation(patches: float, link: float, per_round: float) -> float:
    """Seconds that rounds of k patches save on the link over a target that answers each patch.

    `(N - 1) link (k - 1) / k`, the approximation of DSD (arXiv 2511.11733) with the N - 1 round
    trips after the first; there it counts the links between the nodes that share a target.

    Args:
        patches: N.
        link: seconds of a round trip.
        per_round: k, patches that come out of a round.
    """
    return (patches - 1) * link * (per_round - 1) / per_round


def round_seconds(clients: Clients, verification: np.ndarray, servers: np.ndarray) -> np.ndarray:
    """The time of a round of each client `[M]`, where the clients of a server share it.

    The other clients of its server are there for the share `rho = sum_j verification / round_j` of
    the time. A client waits for them as in a queue of equal jobs, `rho verification / 2 (1 - rho)`
    (M/D/1), but never for more than one round of each. Rounds and shares depend on each other, and
    a few repetitions solve them. It is an approximation: `simulate` plays the queue.

    Args:
        clients: M of them.
        verification: `[V]`, seconds of a verification at each server.
        servers: `[M]` int, the server of each client.
    """
    work = verification[servers]
    alone = clients.draft + clients.link[np.arange(len(servers)), servers] + work
    others = np.bincount(servers, minlength=len(verification))[servers] - 1
    seconds = alone
    for _ in range(REPETITIONS):
        asked = np.bincount(servers, work / seconds, len(verification))[servers]
        busy = np.minimum(asked - work / seconds, BUSIEST)
        wait = np.minimum(others, busy / (2 * (1 - busy))) * work
        seconds = (seconds + alone + wait) / 2
    return seconds


def assign(clients: Clients, verification: np.ndarray) -> np.ndarray:
    """The server of each client `[M]`: one after the other, where the sum of all times grows least.

    The client with the most rounds chooses first.

    Args:
        clients: M of them.
        verification: `[V]`, seconds of a verification at each server.
    """
    order = np.argsort(-clients.rounds, kind="stable")
    servers = np.zeros(len(order), int)
    for place, client in enumerate(order):
        present = order[: place + 1]
        some = Clients(*(part[present] for part in clients))
        totals = []
        for server in range(len(verification)):
            servers[client] = server
            seconds = round_seconds(some, verification, servers[present])
            totals.append(float(np.sum(some.rounds * seconds)))
        servers[client] = int(np.argmin(totals))
    return servers


def simulate(clients: Clients, verification: np.ndarray, servers: np.ndarray) -> np.ndarray:
    """Seconds of the forecast of each client `[M]`, all begun together, played event by event.

    A server verifies one round at a time, in the order in which they come. A client drafts, sends,
    waits for its answer and goes on, as with `ahead=0`.

    Args:
        clients: M of them.
        verification: `[V]`, seconds of a verification at each server.
        servers: `[M]` int, the server of each client.
    """
    link = clients.link[np.arange(len(servers)), servers]
    free, finished = np.zeros(len(verification)), np.zeros(len(servers))
    left = clients.rounds.copy()
    arrivals = [(float(clients.draft[m] + link[m] / 2), m) for m in range(len(servers)) if left[m]]
    heapq.heapify(arrivals)
    while arrivals:
        time, client = heapq.heappop(arrivals)
        server = servers[client]
        free[server] = max(time, free[server]) + verification[server]
        finished[client] = free[server] + link[client] / 2
        left[client] -= 1
        if left[client]:
            again = finished[client] + clients.draft[client] + link[client] / 2
            heapq.heappush(arrivals, (float(again), client))
    return finished
