"""Clients and servers: the cost of a round, the queue, and the choice by that cost."""

import itertools

import numpy as np

from stride_jax.remote.placement import (
    Clients,
    assign,
    round_seconds,
    saved_by_speculation,
    simulate,
)

VERIFICATION = np.array([0.02, 0.02, 0.05])


def clients_of(count: int, seed: int = 0) -> Clients:
    """Clients with links of 5 to 100 ms."""
    rng = np.random.default_rng(seed)
    rounds, draft = rng.integers(2, 9, count), rng.uniform(0.001, 0.01, count)
    return Clients(rounds, draft, rng.uniform(0.005, 0.1, (count, len(VERIFICATION))))


def test_one_client_takes_the_sum_of_its_rounds():
    """A part of a round would be counted twice, or not at all."""
    client = Clients(np.array([5]), np.array([0.01]), np.array([[0.2, 0.1, 0.3]]))
    seconds = simulate(client, VERIFICATION, np.array([1]))
    np.testing.assert_allclose(seconds, [5 * (0.01 + 0.1 + 0.02)])


def test_clients_of_one_server_wait_for_each_other():
    """Servers would verify any number of rounds at once."""
    clients = Clients(np.array([1, 1]), np.zeros(2), np.zeros((2, 1)))
    np.testing.assert_allclose(simulate(clients, np.array([3.0]), np.zeros(2, int)), [3.0, 6.0])


def test_the_cost_of_a_round_is_that_of_the_queue_where_it_is_short():
    """Clients would be assigned by a time that is not theirs."""
    clients = clients_of(6)._replace(rounds=np.full(6, 200))
    servers = np.arange(6) % 3
    played = simulate(clients, VERIFICATION, servers) / clients.rounds
    predicted = round_seconds(clients, VERIFICATION, servers)
    np.testing.assert_allclose(predicted, played, rtol=0.25)


def test_a_busy_server_is_left_for_a_distant_one():
    """All clients would go to the nearest server and wait there."""
    clients = clients_of(30)._replace(link=np.tile([0.01, 0.03, 0.03], (30, 1)))
    servers = assign(clients, np.full(3, 0.02))
    assert np.bincount(servers, minlength=3).min() > 0
    nearest = simulate(clients, np.full(3, 0.02), np.zeros(30, int))
    assert simulate(clients, np.full(3, 0.02), servers).mean() < 0.6 * nearest.mean()


def test_the_choice_is_close_to_the_best_of_all():
    """A greedy choice might be far from what could be had."""
    clients = clients_of(6, seed=3)
    everything = [np.array(choice) for choice in itertools.product(range(3), repeat=6)]
    best = min(simulate(clients, VERIFICATION, each).mean() for each in everything)
    assert simulate(clients, VERIFICATION, assign(clients, VERIFICATION)).mean() < 1.1 * best


def test_what_speculation_saves_on_the_link():
    """The prediction would not be that of the source."""
    assert saved_by_speculation(7, 0.1, 1.0) == 0.0
    np.testing.assert_allclose(saved_by_speculation(7, 0.1, 3.0), 6 * 0.1 * 2 / 3)


def test_a_client_waits_for_one_round_of_each_other_at_most():
    """A server that is always busy would cost 50 rounds of waiting, with one client beside."""
    clients = Clients(np.full(2, 100), np.zeros(2), np.zeros((2, 1)))
    found = round_seconds(clients, np.array([3.0]), np.zeros(2, int))
    assert (found <= 2 * 3.0 + 1e-6).all()
