"""
Tests for `kvd.http.fast_path`: connections that are new to a worker, and what may fail.
"""

from __future__ import annotations

import os
import resource
import socket
from itertools import product
from typing import Any, cast
from unittest import mock

from twisted.logger import capturedLogs

from kvd.http import fast_path
from kvd.http.connection import HttpConnection
from kvd.http.fast_path import LOST, SERVED, FastPath
from kvd.http.reports import bring_reports
from kvd.model.keys import Key
from kvd.settings import Settings
from kvd.workers.http_factory import EXCLUSIVE_BATCH
from kvd.workers.http_server import HttpServer
from tests.descriptors import Descriptors
from tests.http.fast_path.cases import body_of, field, get, put
from tests.http.fast_path.test_connections import ConnectionCase
from tests.native.smoke import make_fast_path
from tests.stepped import Client


class NewConnectionTests(ConnectionCase):
    """
    A connection that was just accepted is looked at before anything is made for it.
    """

    def setUp(self) -> None:
        super().setUp()
        self.keep("k", b"value")
        self.server = HttpServer(Settings(), 0, self.reactor)
        self.server.process = self.process

    def come(self, request: bytes) -> Client:
        """
        A client that has sent something already.
        """
        near, far = socket.socketpair()
        self.addCleanup(far.close)
        client = Client(self.reactor, far)
        far.sendall(request)
        # As from ``accept``: it would wait.
        assert near.getblocking()
        self.hand_over(near)
        return client

    def hand_over(self, connection: socket.socket) -> None:
        """
        Another process has accepted it.
        """
        with connection:
            self.reactor.adoptStreamConnection(
                connection.fileno(), connection.family, self.server.factory
            )

    def test_a_client_that_says_nothing_holds_up_nobody(self) -> None:
        """
        His request is served when it comes.
        """
        client = self.come(b"")

        assert b"value" == body_of(client.send(get("k")).receive())
        assert 1 == self.watched.served

    def test_for_its_only_request_nothing_is_made(self) -> None:
        """
        And it is closed.
        """
        accepted, open_now = self.process.row.words[:2]
        with mock.patch(
            "kvd.workers.http_factory.HttpConnection", side_effect=AssertionError
        ):
            client = self.come(get("k", b"Connection: close\r\n"))

        assert b"value" == body_of(client.receive())
        assert client.ended
        assert [accepted + 1, open_now] == self.process.row.words[:2].tolist()

    def test_a_large_value_is_sent_to_its_end(self) -> None:
        """
        By the connection that is made when the socket takes no more at once; it ends
        with the reply.
        """
        large = bytes(3_000_000)
        files = Descriptors(os.path.join(self.path, "large"))
        self.keep("large", large)
        client = self.come(get("large", b"Connection: close\r\n"))

        assert large == body_of(client.receive())
        assert client.ended
        assert 0 == files.more
        assert (1, 0) == (self.watched.served, self.watched.new)

    def test_a_connection_that_stays_is_made_after_its_first_request(self) -> None:
        """
        The next ones are served alike.
        """
        client = self.come(get("k"))
        assert 1 == self.watched.served
        assert b"value" == body_of(client.receive())

        assert b"value" == body_of(client.send(get("k")).receive())
        assert 2 == self.watched.served

    def test_while_draining_the_end_is_announced(self) -> None:
        """
        So requests go the ordinary way.
        """
        client = self.come(b"")
        self.server.drain(10)
        for asking in (client, self.come(b"")):
            reply = asking.send(get("k")).receive()
            assert b"value" == body_of(reply)
            assert "close" == field(reply, "Connection")
        assert 0 == self.watched.served

    def test_what_the_fast_path_leaves_is_not_lost(self) -> None:
        """
        All bytes that came with the connection.
        """
        client = self.come(put("new", b"1") + get("new"))

        assert client.receive().endswith(b"\r\n\r\n1")
        assert 0 == self.watched.served

    def test_a_client_that_is_gone_already(self) -> None:
        """
        Leaves nothing behind.
        """
        before = len(self.process.connections)
        near, far = socket.socketpair()
        far.close()
        self.hand_over(near)
        self.reactor.settle()

        assert before == len(self.process.connections)

    def test_a_socket_that_cannot_be_read(self) -> None:
        """
        Is found to have ended by whoever reads it next.
        """
        with (
            mock.patch.object(self.watched, "serve_new", return_value=0),
            mock.patch.object(self.watched, "serve", return_value=LOST),
        ):
            client = self.come(get("k"))
            assert b"" == client.receive()
        assert client.ended

    def test_a_mistake_ends_the_connection(self) -> None:
        """
        Its client does not wait in vain, and the log says what happened.
        """
        for error in (ZeroDivisionError, OSError):
            near, far = self.pair()
            far.sendall(get("k", b"X-Unknown: 1\r\n"))
            with (
                mock.patch("kvd.http.templates.reply_parts", side_effect=error),
                self.assertRaises(error),  # noqa: PT027  # trial runs it too
            ):
                self.hand_over(near)
            assert b"" == far.recv(1)

    def test_nobody_needs_to_know(self) -> None:
        """
        Without a log and a record nothing is reported.
        """
        self.fast_path.report_to(False, False, mock.Mock(side_effect=AssertionError))
        for fields in (b"", b"Connection: close\r\n"):
            assert b"value" == body_of(self.come(get("k", fields)).receive())
        assert ([], []) == self.fast_path.take_reports()


