"""
Tests of `kvd.http.relay`: a body goes from one socket to another.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable
from unittest import mock

from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase

from kvd.client.sockets import BodySocket
from kvd.errors import StoreFault
from kvd.http.pieces import FILE_BYTES, SHORT_BYTES, Pieces
from kvd.http.relay import Relay
from kvd.http.source import Stream
from kvd.net.splice import Pipe
from kvd.net.transport import ServerTransport, serve_connection
from tests.descriptors import Descriptors
from tests.stepped import SteppedReactor

SILENT_SECONDS = 30.0
SMALL = 4096
BODY = bytes(range(256)) * 2000


class RelayTests(SynchronousTestCase):
    """
    What comes on a socket is sent on another one.
    """

    def setUp(self) -> None:
        self.reactor = SteppedReactor()
        self.addCleanup(self.reactor.dispose)
        self.pipe = Pipe()
        self.addCleanup(self.pipe.close)
        self.pieces = Pieces(lambda: self.is_short)
        self.is_short = False
        self.source, self.engine = self.reactor.tcp_pair()
        self.source.setblocking(False)
        near, self.client = self.reactor.tcp_pair(window=SMALL)
        self.client.setblocking(False)
        for each in (self.source, self.engine, self.client):
            self.addCleanup(each.close)
        near.setblocking(False)
        self.transport: ServerTransport = serve_connection(
            near, ("", 0), Protocol(), self.reactor
        )
        self.body = BodySocket(self.source, self.reactor)
        self.addCleanup(self.body.leave)
        self.over: list[StoreFault | None] = []

    def relay(self, count: int) -> Relay:
        """
        One that moves so many bytes.
        """
        stream = Stream(self.source.fileno(), count, lambda *_: None, self.watch)
        return Relay(
            self.transport,
            self.pipe,
            self.pieces,
            stream,
            lambda _, error: self.over.append(error),
        )

    def watch(
        self,
        count: int,
        take: Callable[[], int],
        failed: Callable[[StoreFault], object],
    ) -> None:
        """
        See `kvd.interfaces.IStreamedValue`.
        """
        self.body.watch(
            count, take, SILENT_SECONDS, lambda: failed(StoreFault("silent"))
        )

    def begin(self, count: int) -> Relay:
        """
        Move so many bytes, of which none has come.
        """
        relay = self.relay(count)
        assert not relay.begin()
        return relay

    def come(self, data: bytes) -> None:
        """
        So many come, as soon as there is room.
        """
        self.engine.setblocking(True)
        self.engine.sendall(data)
        self.reactor.advance(1)

    def stall(self) -> Relay:
        """
        Move what the client does not take.
        """
        self.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
        with mock.patch.object(ServerTransport, "fit_buffer", return_value=True):
            relay = self.begin(len(BODY))
            self.come(BODY[:200_000])
        assert self.transport.waits_for_peer
        return relay

    def read(self) -> bytes:
        """
        What the client has, when nothing more comes.
        """
        got, idle = b"", 0
        while idle < 3:
            try:
                piece = self.client.recv(1 << 20)
            except BlockingIOError:
                idle += 1
            else:
                if not piece:
                    break
                got, idle = got + piece, 0
            self.reactor.settle()
        return got

    def test_what_has_come_is_moved_at_once(self) -> None:
        """
        If that is all, nothing is waited for.
        """
        self.engine.send(b"0123456789")
        relay = self.relay(10)
        assert relay.begin()

        assert (10, False) == (relay.taken, relay.ended)
        assert b"0123456789" == self.read()
        assert [] == self.over
        assert 10 == self.transport.bytes_sent

    def test_what_comes_is_moved_when_it_comes(self) -> None:
        """
        And no more of it than was asked for.
        """
        relay = self.begin(10)
        self.come(b"0123")
        assert b"0123" == self.read()
        assert [] == self.over
        self.come(b"456789abc")

        assert b"456789" == self.read()
        assert [None] == self.over
        assert (10, False) == (relay.taken, relay.ended)
        assert b"abc" == self.source.recv(10)
        assert self.body not in self.reactor.getReaders()

    def test_a_client_that_reads_nothing(self) -> None:
        """
        What was taken for it waits in a pipe, and no more is taken; then all comes in
        the right order.
        """
        opened = Descriptors("pipe:")
        relay = self.stall()
        assert 2 == opened.more
        assert not self.transport.queued
        assert self.body not in self.reactor.getReaders()
        taken = relay.taken
        self.come(b"")
        assert taken == relay.taken

        got = self.read()
        while len(got) < len(BODY):
            self.come(BODY[relay.taken : relay.taken + 100_000])
            got += self.read()
        assert BODY == got
        assert [None] == self.over
        assert len(BODY) == self.transport.bytes_sent
        assert not self.transport.waits_for_peer

    def test_the_reactor_is_told_only_what_changes(self) -> None:
        """
        While only the client is waited for, it watches that all the time.
        """
        self.stall()
        self.engine.setblocking(False)
        self.engine.send(BODY[200_000:])
        with mock.patch.object(self.reactor, "addWriter") as added:
            while self.transport.waits_for_peer:
                self.client.recv(1 << 20)
                self.reactor.settle(1)
        assert not added.called

    def test_what_no_pipe_can_hold_waits_in_memory(self) -> None:
        """
        If the process can open no more.
        """
        with mock.patch("os.pipe2", side_effect=OSError(errno.EMFILE, os.strerror(24))):
            relay = self.stall()
            assert self.transport.queued
            got = self.read()
            self.come(BODY[200_000:])
            got += self.read()

        assert BODY == got
        assert [None] == self.over
        assert len(BODY) == relay.taken

    def test_the_end_of_the_source(self) -> None:
        """
        Comes when all before it was taken.
        """
        relay = self.stall()
        self.engine.close()
        self.reactor.advance(1)
        assert [] == self.over
        got = self.read()

        assert [None] == self.over
        assert (200_000, True) == (relay.taken, relay.ended)
        assert BODY[:200_000] == got

    def test_a_source_that_fails(self) -> None:
        """
        As one that ends.
        """
        relay = self.begin(10)
        self.come(b"0123")
        self.engine.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self.engine.close()
        self.reactor.settle()

        assert [None] == self.over
        assert (4, True) == (relay.taken, relay.ended)
        assert b"0123" == self.read()

    def test_a_source_with_urgent_data(self) -> None:
        """
        As one that ends: the kernel moves nothing past it, and would report what is
        behind it for ever.
        """
        relay = self.begin(10)
        self.come(b"0123")
        self.engine.send(b"!", socket.MSG_OOB)
        self.come(b"456789")

        assert [None] == self.over
        assert (4, True) == (relay.taken, relay.ended)
        assert b"0123" == self.read()

    def test_a_source_that_is_silent(self) -> None:
        """
        It is told; the time in which the client is waited for does not count.
        """
        self.stall()
        self.reactor.advance(2 * SILENT_SECONDS)
        assert [] == self.over
        self.read()
        self.reactor.advance(SILENT_SECONDS)

        (error,) = self.over
        assert isinstance(error, StoreFault)

    def test_a_client_that_leaves(self) -> None:
        """
        While its socket takes no more: whoever hears of it stops this, and nothing is
        left of the pipe.
        """
        opened = Descriptors("pipe:")
        relay = self.stall()
        self.client.close()
        self.reactor.settle()
        assert not self.transport.waits_for_peer
        relay.stop()

        assert [] == self.over
        assert 0 == opened.more, "another one is there for all bodies"

    def test_a_client_that_has_left_when_its_socket_takes_more(self) -> None:
        """
        That is found by the kernel before the reactor knows it.
        """
        opened = Descriptors("pipe:")
        self.stall()
        self.client.close()
        self.transport.doWrite()

        assert [None] == self.over
        assert self.transport.peer_left
        assert 0 == opened.more

    def test_a_client_that_leaves_while_the_source_is_waited_for(self) -> None:
        """
        It is found when the next bytes come.
        """
        relay = self.begin(len(BODY))
        self.client.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self.client.close()
        self.come(b"0123")
        self.come(b"4567")

        assert [None] == self.over
        assert relay.taken <= 8

    def test_a_relay_that_is_stopped(self) -> None:
        """
        Nothing is left of its pipe.
        """
        opened = Descriptors("pipe:")
        relay = self.stall()
        relay.stop()

        assert 0 == opened.more
        assert [] == self.over

    def test_little_is_moved_where_the_kernel_is_short_of_memory(self) -> None:
        """
        As soon as a client is waited for.
        """
        self.stall()
        assert FILE_BYTES == self.pieces.bytes
        self.is_short = True
        self.engine.setblocking(False)
        self.engine.send(BODY[200_000:])
        limits: list[int] = []
        pass_on = Pipe.pass_on

        def noted(*args: object) -> int:
            limits.append(args[-1])  # type: ignore[arg-type]
            return pass_on(*args)  # type: ignore[arg-type]

        self.patch(Pipe, "pass_on", noted)
        while not self.over:
            self.read()
            self.come(b"")
            if len(limits) > 100:
                break

        assert SHORT_BYTES in limits
        assert SHORT_BYTES == self.transport._most_unsent
