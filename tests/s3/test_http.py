"""
What a client sees of a connection, over an engine: the tests of `kvd.http.connection`
run over `ObjectStore`. Where kvd differs there, a test of the same name says how.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet import tcp
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from kvd.http.request import PASSED_BYTES
from kvd.interfaces import Answer
from kvd.net.splice import Pipe
from kvd.net.transport import ServerTransport
from kvd.s3 import store as store_module
from kvd.s3.engine import SILENT_SECONDS
from kvd.s3.guards import Change, Kept
from kvd.s3.upload import GatheredUpload, PartsUpload, StreamedUpload
from kvd.s3.value import HEAD_BYTES
from tests.http import test_connection as http
from tests.http.test_connection import HOST, ConnectionCase, body, status
from tests.s3.cases import EngineCase
from tests.s3.memory_engine import MemoryEngine
from tests.stepped import TURNS, SteppedReactor

T = TypeVar("T")

PREFIX = "tests/"

MOST_ASKED = 10
"""
After so many rounds a client that always asks for more is left alone for now.
"""

ALL = frozenset(Change)


class _Reactor(SteppedReactor):
    """
    Comes to rest when the engine does too.
    """

    engine: MemoryEngine | None = None

    def settle(self, turns: int = TURNS) -> None:
        """
        See `SteppedReactor`.
        """
        asked = -1
        for _ in range(MOST_ASKED):
            super().settle(2 * turns)
            before, asked = asked, len(self.engine.seen) if self.engine else -1
            if asked == before:
                return


class OverEngine(EngineCase):
    """
    Puts an engine in the place of the store in memory.
    """

    reactor: Any
    over_tcp = True

    def setUp(self) -> None:
        # Past `EngineCase`, whose parts are made below.
        ConnectionCase.setUp(self)  # type: ignore[arg-type]

    def make_reactor(self) -> _Reactor:
        """
        See `ConnectionCase`.
        """
        return _Reactor()

    def make_pipe(self) -> Pipe:
        """
        See `ConnectionCase`.
        """
        pipe = Pipe()
        self.addCleanup(pipe.close)
        return pipe

    def make_store(self, prefix: str = PREFIX) -> Any:
        """
        See `ConnectionCase`.
        """
        self.start_engine()
        self.reactor.engine = self.memory
        self.open: set[object] = set()
        for kind in (GatheredUpload, PartsUpload, StreamedUpload):
            self._count(kind, "__init__", self.open.add)
            self._count(kind, "commit", self.open.discard)
            self._count(kind, "discard", self.open.discard)
        # What the engine keeps is found out by tests of `kvd.s3.guards`.
        kept = Kept(create=ALL, quoted=ALL, bare=frozenset())
        self.patch(store_module, "try_conditions", lambda *_: succeed(kept))
        store = super().make_store(prefix)
        self.addCleanup(lambda: self.finish(store.close()))
        return store

    def _count(self, kind: type, name: str, note: Callable[[object], None]) -> None:
        called = getattr(kind, name)

        def call_noted(upload: object, *args: Any) -> Any:
            note(upload)
            return called(upload, *args)

        self.patch(kind, name, call_noted)

    def finish(self, answer: Answer[T]) -> T:
        """
        See `ConnectionCase`.
        """
        if not isinstance(answer, Deferred):
            return answer
        self.wait_for(answer)
        results: list[T | Failure] = []
        answer.addBoth(results.append)
        (result,) = results
        if isinstance(result, Failure):
            result.raiseException()
        return result

    def keys(self) -> list[bytes]:
        """
        See `ConnectionCase`.
        """
        listing = self.store.list(b"", b"", None)  # type: ignore[attr-defined]
        return [info.key for info in self.finish(listing.next_slice())]

    def uploads(self) -> int:
        """
        See `ConnectionCase`.
        """
        return len(self.open)


class PutTests(OverEngine, http.PutTests):
    """
    PUT.
    """

    def test_a_folder_of_keys_is_no_key(self) -> None:
        """
        It is one: an engine has no folders, so no key is in conflict with another.
        """
        self.put(b"a/b", b"1")
        for key in (b"a", b"a/b/c"):
            reply = self.ask(
                b"PUT /" + key + b" HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\nx"
            )
            assert 201 == status(reply)
        assert [b"a", b"a/b", b"a/b/c"] == self.keys()


class GetTests(OverEngine, http.GetTests):
    """
    GET and HEAD.
    """

    def test_a_value_replaced_meanwhile_is_not_mixed(self) -> None:
        """
        The reader is cut off: engines keep no value that was replaced.
        """
        self.put(b"k", b"a" * 5_000_000)
        self.client.send(b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n")
        self.put(b"k", b"b" * 5_000_000)

        got = body(self.client.receive())
        assert got == b"a" * len(got)
        assert len(got) in (5_000_000, HEAD_BYTES) or self.client.ended


class SmallLimitsTests(OverEngine, http.SmallLimitsTests):
    """
    Limits.
    """


class DeleteTests(OverEngine, http.DeleteTests):
    """
    DELETE.
    """


class ListTests(OverEngine, http.ListTests):
    """
    Listings.
    """


class MethodTests(OverEngine, http.MethodTests):
    """
    Methods.
    """


class ConnectionTests(OverEngine, http.ConnectionTests):
    """
    Connections.
    """

    requests_ahead = 200


class TimeTests(OverEngine, http.TcpTimeTests):
    """
    Timeouts.
    """


class DrainTests(OverEngine, http.DrainTests):
    """
    Drains.
    """

    over_tcp = False


class LogTests(OverEngine, http.LogTests):
    """
    The access log.
    """


class SomewhereClassicTests(OverEngine, http.SomewhereClassicTests):
    """
    Dialects by path.
    """


class ClassicTests(OverEngine, http.ClassicTests):
    """
    The dialect of 2017.
    """


class StreamTests(OverEngine, ConnectionCase):
    """
    A long value goes from the engine's socket to the client's inside the kernel.
    """

    body = bytes(range(256)) * 20_000
    get = b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n"

    def setUp(self) -> None:
        super().setUp()
        self.put(b"k", self.body)
        self.passed = 0
        pass_on = ServerTransport.pass_on

        def counted(*args: Any) -> tuple[int, bool]:
            count, ended = pass_on(*args)
            self.passed += count
            return count, ended

        self.patch(ServerTransport, "pass_on", counted)

    def test_all_behind_the_first_bytes_is_passed_on(self) -> None:
        """
        Again and again over one connection of the client; parts too.
        """
        for _ in range(3):
            self.passed = 0
            assert self.body == body(self.ask(self.get))
            assert self.passed >= len(self.body) - 2 * HEAD_BYTES
        part = self.ask(self.get[:-2] + b"Range: bytes=100000-3000000\r\n\r\n")
        assert 206 == status(part)
        assert self.body[100_000:3_000_001] == body(part)
        assert [5_120_000] * 3 + [2_900_001] == [
            entry.body_bytes for entry in self.notes.entries
        ]

    def test_engine_that_breaks_off(self) -> None:
        """
        It is asked for the rest.
        """
        self.memory.cut_next = 3
        self.ask(b"HEAD /k HTTP/1.1\r\n" + HOST + b"\r\n")
        assert self.body == body(self.ask(self.get))

        assert 0 == self.memory.cut_next
        assert self.passed > 0

    def test_engine_that_stops(self) -> None:
        """
        The client is cut off when nothing has come for too long.
        """
        self.memory.stop_next = True
        got = self.ask(self.get)
        assert 0 < len(body(got)) < len(self.body)
        for _ in range(4):
            self.later(SILENT_SECONDS / 3)
        got += self.client.receive()

        assert self.client.ended
        assert self.body.startswith(body(got))
        assert set() == self.process.connections
        assert 0 == self.process.answers_due

    def test_client_that_stops(self) -> None:
        """
        Little of the value waits for it in memory; later it gets the rest.
        """
        client = self.connect_over_tcp(window=4096)
        client.send(self.get)
        self.reactor.settle(200)
        (transport,) = (
            each.transport for each in self.process.connections if each.transport.queued
        )
        waiting = len(transport.dataBuffer) + transport._tempDataLen

        assert waiting <= PASSED_BYTES
        assert self.body == body(client.receive())

    def test_client_that_leaves(self) -> None:
        """
        While it reads, and while the engine is waited for, whose connection ends.
        """
        for stops in (False, True):
            self.memory.stop_next = stops
            client = self.connect_over_tcp()
            client.send(self.get)
            client.socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            client.close()
            self.later(1)

            assert 1 == len(self.process.connections)
            assert 0 == self.process.answers_due
            clients = [
                each
                for each in self.reactor.getReaders()
                if isinstance(each, tcp.Client)
            ]
            assert len(clients) <= 1, "only one that is kept for the next request"
