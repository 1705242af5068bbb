"""
What a client sees of a connection, over an engine: the tests of `kvd.http.connection`
run over `ObjectStore`. Where kvd differs there, a test of the same name says how.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import hashlib
import socket
import struct
import time
import weakref
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar, cast
from unittest import mock

from twisted.internet import tcp
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kvd.access.rules import AccessRules
from kvd.client.sockets import BodySocket
from kvd.http import mover
from kvd.http.connection import HttpConnection
from kvd.http.relay import Relay
from kvd.http.states import State
from kvd.interfaces import Answer
from kvd.ipc.row import CLIENT_LEFT, WORDS_OF_REQUESTS
from kvd.net import sending, splice
from kvd.net.sockets import bytes_held, bytes_unread
from kvd.net.splice import Pipe
from kvd.s3 import multipart_upload
from kvd.s3 import store as store_module
from kvd.s3.buffered_upload import BufferedUpload
from kvd.s3.connections import IDLE_SECONDS as CONNECTION_SECONDS
from kvd.s3.engine import SILENT_SECONDS
from kvd.s3.multipart_upload import MultipartUpload, Part
from kvd.s3.streamed_upload import StreamedUpload
from kvd.s3.value import HEAD_BYTES
from tests.descriptors import Descriptors
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
from tests.s3.memory_engine import MemoryEngine
from tests.s3.workers import EngineWorker
from tests.stepped import Client

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
        pass_on = Pipe.pass_on

        def counted(*args: Any) -> int:
            count = pass_on(*args)
            self.passed += count
            return count

        self.patch(Pipe, "pass_on", counted)

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

    def test_one_connection_serves_all(self) -> None:
        """
        At once, and after a pause.
        """
        ports: list[int] = []
        render = MemoryEngine.render

        def noted(engine: MemoryEngine, request: Any) -> Any:
            ports.append(request.client.port)
            return render(engine, request)

        self.patch(MemoryEngine, "render", noted)
        for seconds in (0, 0, CONNECTION_SECONDS - 1):
            self.later(seconds)
            self.passed = 0
            assert self.body == body(self.ask(self.get))
            assert self.passed >= len(self.body) - 2 * HEAD_BYTES
            part = self.ask(self.get[:-2] + b"Range: bytes=100000-\r\n\r\n")
            assert self.body[100_000:] == body(part)

        assert 6 <= len(ports)
        assert 1 == len(set(ports))

    def test_next_reply_is_not_waited_for_to_be_long(self) -> None:
        """
        The connection that is kept has a low-water mark of one byte again.
        """
        marks = []
        set_mark = BodySocket._set_mark

        def noted(body_socket: BodySocket, count: int) -> None:
            marks.append(count)
            set_mark(body_socket, count)

        self.patch(BodySocket, "_set_mark", noted)
        assert self.body == body(self.ask(self.get))
        (kept,) = (
            each for each in self.reactor.getReaders() if isinstance(each, tcp.Client)
        )

        assert max(marks) > 1
        assert 1 == kept.socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)

    def test_last_byte_that_comes_late(self) -> None:
        """
        It is waited for like any other: the connection then serves the next request.
        """
        finish = self.hold_back(1)
        got = self.ask(self.get)
        assert self.body[:-1] == body(got)
        self.later(SILENT_SECONDS - 1)
        finish(True)
        self.reactor.settle()

        assert self.body[-1:] == self.client.receive()
        assert self.body == body(self.ask(self.get))

    def test_last_byte_that_never_comes(self) -> None:
        """
        The client is cut off when nothing has come for too long.
        """
        self.hold_back(1)
        assert self.body[:-1] == body(self.ask(self.get))
        for _ in range(4):
            self.later(SILENT_SECONDS / 3)

        assert b"" == self.client.receive()
        assert self.client.ended
        assert 0 == self.process.answers_due

    def test_engine_that_ends_before_the_last_byte(self) -> None:
        """
        It is asked for that.
        """
        finish = self.hold_back(1)
        got = self.ask(self.get)
        asked = len(self.memory.seen)
        finish(False)
        self.reactor.settle()

        assert self.body == body(got + self.client.receive())
        assert asked + 1 == len(self.memory.seen)

    def hold_back(self, count: int) -> Callable[[bool], None]:
        """
        Have the engine keep the last bytes of the next reply.

        Returns:
            Sends them, or ends the connection.
        """
        requests: list[Any] = []
        get = MemoryEngine._get

        def held(engine: MemoryEngine, request: Any, name: str) -> Any:
            if requests:
                return get(engine, request, name)
            requests.append(request)
            write = request.write

            def write_most(data: bytes) -> None:
                request.kept = data[-count:]
                write(data[:-count])

            request.write, request.finish = write_most, lambda: None
            return get(engine, request, name)

        self.patch(MemoryEngine, "_get", held)

        def finish(whole: bool) -> None:
            (request,) = requests
            del request.write, request.finish
            if whole:
                request.write(request.kept)
                request.finish()
            else:
                request.loseConnection()

        return finish

    def test_part_in_chunks(self) -> None:
        """
        It is read, for the socket has more than its bytes.
        """
        self.memory.chunked = True
        part = self.ask(self.get[:-2] + b"Range: bytes=100000-3000000\r\n\r\n")

        assert self.body[100_000:3_000_001] == body(part)
        assert 0 == self.passed

    def test_engine_that_sends_the_beginning_of_a_part(self) -> None:
        """
        It is asked for the rest at once, although its connection stays.
        """
        self.memory.part_bytes = 1_000_000
        part = self.ask(self.get[:-2] + b"Range: bytes=100000-3000000\r\n\r\n")

        assert self.body[100_000:3_000_001] == body(part)
        assert self.passed > 2_500_000

    def test_what_moves_a_body_is_freed_with_it(self) -> None:
        """
        Also if nobody collects garbage; and one object moves the whole body.
        """
        relays: list[weakref.ref[Relay]] = []
        begin = Relay.begin

        def noted(relay: Relay) -> bool:
            relays.append(weakref.ref(relay))
            return begin(relay)

        self.patch(Relay, "begin", noted)
        gc.disable()
        self.addCleanup(gc.enable)
        assert self.body == body(self.ask(self.get))

        assert [None] == [relay() for relay in relays]

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
            each.transport
            for each in self.process.connections
            if each.transport.waits_for_peer
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

    def test_connection_that_is_aborted_while_the_engine_is_waited_for(self) -> None:
        """
        As at the end of a drain, or by a reset. The engine is not asked for the rest,
        although its connection has ended, too.
        """
        self.put(b"short", self.body[:400_000])
        self.patch(memory_engine, "MIB", 100_000)
        self.memory.stop_next = True
        client = self.connect_over_tcp()
        client.send(self.get.replace(b"/k ", b"/short "))
        self.reactor.settle(20)
        asked = len(self.memory.seen)
        for connection in list(self.process.connections):
            connection.abort()
        self.later(1)

        assert not self.memory.stop_next
        assert set() == self.process.connections
        assert 0 == self.process.answers_due
        assert asked == len(self.memory.seen)

    def test_relay_that_ends_when_the_connection_was_aborted(self) -> None:
        """
        In the same turn of the reactor: nothing follows the reply.
        """
        self.memory.stop_next = True
        self.ask(self.get)
        asked = len(self.memory.seen)
        (waiting,) = (
            each for each in self.reactor.getReaders() if isinstance(each, BodySocket)
        )
        (connection,) = cast(Any, self.process.connections)
        connection.abort()
        connection.transport.lose_peer()
        waiting.doRead()
        self.later(1)

        assert set() == self.process.connections
        assert asked == len(self.memory.seen)


class ResetTests(OverEngine, ConnectionCase):
    """
    A client resets its connection while the engine is silent: the engine's request is
    given up, as nobody can read the reply.
    """

    body = StreamTests.body

    def setUp(self) -> None:
        super().setUp()
        self.put(b"k", self.body)
        self.put(b"short", self.body[:400_000])
        self.reactor.settle()

    def leave(self, *requests: bytes) -> None:
        """
        Send requests, each for itself, and reset the connection when the engine waits.
        """
        client = self.connect_over_tcp()
        for request in requests:
            client.send(request)
            self.reactor.settle()
        assert len(self.process.connections) == 2
        self.reset(client)

    def reset(self, client: Client) -> None:
        """
        Reset the connection of a client.
        """
        client.socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        client.close()

    def assert_given_up(self, status: int = CLIENT_LEFT) -> None:
        """
        Nothing of the request is left, at the engine neither.

        Args:
            status: That of the access log; that of the reply, if its head was sent.
        """
        assert 0 == self.memory.waiting
        assert 1 == len(self.process.connections), "the one that is idle"
        assert 0 == self.process.answers_due
        assert [status] == [
            entry.status for entry in self.notes.entries if entry.method != "PUT"
        ]
        self.notes.entries.clear()

    def test_before_the_first_byte(self) -> None:
        """
        Of a value, of its description, and of a listing.
        """
        for request in (b"GET /k", b"GET /short", b"HEAD /k", b"GET /"):
            self.memory.silent_at = 1
            self.leave(request + b" HTTP/1.1\r\n" + HOST + b"\r\n")
            self.assert_given_up()

    def test_before_the_first_byte_of_a_part(self) -> None:
        """
        Which is asked for after the first bytes of the value.
        """
        self.memory.silent_at = 2
        part = b"Range: bytes=100000-3000000\r\n"
        self.leave(b"GET /k HTTP/1.1\r\n" + HOST + part + b"\r\n")
        self.assert_given_up(206)

    def test_in_the_middle(self) -> None:
        """
        Of a value that is moved, and of one that is read.
        """
        self.patch(memory_engine, "MIB", 100_000)
        for key in (b"k", b"short"):
            self.memory.stop_next = True
            self.leave(b"GET /%b HTTP/1.1\r\n" % key + HOST + b"\r\n")
            assert not self.memory.stop_next
            self.assert_given_up(200)

    def test_what_came_behind_it_is_done(self) -> None:
        """
        As whatever a client sent before it left; whether it was read yet or not.
        """
        get = b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n"
        put = b"PUT /%b HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nnew"
        self.memory.silent_at = 1
        self.leave(get + put % b"one")
        self.assert_given_up()
        assert b"new" == self.value(b"one")

        self.memory.silent_at = 1
        self.leave(get, put % b"two", put % b"three")
        # What came after it stopped the reading: the next look finds that it has left.
        self.later(1)
        self.assert_given_up()
        assert b"new" == self.value(b"two")
        assert b"new" == self.value(b"three")

    def test_client_that_had_closed_its_half(self) -> None:
        """
        After which nothing is read from it.
        """
        self.memory.silent_at = 1
        client = self.connect_over_tcp()
        client.send(b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n")
        client.half_close()
        self.later(1)
        assert 1 == self.memory.waiting
        self.reset(client)
        self.later(1)

        self.assert_given_up()

    def test_before_the_body_of_a_put(self) -> None:
        """
        The engine was asked whether the condition holds.
        """
        for begun in (b"", bytes(100_000)):
            self.memory.silent_at = 1
            self.leave(
                b"PUT /new HTTP/1.1\r\n"
                + HOST
                + b"If-None-Match: *\r\nContent-Length: 2000000\r\n\r\n"
                + begun
            )
            # What came of the body stopped the reading.
            self.later(1)
            assert 0 == self.memory.waiting
            assert 1 == len(self.process.connections), "the one that is idle"
            assert 0 == self.process.answers_due
            assert CLIENT_LEFT == self.notes.entries.pop().status
        assert "tests/new" not in self.memory.objects

    def test_what_is_stored_is_stored(self) -> None:
        """
        Although its client does not hear of it: that may have left after the last byte.
        """
        self.memory.silent_at = 1
        self.leave(b"PUT /new HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nnew")

        assert 1 == self.memory.waiting


class RelayTimeTests(OverEngine, ConnectionCase):
    """
    Whoever is waited for has time of its own, and what moves meanwhile is counted.
    """

    limits = replace(http.LIMITS, reader_seconds=SILENT_SECONDS / 20)
    body = StreamTests.body

    def setUp(self) -> None:
        super().setUp()
        self.put(b"k", self.body)

    def test_an_engine_that_pauses_is_not_the_clients_fault(self) -> None:
        """
        Its connection stays; what it has by then is on the scoreboard.
        """
        self.memory.stop_next = True
        got = self.ask(StreamTests.get)
        for _ in range(3):
            self.later(SILENT_SECONDS / 4)
            assert not self.client.ended
        (connection,) = self.process.connections

        assert 0 < len(body(got)) < len(self.body)
        assert len(got) == self.process.row.words[WORDS_OF_REQUESTS.bytes_out]
        assert len(got) == connection.transport.bytes_sent
        self.later(SILENT_SECONDS)
        assert set() == self.process.connections

    def test_a_client_that_reads_nothing_is_cut_off(self) -> None:
        """
        As one that reads nothing of a file. Nothing is left of the pipe in which bytes
        waited for it.
        """
        opened = Descriptors("pipe:")
        client = self.connect_over_tcp(window=4096)
        client.send(StreamTests.get)
        self.reactor.settle(200)
        assert 2 == len(self.process.connections)
        assert 2 == opened.more
        # Longer than this kernel does not hear what that of the client has.
        for _ in range(60):
            self.later(SILENT_SECONDS / 4)

        assert 1 == len(self.process.connections), "the one that is idle"
        assert 0 == self.process.answers_due
        assert [len(self.body)] > [each.body_bytes for each in self.notes.entries] > [0]
        assert 0 == opened.more

    def test_a_client_that_reads_slowly_is_waited_for(self) -> None:
        """
        Its kernel has more each time, although this one takes no more of the value.
        """
        client = self.connect_over_tcp(window=4096)
        client.send(StreamTests.get)
        self.reactor.settle(200)
        (transport,) = (
            each.transport
            for each in self.process.connections
            if each.transport.waits_for_peer
        )
        got, sent = b"", transport.bytes_sent
        for _ in range(20):
            got += client.socket.recv(4096)
            self.later(self.limits.reader_seconds / 2)
        assert sent == transport.bytes_sent

        got += client.receive_until(
            lambda more: len(body(got + more)) >= len(self.body)
        )
        assert self.body == body(got)


class PausingEngineCase(OverEngine, ConnectionCase):
    """
    An engine that reads no more.
    """

    def setUp(self) -> None:
        super().setUp()
        self.asking: list[tcp.Client] = []
        """kvd's connections to an engine that pauses."""

    def pause_engine(self) -> list[tcp.Server]:
        """
        Have the engine read no more, and the kernel take little for it.

        Returns:
            Its connections.
        """
        port = int(self.urls[0].rpartition(":")[2])
        paused = [
            each
            for each in self.reactor.getReaders()
            if isinstance(each, tcp.Server) and each.getHost().port == port
        ]
        for each in paused:
            each.stopReading()
        for each in self.reactor.getReaders():
            if isinstance(each, tcp.Client):
                each.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
                self.asking.append(each)
        # So that they are closed in the end.
        self.addCleanup(self.resume, paused)
        return paused

    def resume(self, paused: list[tcp.Server]) -> None:
        """
        Have the engine read again.
        """
        for each in paused:
            if each.connected:
                each.startReading()

    def assert_none_asks(self) -> None:
        """
        The engine's connections that paused have ended.
        """
        assert self.asking
        assert not any(each.connected for each in self.asking)

    def stored(self) -> bytes | None:
        """
        What the engine has.
        """
        found = self.memory.objects.get(f"{PREFIX}k")
        return None if found is None else found.body

    def wait_for_arrival(self) -> None:
        """
        Wait until all that the client has sent is here, read or not.
        """
        last = time.monotonic() + PATIENCE_SECONDS
        while bytes_held(self.client.socket):
            # An acknowledgement may come some milliseconds later.
            assert time.monotonic() < last
            self.reactor.settle()

    def wait_for_end(self) -> None:
        """
        Wait until the client's connection has ended here too.
        """
        last = time.monotonic() + PATIENCE_SECONDS
        while self.process.connections:
            assert time.monotonic() < last
            self.reactor.settle()

    def reset(self) -> None:
        """
        Let the client leave at once.
        """
        self.client.socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self.client.close()


