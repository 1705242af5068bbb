"""
Tests for `kvd.http.fast_path`: connections that stay, and for which Python has no
object until it has something to do with them.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
import struct
from unittest import mock

from twisted.logger import capturedLogs

from kvd.http.connection import HttpConnection
from kvd.net.bell import make_bell, ring
from kvd.net.port import GATE_SECONDS
from kvd.settings import Limits, Settings
from kvd.workers.http_server import HttpServer, check_interval
from tests.descriptors import Descriptors
from tests.http.fast_path.cases import body_of, field, get, put
from tests.http.fast_path.test_idle import IdleCase
from tests.stepped import Client


class HeldCase(IdleCase):
    """
    Clients of a listening socket, one after the other.
    """

    limits = Limits(idle_seconds=100, head_seconds=10, body_seconds=20, connections=8)

    def setUp(self) -> None:
        super().setUp()
        self.keep("k", b"value")
        self.server = HttpServer(
            Settings(limits=self.limits), 0, self.reactor, self.process.row
        )
        self.server.process = self.process
        self.process._released = self.server._released
        self.reactor.serve_readable = self.server.serve_idle()
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.addCleanup(self.sock.close)
        self.sock.setblocking(False)
        self.server.listen("0", self.sock)
        self.addCleanup(self.server.unlisten, "0")
        # Of the case; it has joined.
        assert 1 == len(self.process.connections)

    def come(self, request: bytes = b"") -> Client:
        """
        One more client, which has sent this before it is accepted.
        """
        far = socket.create_connection(self.sock.getsockname())
        self.addCleanup(far.close)
        if request:
            far.sendall(request)
        client = Client(self.reactor, far)
        self.reactor.settle()
        return client

    @property
    def held(self) -> int:
        """
        How many are open without an object.
        """
        return self.process.row.open - len(self.process.connections)

    def ends(self, *clients: Client) -> list[bool]:
        """
        Which clients are told that the connection has ended.
        """
        for client in clients:
            assert b"" == client.receive()
        return [client.ended for client in clients]

    def adopt(self) -> None:
        """
        What a timer does twice in the time of a check.
        """
        self.reactor.advance(2 * check_interval(self.limits))
        self.server._checking.check()
        self.reactor.settle()


class HeldTests(HeldCase):
    """
    A client that connects, asks and leaves.
    """

    def test_nothing_is_made_for_it(self) -> None:
        """
        Whether the request has come with the connection or comes later, and however
        many follow.
        """
        sockets = Descriptors("socket:")
        with mock.patch.object(HttpConnection, "__init__", side_effect=AssertionError):
            for first in (get("k"), b""):
                client = self.come(first)
                assert 1 == self.held
                if first:
                    assert b"value" == body_of(client.receive())
                for _ in range(3):
                    assert b"value" == body_of(client.send(get("k")).receive())
                reply = client.send(put("new", b"1")).receive()
                assert reply.startswith(b"HTTP/1.1 20")
                client.close()
                assert 0 == self.held
        assert 0 == sockets.more
        assert self.process.row.words[0] == 1 + 2

    def test_it_ends_with_a_reply(self) -> None:
        """
        Which says so.
        """
        client = self.come()
        reply = client.send(get("k", b"Connection: close\r\n")).receive()

        assert b"value" == body_of(reply)
        assert client.ended
        assert 0 == self.held

    def test_it_sends_no_more(self) -> None:
        """
        It gets what it has asked for, and the end.
        """
        client = self.come(get("k")).half_close()

        assert b"value" == body_of(client.receive())
        assert client.ended
        assert not client.reset
        assert 0 == self.held

    def test_it_is_reset(self) -> None:
        """
        The reactor does not turn for it any longer.
        """
        client = self.come(get("k"))
        client.socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        client.close()

        assert 0 == self.process.row.open - 1
        assert [] == self.reactor._poller.poll(0)

    def test_it_is_gone_already(self) -> None:
        """
        Nothing of it is left.
        """
        self.come().close()

        assert 0 == self.held


class SharedTests(HeldCase):
    """
    A socket that other processes accept from too, and a lone connection.
    """

    def setUp(self) -> None:
        super().setUp()
        self.asked: list[int] = []
        self.open = True
        self.server.may_accept = self.may_accept
        self.bell = make_bell()
        self.addCleanup(os.close, self.bell)
        self.server.listen("0", self.sock, self.bell)
        self.port = self.server._ports["0"]
        # Nothing else of the port is called.
        self.port.doRead = mock.Mock(wraps=self.port.doRead)  # type: ignore[method-assign]

    def may_accept(self, waiting: int) -> bool:
        self.asked.append(waiting)
        return self.open

    def test_the_gate_is_all_that_is_asked(self) -> None:
        """
        Once for each connection, whether it stays or ends with its request.
        """
        with mock.patch.object(HttpConnection, "__init__", side_effect=AssertionError):
            for fields in (b"", b"Connection: close\r\n"):
                client = self.come(get("k", fields))
                assert b"value" == body_of(client.receive())
                client.close()
        assert [1, 1] == self.asked
        assert not self.port.doRead.called  # type: ignore[attr-defined]
        assert 0 == self.held

    def test_it_waits_while_the_gate_is_closed(self) -> None:
        """
        And is served as soon as it is open.
        """
        self.open = False
        client = self.come(get("k"))
        assert b"" == client.receive()
        self.open = True
        self.reactor.advance(GATE_SECONDS)
        assert b"value" == body_of(client.receive())
        assert not self.port.doRead.called  # type: ignore[attr-defined]

    def test_one_that_is_left_wakes_the_others(self) -> None:
        """
        Once; this process asks its gate again after a while. When another process has
        left one, this one looks, and wakes nobody.
        """
        rings = select.epoll()
        self.addCleanup(rings.close)
        rings.register(self.bell, select.EPOLLIN | select.EPOLLET)
        self.open = False
        client = self.come(get("k"))
        assert 1 == len(rings.poll(0))
        self.reactor.advance(GATE_SECONDS)
        assert [1, 1] == self.asked
        assert [] == rings.poll(0)
        self.open = True
        self.reactor.advance(GATE_SECONDS)
        assert b"value" == body_of(client.receive())
        client.close()

        self.asked.clear()
        ring(self.bell)
        self.reactor.settle()
        assert [] == self.asked
        # The kernel has woken another process for it.
        self.port.stopReading()
        waits = self.come(get("k"))
        assert b"" == waits.receive()
        ring(self.bell)
        assert 1 == len(rings.poll(0))
        assert b"value" == body_of(waits.receive())
        assert [1] == self.asked
        waits.close()

        self.open = False
        self.come(get("k"))
        ring(self.bell)
        assert 1 == len(rings.poll(0))
        self.reactor.settle()
        assert [] == rings.poll(0)

    def test_a_port_that_is_paused_wakes_the_others(self) -> None:
        """
        It may have been woken for a connection that it does not accept now.
        """
        rings = select.epoll()
        self.addCleanup(rings.close)
        rings.register(self.bell, select.EPOLLIN | select.EPOLLET)
        self.port.pauseProducing()
        assert 1 == len(rings.poll(0))
        self.port.resumeProducing()
        self.server.unlisten("0")
        assert 1 == len(rings.poll(0))

    def test_of_several_processes_one_wakes(self) -> None:
        """
        For each connection; the bell wakes each of them, and is one event.
        """
        watched = {
            self.port.fileno(): select.EPOLLIN | select.EPOLLEXCLUSIVE,
            self.server._ports["0"].factory._bell.fileno(): select.EPOLLIN  # type: ignore[attr-defined]
            | select.EPOLLET,
        }
        poller = self.reactor._poller.fileno()
        with open(f"/proc/self/fdinfo/{poller}") as lines:
            words = [line.split() for line in lines if line.startswith("tfd:")]
        kept = {int(word[1]): int(word[3], 16) for word in words}
        for descriptor, events in watched.items():
            # The kernel adds those of errors.
            assert events == events & kept[descriptor]

    def test_once_one_was_left_processes_take_turns(self) -> None:
        """
        The kernel wakes the one that has watched for longest: this one begins anew with
        each connection, and misses none.
        """
        self.open = False
        first = self.come(get("k"))
        self.open = True
        self.reactor.advance(GATE_SECONDS)
        for client in (first, self.come(get("k")), self.come(get("k"))):
            assert b"value" == body_of(client.receive())
        assert 3 == self.held
        assert not self.port.doRead.called  # type: ignore[attr-defined]

    def test_a_socket_that_cannot_be_watched_again(self) -> None:
        """
        Is tried again after a while; others wake meanwhile.
        """
        poller = self.reactor._poller
        poller.unregister(self.port.fileno())
        rings = select.epoll()
        self.addCleanup(rings.close)
        rings.register(self.bell, select.EPOLLIN | select.EPOLLET)
        with capturedLogs() as events:
            self.port.unwatched(errno.ENOSPC)
        assert ["No space left on device"] == [event["error"] for event in events]
        assert 1 == len(rings.poll(0))
        client = self.come(get("k"))
        assert b"" == client.receive()
        self.reactor.advance(1.0)
        assert b"value" == body_of(client.receive())

    def test_another_process_is_faster(self) -> None:
        """
        Before this one looks, or meanwhile.
        """
        self.open = False
        first = self.come(get("k"))
        self.sock.accept()[0].close()
        self.open = True
        self.reactor.advance(GATE_SECONDS)
        assert [1] == self.asked
        first.receive()
        assert first.ended

        def lose_it(waiting: int) -> bool:
            self.sock.accept()[0].close()
            return True

        self.server.may_accept = lose_it
        second = self.come(get("k"))
        second.receive()
        assert second.ended
        assert 0 == self.held

    def test_what_is_unusual_is_served(self) -> None:
        """
        By a connection of Python's.
        """
        client = self.come(get("%6b"))

        assert b"value" == body_of(client.receive())
        assert 2 == len(self.process.connections) == self.process.row.open

    def test_several_that_wait(self) -> None:
        """
        Are shared as the port does it.
        """
        ends = [socket.create_connection(self.sock.getsockname()) for _ in range(3)]
        for far in ends:
            self.addCleanup(far.close)
        self.reactor.settle()

        assert 3 == self.held
        assert self.port.doRead.called  # type: ignore[attr-defined]

    def test_no_more_once_the_port_has_stopped(self) -> None:
        """
        Its descriptor will be another's.
        """
        number = self.port.fileno()
        assert self.fast_path.serve_idle(number)
        self.server.unlisten("0")
        assert not self.fast_path.serve_idle(number)

    def test_an_error_of_the_socket_is_the_ports(self) -> None:
        """
        Which logs it, and tries again.
        """
        far = socket.create_connection(self.sock.getsockname())
        self.addCleanup(far.close)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with capturedLogs() as events:
            resource.setrlimit(resource.RLIMIT_NOFILE, (1, hard))
            try:
                self.reactor.settle()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert ["Too many open files"] == [event["error"] for event in events]
        self.reactor.advance(1.0)
        assert 1 == self.held


class AdoptedTests(HeldCase):
    """
    Python goes on where the fast path has stopped.
    """

    def test_what_is_unusual(self) -> None:
        """
        Is served, first or later; each connection is counted once.
        """
        for first in (b"", get("k")):
            client = self.come(first)
            client.receive()
            assert 1 == self.held
            reply = client.send(get("%6b")).receive()
            assert b"value" == body_of(reply)
            assert 0 == self.held
            assert 2 == len(self.process.connections) == self.process.row.open
            assert b"value" == body_of(client.send(get("k")).receive())
            client.close()
            assert 1 == len(self.process.connections) == self.process.row.open
        assert 1 + 2 == self.process.row.words[0]

    def test_what_stays(self) -> None:
        """
        Is adopted by and by, idle or in the middle of a body.
        """
        idle, asked, writes = self.come(), self.come(get("k")), self.come()
        asked.receive()
        whole = put("new", b"value")
        self.come(put("new", b"first")).close()
        writes.send(whole[:-2])
        assert 3 == self.held
        self.adopt()

        assert 0 == self.held
        assert 4 == len(self.process.connections) == self.process.row.open
        assert writes.send(whole[-2:]).receive().startswith(b"HTTP/1.1 204 ")
        for client in (idle, asked, writes):
            assert b"value" == body_of(client.send(get("new")).receive())

    def test_timeouts_begin_when_it_was_accepted(self) -> None:
        """
        Or with its last request.
        """
        silent = self.come()
        self.reactor.advance(50)
        asked = self.come(get("k"))
        assert b"value" == body_of(asked.receive())
        self.later(49)
        self.server._checking.check()
        assert [False, False] == self.ends(silent, asked)
        self.later(1)
        assert [True, False] == self.ends(silent, asked)
        self.later(49)
        assert [True, False] == self.ends(silent, asked)
        self.later(1)
        assert [True, True] == self.ends(silent, asked)

    def test_a_head_in_pieces(self) -> None:
        """
        Times out like that of any other connection.
        """
        client = self.come()
        client.send(get("k")[:7])
        assert 0 == self.held
        self.later(10)

        assert client.receive().startswith(b"HTTP/1.1 408 ")

    def test_a_body_that_stops(self) -> None:
        """
        Its time begins with the last byte that came, wherever it came to.
        """
        request = put("new", b"value")
        ended = []
        for fast_path in (self.fast_path, None):
            self.process.fast_path = fast_path
            client = self.come(request[:-4])
            assert self.held == (fast_path is not None)
            self.reactor.advance(0.5)
            client.send(request[-4:-2])
            for eighth in range(1, 300):
                self.reactor.advance(0.125)
                self.server._checking.check()
                if reply := client.receive():
                    ended.append((eighth, reply.partition(b"\r\n")[0]))
                    break
        assert [(160, b"HTTP/1.1 408 Request Timeout")] * 2 == ended

    def test_all_when_the_process_drains(self) -> None:
        """
        The end of each is announced.
        """
        clients = [self.come(), self.come(get("k"))]
        clients[1].receive()
        drained = self.server.drain(10)
        assert 0 == self.held
        for client in clients:
            reply = client.send(get("k")).receive()
            assert b"value" == body_of(reply)
            assert "close" == field(reply, "Connection")
            client.close()
        self.client.close()
        assert drained.called

    def test_all_when_the_limit_is_reached(self) -> None:
        """
        It counts them; when one ends, the next is accepted.
        """
        clients = [self.come() for _ in range(self.limits.connections)]
        # One waits, since the case has one too.
        assert self.limits.connections == self.process.row.open
        assert 0 == self.held
        clients[0].close()
        assert self.limits.connections == self.process.row.open
        reply = clients[-1].send(get("k")).receive()
        assert b"value" == body_of(reply)

    def test_there_is_no_descriptor_left(self) -> None:
        """
        An object for it needs none; the file of the value does.
        """
        client = self.come()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        fillers = []
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), hard)
        )
        try:
            while True:
                fillers.append(os.dup(0))
        except OSError:
            pass
        try:
            reply = client.send(get("%6b")).receive()
            assert reply.startswith(b"HTTP/1.1 503 ")
        finally:
            for filler in fillers:
                os.close(filler)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    def test_a_mistake(self) -> None:
        """
        Ends the connection and is logged; it is open no longer.
        """
        client = self.come()
        with (
            capturedLogs() as events,
            mock.patch(
                "kvd.workers.http_server.peer_of", side_effect=ZeroDivisionError
            ),
        ):
            client.send(get("%6b"))
        self.flushLoggedErrors(ZeroDivisionError)
        assert any("cannot be served" in str(event["log_format"]) for event in events)
        assert b"" == client.receive()
        assert client.ended
        assert 1 == self.process.row.open == len(self.process.connections)

    def test_an_upload_that_waits_to_be_asked(self) -> None:
        """
        Goes on with its connection.
        """
        whole = put("new", b"value", b"Expect: 100-continue\r\n")
        self.come(whole).close()
        client = self.come(whole[:-5])
        assert client.receive().startswith(b"HTTP/1.1 100 ")
        assert 1 == self.held
        self.adopt()

        assert 0 == self.held
        assert client.send(b"value").receive().startswith(b"HTTP/1.1 204 ")
        assert b"value" == body_of(client.send(get("new")).receive())