class AtFirstTests(NewConnectionTests):
    """
    What comes of it is the same where the descriptor is all that there is at first.
    """

    def setUp(self) -> None:
        super().setUp()
        self.process.log = None

    def test_for_its_only_request_nothing_is_made(self) -> None:
        factory = type(self.server.factory)
        with mock.patch.object(factory, "take", side_effect=AssertionError):
            super().test_for_its_only_request_nothing_is_made()
        assert 1 == self.watched.new

    def test_requests_are_reported(self) -> None:
        """
        The connection takes the same way, and its request is reported.
        """
        bring_reports(self.fast_path, self.notes, None)
        client = self.come(get("k", b"Connection: close\r\n"))

        assert b"value" == body_of(client.receive())
        assert 1 == self.watched.new
        assert 1 == len(self.notes.entries)

    def test_a_socket_that_others_have_is_ended_for_all(self) -> None:
        """
        The supervisor holds one of what it has handed over.
        """
        near, far = socket.socketpair()
        self.addCleanup(far.close)
        far.settimeout(0)
        far.sendall(get("k", b"Connection: close\r\n"))
        with socket.socket(fileno=os.dup(near.fileno())):
            assert 1 == self.server.factory.take_descriptors([near.detach()])
            assert b"value" == body_of(far.recv(10_000))
            assert b"" == far.recv(1)

    def test_of_several_those_before_the_first_that_stays_are_served(self) -> None:
        """
        In one call, which leaves the next to the caller.
        """
        only = get("k", b"Connection: close\r\n")
        ends = []
        descriptors = []
        for request in (only, only, get("k"), only):
            near, far = socket.socketpair()
            self.addCleanup(far.close)
            far.settimeout(0)
            far.sendall(request)
            ends.append(far)
            descriptors.append(near.detach())
        take = self.server.factory.take_descriptors

        assert 2 == take(descriptors)
        assert SERVED == self.watched.serve(descriptors[2])
        os.close(descriptors[2])
        assert 1 == take(descriptors[3:])
        assert 0 == take([])
        assert [b"value"] * 4 == [body_of(far.recv(10_000)) for far in ends]
        for wrong in (None, [None], ["3"]):
            with self.assertRaises(TypeError):  # noqa: PT027  # trial runs it too
                self.watched.serve_new(cast(Any, wrong))

    def test_what_came_behind_is_not_lost(self) -> None:
        """
        The connection is closed in stages then.
        """
        client = self.come(get("k", b"Connection: close\r\n") + b"behind")

        assert b"value" == body_of(client.receive())
        assert not client.reset
        assert 0 == self.watched.new