class PassedUploadTests(PausingEngineCase):
    """
    A long value goes from the client's socket to the engine's inside the kernel.
    """

    body = bytes(range(256)) * 12_000

    def setUp(self) -> None:
        self.passed = 0
        super().setUp()
        moved = StreamedUpload.moved

        def counted(upload: StreamedUpload, count: int) -> None:
            self.passed += count
            moved(upload, count)

        self.patch(StreamedUpload, "moved", counted)

    def head(self, *fields: bytes, length: int | None = None) -> bytes:
        """
        That of a request.
        """
        size = len(self.body) if length is None else length
        lines = (b"PUT /k HTTP/1.1", HOST[:-2], b"Content-Length: %d" % size, *fields)
        return b"\r\n".join([*lines, b"", b""])

    def begin(self, count: int = 100_000) -> None:
        """
        Send so much of the value that a request to the engine has begun.
        """
        self.client.send(self.head() + self.body[:count])
        self.reactor.settle(100)

    def stall(self) -> list[tcp.Server]:
        """
        Begin, and have an engine that reads no more while the client sends the rest.

        Returns:
            The connections that the engine does not read.
        """
        self.begin()
        stalled = self.pause_engine()
        self.client.send(self.body[100_000:])
        self.reactor.settle(100)
        moving = self.connection()._mover
        assert moving is not None
        assert moving.holds, "the engine's socket takes no more"
        return stalled

    def test_all_between_the_first_and_the_last_bytes_is_passed_on(self) -> None:
        """
        Again and again over one connection of the client.
        """
        for expected in (201, 204, 204):
            self.passed = 0
            self.begin()
            reply = self.client.send(self.body[100_000:]).receive()
            assert expected == status(reply)
            assert self.body == self.stored()
            # What was in memory before the engine was connected is written.
            assert self.passed >= len(self.body) // 2
        assert [204] == [status(self.ask(b"DELETE /k HTTP/1.1\r\n" + HOST + b"\r\n"))]

    def test_body_with_a_digest_is_read(self) -> None:
        """
        As nobody could verify what the kernel moves.
        """
        digest = b64encode(hashlib.sha256(self.body).digest())
        field = b"Content-Digest: sha-256=:" + digest + b":"
        self.client.send(self.head(field) + self.body[:100_000])
        reply = self.client.send(self.body[100_000:]).receive()

        assert 201 == status(reply)
        assert self.body == self.stored()
        assert 0 == self.passed

    def test_urgent_data_stops_no_body(self) -> None:
        """
        It is no part of the body.
        """
        client = self.connect_over_tcp()
        client.send(self.head() + self.body[:100_000])
        self.reactor.settle(100)
        client.socket.send(b"!", socket.MSG_OOB)
        reply = client.send(self.body[100_000:]).receive_until(bool)

        assert 201 == status(reply)
        assert self.body == self.stored()
        assert self.passed > 0

    def test_engine_that_pauses(self) -> None:
        """
        What its socket does not take waits in a pipe, and not in this process.
        """
        stalled = self.stall()
        assert 0 == self.connection().reader.buffered
        self.resume(stalled)

        assert 201 == status(self.client.receive_until(bool))
        assert self.body == self.stored()

    def test_engine_that_stops(self) -> None:
        """
        The client hears of it when nothing has moved for too long.
        """
        for each in self.reactor.getReaders():
            if isinstance(each, tcp.Port):
                # The engine's own patience lasts.
                cast(Any, each.factory).timeOut = None
        self.stall()
        for _ in range(12):
            self.later(SILENT_SECONDS / 3)

        assert 504 == status(self.client.receive_until(bool))
        assert self.stored() is None
        assert 0 == self.process.answers_due

    def test_engine_that_leaves(self) -> None:
        """
        The client hears of it at once.
        """
        for each in self.stall():
            each.abortConnection()

        assert 502 == status(self.client.receive_until(bool))
        assert self.stored() is None

    def test_rest_of_a_refused_body_is_taken_as_it_comes(self) -> None:
        """
        So that the client's connection is not closed while it still sends.
        """
        # So little that it arrives whole.
        self.patch(mover, "FAST_BYTES", 1000)
        self.patch(sending, "LOW_ROUND_TRIP_MICROSECONDS", 10**8)
        self.client.send(self.head(length=100_000_000) + self.body[:100_000])
        self.reactor.settle(100)
        stalled = self.pause_engine()
        connection = self.connection()
        while connection._mover is None or not connection._mover.holds:
            self.client.send(self.body[:100_000])
        assert connection.transport.low_water_mark > 100
        for each in stalled:
            each.abortConnection()
        assert 502 == status(self.client.receive_until(bool))
        assert 0 == self.movers()
        assert 0 == connection.reader.buffered
        self.client.send(b"x" * 100)
        self.later(1)
        self.later(1)

        assert 0 == bytes_unread(connection.transport.socket)

    def test_what_waits_was_received(self) -> None:
        """
        It is counted, though it goes nowhere.
        """
        self.stall()
        connection = self.connection()
        moving = connection._mover
        assert moving is not None
        assert moving._passage is not None
        expected = self.received() + moving._passage.held
        connection.abort()
        self.reactor.settle()

        assert expected == self.received()
        assert 0 == self.movers()

    def test_client_that_leaves_while_the_engine_pauses(self) -> None:
        """
        If all of the value had come, it is stored, in the right order.
        """
        stalled = self.stall()
        self.client.close()
        self.resume(stalled)
        self.wait_for_end()

        assert self.body == self.stored()

    def test_what_is_read_meanwhile_comes_behind_what_waits(self) -> None:
        """
        A transport may read although it was stopped, where its peer is lost.
        """
        stalled = self.stall()
        self.connection().transport.doRead()
        self.resume(stalled)

        assert 201 == status(self.client.receive_until(bool))
        assert self.body == self.stored()

    def test_client_that_sends_no_more_while_the_engine_pauses(self) -> None:
        """
        It has its reply.
        """
        stalled = self.stall()
        self.client.half_close()
        self.resume(stalled)

        assert 201 == status(self.client.receive_until(bool))
        assert self.body == self.stored()

    def test_what_is_behind_the_body_is_the_next_request(self) -> None:
        """
        None of its bytes goes to the engine, whether that takes all at once or not.
        """
        ahead = b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n"
        self.begin()
        self.client.send(self.body[100_000:] + ahead)
        replies = self.client.receive_until(lambda came: came.endswith(self.body))
        assert 201 == status(replies)
        assert 2 == replies.count(b"HTTP/1.1 2")

        stalled = self.stall()
        self.client.send(ahead)
        self.resume(stalled)
        replies = self.client.receive_until(lambda came: came.endswith(self.body))
        assert 204 == status(replies)
        assert 2 == replies.count(b"HTTP/1.1 2")

    def test_client_that_leaves_too_early(self) -> None:
        """
        Nothing is stored, and nothing is left of it.
        """
        opened = Descriptors("pipe:")
        self.begin()
        self.client.send(self.body[100_000:2_000_000])
        assert self.passed > 0
        self.reset()
        self.wait_for_end()

        assert self.stored() is None
        assert set() == self.open
        assert 0 == opened.more
        assert 0 == self.movers()

    def test_client_that_leaves_too_early_while_the_engine_pauses(self) -> None:
        """
        So it is then.
        """
        opened = Descriptors("pipe:")
        body, self.body = self.body, self.body + b"more"
        self.addCleanup(setattr, self, "body", body)
        self.begin()
        stalled = self.pause_engine()
        self.client.send(self.body[100_000:-4])
        self.reset()
        self.resume(stalled)
        self.wait_for_end()

        assert self.stored() is None
        assert set() == self.open
        assert opened.more <= splice.MOST_SPARE * 2
        assert 0 == self.movers()

    def test_client_that_resets_its_connection_while_the_engine_pauses(self) -> None:
        """
        If all of the value had come, it is stored.
        """
        body, self.body = self.body, self.body[:1_160_000]
        self.addCleanup(setattr, self, "body", body)
        stalled = self.stall()
        connection = self.connection()
        assert bytes_unread(connection.transport.socket) > 0
        self.wait_for_arrival()
        self.reset()
        self.later(1)
        assert 1 == len(self.process.connections)
        self.resume(stalled)
        self.wait_for_end()

        assert self.body == self.stored()

    def test_reset_before_the_end_while_the_engine_pauses(self) -> None:
        """
        The upload is given up, although the engine takes no more of it.
        """
        self.patch(splice, "MOST_SPARE", 0)
        opened = Descriptors("pipe:")
        self.leave_too_early(self.reset)
        self.later(1)

        assert set() == self.process.connections
        assert set() == self.open
        assert 0 == self.process.answers_due
        assert 0 == self.movers()
        assert 0 == opened.more
        assert [CLIENT_LEFT] == [each.status for each in self.notes.entries]
        self.assert_none_asks()
        assert self.stored() is None

    def test_half_close_before_the_end_while_the_engine_pauses(self) -> None:
        """
        A client that sends no more may still read, so it is no reset.
        """
        stalled = self.leave_too_early(self.client.half_close)
        self.later(1)
        assert 1 == len(self.process.connections)
        assert self.open
        self.resume(stalled)
        self.wait_for_end()

        assert self.stored() is None
        assert set() == self.open

    def leave_too_early(self, leave: Callable[[], object]) -> list[tcp.Server]:
        """
        Send a value but for its last bytes to an engine that pauses.

        Returns:
            Its connections.
        """
        body, self.body = self.body, self.body + b"more"
        self.begin()
        stalled = self.pause_engine()
        self.client.send(self.body[100_000:-4])
        self.body = body
        mover = self.connection()._mover
        assert mover is not None
        assert mover.holds
        leave()
        return stalled

    def connection(self) -> HttpConnection:
        """
        The client's.
        """
        (connection,) = self.process.connections
        assert isinstance(connection, HttpConnection)
        return connection

    def received(self) -> int:
        """
        How many bytes of clients are counted.
        """
        return int(self.process.row.words[WORDS_OF_REQUESTS.bytes_in])

    def movers(self) -> int:
        """
        How many bodies are on their way.
        """
        assert self.process.pipe is not None
        return self.process.pipe.movers

    def test_what_was_written_before_goes_first(self) -> None:
        """
        The head of the request, and what came with it, while the engine's socket has
        no room for them.
        """
        is_full = True
        send = tcp.Client.writeSomeData

        def send_later(connection: tcp.Client, data: bytes) -> Any:
            if is_full and data.startswith(b"PUT "):
                return 0
            return send(connection, data)

        self.patch(tcp.Client, "writeSomeData", send_later)
        self.begin(30000)
        self.client.send(self.body[30000:])
        self.reactor.settle(100)
        assert 0 == self.passed
        assert self.connection()._mover is not None
        is_full = False
        self.reactor.settle(100)

        assert 201 == status(self.client.receive_until(bool))
        assert self.body == self.stored()
        assert self.passed > 0

    def test_where_there_is_no_further_pipe(self) -> None:
        """
        What the engine's socket does not take is read and written.
        """
        with mock.patch("os.pipe2", side_effect=OSError(errno.EMFILE, "")):
            self.begin()
            stalled = self.pause_engine()
            self.client.send(self.body[100_000:])
            self.resume(stalled)
            reply = self.client.receive_until(bool)

        assert 201 == status(reply)
        assert self.body == self.stored()
        assert self.process.pipe is not None, "later ones are moved again"


