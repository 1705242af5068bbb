"""
Tests for `kvd.http.fast_path`: on connections, beside the ordinary way.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from typing import Any

from kvd.http.connection import HttpConnection
from kvd.http.context import ProcessContext
from kvd.http.dialects.choice import Dialects
from kvd.http.fast_path import CLOSES, LINGERS, QUEUED, SERVED
from kvd.http.states import State
from kvd.ipc.row import (
    METHOD_WORDS,
    METHODS,
    STATUS_WORD,
    WORDS_OF_REQUESTS,
    word_of_method,
)
from kvd.model.keys import Key
from kvd.net.transport import serve_connection
from kvd.settings import Limits
from kvd.store.file import FileStore
from tests.http.fast_path.cases import FastPathCase, body_of, field, get, head, put
from tests.http.fast_path.watched import WatchedFastPath
from tests.http.test_connection import LIMITS, Notes
from tests.stepped import Client, SteppedReactor, connect, tcp_pair


class ConnectionCase(FastPathCase):
    """
    Connections at which the fast path looks first.
    """

    limits = LIMITS

    def setUp(self) -> None:
        self.reactor = SteppedReactor()
        self.addCleanup(self.reactor.dispose)
        self.notes = Notes()
        super().setUp()
        self.watched = WatchedFastPath(self.fast_path)
        self.process.fast_path = self.watched
        self.client = self.connect()

    def make_process(self, store: FileStore) -> ProcessContext:
        return ProcessContext(
            store, Dialects(()), self.limits, self.reactor, self.notes
        )

    def connect(self) -> Client:
        """
        One more client.
        """
        client = connect(self.reactor, HttpConnection(self.process))
        self.addCleanup(client.socket.close)
        return client

    def narrow(self) -> Client:
        """
        A client to whom little can be sent ahead.
        """
        near, far = socket.socketpair()
        self.addCleanup(far.close)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        near.setblocking(False)
        serve_connection(near, "", HttpConnection(self.process), self.reactor)
        return Client(self.reactor, far)

    def later(self, seconds: float) -> None:
        """
        Let time pass, and the connections notice.
        """
        self.reactor.advance(seconds)
        for connection in list(self.process.connections):
            connection.check_time(self.reactor.seconds())
        self.reactor.settle()

    def ask(self, request: bytes) -> bytes:
        """
        Send bytes, and give back what comes.
        """
        return self.client.send(request).receive()


class TurnsTests(ConnectionCase):
    """
    Each request takes the shortest way, and the next one again.
    """

    def test_both_ways_in_turn(self) -> None:
        """
        On one connection.
        """
        assert self.ask(put("k", b"one")).startswith(b"HTTP/1.1 201 ")
        assert b"one" == body_of(self.ask(get("k")))
        assert (2, 0) == (self.watched.served, self.watched.left)
        for _ in range(3):
            assert b"one" == body_of(self.ask(get("k")))
            assert b"one" == body_of(self.ask(get("%6b")))
        assert (5, 3) == (self.watched.served, self.watched.left)
        assert 1 == len(self.process.connections)

    def test_a_request_in_pieces(self) -> None:
        """
        Is left alone, wherever it is split; the one behind it is served.
        """
        self.keep("k", b"value")
        for whole in (get("k"), put("k", b"value")):
            for end in range(1, len(whole)):
                self.client.send(whole[:end])
                assert self.ask(whole[end:]).startswith(b"HTTP/1.1 20")
                self.get(self.store, Key(b"k"))
                served = self.watched.served
                assert b"value" == body_of(self.ask(get("k")))
                assert served + 1 == self.watched.served

    def test_requests_that_are_sent_ahead(self) -> None:
        """
        All are answered, in their order.
        """
        self.keep("a", b"1")
        self.keep("b", b"2")
        replies = self.ask(get("a") + put("c", b"3") + get("b") + get("c"))

        statuses = re.findall(rb"HTTP/1\.1 (\d+) ", replies)
        assert [b"200", b"201", b"200", b"200"] == statuses
        assert 0 == self.watched.served

    def test_a_refused_body_is_never_a_request(self) -> None:
        """
        Even if it looks like one that the fast path would serve.
        """
        self.keep("k", b"value")
        inner = put("smuggled", b"x")
        head = put("k/below", b"")[: -len(b"Content-Length: 0\r\n\r\n")]
        length = b"Content-Length: %d\r\n\r\n" % (2 * len(inner))
        self.client.send(head + length)
        reply = self.client.send(inner).receive() + self.client.send(inner).receive()

        assert reply.startswith(b"HTTP/1.1 409 ")
        assert 1 == reply.count(b"HTTP/1.1 ")
        assert ["first", "k"] != self.found()
        assert "smuggled" not in self.found()

    def test_a_client_that_has_ended_is_answered(self) -> None:
        """
        Before our half is closed too.
        """
        self.keep("k", b"value")
        self.client.socket.sendall(get("k"))
        self.client.half_close()

        assert b"value" == body_of(self.client.receive())
        assert self.client.ended
        assert set() == self.process.connections

    def test_a_close_that_was_asked_for(self) -> None:
        """
        Follows the reply.
        """
        self.keep("k", b"value")
        reply = self.ask(get("k", b"Connection: close\r\n"))

        assert "close" == field(reply, "Connection")
        assert self.client.ended
        assert set() == self.process.connections

    def test_a_reset(self) -> None:
        """
        Ends the connection that had it.
        """
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        far = socket.create_connection(listener.getsockname())
        near, peer = listener.accept()
        near.setblocking(False)
        serve_connection(near, peer, HttpConnection(self.process), self.reactor)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()
        self.reactor.settle()

        assert 1 == len(self.process.connections)

    def test_while_draining_there_are_none(self) -> None:
        """
        The reply has to say that the connection ends.
        """
        self.keep("k", b"value")
        fresh = self.connect()
        self.process.draining, self.process.fast_path = True, None
        for connection in self.process.connections:
            connection.drain(1)
        reply = fresh.send(get("k")).receive()

        assert b"value" == body_of(reply)
        assert "close" == field(reply, "Connection")
        assert 0 == self.watched.served


class TimeTests(ConnectionCase):
    """
    Waits are bounded as on the ordinary way.
    """

    limits = Limits(idle_seconds=100, head_seconds=10, reader_seconds=60)

    def test_a_request_begins_the_wait_anew(self) -> None:
        """
        Also one that the fast path has served.
        """
        self.keep("k", b"value")
        for _ in range(3):
            self.later(99)
            assert b"value" == body_of(self.ask(get("k")))
        assert 3 == self.watched.served
        self.later(99)
        assert 1 == len(self.process.connections)
        self.later(1)
        assert set() == self.process.connections

    def test_a_head_that_does_not_end_is_408(self) -> None:
        """
        Though the fast path has seen its beginning.
        """
        self.client.send(b"GET /")
        self.later(10)

        assert self.client.receive().startswith(b"HTTP/1.1 408 ")


class SlowReaderTests(ConnectionCase):
    """
    What the socket does not take is sent when it does.
    """

    limits = Limits(reader_seconds=60)

    def setUp(self) -> None:
        super().setUp()
        self.large = os.urandom(16 * 1024)
        self.keep("k", self.large)
        # It takes some of a reply, less than two.
        self.client = self.narrow()

    def fill(self) -> int:
        """
        Ask until a reply does not go out whole; how often.
        """
        for asked in range(1, 100):
            self.client.send(get("k"))
            for connection in self.process.connections:
                assert isinstance(connection, HttpConnection)
                if connection._state is State.SENDING:
                    return asked
        raise AssertionError("the socket takes everything")

    def test_the_rest_comes_when_the_client_reads(self) -> None:
        """
        And the next request after that takes the fast path again.
        """
        asked = self.fill()
        replies = self.client.receive()

        assert asked == replies.count(b"HTTP/1.1 200 OK\r\n")
        assert asked == replies.count(self.large)
        assert asked == self.watched.served
        assert self.ask(get("k")).endswith(self.large)
        assert asked + 1 == self.watched.served

    def test_no_more_is_read_meanwhile(self) -> None:
        """
        A client that reads no replies stops here; its requests are kept for it.
        """
        asked = self.fill()
        for _ in range(3):
            self.client.send(get("k"))
        replies = self.client.receive()

        assert asked + 3 == replies.count(self.large)

    def test_a_close_waits_for_the_rest(self) -> None:
        """
        And comes then.
        """
        asked = self.fill() - 1
        self.client = self.narrow()
        for _ in range(asked):
            self.client.send(get("k"))
        self.client.send(get("k", b"Connection: close\r\n"))
        replies = self.client.receive()

        assert asked + 1 == replies.count(self.large)
        assert self.client.ended

    def test_a_client_that_does_not_read_is_left(self) -> None:
        """
        After its time, and what it may have read unheard takes.
        """
        self.fill()
        self.later(1)
        self.later(90)

        assert 1 == len(self.process.connections)

    def test_a_client_that_is_gone_is_found_out(self) -> None:
        """
        By whoever sends the rest.
        """
        self.fill()
        self.client.close()

        assert 1 == len(self.process.connections)
        assert self.fast_path.take_unsent() == b""

    def test_a_rest_that_nobody_took_is_no_others(self) -> None:
        """
        Whoever comes next gets his own reply.
        """
        near, far = self.pair()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        outcomes: list[Any] = []
        while not outcomes or outcomes[-1] == SERVED:
            far.sendall(get("k"))
            outcomes.append(self.fast_path.serve(near.fileno()))
        assert SERVED | QUEUED == outcomes[-1]

        assert self.served(get("k")).endswith(self.large)
        assert b"" == self.fast_path.take_unsent()

    def test_rest_and_what_was_sent_are_the_reply(self) -> None:
        """
        Wherever it was cut, in head or body.
        """
        for room in (1, 5_000, 10_000, 20_000, 40_000):
            near, far = self.pair()
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
            outcome: int | bytes = SERVED
            asked = 0
            while outcome == SERVED:
                far.sendall(get("k"))
                outcome = self.fast_path.serve(near.fileno())
                asked += 1
            assert outcome == SERVED | QUEUED
            whole = far.recv(1 << 20) + self.fast_path.take_unsent()
            assert asked == whole.count(self.large) == whole.count(b"HTTP/1.1 200 OK")
            assert whole.endswith(self.large)

    def test_a_client_that_has_not_received_all_is_not_closed_at_once(self) -> None:
        """
        Else a reset would overtake the reply. Over a Unix socket, it is there at once.
        """
        last = get("k", b"Connection: close\r\n")
        cases = [
            (None, put("p", b"v"), SERVED),
            (None, put("p", b"v", b"Connection: close\r\n"), SERVED | CLOSES),
            (2_048, last, SERVED | CLOSES | LINGERS),
        ]
        for window, request, expected in cases:
            near, far = tcp_pair(window)
            self.addCleanup(near.close)
            self.addCleanup(far.close)
            far.sendall(request)
            assert (request, expected) == (request, self.fast_path.serve(near.fileno()))

        near, far = self.pair()
        far.sendall(last)
        assert SERVED | CLOSES == self.fast_path.serve(near.fileno())

    def test_bytes_behind_the_last_request_do_not_cut_its_reply(self) -> None:
        """
        As without the fast path: our half is closed first.
        """
        near, far = tcp_pair(2_048)
        self.addCleanup(far.close)
        client = Client(self.reactor, far)
        near.setblocking(False)
        serve_connection(near, "", HttpConnection(self.process), self.reactor)
        client.send(get("k", b"Connection: close\r\n")).send(get("k"))

        reply = client.receive()
        assert (True, False) == (reply.endswith(self.large), client.reset)
        assert 1 == self.watched.served

    def test_to_whom_nothing_can_be_sent(self) -> None:
        """
        All of the reply is left; the reactor finds out why.
        """
        for _ in range(2):
            # Then it is in memory.
            self.served(get("k"))
        near, far = self.pair()
        far.sendall(get("k"))
        far.close()
        assert SERVED | QUEUED == self.fast_path.serve(near.fileno())
        whole = self.fast_path.take_unsent()
        assert whole.startswith(b"HTTP/1.1 200 OK\r\n")
        assert whole.endswith(self.large)

        near, far = self.pair()
        far.sendall(put("k", b"v", b"Connection: close\r\n"))
        far.close()
        assert SERVED | CLOSES | QUEUED == self.fast_path.serve(near.fileno())
        assert self.fast_path.take_unsent().startswith(b"HTTP/1.1 204 ")


class CountingTests(ConnectionCase):
    """
    What is logged of requests is the same on both ways.
    """

    def counts(self) -> list[int]:
        """
        All numbers of the row but those that are times.
        """
        words: list[int] = self.process.row.words.tolist()
        counts = [words[word] for word in WORDS_OF_REQUESTS]
        for method in METHODS:
            word = word_of_method(method)
            durations = words[word + 1 : word + STATUS_WORD]
            statuses = words[word + STATUS_WORD : word + METHOD_WORDS]
            counts += [sum(durations), *statuses]
        return counts

    def test_counts_and_entries(self) -> None:
        """
        Of values on both ways, at the end of the connection too.
        """
        before = self.counts()
        requests = [put("k", b"one"), get("k"), get("k"), put("k", b""), get("k")]
        requests += [head("k"), get("none"), head("none"), get("none/below")]
        requests.append(get("k", b"Connection: close\r\n"))
        reports = []
        for fast_path in (self.watched, None):
            self.publish(self.store, Key(b"k"), b"first")
            self.process.fast_path = fast_path
            self.notes.entries.clear()
            self.client = self.connect()
            counted = self.counts()
            replies = b"".join(self.ask(request) for request in requests)
            after = self.counts()
            assert replies.endswith(b"Content-Length: 0\r\nConnection: close\r\n\r\n")
            reports.append(
                (
                    [a - b for a, b in zip(after, counted, strict=True)],
                    [
                        (e.peer, e.method, e.key, e.status, e.body_bytes)
                        for e in self.notes.entries
                    ],
                )
            )
        assert len(requests) == self.watched.served

        assert reports[0] == reports[1]
        assert before != self.counts()
        assert [("unix", "PUT", "/k", 204, 3), ("unix", "GET", "/k", 200, 3)] == (
            reports[0][1][:2]
        )

    def test_time_is_counted(self) -> None:
        """
        Of each request, in the bucket where it belongs.
        """
        self.keep("k", b"v")
        words = self.process.row.words
        seconds = words.cast("B").cast("d")
        word = word_of_method("GET")
        before = seconds[word]
        self.ask(get("k"))
        took = seconds[word] - before

        assert 1 == self.watched.served
        assert 0 < took < 1
        assert took == self.notes.entries[-1].seconds
