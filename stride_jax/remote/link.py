"""Links that carry messages: a socket with a simulated line, and both ends in one process.

The clock of a decode apart is here. A line is simulated where a message is sent: it leaves after
those before it, takes its size over the bandwidth, and arrives a latency later. Several messages
may be under way at once.
"""

from __future__ import annotations

import contextlib
import queue
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from stride_jax.remote.messages import HEAD, Message, frame_size, pack, unpack

Lost = Callable[[Message], bool]
"""Whether a message is lost on its way; for tests."""
CHUNK = 1 << 18
"""Bytes that are read or written at once."""


class LinkClosedError(ConnectionError):
    """The other side has closed the link, or the network has."""


class Conditions(NamedTuple):
    """A simulated line, for the messages of one direction.

    Attributes:
        latency: seconds from the end of sending to the arrival.
        bandwidth: bytes per second; None for no limit.
        lost: tells which messages are lost; None for no loss.
    """

    latency: float = 0.0
    bandwidth: float | None = None
    lost: Lost | None = None


class Link(Protocol):
    """One end of a link."""

    def send(self, message: Message) -> None:
        """Sends a message and does not wait for its arrival.

        Raises:
            LinkClosedError: the link is closed.
        """

    def receive(self, timeout: float | None) -> Message | None:
        """The next message; None where none came within `timeout` seconds (None for no limit).

        Raises:
            LinkClosedError: the link is closed.
            InputError: what came is no message.
        """

    def close(self) -> None:
        """Closes the link."""


class SocketLink:
    """A link over a connected stream socket, with a simulated line in front of it.

    Attributes:
        sent: bytes of the messages that were sent, those that were lost included.
        received: bytes of the messages that came.
    """

    def __init__(self, connection: socket.socket, conditions: Conditions | None = None) -> None:
        self.sent = self.received = 0
        connection.setblocking(False)
        self._connection = connection
        self._readable, self._writable = selectors.DefaultSelector(), selectors.DefaultSelector()
        self._readable.register(connection, selectors.EVENT_READ)
        self._conditions = Conditions() if conditions is None else conditions
        reads_too = 0 if self._delays() else selectors.EVENT_READ
        self._writable.register(connection, selectors.EVENT_WRITE | reads_too)
        self._unread = bytearray()
        self._line_free = 0.0  # when the line has sent all that it was given
        self._under_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        if self._delays():
            threading.Thread(target=self._deliver, daemon=True).start()

    def send(self, message: Message) -> None:
        """See `Link`."""
        latency, bandwidth, lost = self._conditions
        frame = pack(message)
        self.sent += len(frame)
        if lost is not None and lost(message):
            return
        if not self._delays():
            return self._write(frame)
        taken = 0.0 if bandwidth is None else len(frame) / bandwidth
        self._line_free = max(time.monotonic(), self._line_free) + taken
        self._under_way.put((self._line_free + latency, frame))

    def receive(self, timeout: float | None) -> Message | None:
        """See `Link`; the part of a message that has come stays for the next call."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (size := self._size()) is None or len(self._unread) < size:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                if not self._readable.select(left):
                    return None
                open_still = self._read()
            except (OSError, ValueError) as error:  # a socket that is closed here has no number
                raise LinkClosedError(f"the link was cut: {error}") from error
            if not open_still:
                middle = " in the middle of a message" if self._unread else ""
                raise LinkClosedError(f"the other side has closed the link{middle}.")
        frame = bytes(self._unread[:size])
        del self._unread[:size]
        self.received += len(frame)
        return unpack(frame)

    def close(self) -> None:
        """See `Link`; what is still under way is not delivered."""
        self._under_way.put((0.0, b""))
        self._readable.close()
        self._writable.close()
        self._connection.close()

    def _delays(self) -> bool:
        """Whether the simulated line takes any time."""
        return self._conditions.latency > 0 or self._conditions.bandwidth is not None

    def _size(self) -> int | None:
        """Bytes of the frame that comes next, as soon as its head is there."""
        head = bytes(self._unread[: HEAD.size])
        return frame_size(head) if len(head) == HEAD.size else None

    def _deliver(self) -> None:
        """Writes each frame when it is due; runs in a thread of its own."""
        while True:
            due, frame = self._under_way.get()
            if not frame:
                return
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                self._write(frame)
            except LinkClosedError:
                return

    def _read(self) -> bool:
        """Reads what has come; False where the other side has closed the link."""
        try:
            part = self._connection.recv(CHUNK)
        except BlockingIOError:
            return True
        self._unread += part
        return bool(part)

    def _write(self, frame: bytes) -> None:
        """Writes a frame, and reads meanwhile: the other side may wait for that before it reads.

        In the thread of a simulated line it does not read, which is done where messages are
        received.
        """
        rest = memoryview(frame)
        try:
            while rest:
                for _, events in self._writable.select():
                    if events & selectors.EVENT_READ and not self._read():
                        self._writable.modify(self._connection, selectors.EVENT_WRITE)
                    if events & selectors.EVENT_WRITE:
                        with contextlib.suppress(BlockingIOError):
                            rest = rest[self._connection.send(rest[:CHUNK]) :]
        except (OSError, ValueError) as error:
            raise LinkClosedError(f"the link was cut: {error}") from error


class DirectLink:
    """The client's end of a link within one process: a message is answered as it is sent.

    Messages are packed and unpacked as on any link. Nothing waits: where no answer is there,
    `receive` returns None at once.
    """

    def __init__(
        self, reply: Callable[[Message], Message | None], lost: Lost | None = None
    ) -> None:
        self.sent = self.received = 0
        self._reply, self._lost = reply, lost
        self._answers: deque[bytes] = deque()

    def send(self, message: Message) -> None:
        """See `Link`."""
        frame = pack(message)
        self.sent += len(frame)
        if self._lost is not None and self._lost(message):
            return
        answer = self._reply(unpack(frame))
        if answer is not None and not (self._lost is not None and self._lost(answer)):
            self._answers.append(pack(answer))

    def receive(self, timeout: float | None) -> Message | None:
        """See `Link`."""
        if not self._answers:
            return None
        frame = self._answers.popleft()
        self.received += len(frame)
        return unpack(frame)

    def close(self) -> None:
        """See `Link`."""


def listen(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """A socket that waits for clients, on this machine alone unless another host is given.

    Port 0 takes any free one: `listen().getsockname()[1]` is its number. There is no encryption and
    no password: open it to a network that you trust, or through a tunnel.
    """
    return socket.create_server((host, port))


def connect(
    host: str, port: int, conditions: Conditions | None = None, timeout: float = 10.0
) -> SocketLink:
    """The client's end of a link to a server.

    Args:
        host: name or address.
        port: of the server.
        conditions: a simulated line for what the client sends.
        timeout: seconds to wait for the connection.

    Raises:
        LinkClosedError: nobody answers there.
    """
    try:
        connection = socket.create_connection((host, port), timeout)
    except OSError as error:
        raise LinkClosedError(f"no server at {host}:{port}: {error}.") from error
    return SocketLink(without_delay(connection), conditions)


def without_delay(connection: socket.socket) -> socket.socket:
    """The connection with small messages sent at once, not gathered into larger ones."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection
