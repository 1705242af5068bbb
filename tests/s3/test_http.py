"""
What a client sees of a connection, over an engine: the tests of `kvd.http.connection`
run over `ObjectStore`. Where kvd differs there, a test of the same name says how.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from typing import Any, TypeVar
from unittest import mock

from twisted.internet import tcp
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kvd.access.rules import AccessRules
from kvd.interfaces import Answer
from kvd.net import splice
from kvd.net.splice import Pipe
from kvd.net.transport import ServerTransport
from kvd.s3 import store as store_module
from kvd.s3.buffered_upload import BufferedUpload
from kvd.s3.engine import SILENT_SECONDS
from kvd.s3.multipart_upload import MultipartUpload
from kvd.s3.streamed_upload import StreamedUpload
from kvd.s3.value import HEAD_BYTES
from tests.http import test_authorization as authorization
from tests.http import test_connection as http
from tests.http import test_cors as cors
from tests.http import test_random
from tests.http.fast_path.both import Worker
from tests.http.fast_path.cases import get, head, put
from tests.http.test_connection import HOST, ConnectionCase, body, status
from tests.http.test_tls import TLSCase
from tests.patience import PATIENCE_SECONDS
from tests.s3 import memory_engine
from tests.s3.cases import EngineCase, EngineReactor, keeps_all
from tests.s3.workers import EngineWorker

T = TypeVar("T")

PREFIX = "tests/"
FAULTS = [(500, "InternalError"), (503, "SlowDown"), (403, "AccessDenied")]
IDLE_SECONDS = 300
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


class OverEngine(EngineCase):
    """
    Puts an engine in the place of the store in memory.
    """

    reactor: Any
    over_tcp = True

    def setUp(self) -> None:
        # Past `EngineCase`, whose parts are made below.
        ConnectionCase.setUp(self)  # type: ignore[arg-type]

    def make_reactor(self) -> EngineReactor:
        """
        See `ConnectionCase`.
        """
        return EngineReactor()

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
        for kind in (BufferedUpload, MultipartUpload, StreamedUpload):
            self._count(kind, "__init__", self.open.add)
            self._count(kind, "commit", self.open.discard)
            self._count(kind, "discard", self.open.discard)
        # What the engine keeps is found out by tests of `kvd.s3.guards`.
        self.patch(store_module, "try_conditions", keeps_all)
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
        Nothing of the value waits for it in this process; later it gets the rest.
        """
        client = self.connect_over_tcp(window=4096)
        client.send(self.get)
        self.reactor.settle(200)
        (transport,) = (
            each.transport for each in self.process.connections if each.transport.queued
        )

        assert 0 == len(transport.dataBuffer) + transport._tempDataLen
        reply = client.receive_until(lambda reply: len(body(reply)) >= len(self.body))
        assert self.body == body(reply)

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


class RefusalTests(authorization.RefusalTests):
    """
    What a client learns from a refusal.
    """

    def make_worker(self, rules: AccessRules) -> Worker:
        """
        See `AuthorizationCase`.
        """
        return EngineWorker(rules=rules, reports=False)


class PrefixRulesTests(authorization.PrefixRulesTests):
    """
    What holds for all values below a prefix.
    """

    def make_worker(self, rules: AccessRules) -> Worker:
        """
        See `AuthorizationCase`.
        """
        return EngineWorker(rules=rules, reports=False)

    def test_a_connection_may_break_while_its_value_is_compared(self) -> None:
        """
        The rest is not read, and the upload is given up.
        """
        worker = self.worker
        assert isinstance(worker, EngineWorker)
        value = b"a" * 50_000
        self.place("once/k", value)
        asked = len(worker.memory.seen)
        worker.memory.stop_next = True
        with mock.patch.object(memory_engine, "MIB", 10_000):
            assert b"" == self.ask(put("once/k", value))
            for connection in list(worker._server.process.connections):
                connection.abort()
            worker.wait(0)
        # The engine is given up, and asked for the rest.
        for _ in range(4):
            worker.wait(SILENT_SECONDS / 3)
        assert set() == worker._server.process.connections
        assert asked < len(worker.memory.seen) < asked + 40
        assert 204 == authorization.status(self.ask(put("once/k", value)))


