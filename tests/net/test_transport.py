"""
Tests for `kvd.net.transport` and `kvd.net.sending`.
"""

import errno
import os
import socket
import struct
from typing import cast
from unittest import mock

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

import kvd.net.sending
from kvd.net.sending import LARGE_FILE_BYTES, LOW_ROUND_TRIP_SEND_BUFFER
from kvd.net.transport import ServerTransport, serve_connection
from tests.stepped import SteppedReactor

LARGE = b"x" * 4_000_000
"""
More than any socket's buffer takes.
"""


class Recorder(Protocol):
    """
    Remembers what it is called with.
    """

    def __init__(self) -> None:
        self.lost: Failure | None = None
        self.data = b""

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.lost = reason


class ServerTransportTests(SynchronousTestCase):
    """
    `ServerTransport` sends at once and calls back when it has.
    """

    def setUp(self) -> None:
        self.reactor = SteppedReactor()
        self.addCleanup(self.reactor.dispose)
        near, self.far = socket.socketpair()
        self.addCleanup(self.far.close)
        self.far.setblocking(False)
        self.protocol = Recorder()
        self.transport: ServerTransport = serve_connection(
            near, "", self.protocol, self.reactor
        )

    def read_all(self) -> bytes:
        """
        What has come, with the reactor turning meanwhile.
        """
        pieces = []
        idle = 0
        while idle < 2:
            try:
                piece = self.far.recv(1 << 20)
                if not piece:
                    break
                pieces.append(piece)
                idle = 0
            except BlockingIOError:
                idle += 1
                self.reactor.settle()
        return b"".join(pieces)

    def test_write_goes_out_without_a_turn_of_the_reactor(self) -> None:
        """
        What is written when nothing is queued is there for the client at once.
        """
        self.transport.write(b"reply")

        assert b"reply" == self.far.recv(100)

    def test_what_the_socket_does_not_take_follows(self) -> None:
        """
        A large write arrives whole and in order, with others behind it.
        """
        self.transport.write(LARGE)
        assert self.transport.queued
        self.transport.write(b"end")

        assert LARGE + b"end" == self.read_all()
        assert not self.transport.queued

    def test_every_byte_that_the_kernel_took_is_counted(self) -> None:
        """
        `bytes_sent` shows progress, whichever way the bytes went.
        """
        self.transport.write(b"12345")
        assert 5 == self.transport.bytes_sent

        self.transport.write(LARGE)
        self.read_all()
        assert 5 + len(LARGE) == self.transport.bytes_sent

    def test_after_flush_waits_for_the_last_byte(self) -> None:
        """
        The callback comes once, after the queue is empty.
        """
        calls: list[bool] = []
        self.transport.write(LARGE)
        self.transport.after_flush(lambda: calls.append(self.transport.queued))
        self.reactor.settle()
        assert [] == calls

        self.read_all()
        assert [False] == calls

    def test_after_flush_with_nothing_queued_comes_in_a_later_turn(self) -> None:
        """
        Who sends piece after piece gives way to other connections in between.
        """
        calls: list[int] = []
        self.transport.after_flush(lambda: calls.append(1))
        assert [] == calls

        self.reactor.settle()
        assert [1] == calls

    def test_after_flush_can_be_asked_again_from_its_callback(self) -> None:
        """
        A sender goes on from piece to piece.
        """
        pieces = [b"a", b"b", b"c"]

        def go_on() -> None:
            if pieces:
                self.transport.write(pieces.pop(0))
                self.transport.after_flush(go_on)

        go_on()
        assert b"abc" == self.read_all()

    def test_a_peer_that_is_gone_is_reported_from_the_reactors_turn(self) -> None:
        """
        A failing write calls nobody back from within itself.
        """
        self.far.close()
        self.transport.write(b"into the void")
        assert self.protocol.lost is None

        self.reactor.settle()
        assert self.protocol.lost is not None

    def test_a_write_that_fails_ends_the_connection(self) -> None:
        """
        Whatever the error: a client that is still there does not wait for the reply.
        What it had sent is read.
        """
        failing = mock.Mock(wraps=self.transport.socket)
        failing.send.side_effect = OSError(errno.EIO, os.strerror(errno.EIO))
        self.transport.socket = failing
        self.transport.write(b"reply")
        self.far.sendall(b"next")
        self.reactor.settle()

        assert b"next" == self.protocol.data
        assert self.protocol.lost is not None
        assert b"" == self.far.recv(1)

    def test_after_flush_is_forgotten_with_the_connection(self) -> None:
        """
        Nothing is sent, and nobody called, on a connection that is lost.
        """
        calls: list[int] = []
        self.transport.write(LARGE)
        self.transport.after_flush(lambda: calls.append(1))
        self.transport.abortConnection()
        self.reactor.settle()

        assert self.protocol.lost is not None
        assert [] == calls

    def test_after_flush_is_forgotten_by_a_close(self) -> None:
        """
        Which is done all the same, with something queued and without.
        """
        calls: list[int] = []
        self.transport.write(LARGE)
        self.transport.after_flush(lambda: calls.append(1))
        self.transport.loseConnection()
        assert LARGE == self.read_all()
        assert self.protocol.lost is not None

        near, self.far = socket.socketpair()
        self.addCleanup(self.far.close)
        protocol = Recorder()
        transport = serve_connection(near, "", protocol, self.reactor)
        transport.after_flush(lambda: calls.append(1))
        transport.loseConnection()
        self.reactor.settle()
        assert protocol.lost is not None
        assert [] == calls

    def test_after_flush_wants_nothing_more_of_the_reactor(self) -> None:
        """
        Else it would call again and again.
        """
        self.transport.after_flush(lambda: None)
        self.reactor.settle()

        assert [] == self.reactor.getWriters()

    def test_what_waits_is_not_overtaken(self) -> None:
        """
        Also if the client has made room before the reactor turns, and whether or
        not it had turned before.
        """
        for turns in (0, 1):
            self.transport.write(LARGE)
            self.reactor.settle(turns)
            received = self.far.recv(1 << 20)
            self.transport.write(b"end")
            assert 0 == self.transport.send_file(self.file(b"file"), 0, 4)

            assert LARGE + b"end" == received + self.read_all()

    def file(self, body: bytes) -> int:
        """
        A descriptor of one.
        """
        descriptor = os.memfd_create("file")
        self.addCleanup(os.close, descriptor)
        os.write(descriptor, body)
        return descriptor

    def test_files_are_sent(self) -> None:
        """
        From a place, so much as is there and is taken; each byte is counted.
        """
        file = self.file(b"0123456789")
        assert 4 == self.transport.send_file(file, 3, 4)
        assert b"3456" == self.far.recv(100)
        assert None is self.transport.send_file(file, 10, 4)

        large = self.file(LARGE)
        sent = self.transport.send_file(large, 0, len(LARGE))
        assert sent
        assert 0 < sent < len(LARGE)
        assert 0 == self.transport.send_file(large, sent, len(LARGE))
        assert 4 + sent == self.transport.bytes_sent

    def send_buffer_after(self, *nears: int, count: int = LARGE_FILE_BYTES) -> int:
        """
        Of a connection over TCP, after so much of a file for each; peers whose round
        trip takes no more microseconds than that are near.
        """
        large = self.file(bytes(LARGE_FILE_BYTES))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            far = socket.create_connection(listener.getsockname())
            near, peer = listener.accept()
        near.setblocking(False)
        transport = serve_connection(near, peer, Recorder(), self.reactor)
        for microseconds in nears:
            self.patch(kvd.net.sending, "LOW_ROUND_TRIP_MICROSECONDS", microseconds)
            sent = transport.send_file(large, 0, count)
            assert sent
            # The next one needs room.
            far.recv(sent, socket.MSG_WAITALL)
        buffer = near.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        far.close()
        self.reactor.settle()
        return buffer

    def test_little_is_kept_for_a_peer_that_is_near(self) -> None:
        """
        From its first file on, or a later one: the first round trip may have met a busy
        moment.
        """
        everybody, nobody = 10**8, -1
        assert 2 * LOW_ROUND_TRIP_SEND_BUFFER == self.send_buffer_after(everybody)
        assert 2 * LOW_ROUND_TRIP_SEND_BUFFER == self.send_buffer_after(
            nobody, everybody
        )

    def test_what_the_kernel_takes_at_once_is_left_to_it(self) -> None:
        """
        A smaller file changes nothing.
        """
        kernels = self.send_buffer_after()
        assert kernels == self.send_buffer_after(10**8, count=LARGE_FILE_BYTES - 1)

    def test_a_distant_client_has_what_the_kernel_gives(self) -> None:
        """
        And is not asked for ever.
        """
        everybody, nobody = 10**8, -1
        kernels = self.send_buffer_after()
        assert 2 * LOW_ROUND_TRIP_SEND_BUFFER != kernels
        assert kernels == self.send_buffer_after(nobody)
        assert kernels == self.send_buffer_after(*[nobody] * 16, everybody)

    def test_nothing_goes_to_a_client_that_is_gone(self) -> None:
        """
        Neither before the reactor has found out nor afterwards.
        """
        file = self.file(b"file")
        self.far.close()
        assert 0 == self.transport.send_file(file, 0, 4)
        self.reactor.settle()
        assert self.protocol.lost is not None

        self.transport.write(b"more")
        assert 0 == self.transport.send_file(file, 0, 4)
        assert 0 == self.transport.bytes_sent

    def test_close_follows_what_was_written(self) -> None:
        """
        `loseConnection` sends the queue first.
        """
        self.transport.write(LARGE)
        self.transport.loseConnection()

        assert LARGE == self.read_all()
        assert b"" == self.far.recv(1)

    def test_half_close_lets_the_client_go_on_sending(self) -> None:
        """
        After `loseWriteConnection` the client sees the end and is still heard.
        """
        self.transport.loseWriteConnection()
        self.reactor.settle()
        assert b"" == self.far.recv(1)

        self.far.send(b"more")
        self.reactor.settle()
        assert b"more" == self.protocol.data

        self.transport.write(b"no more")
        assert 0 == self.transport.send_file(self.file(b"file"), 0, 4)
        self.reactor.settle()
        assert None is self.protocol.lost
        assert b"" == self.far.recv(1)

    def test_after_flush_again_changes_nothing_for_the_reactor(self) -> None:
        """
        Where the last call was not for what was queued.
        """
        calls: list[int] = []

        def again() -> None:
            calls.append(len(calls))
            if len(calls) < 3:
                self.transport.after_flush(again)

        self.transport.after_flush(again)
        with mock.patch.object(self.reactor, "addWriter") as added:
            self.reactor.settle()

        assert [0, 1, 2] == calls
        assert not added.called
        assert self.transport not in self.reactor.getWriters()

    def test_after_flush_again_behind_a_queue(self) -> None:
        """
        The reactor watched until that was sent.
        """
        calls: list[int] = []

        def again() -> None:
            calls.append(len(calls))
            if len(calls) < 3:
                self.transport.after_flush(again)

        self.transport.write(LARGE)
        self.transport.after_flush(again)
        assert self.transport.waits_for_peer
        assert LARGE == self.read_all()
        self.reactor.settle()

        assert [0, 1, 2] == calls
        assert not self.transport.waits_for_peer

    def test_input_is_seen_before_it_is_read(self) -> None:
        """
        `has_input` looks without taking.
        """
        assert not self.transport.has_input()

        self.far.send(b"x")
        assert self.transport.has_input()
        self.reactor.settle()
        assert b"x" == self.protocol.data

    def test_an_error_is_input_too(self) -> None:
        """
        The reactor is to find it.
        """
        with socket.create_server(("127.0.0.1", 0)) as listener:
            far = socket.create_connection(listener.getsockname())
            near, peer = listener.accept()
        near.setblocking(False)
        transport = serve_connection(near, peer, Recorder(), self.reactor)
        # So that its close is a reset.
        linger = struct.pack("ii", 1, 0)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        far.close()

        assert transport.has_input()

    def test_a_peer_on_a_unix_socket_has_a_name(self) -> None:
        """
        The log needs a word for it.
        """
        assert "unix" == self.transport.peer_name

    def test_peers_are_named_by_address_and_port(self) -> None:
        """
        IPv6 addresses stand in brackets, so that the port stays apart.
        """
        names = []
        for peer in [("127.0.0.1", 4711), ("::1", 4711, 0, 0)]:
            near, far = socket.socketpair()
            self.addCleanup(far.close)
            transport = serve_connection(near, peer, Recorder(), self.reactor)
            names.append(transport.peer_name)

        assert ["127.0.0.1:4711", "[::1]:4711"] == names


