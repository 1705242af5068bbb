"""
A true reactor that moves only when a test says so, with a clock that does too.

So the transport under test is the shipped one, on true sockets, and a test
still takes milliseconds and always says the same.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeVar
from weakref import WeakSet

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Protocol

from kvd.ipc.row import lone_row
from kvd.net.reactor import WorkerReactor
from kvd.net.sockets import bytes_unread
from kvd.net.transport import ServerTransport, serve_connection
from tests.patience import PATIENCE_SECONDS

T = TypeVar("T")

# Turns of the reactor after which everything local has come to rest: each
# hop of a byte between two sockets takes one.
TURNS = 12

INTERNET: Final = (socket.AF_INET, socket.AF_INET6)

STUCK_SECONDS: Final = 0.1
"""
A segment that has taken so long is not underway any more: there is no room for it.
"""

SEGMENT_SECONDS: Final = 0.0001

ESTABLISHED: Final = 1
"""
Of ``linux/tcp.h``: neither end has said that it sends no more.
"""

_INFO: Final = struct.Struct("B 127x Q 8x I 52x QQ")
"""
Of ``struct tcp_info`` there: the state, and how many bytes were received, have not been
sent, were sent, and were sent once more.
"""


class TcpEnd(NamedTuple):
    """
    What one end of a connection over TCP knows of it.
    """

    state: int
    received: int
    unread: int
    sent: int
    unsent: int

    @classmethod
    def of(cls, connection: socket.socket) -> TcpEnd:
        """
        Ask the kernel.
        """
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
        state, received, unsent, sent, once_more = _INFO.unpack(info)
        unread = bytes_unread(connection)
        return cls(state, received, unread, sent - once_more, unsent)


class Underway(NamedTuple):
    """
    What has not arrived yet, in bytes.
    """

    expected: int
    """Where there is room."""
    possible: int
    """Where there may be none; or the end of a connection, which may be behind that."""


class Segments:
    """
    Knows what is underway over TCP between the sockets of this process.
    """

    def __init__(self) -> None:
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._pairs: WeakSet[socket.socket] = WeakSet()
        """Those whose other end was here too."""
        self._stuck = Underway(0, 0)

    def note(self, connection: object) -> None:
        """
        Something may arrive here, or at the other end.
        """
        if isinstance(connection, socket.socket) and connection.family in INTERNET:
            self._sockets.add(connection)

    def wait(self) -> bool:
        """
        Wait until no segment is underway, or one is stuck. Returns whether one was.
        """
        waited, before, since = False, Underway(0, 0), time.monotonic()
        while (underway := self._underway()) not in (Underway(0, 0), self._stuck):
            now = time.monotonic()
            if underway != before:
                before, since = underway, now
            elif not underway.expected and since + STUCK_SECONDS < now:
                break
            assert now < since + PATIENCE_SECONDS
            waited = True
            time.sleep(SEGMENT_SECONDS)
        self._stuck = underway
        return waited

    def _underway(self) -> Underway:
        ends: dict[tuple[Any, Any], tuple[socket.socket, TcpEnd]] = {}
        for each in self._sockets:
            # Where it is closed, or not connected yet.
            with suppress(OSError):
                names = each.getsockname(), each.getpeername()
                ends[names] = each, TcpEnd.of(each)
        expected = possible = 0
        for (here, there), (connection, end) in ends.items():
            if (there, here) in ends:
                self._pairs.add(connection)
                other = ends[there, here][1]
                if not end.unread:
                    expected += other.unsent + max(0, other.sent - end.received)
                else:
                    possible += max(0, other.sent - end.received)
            elif connection in self._pairs and end.state == ESTABLISHED:
                possible += 1
        return Underway(expected, possible)


class SteppedReactor(WorkerReactor):
    """
    Steps on request, and its clock shows the time that a test has set.
    """

    def __init__(self) -> None:
        self.row = lone_row()
        self.segments = Segments()
        super().__init__(self.row)
        self._now = 1000.0

    def addReader(self, reader: Any) -> None:
        # `BodySocket` has no public one.
        connection = getattr(reader, "socket", getattr(reader, "_connection", None))
        self.segments.note(connection)
        super().addReader(reader)

    def addWriter(self, writer: Any) -> None:
        self.segments.note(getattr(writer, "socket", None))
        super().addWriter(writer)

    def seconds(self) -> float:
        return self._now

    def settle(self, turns: int = TURNS) -> None:
        """
        Do all that can be done now, and when the segments have come that are underway:
        on a busy machine they may take a while, over loopback too.
        """
        while True:
            for _ in range(turns):
                self.iterate(0)
            if not self.segments.wait():
                return

    def advance(self, seconds: float) -> None:
        """
        Let time pass.
        """
        self._now += seconds
        self.settle()

    def be_kept(self, seconds: float) -> None:
        """
        Let time pass within an event: nothing else is done meanwhile.
        """
        self._now += seconds

    def dispose(self) -> None:
        """
        Close every descriptor the reactor holds, its own ones included.
        """
        for call in self.getDelayedCalls():
            call.cancel()
        for selectable in self.removeAll():
            if isinstance(selectable, ServerTransport):
                selectable.abortConnection()
        self.settle()
        for reader in list(self._internalReaders):
            reader.connectionLost(None)
        self._poller.close()


class Client:
    """
    The other end of a served connection.
    """

    def __init__(self, reactor: SteppedReactor, sock: socket.socket) -> None:
        sock.setblocking(False)
        reactor.segments.note(sock)
        self._reactor = reactor
        self.socket = sock
        self.ended = False
        """The server closed its half, or all."""
        self.reset = False

    def send(self, data: bytes, wait: Callable[[], None] | None = None) -> Client:
        """
        Send all of it, the reactor turning as often as that takes.

        Args:
            data: What is sent.
            wait: Called if the server takes no more: lets it have waited.
        """
        rest = memoryview(data)
        stuck = 0
        while rest and stuck < 100:
            try:
                rest = rest[self.socket.send(rest) :]
                stuck = 0
            except BlockingIOError:
                stuck += 1
                self._reactor.settle(1)
                if stuck == 50 and wait is not None:
                    wait()
        assert not rest, f"the server takes no more: {len(rest)} bytes are left"
        self._reactor.settle()
        return self

    def receive(self) -> bytes:
        """
        All that comes, until nothing more comes.
        """
        pieces = []
        idle = 0
        while idle < 2 and not self.ended:
            try:
                piece = self.socket.recv(1 << 20)
            except BlockingIOError:
                self._reactor.settle()
                # Over TLS, it may be a part of a record.
                idle = 0 if bytes_unread(self.socket) else idle + 1
                continue
            except ConnectionResetError:
                self.reset = self.ended = True
                break
            idle = 0
            pieces.append(piece)
            self.ended = not piece
        return b"".join(pieces)

    def receive_until(self, is_whole: Callable[[bytes], bool]) -> bytes:
        """
        All that comes, until it is whole, or the connection ends: over TCP, the rest
        may come a moment after nothing more comes.
        """
        last = time.monotonic() + PATIENCE_SECONDS
        data = self.receive()
        while not (self.ended or is_whole(data)):
            assert time.monotonic() < last
            data += self.receive()
        return data

    def half_close(self) -> Client:
        """
        Send no more.
        """
        self.socket.shutdown(socket.SHUT_WR)
        self._reactor.settle()
        return self

    def close(self) -> None:
        """
        Be gone.
        """
        self.socket.close()
        self._reactor.settle()


def connect(
    reactor: SteppedReactor,
    protocol: Protocol,
    over_tcp: bool = False,
    window: int | None = None,
    peer: Any = "",
) -> Client:
    """
    A client connected to a protocol, through the shipped transport.

    Args:
        window: How much the kernel of a client over TCP takes for it.
        peer: What ``accept`` says of it.
    """
    near, far = tcp_pair(window) if over_tcp else socket.socketpair()
    near.setblocking(False)
    serve_connection(near, peer, protocol, reactor)
    reactor.settle()
    return Client(reactor, far)


def tcp_pair(window: int | None = None) -> tuple[socket.socket, socket.socket]:
    """
    What ``socket.socketpair`` gives, over TCP; neither end holds back a small segment
    until the one before it is acknowledged, as no connection of kvd does.

    Args:
        window: How much the second's kernel takes for it; None: as is usual.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        far = socket.socket()
        if window is not None:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        far.connect(server.getsockname())
        near, _ = server.accept()
    for end in (near, far):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return near, far


def inline(function: Callable[[], T]) -> Deferred[T]:
    """
    Run at once what would otherwise run off the reactor.
    """
    return maybeDeferred(function)


class InlineWriter:
    """
    A `kvd.log.writer.Writer` without a thread, for where nothing blocks.
    """

    def __init__(self, name: str) -> None:
        pass

    def defer(self, function: Callable[[], None], reactor: object) -> Deferred[None]:
        """
        Call it at once.
        """
        return inline(function)

    def end(self) -> None:
        """
        There is nothing to end.
        """
