"""
Tests for `kvd.workers.http_server`.
"""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kvd.errors import StoreUnusable
from kvd.http.record import read_record
from kvd.http.wire.reader import RequestReader
from kvd.net.bell import make_bell
from kvd.settings import Durability, Limits, Settings, StoreLocation, TCPAddress
from kvd.store.file_maker import maker
from kvd.workers import http_server
from kvd.workers.http_server import (
    ABORT_SECONDS,
    HttpServer,
    check_interval,
)
from kvd.workers.loading import load_plugins
from tests.stepped import Client, InlineWriter, SteppedReactor

GET = b"GET /k HTTP/1.1\r\nHost: kvd\r\n\r\n"
BEGUN = b"PUT /k HTTP/1.1\r\nHost: kvd\r\nContent-Length: 5\r\n\r\nab"


class ServingTests(SynchronousTestCase):
    """
    `HttpServer` accepts connections and serves them.
    """

    def setUp(self) -> None:
        self.reactor = SteppedReactor()
        self.addCleanup(self.reactor.dispose)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.log = Path(folder.name, "access.log")
        self.record = Path(folder.name, "record")
        self.server = HttpServer(
            Settings(
                listen=(TCPAddress("127.0.0.1", 0),) * 2,
                store=StoreLocation("null", ""),
                access_log=str(self.log),
                record=str(self.record),
                limits=Limits(connections=2),
            ),
            3,
            self.reactor,
        )
        with mock.patch("kvd.workers.outputs.Writer", InlineWriter):
            self.server.start()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.addCleanup(self.listener.close)
        self.addCleanup(self.leave)
        self.server.listen("0/0", self.listener)

    def bell(self) -> int:
        """
        One for a socket that others accept from too.
        """
        bell = make_bell()
        self.addCleanup(os.close, bell)
        return bell

    def leave(self) -> None:
        """
        No socket is left to the garbage collector.
        """
        for name in ("0/0", "1/0"):
            self.server.unlisten(name)

    def connect(self) -> Client:
        """
        One more client.
        """
        sock = socket.create_connection(self.listener.getsockname())
        self.addCleanup(sock.close)
        return Client(self.reactor, sock)

    def hand_over(self, connection: socket.socket) -> None:
        """
        A connection that another process has accepted.
        """
        with connection:
            self.reactor.adoptStreamConnection(
                connection.fileno(), connection.family, self.server.factory
            )

    def drain(self, seconds: float = 10, others_serve: bool = False) -> list[None]:
        """
        Begin to; the list gets an entry when it is over.
        """
        ended: list[None] = []
        drained: Deferred[None] = self.server.drain(seconds, others_serve)
        drained.addCallback(ended.append)
        self.reactor.settle()
        return ended

    def test_connections_are_served(self) -> None:
        """
        From the store that was named.
        """
        assert self.connect().send(GET).receive().startswith(b"HTTP/1.1 404 ")

    def test_the_limit_leaves_connections_in_the_queue(self) -> None:
        """
        One is taken when another ends.
        """
        first, second, third = (self.connect() for _ in range(3))
        for client in (first, second):
            assert client.send(GET).receive().startswith(b"HTTP/1.1 404 ")
        assert b"" == third.send(GET).receive()

        first.close()
        assert third.receive().startswith(b"HTTP/1.1 404 ")

    def test_another_socket_at_the_limit_waits_too(self) -> None:
        """
        Until there is room.
        """
        clients = [self.connect().send(GET) for _ in range(2)]
        other = socket.create_server(("127.0.0.1", 0))
        other.setblocking(False)
        address = other.getsockname()
        self.addCleanup(other.close)
        self.server.listen("1/0", other)
        late = socket.create_connection(address)
        self.addCleanup(late.close)
        client = Client(self.reactor, late).send(GET)
        assert b"" == client.receive()

        clients[0].close()
        assert client.receive().startswith(b"HTTP/1.1 404 ")

    def test_a_socket_takes_the_place_of_one_of_its_name(self) -> None:
        """
        It may be the same one, which is not for one process alone any more.
        """
        self.server.listen("0/0", self.listener, self.bell())

        reply = self.connect().send(GET).receive()

        assert reply.startswith(b"HTTP/1.1 404 ")

    def test_nobody_is_let_in_while_the_gate_is_closed(self) -> None:
        """
        Which may come later than the socket.
        """
        self.server.listen("0/0", self.listener, self.bell())
        self.server.may_accept = lambda waiting: False
        client = self.connect().send(GET)
        assert b"" == client.receive()

        self.server.may_accept = lambda waiting: True
        self.reactor.advance(0.01)
        assert client.receive().startswith(b"HTTP/1.1 404 ")

    def test_a_gate_closes_no_socket_that_nobody_else_polls(self) -> None:
        """
        Who waits there waits for this process.
        """
        self.server.may_accept = lambda waiting: False
        assert self.connect().send(GET).receive().startswith(b"HTTP/1.1 404 ")

    def test_a_share_of_a_common_queue_is_taken_in_a_turn(self) -> None:
        """
        And all of one that nobody else takes from.
        """
        self.server.share_of = lambda waiting: waiting // 2
        for exclusive, taken in ((False, 1), (True, 2)):
            bell = None if exclusive else self.bell()
            self.server.listen("0/0", self.listener, bell)
            clients = [self.connect() for _ in range(2)]
            self.reactor.settle(1)
            assert taken == len(self.server.process.connections)

            for client in clients:
                client.close()
            self.reactor.settle()
            assert 0 == len(self.server.process.connections)

    def test_a_client_that_comes_meanwhile_is_accepted_in_the_same_turn(self) -> None:
        """
        From a socket that nobody else takes from: a turn for each would cost more.
        """
        others: list[Client] = []
        take = self.server.factory.take

        def take_while_another_comes(connection: socket.socket, peer: object) -> bool:
            if not others:
                others.append(self.connect())
            return take(connection, peer)

        self.patch(self.server.factory, "take", take_while_another_comes)
        self.server.listen("0/0", self.listener)
        self.connect()
        self.reactor.settle(1)

        assert 2 == len(self.server.process.connections)

    def test_a_socket_that_is_given_back_is_left_to_others(self) -> None:
        """
        What waits in its queue stays there.
        """
        self.server.unlisten("0/0")
        self.server.unlisten("never/had")
        client = self.connect().send(GET)

        assert b"" == client.receive()
        self.listener.accept()[0].close()

    def test_draining_serves_what_waits_in_the_queue(self) -> None:
        """
        No client that was let in is turned away.
        """
        client = self.connect()
        client.socket.send(GET)
        ended = self.drain()
        reply = client.receive()

        assert reply.startswith(b"HTTP/1.1 404 ")
        assert b"Connection: close" in reply
        assert [None] == ended

    def test_draining_leaves_what_waits_to_other_workers(self) -> None:
        """
        They have the same queue before them.
        """
        late = socket.create_connection(self.listener.getsockname())
        self.addCleanup(late.close)
        assert [None] == self.drain(others_serve=True)

        self.listener.accept()[0].close()

    def test_a_client_that_is_handed_over_while_draining_is_served_and_let_go(
        self,
    ) -> None:
        """
        It came before the word to drain, in the supervisor's order of things.
        """
        first = self.connect()
        first.send(b"PUT /k HTTP/1.1\r\nHost: kvd\r\nContent-Length: 1\r\n\r\n")
        ended = self.drain()
        near, far = socket.socketpair()
        self.addCleanup(far.close)
        self.hand_over(near)
        client = Client(self.reactor, far)
        client.send(b"GET /k HTTP/1.1\r\nHost: kvd\r\n\r\n")
        reply = client.receive()

        assert reply.startswith(b"HTTP/1.1 404 ")
        assert b"Connection: close" in reply
        assert client.ended
        assert [] == ended
        first.send(b"x").receive()
        assert [None] == ended

    def test_a_mistake_at_the_first_bytes_does_not_end_the_draining(self) -> None:
        """
        There is nothing left of that connection to be let go.
        """
        first = self.connect().send(BEGUN)
        ended = self.drain()
        near, far = socket.socketpair()
        self.addCleanup(far.close)
        far.send(GET)
        with mock.patch.object(RequestReader, "feed", side_effect=ZeroDivisionError):
            self.hand_over(near)
        assert b"" == Client(self.reactor, far).receive()
        assert 1 == len(self.flushLoggedErrors(ZeroDivisionError))

        first.send(b"cde").receive()
        assert [None] == ended

    def test_draining_without_connections_is_over_at_once(self) -> None:
        """
        Nothing is waited for.
        """
        assert [None] == self.drain()
        assert [] == [
            call for call in self.reactor.getDelayedCalls() if call.getTime() > 1005
        ]

    def test_draining_is_bounded(self) -> None:
        """
        A connection that stands still is aborted, and logged.
        """
        client = self.connect().send(BEGUN)
        ended = self.drain(10)
        assert [] == ended
        with capturedLogs() as events:
            self.reactor.advance(10)
            self.reactor.advance(ABORT_SECONDS)

        assert [None] == ended
        assert [1] == [event["count"] for event in events if "count" in event]
        assert b"" == client.receive()

    def stop(self) -> None:
        """
        Stop, and have all that there was written.
        """
        self.successResultOf(self.server.stop())

    def test_stop_writes_the_rest_of_the_access_log(self) -> None:
        """
        With the worker's number.
        """
        self.connect().send(GET).receive()
        self.drain()
        self.stop()
        (line,) = self.log.read_text().splitlines()

        assert " worker=3 127.0.0.1:" in line
        assert " GET /k 404 " in line

    def test_stop_writes_the_rest_of_the_record(self) -> None:
        """
        With the worker's number too.
        """
        client = self.connect()
        replies = client.send(GET).receive() + client.send(GET).receive()
        client.close()
        self.stop()
        (connection,) = read_record(str(self.record))

        assert 3 == connection.worker
        assert 2 == connection.requests
        assert 2 * len(GET) + len(replies) == connection.bytes

    def test_time_goes_on(self) -> None:
        """
        Connections are asked whether they have waited for too long.
        """
        client = self.connect().send(GET[:5])
        for _ in range(12):
            self.reactor.advance(1)

        assert client.receive().startswith(b"HTTP/1.1 408 ")

    def test_a_mistake_with_one_connection_is_not_the_others(self) -> None:
        """
        It is aborted; time goes on.
        """
        good, bad = self.connect().send(GET[:5]), self.connect().send(GET[:5])
        broken = next(
            connection
            for connection in self.server.process.connections
            if connection.transport.client == bad.socket.getsockname()
        )
        self.patch(broken, "check_time", lambda now: 1 // 0)
        for _ in range(12):
            self.reactor.advance(1)

        assert good.receive().startswith(b"HTTP/1.1 408 ")
        assert b"" == bad.receive()
        assert 1 == len(self.flushLoggedErrors(ZeroDivisionError))


class LoadedPluginsTests(SynchronousTestCase):
    """
    What the settings choose by name may be loaded before.
    """

    def test_what_was_loaded_is_used(self) -> None:
        """
        Then nothing is looked up: a worker is forked with its parts.
        """
        reactor = SteppedReactor()
        self.addCleanup(reactor.dispose)
        settings = Settings(store=StoreLocation("null", ""))
        parts = load_plugins(settings)
        self.patch(http_server, "load_plugins", None)
        started = HttpServer(settings, 0, reactor, parts=parts)
        started.start()

        assert None is self.successResultOf(started.stop())


class TurnsTests(SynchronousTestCase):
    """
    What the end of a turn of the reactor is for.
    """

    def test_values_of_a_turn_are_synced_at_its_end(self) -> None:
        """
        At durability ``process``, a turn has no end that anybody would wait for.
        """
        durabilities: tuple[Durability, ...] = ("disk", "process")
        for durability in durabilities:
            folder = tempfile.TemporaryDirectory()
            self.addCleanup(folder.cleanup)
            reactor = SteppedReactor()
            self.addCleanup(reactor.dispose)
            store = StoreLocation("file", folder.name)
            settings = Settings(store=store, durability=durability)
            maker.prepare(store.path)
            server = HttpServer(settings, 0, reactor)
            server.start()
            assert (durability == "disk") == (reactor.before_wait is not None)
            ended = server.stop()
            reactor.settle()
            assert None is self.successResultOf(ended)


class UnusableTests(SynchronousTestCase):
    """
    A store that cannot be opened.
    """

    def test_it_is_named(self) -> None:
        """
        To whoever starts it.
        """
        reactor = SteppedReactor()
        self.addCleanup(reactor.dispose)
        settings = Settings(store=StoreLocation("file", "/no/such/folder"))
        with self.assertRaises(StoreUnusable):  # noqa: PT027  # trial runs it too
            HttpServer(settings, 0, reactor).start()


def test_short_bounds_are_looked_at_often() -> None:
    """
    Four times in the shortest, at most once a second.
    """
    assert 1.0 == check_interval(Limits())
    assert 0.05 == check_interval(Limits(head_seconds=0.2))
    assert 0.02 == check_interval(Limits(body_seconds=0.001))