class BeginningTests(SynchronousTestCase):
    """
    What has come with a connection is read before the reactor hears of it.
    """

    def setUp(self) -> None:
        self.near, self.far = socket.socketpair()
        self.addCleanup(self.near.close)
        self.addCleanup(self.far.close)
        self.reactor = SteppedReactor()
        self.addCleanup(self.reactor.dispose)
        self.far.setblocking(False)
        self.watched = len(self.reactor.getReaders())

    def serve(self, protocol: Protocol) -> None:
        """
        Begin, with whatever has been sent.
        """
        serve_connection(self.near, "", protocol, self.reactor)

    def test_first_bytes_are_there_at_once(self) -> None:
        """
        And more come by the reactor.
        """
        protocol = Recorder()
        self.far.send(b"first")

        self.serve(protocol)
        assert b"first" == protocol.data

        self.far.send(b" more")
        self.reactor.settle()
        assert b"first more" == protocol.data

    def test_one_answer_and_a_close_need_no_reactor(self) -> None:
        """
        As for a client that makes a connection for each request.
        """

        class Once(Recorder):
            def dataReceived(self, data: bytes) -> None:
                assert self.transport is not None
                self.transport.write(data.upper())
                self.transport.loseConnection()

        protocol = Once()
        self.far.send(b"request")

        with mock.patch.object(self.reactor, "addReader") as add:
            self.serve(protocol)

        assert not add.called
        assert protocol.lost is not None
        assert protocol.lost.check(ConnectionDone)
        assert b"REQUEST" == self.far.recv(100)
        assert b"" == self.far.recv(100)

    def test_a_close_in_a_later_read_is_done_in_it(self) -> None:
        """
        Nothing is left that the reactor would watch.
        """

        class Bye(Recorder):
            def dataReceived(self, data: bytes) -> None:
                assert self.transport is not None
                self.transport.write(data)
                if data == b"bye":
                    self.transport.loseConnection()

        self.serve(Bye())
        for word in (b"hello", b"bye"):
            self.far.send(word)
            self.reactor.settle()
            assert word == self.far.recv(100)

        assert b"" == self.far.recv(100)
        assert self.watched == len(self.reactor.getReaders())
        assert [] == self.reactor.getWriters()

    def test_a_close_in_a_later_read_is_no_end_of_the_client(self) -> None:
        """
        Also to a protocol that goes on when the client has ended.
        """

        @implementer(IHalfCloseableProtocol)
        class Bye(Recorder):
            def dataReceived(self, data: bytes) -> None:
                assert self.transport is not None
                self.transport.loseConnection()

            def readConnectionLost(self) -> None:
                raise AssertionError("the client has not ended")

            def writeConnectionLost(self) -> None:
                raise AssertionError("nobody has asked for that")

        protocol = Bye()
        self.serve(protocol)
        self.far.send(b"bye")
        self.reactor.settle()

        assert protocol.lost is not None
        assert b"" == self.far.recv(1)

    def test_a_close_of_what_is_lost_is_nothing(self) -> None:
        """
        Though it was lost in the same read.
        """

        class Twice(Recorder):
            def dataReceived(self, data: bytes) -> None:
                transport = cast(ServerTransport, self.transport)
                transport.connectionLost(Failure(ConnectionDone()))
                transport.loseConnection()

        protocol = Twice()
        self.serve(protocol)
        self.far.send(b"bye")
        with capturedLogs() as events:
            self.reactor.settle()

        assert protocol.lost is not None
        assert [] == events

    def test_a_close_behind_a_queue_waits_for_it(self) -> None:
        """
        All of the reply comes before the end.
        """

        class Much(Recorder):
            def dataReceived(self, data: bytes) -> None:
                assert self.transport is not None
                self.transport.write(LARGE)
                self.transport.loseConnection()

        protocol = Much()
        self.far.send(b"request")
        self.serve(protocol)
        received = 0
        while protocol.lost is None or received < len(LARGE):
            self.reactor.settle(1)
            received += len(self.far.recv(1 << 20))

        assert len(LARGE) == received
        assert b"" == self.far.recv(1)

    def test_an_end_that_came_first_is_noticed(self) -> None:
        """
        In the reactor's own turn, like an error.
        """
        protocol = Recorder()
        self.far.close()

        self.serve(protocol)
        assert protocol.lost is None

        self.reactor.settle()
        assert protocol.lost is not None

    def test_a_protocol_that_wants_no_input_gets_none(self) -> None:
        """
        Pausing at the first bytes counts.
        """

        class Pausing(Recorder):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                cast(IPushProducer, self.transport).pauseProducing()

        protocol = Pausing()
        self.far.send(b"first")
        self.serve(protocol)
        self.far.send(b"second")
        self.reactor.settle()
        assert b"first" == protocol.data

        cast(IPushProducer, protocol.transport).resumeProducing()
        self.reactor.settle()
        assert b"firstsecond" == protocol.data

    def test_a_protocol_that_wants_input_again_gets_it(self) -> None:
        """
        Also if it was all at the first bytes.
        """

        class Hesitating(Recorder):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                cast(IPushProducer, self.transport).pauseProducing()
                cast(IPushProducer, self.transport).resumeProducing()

        protocol = Hesitating()
        self.far.send(b"first")
        self.serve(protocol)
        self.far.send(b"second")
        self.reactor.settle()

        assert b"firstsecond" == protocol.data

    def test_the_client_hears_the_end_whoever_has_the_socket_too(self) -> None:
        """
        As who has handed it over, until it hears that it is served.
        """

        class Bye(Recorder):
            def dataReceived(self, data: bytes) -> None:
                assert self.transport is not None
                self.transport.loseConnection()

        with self.near.dup():
            self.far.send(b"request")
            self.serve(Bye())

            assert b"" == self.far.recv(1)

    def test_a_mistake_ends_its_connection_and_no_other(self) -> None:
        """
        Whoever accepts goes on.
        """

        class Broken(Recorder):
            def dataReceived(self, data: bytes) -> None:
                raise ZeroDivisionError

        protocol = Broken()
        self.far.send(b"first")
        with capturedLogs() as events:
            self.serve(protocol)

        assert protocol.lost is not None
        assert ["a connection failed at its first bytes"] == [
            event["log_format"] for event in events
        ]
        assert 1 == len(self.flushLoggedErrors(ZeroDivisionError))
        assert self.watched == len(self.reactor.getReaders())

    def test_a_mistake_after_a_close_is_no_second_end(self) -> None:
        """
        It is reported once.
        """
        lost: list[Failure] = []

        class Broken(Recorder):
            def dataReceived(self, data: bytes) -> None:
                assert self.transport is not None
                self.transport.loseConnection()
                raise ZeroDivisionError

            def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
                lost.append(reason)

        self.far.send(b"first")
        self.serve(Broken())
        self.reactor.settle()

        assert 1 == len(lost)
        assert 1 == len(self.flushLoggedErrors(ZeroDivisionError))
