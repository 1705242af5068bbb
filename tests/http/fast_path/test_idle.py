"""
Tests for `kvd.http.fast_path`: connections that stay, and whose requests need no call
of theirs.
"""

from __future__ import annotations

import gc
import os
import socket
from fcntl import F_DUPFD_CLOEXEC, fcntl
from unittest import mock

from kvd.http.connection import HttpConnection
from kvd.http.context import ProcessContext
from kvd.http.dialects.choice import Dialects
from kvd.http.fast_path import LOST, SERVED
from kvd.http.reports import bring_reports
from kvd.settings import Settings
from kvd.store.file import FileStore
from kvd.workers.http_server import HttpServer
from tests.http.fast_path import test_connections as connections
from tests.http.fast_path.cases import FastPathCase, body_of, get, put
from tests.http.test_connection import Notes


class IdleCase(connections.ConnectionCase):
    """
    Connections whose requests nobody logs, and a reactor that serves
    those that are idle.
    """

    def setUp(self) -> None:
        super().setUp()
        self.reactor.serve_readable = self.watched.serve_idle

    def make_process(self, store: FileStore) -> ProcessContext:
        return ProcessContext(store, Dialects(()), self.limits, self.reactor)


class TurnsTests(IdleCase, connections.TurnsTests):
    """
    It is the same for clients.
    """


class TimeTests(IdleCase, connections.TimeTests):
    """
    And takes no longer.
    """


class SlowReaderTests(IdleCase, connections.SlowReaderTests):
    """
    Nor is anything lost.
    """


class IdleTests(IdleCase):
    """
    A connection that waits for a request.
    """

    def setUp(self) -> None:
        super().setUp()
        self.keep("k", b"value")

    def test_its_connection_is_not_asked(self) -> None:
        """
        Whether the request reads or writes.
        """
        with mock.patch.object(HttpConnection, "after_fast_path") as asked:
            assert b"value" == body_of(self.ask(get("k")))
            assert self.ask(put("k", b"other")).startswith(b"HTTP/1.1 204 ")
        assert not asked.called
        assert (2, 2) == (self.watched.idle, self.watched.served)
        assert b"other" == self.contents()["k"][0]

    def test_what_is_served_is_reported(self) -> None:
        """
        No Python is called for a request because there is an access log.
        """
        self.process.log = notes = Notes()
        bring_reports(self.fast_path, notes, None)
        client = self.connect()

        assert b"value" == body_of(client.send(get("k")).receive())
        assert (1, 1) == (self.watched.idle, self.watched.served)
        (entry,) = notes.entries
        assert ("unix", "GET", "/k", 200) == (
            *(entry.peer, entry.method, entry.key, entry.status),
        )

    def test_nothing_is_read_twice_or_lost(self) -> None:
        """
        Of what is not for the fast path.
        """
        for body in (b"one", b"two"):
            for request in (put("k", body, b"If-Match: *\r\n"), b"\r\n" + get("k")):
                reply = self.ask(request)
                assert reply.startswith(b"HTTP/1.1 20"), (request, reply)
            assert body == body_of(reply)
        assert 0 == self.watched.idle

    def test_a_mistake_is_reported_once(self) -> None:
        """
        And ends the connection that met it, and no other.
        """
        other = self.connect()
        with mock.patch(
            "kvd.http.templates.reply_parts", side_effect=ZeroDivisionError
        ):
            assert b"" == self.ask(get("k"))
        assert self.client.ended
        assert 1 == len(self.flushLoggedErrors(ZeroDivisionError))
        assert b"value" == body_of(other.send(get("k")).receive())

    def test_while_something_is_owed_it_is_not_idle(self) -> None:
        """
        What is sent ahead waits.
        """
        self.client.send(get("k")[:10])
        assert b"value" == body_of(self.ask(get("k")[10:]))
        assert 0 == self.watched.idle
        assert b"value" == body_of(self.ask(get("k")))
        assert 1 == self.watched.idle

    def test_a_drained_worker_serves_none(self) -> None:
        """
        The reply has to say that the connection ends.
        """
        server = HttpServer(Settings(), 0, self.reactor)
        server.process = self.process
        server.drain(10)

        assert b"\r\nConnection: close\r\n" in self.ask(get("k"))
        assert 0 == self.watched.served

    def test_the_next_socket_of_the_same_number_is_another(self) -> None:
        """
        Whoever has it.
        """
        (connection,) = self.process.connections
        assert isinstance(connection, HttpConnection)
        number = connection.transport.fileno()
        self.client.close()
        assert set() == self.process.connections
        near, far = socket.socketpair()
        if far.fileno() == number:
            near, far = far, near
        self.addCleanup(far.close)
        descriptor = near.detach()
        if descriptor != number:
            assert number == fcntl(descriptor, F_DUPFD_CLOEXEC, number)
            os.close(descriptor)
        self.addCleanup(os.close, number)
        far.sendall(get("k"))

        assert not self.watched.serve_idle(number)
        assert len(get("k")) == len(os.read(number, 1000))

    def test_a_broken_off_one_is_idle_no_more(self) -> None:
        """
        Though its socket is closed a moment later.
        """
        (connection,) = self.process.connections
        assert isinstance(connection, HttpConnection)
        self.client.socket.sendall(get("k"))
        connection.abort()

        assert not self.watched.serve_idle(connection.transport.fileno())
        self.reactor.settle()


