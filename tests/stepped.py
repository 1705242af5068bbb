"""
A true reactor that moves only when a test says so, with a clock that does too.

So the transport under test is the shipped one, on true sockets, and a test
still takes milliseconds and always says the same.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Protocol

from kvd.ipc.row import lone_row
from kvd.net.reactor import WorkerReactor
from kvd.net.sockets import bytes_unread
from kvd.net.transport import ServerTransport, serve_connection
from tests.patience import PATIENCE_SECONDS
from tests.segments import Segments

T = TypeVar("T")

# Turns of the reactor after which everything local has come to rest: each
# hop of a byte between two sockets takes one.
TURNS = 12


class SteppedReactor(WorkerReactor):
    """
    Steps on request, and its clock shows the time that a test has set.
    """

    def __init__(self) -> None:
        self.row = lone_row()
        self.segments = Segments()
        super().__init__(self.row)
        self._now = 1000.0

    def tcp_pair(
        self, window: int | None = None, segment_bytes: int | None = None
    ) -> tuple[socket.socket, socket.socket]:
        """
        See `tcp_pair`. `settle` waits for what is underway between the two.
        """
        ends = tcp_pair(window, segment_bytes)
        for end in ends:
            self.segments.note(end)
        return ends

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


def tcp_pair(
    window: int | None = None, segment_bytes: int | None = None
) -> tuple[socket.socket, socket.socket]:
    """
    What ``socket.socketpair`` gives, over TCP; neither end holds back a small segment
    until the one before it is acknowledged, as no connection of kvd does.

    Args:
        window: How much the second's kernel takes for it; None: as is usual.
        segment_bytes: The longest segment; None: that of loopback, 64 KiB. Where there
            is no room for another one, the kernel says that some have come, whatever
            the low-water mark.
    """
    with socket.socket() as server:
        far = socket.socket()
        if segment_bytes is not None:
            for end in (server, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment_bytes)
        if window is not None:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        server.bind(("127.0.0.1", 0))
        server.listen()
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