class AcceptedTests(AtFirstTests):
    """
    Nor is it another where this process accepts the connection itself.
    """

    def setUp(self) -> None:
        super().setUp()
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.addCleanup(self.sock.close)
        self.sock.setblocking(False)
        self.server.listen("0", self.sock)
        self.addCleanup(self.server.unlisten, "0")

    def queue(self, request: bytes) -> Client:
        """
        A client that has sent something, and waits in the queue.
        """
        far = socket.create_connection(self.sock.getsockname())
        self.addCleanup(far.close)
        far.sendall(request)
        return Client(self.reactor, far)

    def come(self, request: bytes) -> Client:
        if self.process.draining:
            # Nobody listens any more; it was handed over.
            return super().come(request)
        client = self.queue(request)
        self.reactor.settle()
        return client

    def test_a_socket_that_cannot_be_read(self) -> None:
        def accept(listener: int, count: int, stays: int) -> tuple[int, int, int, None]:
            with socket.socket(fileno=os.dup(listener)) as sock:
                sock.setblocking(False)
                return 1, 1, sock.accept()[0].detach(), None

        with mock.patch.object(self.watched, "accept", accept):
            super().test_a_socket_that_cannot_be_read()

    def test_those_that_stay_hold_up_nobody(self) -> None:
        """
        Of many that wait together, each gets what it asked for; the sockets of those
        that end are closed.
        """
        only = get("k", b"Connection: close\r\n")
        for _ in range(2):
            # Then it is in memory, with a descriptor.
            self.served(get("k"))
        accepted = self.process.row.words[0]
        existed = set(self.process.connections)
        sockets = Descriptors("socket:")
        said = [only, only, get("k"), b"", only, 2 * get("k"), only]
        clients = [self.queue(request) for request in said]
        self.reactor.settle(1)
        stay = len(set(self.process.connections) - existed)
        assert (4, 3) == (self.watched.new, stay)
        assert len(said) + stay == sockets.more
        clients[3].send(only)
        self.reactor.settle()

        bodies = [client.receive()[-5:] for client in clients]
        assert [b"value"] * len(said) == bodies
        assert accepted + len(said) == self.process.row.words[0]

    def test_a_full_turn_takes_what_waits_then(self) -> None:
        """
        However many they are.
        """
        count = 2 * EXCLUSIVE_BATCH + 5
        for uninterrupted in (count, EXCLUSIVE_BATCH, 3, 1):
            served = self.watched.new
            for _ in range(count):
                self.queue(get("k", b"Connection: close\r\n"))
            with mock.patch("kvd.workers.http_factory.UNINTERRUPTED", uninterrupted):
                self.reactor.settle(1)

            assert served + count == self.watched.new

    def test_a_client_that_was_reset_has_a_connection(self) -> None:
        """
        Until what it had sent is read, of which nobody knows who sent it.
        """
        client = self.queue(put("new", b"1") + get("new"))
        linger = b"\1\0\0\0\0\0\0\0"
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        existed = set(self.process.connections)
        client.close()
        self.reactor.settle()

        assert existed == set(self.process.connections)
        assert b"1" == self.get(self.store, Key(b"new"))

    def test_without_a_descriptor_left_clients_wait(self) -> None:
        """
        They are served when there is one again.
        """
        client = self.queue(get("k", b"Connection: close\r\n"))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        fillers = [os.dup(0)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (fillers[0] + 1, hard))
        try:
            while True:
                fillers.append(os.dup(0))
        except OSError:
            # There is none left.
            pass
        with capturedLogs() as events:
            self.reactor.settle()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for filler in fillers:
            os.close(filler)
        assert ["Too many open files"] == [event["error"] for event in events]
        assert 0 == self.watched.new

        self.reactor.advance(1.0)
        assert b"value" == body_of(client.receive())
        assert 1 == self.watched.new

    def test_there_is_nobody(self) -> None:
        """
        Another process was faster, or this one has no descriptor left.
        """
        fast_path = self.watched
        with self.assertRaises(BlockingIOError):  # noqa: PT027
            fast_path.accept(self.sock.fileno(), 3, 3)
        with self.assertRaises(OSError):  # noqa: PT027
            fast_path.accept(-1, 3, 3)
        assert (0, 0, -1, None) == fast_path.accept(self.sock.fileno(), 0, 0)