class JoinedTests(FastPathCase):
    """
    What the module knows of such a connection.
    """

    def setUp(self) -> None:
        super().setUp()
        self.keep("k", b"value")
        self.joined = self.fast_path.join(self.near.fileno())

    def test_when_it_was_served(self) -> None:
        """
        By the clock of the process; not where that was left to others.
        """
        assert self.joined.served is None
        self.far.sendall(get("%6b"))
        assert not self.fast_path.serve_idle(self.near.fileno())
        assert self.joined.served is None
        self.far.sendall(get("k"))
        assert self.fast_path.serve_idle(self.near.fileno())
        assert self.process.clock.seconds() == self.joined.served

    def test_what_is_left_is_reported_once(self) -> None:
        """
        To whoever asks for this socket.
        """
        request = get("%6b")
        self.far.sendall(request)
        assert not self.fast_path.serve_idle(self.near.fileno())
        self.far.sendall(get("k"))
        assert request == self.fast_path.serve(self.near.fileno())
        assert SERVED == self.fast_path.serve(self.near.fileno())

    def test_what_is_left_is_never_anothers(self) -> None:
        """
        If nobody asks, it is forgotten.
        """
        near, far = self.pair()
        self.fast_path.join(near.fileno())
        self.far.sendall(get("%6b"))
        assert not self.fast_path.serve_idle(self.near.fileno())
        far.sendall(get("k"))
        assert self.fast_path.serve_idle(near.fileno())
        self.far.sendall(get("k"))
        assert SERVED == self.fast_path.serve(self.near.fileno())

    def test_an_error_is_left_too(self) -> None:
        """
        The call that would read the socket returns it.
        """
        number = self.near.fileno()
        self.near.close()
        assert not self.fast_path.serve_idle(number)
        assert LOST == self.fast_path.serve(number)

    def test_a_client_that_has_left(self) -> None:
        """
        Is not read from, even if he leaves twice.
        """
        for _ in range(2):
            self.joined.leave()
            self.far.sendall(get("k"))
            assert not self.fast_path.serve_idle(self.near.fileno())
        assert get("k") * 2 == self.near.recv(1000)

    def test_one_that_joined_again_is_not_removed_by_the_old_one(self) -> None:
        """
        The number is another's by then.
        """
        self.fast_path.join(self.near.fileno())
        self.joined.leave()
        self.far.sendall(get("k"))
        assert self.fast_path.serve_idle(self.near.fileno())

    def test_what_is_no_socket(self) -> None:
        """
        Does not join.
        """
        with self.assertRaises(TypeError):  # noqa: PT027  # trial runs it too
            self.fast_path.join("1")  # type: ignore[arg-type]

    def test_nothing_is_kept_for_connections_that_never_leave(self) -> None:
        """
        Once the fast path is gone.
        """
        del self.fast_path, self.process.fast_path
        self.store.fast_path_state.uploads.made = lambda *_: None
        self.store.fast_path_state.lock.renewed = lambda: None
        gc.collect()
        self.joined.leave()