class WrittenUploadTests(PausingEngineCase):
    """
    A client resets its connection while the engine takes no more of a value, which is
    read and written.
    """

    framing = b"Content-Length: 1420000\r\n\r\n"
    size = 1_420_000
    first = 1_300_000
    """So much has come when the engine pauses."""
    last = 50_000
    """So much comes after nothing more is taken."""

    def setUp(self) -> None:
        super().setUp()
        self.body = (bytes(range(1, 256)) * (self.size // 255 + 1))[: self.size]
        self.sent = self.framed(self.body)
        self.client.close()
        self.client = self.connect_over_tcp()

    def make_pipe(self) -> Any:
        """
        See `ConnectionCase`.
        """
        return None

    def framed(self, body: bytes) -> bytes:
        """
        The body as it is sent.
        """
        return body

    def stall(self, missing: int = 0, more: bytes = b"") -> list[tcp.Server]:
        """
        Send a value but for its last bytes, to an engine that pauses before, and more
        bytes behind it. All of them come.
        """
        sent = self.sent[: len(self.sent) - missing]
        head = b"PUT /k HTTP/1.1\r\n" + HOST + self.framing
        self.client.send(head + sent[: self.first])
        self.reactor.settle(100)
        stalled = self.pause_engine()
        for each in self.asking:
            # Its socket is full.
            self.patch(each, "writeSomeData", lambda _: 0)
        self.client.send(sent[self.first : -self.last])
        (connection,) = cast(Any, self.process.connections)
        assert connection._state is State.STORE
        self.client.send(sent[-self.last :] + more)
        self.wait_for_arrival()
        return stalled

    def resume(self, paused: list[tcp.Server]) -> None:
        """
        See `PausingEngineCase`.
        """
        for each in self.asking:
            each.__dict__.pop("writeSomeData", None)
        super().resume(paused)

    def test_reset_before_the_end(self) -> None:
        """
        Everything is given up at once.
        """
        self.stall(missing=1)
        self.reset()
        self.later(1)

        assert set() == self.process.connections
        assert set() == self.open
        assert 0 == self.process.answers_due
        assert [CLIENT_LEFT] == [each.status for each in self.notes.entries]
        self.assert_none_asks()
        assert {} == self.memory.uploads
        assert self.stored() is None

    def test_reset_behind_the_end(self) -> None:
        """
        The value is stored, and what the client sent behind it.
        """
        more = b"PUT /more HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n\r\nmore"
        stalled = self.stall(more=more)
        self.reset()
        self.later(1)
        self.later(1)
        assert 1 == len(self.process.connections)
        self.resume(stalled)
        self.wait_for_end()

        assert self.body == self.stored()
        assert b"more" == self.value(b"more")

    def test_half_close_before_the_end(self) -> None:
        """
        A client that sends no more may still read, so it is no reset.
        """
        stalled = self.stall(missing=1)
        self.client.half_close()
        self.later(1)
        assert 1 == len(self.process.connections)
        assert self.open
        self.resume(stalled)
        self.wait_for_end()

        assert self.stored() is None
        assert set() == self.open

    def test_half_close_behind_the_end(self) -> None:
        """
        The client has its reply.
        """
        stalled = self.stall()
        self.client.half_close()
        self.later(1)
        self.resume(stalled)

        assert 201 == status(self.client.receive_until(bool))
        assert self.body == self.stored()


class ChunkedUploadTests(WrittenUploadTests):
    """
    So it is where only the last chunk tells that all of a value has come; the engine
    has a part of it.
    """

    framing = CHUNKED
    size = 2_060_000
    # Of 20 chunks, which are a part.
    first = 20 * 50_008

    def setUp(self) -> None:
        super().setUp()
        self.patch(multipart_upload, "PART_BYTES", 1_000_000)
        # A file each.
        self._count(Part, "__init__", self.open.add)
        self._count(Part, "close", self.open.discard)

    def framed(self, body: bytes) -> bytes:
        """
        See `WrittenUploadTests`.
        """
        size = 50_000
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        return b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces) + (
            b"0\r\n\r\n"
        )

    def test_reset_before_the_end(self) -> None:
        """
        That the last chunk is missing is found out when all before it is read.
        """
        stalled = self.stall(missing=1)
        self.reset()
        self.later(1)
        self.resume(stalled)
        self.wait_for_end()

        assert set() == self.open
        assert 0 == self.process.answers_due
        assert {} == self.memory.uploads
        assert self.stored() is None


class TLSUploadTests(TLSCase, WrittenUploadTests):
    """
    So it is over TLS.
    """


class TLSChunkedUploadTests(TLSCase, ChunkedUploadTests):
    """
    So it is over TLS in chunks.
    """


class Refusing(Protocol):
    """
    An engine that refuses an upload in the middle.
    """

    came = 0

    def dataReceived(self, data: bytes) -> None:
        before, self.came = self.came, self.came + len(data)
        if before <= 1_000_000 < self.came:
            assert self.transport is not None
            reply = b"HTTP/1.1 507 Insufficient Storage\r\nContent-Length: 0\r\n\r\n"
            self.transport.write(reply)


class RefusedUploadTests(OverEngine, ConnectionCase):
    """
    An engine answers before it has a value that is passed on to it.
    """

    def serve(self, engine: memory_engine.MemoryEngine) -> str:
        """
        See `EngineCase`.
        """
        factory = Factory.forProtocol(Refusing)
        factory.noisy = False
        return self.listen(factory)

    def test_client_hears_why(self) -> None:
        """
        And what it sends afterwards goes to nobody.
        """
        size = 8_000_000
        head = b"PUT /k HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n" % (HOST, size)
        self.client.send(head + bytes(100_000))
        self.reactor.settle(100)
        with contextlib.suppress(ConnectionError):
            for _ in range(40):
                self.client.send(bytes(100_000))

        assert 507 == status(self.client.receive_until(bool))
        assert 0 == self.process.answers_due
        assert self.process.pipe is not None
        assert 0 == self.process.pipe.movers


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


class TLSResetTests(TLSCase, ResetTests):
    """
    A reset over TLS.
    """


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