class MistakeTests(ConnectionCase):
    """
    A wrong answer to the fast path ends the connection that asked, and is logged.
    """

    def test_in_what_is_asked_of_python(self) -> None:
        """
        Whatever it is.
        """
        self.keep("k", b"value")
        asked = [
            ("kvd.http.templates.reply_parts", get("k")),
            ("kvd.http.templates.published_reply", put("k", b"v")),
        ]
        # OSError is not taken for an error of the client's socket.
        for (name, request), error in product(asked, (ZeroDivisionError, OSError)):
            client = self.connect()
            with mock.patch(name, side_effect=error):
                assert b"" == client.send(request).receive()
            assert client.ended
            assert 1 == len(self.flushLoggedErrors(error))
        client = self.connect()
        assert b"value" == body_of(client.send(get("k")).receive())

    def test_in_what_python_answers(self) -> None:
        """
        Something else than was asked for.
        """
        self.keep("k", b"value")
        native: Any = type(self.fast_path)

        def again(make_template: Any, make_parts: Any, logs_in: Any) -> FastPath:
            """
            With other answers.
            """
            state = self.store.fast_path_state
            made = make_fast_path(
                native,
                state.root,
                state.lock.descriptor,
                self.process.row.counts,
                make_template,
                make_parts,
                logs_in,
            )
            made.upload_to(state.uploads.descriptor, (None, b""), 0o644)
            served: FastPath = made
            return served

        assert fast_path.native is not None
        make = fast_path.native.get_template
        rest = b"\r\n\r\n", (b"", b"", b"", b"")
        a_get = make(7, False, True, True, (200,) * 16, *rest)
        no_row = make(
            len(self.process.row.words) - 1, False, True, True, (200,) * 16, *rest
        )
        limited = make(7, False, True, True, (200,) * 16, *rest)
        fast_path.native.limit_template(limited, (b"\x01",), 0, None, True)
        no_status = make(7, False, True, True, (1000,) * 16, *rest)
        bad_parts = (b"",) * 5, (b"",) * 8, (b"", b"", 1, b"")
        table = [
            (get("k"), lambda head: 1, None, TypeError),
            (get("k"), lambda head: 1 // 0, None, ZeroDivisionError),
            (get("k"), lambda head: no_row, None, ValueError),
            (get("k"), lambda head: no_status, None, ValueError),
            (get("k"), lambda head: a_get, lambda *about: 1, TypeError),
            (get("k"), lambda head: a_get, lambda *about: (b"",), TypeError),
            (get("k"), lambda head: a_get, lambda *about: (1,) * 3, TypeError),
            (get("k"), lambda head: a_get, lambda *about: ((),) * 3, TypeError),
            (get("k"), lambda head: a_get, lambda *about: bad_parts, TypeError),
            (get("k"), lambda head: a_get, lambda *about: 1 // 0, ZeroDivisionError),
            (get("k"), lambda head: limited, None, ZeroDivisionError),
        ]
        for request, make_template, make_parts, error in table:
            self.fast_path = again(make_template, make_parts, lambda peer: 1 // 0)
            for _ in range(2):
                with self.assertRaises(error):  # noqa: PT027  # trial runs it too
                    self.serve(request)
        assert b"" == self.reply()


class OtherReadersTests(ConnectionCase):
    """
    A connection that waits for something else is read the ordinary way.
    """

    def test_errors_of_the_socket(self) -> None:
        """
        End the connection.
        """
        with mock.patch.object(self.watched, "serve", return_value=LOST):
            self.client.send(get("k"))

        assert set() == self.process.connections

    def test_a_process_without_it(self) -> None:
        """
        Its connections do not ask.
        """
        self.process.fast_path = None
        client = self.connect()
        with mock.patch.object(
            HttpConnection, "_read_fast", side_effect=AssertionError
        ):
            assert client.send(get("none")).receive().startswith(b"HTTP/1.1 404 ")
