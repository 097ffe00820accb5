"""Links: messages arrive whole, in order, and when the simulated line lets them."""

import contextlib
import socket
import threading
import time

import numpy as np
import pytest

from stride_jax.errors import InputError
from stride_jax.remote.link import (
    Conditions,
    DirectLink,
    LinkClosedError,
    SocketLink,
    connect,
    listen,
)
from stride_jax.remote.messages import (
    Message,
    pack,
)

LATENCY, BANDWIDTH = 0.05, 1e6


def number(n: int, size: int = 0) -> Message:
    """A message with a number, and so many values."""
    return Message("block", {"block": n}, {"x": np.zeros(size, np.float32)})


@pytest.fixture
def ends():
    """A function that returns two connected ends; the first sends under the given conditions."""
    opened = []

    def make(**conditions):
        one, other = socket.socketpair()
        links = SocketLink(one, Conditions(**conditions)), SocketLink(other)
        opened.extend(links)
        return links

    yield make
    for link in opened:
        link.close()


def test_messages_arrive_in_order_and_after_the_latency(ends):
    """Blocks that are under way together would wait for each other, or overtake each other."""
    near, far = ends(latency=LATENCY)
    start = time.monotonic()
    for n in range(3):
        near.send(number(n))
    assert time.monotonic() - start < LATENCY  # sending does not wait
    assert [far.receive(5.0).fields["block"] for _ in range(3)] == [0, 1, 2]
    taken = time.monotonic() - start
    assert taken >= LATENCY
    assert near.sent == far.received == 3 * len(pack(number(0)))


def test_a_message_takes_its_size_over_the_bandwidth(ends):
    """Large messages would be free."""
    near, far = ends(bandwidth=BANDWIDTH)
    start = time.monotonic()
    for _ in range(2):
        near.send(number(0, 10_000))  # 40 ms each
    far.receive(5.0)
    far.receive(5.0)
    assert time.monotonic() - start >= 2 * 4 * 10_000 / BANDWIDTH


def test_a_late_message_stays_for_the_next_call():
    """Half of a message would be lost with the timeout, and the rest taken for the next one."""
    one, other = socket.socketpair()
    link, frame = SocketLink(other), pack(number(4))
    with one:
        for part in (frame[:5], frame[5:30]):
            one.sendall(part)
            assert link.receive(0.01) is None
        one.sendall(frame[30:] + frame)
        assert link.receive(5.0).fields == link.receive(5.0).fields == {"block": 4}
    link.close()


@pytest.mark.parametrize(("sent", "message"), [(b"", "closed"), (pack(number(1))[:-3], "middle")])
def test_a_closed_link_is_an_error(sent, message):
    """A client would wait for ever for a server that has gone."""
    one, other = socket.socketpair()
    one.sendall(sent)
    one.close()
    link = SocketLink(other)
    with pytest.raises(LinkClosedError, match=message):
        link.receive(5.0)
    with pytest.raises(LinkClosedError):
        link.send(number(0))
    link.close()
    with pytest.raises(LinkClosedError):
        link.receive(5.0)


LARGE = 16_000_000
"""Values of a message of 64 MB, which no buffer of a socket holds."""


def test_both_ends_may_send_large_messages_at_once(ends):
    """Both would write for ever, and neither read."""
    links, got = ends(), {}

    def exchange(n):
        links[n].send(number(n, LARGE))
        got[n] = links[n].receive(30.0).fields["block"]  # the other end may still be writing

    threads = [threading.Thread(target=exchange, args=(n,), daemon=True) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert got == {0: 1, 1: 0}


def test_the_time_of_a_large_message_is_in_proportion_to_its_size(ends):
    """Each part would be copied with all those before it: 13 seconds for 64 MB, and not .2."""
    near, far = ends()
    began = time.process_time()
    thread = threading.Thread(target=near.send, args=(number(0, LARGE),), daemon=True)
    thread.start()
    assert far.receive(60.0).arrays["x"].shape == (LARGE,)
    thread.join()
    assert time.process_time() - began < 4


def test_a_message_before_the_end_is_read_after_sending(ends):
    """A refusal would be lost where the client sends its next block."""
    near, far = ends()
    far.send(number(7))
    far.close()
    time.sleep(0.05)
    with contextlib.suppress(LinkClosedError):  # whether it is noticed here depends on buffers
        near.send(number(0, LARGE // 100))
    assert near.receive(5.0).fields == {"block": 7}


def test_a_foreign_frame_is_refused():
    """A program that speaks another protocol would be waited for."""
    one, other = socket.socketpair()
    link = SocketLink(other)
    with one:
        one.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with pytest.raises(InputError, match="does not speak this protocol"):
            link.receive(5.0)
    link.close()


def test_lost_messages_are_not_delivered(ends):
    """Tests of loss would lose nothing."""
    near, far = ends(lost=lambda message: message.fields["block"] == 1)
    direct = DirectLink(lambda message: message, lambda message: message.fields["block"] == 1)
    for n in range(3):
        near.send(number(n))
        direct.send(number(n))
    for link in (far, direct):
        assert [link.receive(5.0).fields["block"] for _ in range(2)] == [0, 2]
    assert direct.receive(None) is None


def test_a_server_listens_on_this_machine_alone():
    """A forecast server without a password would be open to the network."""
    with listen() as listener:
        host, port = listener.getsockname()
        assert host == "127.0.0.1"
        link = connect(host, port)
        accepted, _ = listener.accept()
        with accepted:
            accepted.sendall(pack(number(9)))
            assert link.receive(5.0).fields == {"block": 9}
        link.close()
    with pytest.raises(LinkClosedError, match="no server at"):
        connect(host, port)


def test_a_line_that_was_idle_sends_at_its_bandwidth():
    """Pauses would be saved up, and a message after one be free."""
    one, other = socket.socketpair()
    near, far = SocketLink(one, Conditions(bandwidth=1e6)), SocketLink(other)
    message = Message("block", {}, {"x": np.zeros(10_000, np.float32)})  # 40 ms
    for _ in range(2):
        start = time.monotonic()
        near.send(message)
        far.receive(5.0)
        assert time.monotonic() - start >= 0.04
        time.sleep(0.1)
    near.close()
    far.close()