class RandomRightsTests(authorization.RandomRightsTests):
    """
    Every method, prefix and user, at random.
    """

    files = 1
    has_fast_path = False

    def make_workers(self, rules: AccessRules) -> list[Worker]:
        """
        See there.
        """
        return [EngineWorker(rules=rules)]


class CorsTests(cors.CorsTests):
    """
    Pages of other origins.
    """

    def make_workers(self) -> list[Worker]:
        """
        See there.
        """
        return [EngineWorker(cors=cors.CORS)]


class GuardTests(SynchronousTestCase):
    """
    Names that anybody may have lead here.
    """

    def test_they_are_refused(self) -> None:
        """
        Before the engine hears of it.
        """
        worker = EngineWorker(guarded=True)
        self.addCleanup(worker.clean_up)
        self.addCleanup(worker.end)
        worker.connect(put("k", b"value"))
        assert 201 == authorization.status(worker._replies[-1])
        asked = len(worker.memory.seen)
        for method in (get, head):
            worker.connect(method("k").replace(b"Host: kvd", b"Host: evil.example"))
            assert 421 == authorization.status(worker._replies[-1])

        assert asked == len(worker.memory.seen)


class TLSGetTests(OverEngine, TLSCase, http.GetTests):
    """
    GET over TLS.
    """

    test_a_value_replaced_meanwhile_is_not_mixed = (
        GetTests.test_a_value_replaced_meanwhile_is_not_mixed
    )


class TLSPutTests(OverEngine, TLSCase):
    """
    PUT over TLS.
    """

    def test_bodies_of_all_ways_to_the_engine(self) -> None:
        """
        Gathered, in one request, and in parts; the reply has the same bytes.
        """
        end = time.monotonic() + PATIENCE_SECONDS
        for size in (5, 300_000, 9_000_000):
            for framing in (b"Content-Length: %d\r\n\r\n" % size, CHUNKED):
                content = bytes(range(251)) * (size // 251 + 1)
                content = content[:size]
                sent = content
                if framing is CHUNKED:
                    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (size, content)
                reply = self.ask(b"PUT /k HTTP/1.1\r\n" + HOST + framing + sent)
                # A part of 8 MiB takes the engine many turns.
                while not reply and time.monotonic() < end:
                    reply = self.client.receive()
                assert status(reply) in (201, 204)
                got = self.ask(b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n")
                while len(body(got)) < size and time.monotonic() < end:
                    got += self.client.receive()
                assert content == body(got)


class RandomTests(OverEngine, test_random.RandomTests):
    """
    Whatever comes, also of an engine that fails, breaks off and stops.
    """

    runs = 4
    over_tcp = False
    store: Any

    def setUp(self) -> None:
        # A pipe that is kept for the next value would look like one left open.
        self.patch(splice, "MOST_SPARE", 0)
        test_random.RandomTests.setUp(self)

    def put(self, key: bytes, value: bytes) -> str:
        """
        See `ConnectionCase`.
        """
        self.memory.fail_next.clear()
        self.memory.cut_next = 0
        self.memory.stop_next = False
        return ConnectionCase.put(self, key, value)

    def is_due(self) -> bool:
        """
        The engine answers by itself. Now and then it fails next.
        """
        if self.random.random() < 0.5:
            self.memory.fail_next.append(self.random.choice(FAULTS))
        self.memory.cut_next += self.random.random() < 0.3
        self.memory.stop_next |= self.random.random() < 0.3
        return False

    def rest(self) -> None:
        """
        Connections to the engine that nobody uses are closed.
        """
        for _ in range(5):
            self.later(IDLE_SECONDS)
