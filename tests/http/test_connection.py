"""
Tests for `kvd.http.connection`, `kvd.http.request` and `kvd.http.methods`: what a
client sees of a connection, whatever the store.
"""

import errno
import fcntl
import hashlib
import json
import re
import socket
import struct
import termios
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import TypeVar
from unittest import mock

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kvd.errors import KeyAbsent, StoreFull
from kvd.http.access_log import Entry
from kvd.http.connection import HttpConnection
from kvd.http.context import ProcessContext
from kvd.http.dialects.choice import Dialects
from kvd.http.host_guard import HostGuard
from kvd.http.recorder import Recorder
from kvd.http.timeouts import LINGER_SILENT_SECONDS
from kvd.http.value_source import CHUNK_BYTES
from kvd.interfaces import Answer
from kvd.log.buffered import FLUSH_SECONDS
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.net.sending import LOW_ROUND_TRIP_SEND_BUFFER
from kvd.net.splice import Pipe
from kvd.net.transport import HEAD_BYTES, ServerTransport, serve_connection
from kvd.settings import DialectChoice, Limits, TCPAddress
from kvd.testing import MemoryStore
from kvd.workers.http_server import FRESH_SECONDS
from tests.http.fast_path.cases import without_date
from tests.stepped import Client, SteppedReactor, connect, inline

T = TypeVar("T")

LIMITS = Limits(head_seconds=10, body_seconds=60, reader_seconds=60, idle_seconds=600)


class Notes:
    """
    A log of requests that remembers.
    """

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self.collect: Callable[[], None] = lambda: None

    @property
    def entries(self) -> list[Entry]:
        """
        All of them, also those that are still to be collected.
        """
        self.collect()
        return self._entries

    def note(self, entry: Entry) -> None:
        """
        Take one entry.
        """
        self.entries.append(entry)

    def note_all(self, entries: Sequence[Entry]) -> None:
        """
        Take those that were collected.
        """
        self._entries.extend(entries)

    def expect(self) -> None:
        """
        There is something to collect.
        """


class ConnectionCase(SynchronousTestCase):
    """
    A connection over a store in memory.
    """

    limits = LIMITS
    dialects: tuple[DialectChoice, ...] = ()
    over_tcp = False

    def setUp(self) -> None:
        self.reactor = self.make_reactor()
        self.addCleanup(self.reactor.dispose)
        self.store = self.make_store()
        self.notes = Notes()
        self.process = ProcessContext(
            self.store,
            Dialects(self.dialects),
            self.limits,
            self.reactor,
            self.notes,
            row=self.reactor.row,
            pipe=self.make_pipe(),
        )
        self.client = self.connect()

    def make_reactor(self) -> SteppedReactor:
        """
        What all run in.
        """
        return SteppedReactor()

    def make_store(self) -> MemoryStore:
        """
        What is stored in.
        """
        return MemoryStore()

    def make_pipe(self) -> Pipe | None:
        """
        What bodies are moved through, if they are.
        """
        return None

    def connect(self) -> Client:
        """
        One more client.
        """
        client = connect(self.reactor, HttpConnection(self.process), self.over_tcp)
        self.addCleanup(client.socket.close)
        return client

    def connect_over_tcp(self, window: int | None = None) -> Client:
        """
        One more client.

        Args:
            window: How much it takes before it reads; None: as is usual.
        """
        client = connect(self.reactor, HttpConnection(self.process), True, window)
        self.addCleanup(client.socket.close)
        return client

    def later(self, seconds: float) -> None:
        """
        Let time pass, and the connections notice.
        """
        self.reactor.advance(seconds)
        for connection in list(self.process.connections):
            connection.check_time(self.reactor.seconds())
        self.reactor.settle()

    def put(self, key: bytes, value: bytes) -> str:
        """
        Store a value behind the protocol's back; its entity tag.
        """
        upload = self.finish(self.store.begin(Key(key), len(value)))
        self.finish(upload.write(value))
        return self.finish(upload.commit(UNCONDITIONAL)).info.etag

    def value(self, key: bytes) -> bytes:
        """
        What is stored under a key.
        """
        value = self.finish(self.store.open(Key(key)))
        return self.finish(value.read(0, value.info.size)) if value.info.size else b""

    def finish(self, answer: Answer[T]) -> T:
        """
        An answer of the store.
        """
        assert not isinstance(answer, Deferred)
        return answer

    def keys(self) -> list[bytes]:
        """
        The keys that have values.
        """
        return list(self.store.values)

    def uploads(self) -> int:
        """
        How many uploads have begun and not ended.
        """
        return self.store.uploads

    def ask(self, request: bytes) -> bytes:
        """
        Send bytes, and give back what comes.
        """
        return self.client.send(request).receive()


def status(reply: bytes) -> int:
    """
    The status of the first reply.
    """
    matched = re.match(rb"HTTP/1\.1 (\d{3}) ", reply)
    assert matched, reply[:200]
    return int(matched[1])


def field(reply: bytes, name: bytes) -> bytes | None:
    """
    A field of the first reply's head.
    """
    head = reply.partition(b"\r\n\r\n")[0]
    matched = re.search(rb"(?im)^" + name + rb": ([^\r]*)", head)
    return matched[1] if matched else None


def body(reply: bytes) -> bytes:
    """
    What stands behind the first reply's head.
    """
    return reply.partition(b"\r\n\r\n")[2]


def detail(reply: bytes) -> str:
    """
    The sentence of a refusal.
    """
    assert b"application/problem+json" == field(reply, b"Content-Type")
    problem = json.loads(body(reply))
    assert status(reply) == problem["status"]
    return str(problem["detail"])


HOST = b"Host: kvd\r\n"
CLOSED = b"close"
HELLO_IN_CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
IN_SHA256 = b64encode(hashlib.sha256(b"hello").digest())
IN_SHA512 = b64encode(hashlib.sha512(b"hello").digest())
DIGESTS_OF_HELLO = [
    b"Content-MD5: XUFAKrxLKna5cZ2REBfFkg==",
    b"Content-Digest: sha-256=:" + IN_SHA256 + b":",
    b"Repr-Digest: crc32c=:AAAA:, sha-512=:" + IN_SHA512 + b":",
    b"Content-Digest: sha-256=:%b:\r\nRepr-Digest: sha-256=:%b:"
    % (IN_SHA256, IN_SHA256),
]


class PutTests(ConnectionCase):
    """
    PUT stores the body.
    """

    def test_a_new_key_is_created(self) -> None:
        """
        201 with an entity tag, and the durability it was stored with.
        """
        reply = self.ask(
            b"PUT /a/b HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello"
        )

        assert 201 == status(reply)
        assert field(reply, b"ETag") is not None
        assert self.store.durability.encode() == field(reply, b"Kvd-Durability")
        assert field(reply, b"Date") is not None
        assert b"hello" == self.value(b"a/b")

    def test_a_stored_key_is_replaced(self) -> None:
        """
        204 with another entity tag.
        """
        etag = self.put(b"k", b"old")
        reply = self.ask(
            b"PUT /k HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nnew"
        )

        assert 204 == status(reply)
        assert f'"{etag}"'.encode() != field(reply, b"ETag")
        assert b"new" == self.value(b"k")

    def test_an_empty_value_is_a_value(self) -> None:
        """
        A length of 0 stores an empty value.
        """
        reply = self.ask(b"PUT /k HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n")

        assert 201 == status(reply)
        assert b"" == self.value(b"k")

    def test_chunks_make_a_value(self) -> None:
        """
        A chunked body needs no length; trailers are read past.
        """
        reply = self.ask(
            b"PUT /k HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nETag: nonsense\r\n\r\n"
        )

        assert 201 == status(reply)
        assert b"hello world" == self.value(b"k")

    def test_a_body_cut_at_every_byte_arrives_whole(self) -> None:
        """
        However the network cuts a request, the value is the same.
        """
        request = b"PUT /k HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello"
        for cut in range(1, len(request)):
            self.client.send(request[:cut])
            assert status(self.ask(request[cut:])) in (201, 204)
            assert b"hello" == self.value(b"k")

    def test_neither_length_nor_chunks_is_refused(self) -> None:
        """
        411, and nothing is stored.
        """
        reply = self.ask(b"PUT /k HTTP/1.1\r\n" + HOST + b"\r\n")

        assert 411 == status(reply)
        assert "Content-Length" in detail(reply)

    def test_a_part_is_not_taken_for_the_whole(self) -> None:
        """
        PUT with Content-Range is refused (RFC 9110 section 14.4).
        """
        reply = self.ask(
            b"PUT /k HTTP/1.1\r\n" + HOST + b"Content-Range: bytes 0-4/9\r\n"
            b"Content-Length: 5\r\n\r\nhello"
        )

        assert 400 == status(reply)

    def test_what_kvd_does_not_speak_stores_nothing(self) -> None:
        """
        And leaves what is stored; the reply comes before the body.
        """
        self.put(b"k", b"old")
        table = [
            (b"/k", b"Content-Encoding: gzip, aws-chunked", 415),
            (b"/k", b"x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER", 415),
            (b"/k", b"x-amz-copy-source: /bucket/other", 501),
            (b"/k", b"Destination: http://kvd/other", 501),
            (b"/k?uploadId=x&partNumber=1", b"A: b", 501),
            (b"/k?acl", b"A: b", 501),
            (b"/k", b"Content-MD5: x", 400),
            (b"/k", b"Content-Digest: sha-256=abc", 400),
            (b"/k", b"Repr-Digest: sha-256=:AAAA:", 400),
        ]
        for target, line, expected in table:
            client = self.connect()
            head = b"PUT " + target + b" HTTP/1.1\r\n" + HOST + line
            reply = client.send(
                head + b"\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
            ).receive()
            assert (line, expected) == (line, status(reply))
            assert detail(reply)
            assert b"old" == self.value(b"k")
        assert [b"k"] == self.keys()
        assert 0 == self.uploads()

    def test_a_digest_that_matches_stores_the_value(self) -> None:
        """
        Whichever field brings it, with a length and in chunks.
        """
        for number, line in enumerate(DIGESTS_OF_HELLO):
            for framed in (b"Content-Length: 5\r\n\r\nhello", HELLO_IN_CHUNKS):
                key = b"k%d" % number
                head = b"PUT /" + key + b" HTTP/1.1\r\n" + HOST + line + b"\r\n"
                assert status(self.ask(head + framed)) in (201, 204)
                assert b"hello" == self.value(key)

    def test_a_digest_of_another_body_stores_nothing(self) -> None:
        """
        The old value stays, and so does the connection.
        """
        self.put(b"k", b"old")
        chunks = HELLO_IN_CHUNKS.replace(b"lo", b"l0")
        for line in DIGESTS_OF_HELLO:
            for framed in (
                b"Content-Length: 5\r\n\r\nhell0",
                b"Content-Length: 0\r\n\r\n",
                chunks,
            ):
                for key in (b"k", b"new"):
                    head = b"PUT /" + key + b" HTTP/1.1\r\n" + HOST + line + b"\r\n"
                    reply = self.ask(head + framed)
                    assert (line, 400) == (line, status(reply))
                    assert "nothing is stored" in detail(reply)
        assert b"old" == self.value(b"k")
        assert [b"k"] == self.keys()
        assert 0 == self.uploads()
        assert b"old" == body(self.ask(b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n"))

    def test_a_folder_of_keys_is_no_key(self) -> None:
        """
        409 both ways, before the body is taken.
        """
        self.put(b"a/b", b"1")
        for key in (b"a", b"a/b/c"):
            reply = self.ask(
                b"PUT /" + key + b" HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\nx"
            )
            assert 409 == status(reply)

    def test_a_key_that_ends_with_a_slash_is_refused(self) -> None:
        """
        That is a listing's name.
        """
        for method in (b"PUT", b"DELETE"):
            reply = self.ask(
                method + b" /a/ HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\nx"
            )
            assert 400 == status(reply)

    def test_a_client_that_waits_gets_100(self) -> None:
        """
        100 comes when nothing forbids the body, and only then.
        """
        head = b"PUT /k HTTP/1.1\r\n" + HOST
        expect = b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        assert b"HTTP/1.1 100 Continue\r\n\r\n" == self.ask(head + expect)
        assert 201 == status(self.ask(b"hello"))
        assert b"hello" == self.value(b"k")

        refused = self.ask(head + b"If-None-Match: *\r\n" + expect)
        assert 412 == status(refused)
        assert CLOSED == field(refused, b"Connection")

    def test_create_once(self) -> None:
        """
        If-None-Match: * refuses when there is a value, which stays.
        """
        request = (
            b"PUT /k HTTP/1.1\r\n" + HOST + b"If-None-Match: *\r\n"
            b"Content-Length: 1\r\n\r\n"
        )
        assert 201 == status(self.ask(request + b"1"))
        assert 412 == status(self.ask(request + b"2"))
        assert b"1" == self.value(b"k")

    def test_compare_and_swap(self) -> None:
        """
        If-Match lets through only who knows the present value.
        """
        etag = self.put(b"k", b"1").encode()

        def swap(expected: bytes) -> bytes:
            return self.ask(
                b"PUT /k HTTP/1.1\r\n" + HOST + b'If-Match: "' + expected + b'"\r\n'
                b"Content-Length: 1\r\n\r\n2"
            )

        assert 412 == status(swap(b"other"))
        assert b"1" == self.value(b"k")
        assert 204 == status(swap(etag))
        assert b"2" == self.value(b"k")
        assert 412 == status(swap(etag))

    def test_a_client_that_vanishes_leaves_the_old_value(self) -> None:
        """
        The upload is gone, the value is untouched, and the log knows.
        """
        self.put(b"k", b"old")
        self.client.send(
            b"PUT /k HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\nnew"
        )
        assert 1 == self.uploads()
        self.client.close()

        assert 0 == self.uploads()
        assert b"old" == self.value(b"k")
        assert [499] == [entry.status for entry in self.notes.entries]

    def test_a_body_that_ends_early_is_discarded(self) -> None:
        """
        A client that closes its half before the body's end gets no value.
        """
        self.client.send(
            b"PUT /k HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\nnew"
        )
        self.client.half_close()

        assert b"" == self.client.receive()
        assert self.client.ended
        assert 0 == self.uploads()

    def test_what_follows_a_body_is_the_next_request(self) -> None:
        """
        A body longer than its length is not part of the value.
        """
        reply = self.ask(
            b"PUT /k HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabcdef\r\n\r\n"
        )

        assert b"abc" == self.value(b"k")
        assert b"HTTP/1.1 400 " in reply
        assert self.client.ended

    def test_metadata_is_kept(self) -> None:
        """
        And given back with the value, or a part of it; with a 304, what tells how long
        it is fresh (RFC 9110 section 15.4.5).
        """
        fresh = b"Cache-Control: max-age=60\r\nExpires: 0\r\n"
        others = (
            b'Content-Type: text/plain\r\nContent-Disposition: inline; filename="a b"'
            b"\r\nContent-Encoding: br\r\nContent-Language: de\r\n"
        )
        line = b"PUT /k HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n"
        self.ask(line + others + fresh + b"\r\nhi")

        for method, more, expected in (
            (b"GET", b"", 200),
            (b"HEAD", b"", 200),
            (b"GET", b"Range: bytes=0-0\r\n", 206),
            (b"GET", b"If-None-Match: *\r\n", 304),
        ):
            reply = self.ask(method + b" /k HTTP/1.1\r\n" + HOST + more + b"\r\n")
            assert expected == status(reply)
            for line in (fresh if expected == 304 else fresh + others).splitlines():
                name, _, value = line.partition(b": ")
                assert (name, value) == (name, field(reply, name))
        assert None is field(reply, b"Content-Type")

    def test_an_empty_type_is_none(self) -> None:
        """
        So nobody guesses.
        """
        self.ask(
            b"PUT /k HTTP/1.1\r\n"
            + HOST
            + b"Content-Length: 2\r\nContent-Type:\r\nContent-Encoding: \r\n\r\nhi"
        )
        reply = self.ask(b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n")

        assert b"application/octet-stream" == field(reply, b"Content-Type")
        assert None is field(reply, b"Content-Encoding")
        assert b"hi" == body(reply)


class SmallLimitsTests(ConnectionCase):
    """
    A value has at most so many bytes.
    """

    limits = Limits(value_bytes=4)

    def test_a_long_value_is_refused_before_its_body(self) -> None:
        """
        413, with the limit in the sentence.
        """
        reply = self.ask(b"PUT /k HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\n")

        assert 413 == status(reply)
        assert "4 bytes" in detail(reply)

    def test_chunks_are_counted(self) -> None:
        """
        A chunked body is cut off where it exceeds the limit.
        """
        reply = self.ask(
            b"PUT /k HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n3\r\ndef\r\n"
        )

        assert 413 == status(reply)
        assert 0 == self.uploads()


class GetTests(ConnectionCase):
    """
    GET and HEAD give a value back.
    """

    def test_a_value_comes_back(self) -> None:
        """
        With everything that describes it.
        """
        etag = self.put(b"k", b"hello")
        reply = self.ask(b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n")

        assert 200 == status(reply)
        assert b"5" == field(reply, b"Content-Length")
        assert b"bytes" == field(reply, b"Accept-Ranges")
        assert f'"{etag}"'.encode() == field(reply, b"ETag")
        assert b"application/octet-stream" == field(reply, b"Content-Type")
        assert field(reply, b"Last-Modified") is not None
        assert b"hello" == body(reply)

    def test_head_says_the_same_without_the_body(self) -> None:
        """
        Every field of GET, and nothing behind them.
        """
        self.put(b"k", b"hello")
        got = self.ask(b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n")
        head = self.ask(b"HEAD /k HTTP/1.1\r\n" + HOST + b"\r\n")

        assert b"hello" == body(got)
        assert without_date(got).removesuffix(b"hello") == without_date(head)

    def test_a_large_value_comes_piece_by_piece(self) -> None:
        """
        Whole, and the connection goes on.
        """
        large = bytes(range(256)) * 20_000
        self.put(b"k", large)
        assert large == body(self.ask(b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n"))
        assert 200 == status(self.ask(b"HEAD /k HTTP/1.1\r\n" + HOST + b"\r\n"))

    def test_a_value_replaced_meanwhile_is_not_mixed(self) -> None:
        """
        What was opened is what is sent.
        """
        large = b"a" * 5_000_000
        self.put(b"k", large)
        self.client.send(b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n")
        self.put(b"k", b"b" * 5_000_000)

        assert large == body(self.client.receive())

    def test_absent_is_404_with_a_length(self) -> None:
        """
        Bazel, for one, wants a length with a 404.
        """
        reply = self.ask(b"GET /none HTTP/1.1\r\n" + HOST + b"\r\n")

        assert 404 == status(reply)
        assert str(len(body(reply))).encode() == field(reply, b"Content-Length")

    def test_parts_of_a_value(self) -> None:
        """
        One range, also from the end; several that are close to each other are one.
        """
        self.put(b"k", b"0123456789")
        table: list[tuple[bytes, int, bytes, bytes | None]] = [
            (b"bytes=2-4", 206, b"234", b"bytes 2-4/10"),
            (b"bytes=7-", 206, b"789", b"bytes 7-9/10"),
            (b"bytes=-2", 206, b"89", b"bytes 8-9/10"),
            (b"bytes=5-99", 206, b"56789", b"bytes 5-9/10"),
            (b"bytes=2-3,0-0", 206, b"0123", b"bytes 0-3/10"),
            (b"bytes=2-3,5-4", 200, b"0123456789", None),
            (b"lines=1-2", 200, b"0123456789", None),
        ]
        for asked, expected, part, content_range in table:
            reply = self.ask(
                b"GET /k HTTP/1.1\r\n" + HOST + b"Range: " + asked + b"\r\n\r\n"
            )
            assert expected == status(reply)
            assert part == body(reply)
            assert content_range == field(reply, b"Content-Range")

    def test_a_range_behind_the_end_is_416(self) -> None:
        """
        With the size, so that the client can ask again.
        """
        self.put(b"k", b"0123456789")
        reply = self.ask(b"GET /k HTTP/1.1\r\n" + HOST + b"Range: bytes=10-\r\n\r\n")

        assert 416 == status(reply)
        assert b"bytes */10" == field(reply, b"Content-Range")

    def test_a_client_that_has_it_gets_304(self) -> None:
        """
        Without a body, with the entity tag.
        """
        etag = self.put(b"k", b"hello").encode()
        reply = self.ask(
            b"GET /k HTTP/1.1\r\n" + HOST + b'If-None-Match: "' + etag + b'"\r\n\r\n'
        )

        assert 304 == status(reply)
        assert b'"' + etag + b'"' == field(reply, b"ETag")
        assert b"" == body(reply)

    def test_a_body_on_get_is_read_past(self) -> None:
        """
        Also a chunked and an empty chunked one; the next request is served.
        """
        self.put(b"k", b"v")
        bodies = [
            b"Content-Length: 3\r\n\r\nabc",
            b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ]
        for rest in bodies:
            assert b"v" == body(self.ask(b"GET /k HTTP/1.1\r\n" + HOST + rest))

    def test_a_slow_reader_costs_no_memory(self) -> None:
        """
        Only a piece of the value waits for the socket.
        """
        self.put(b"k", b"x" * 20_000_000)
        self.client.send(b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n")
        self.reactor.settle(200)
        (connection,) = self.process.connections
        transport = connection.transport
        waiting = len(transport.dataBuffer) + transport._tempDataLen

        assert [] == self.notes.entries, "the value fits into the socket's buffer"
        assert waiting <= 64 * 1024

    def test_a_date_chooses_no_part(self) -> None:
        """
        Two values of one second have one date: their parts are never joined.
        """
        self.put(b"k", b"AAAAAAAAAA")
        ask = b"GET /k HTTP/1.1\r\n" + HOST
        date = field(self.ask(ask + b"\r\n"), b"Last-Modified")
        assert date is not None
        self.put(b"k", b"BBBBBBBBBB")
        reply = self.ask(ask + b"Range: bytes=5-\r\nIf-Range: " + date + b"\r\n\r\n")

        assert 200 == status(reply)
        assert b"BBBBBBBBBB" == body(reply)

    def test_a_date_of_no_zone_is_no_condition(self) -> None:
        """
        Nor is one of another zone (RFC 9110 section 13.1.3).
        """
        self.put(b"k", b"v")
        for zone in (b"", b" +0000", b" EST", b" UTC"):
            reply = self.ask(
                b"GET /k HTTP/1.1\r\n"
                + HOST
                + b"If-Modified-Since: Fri, 01 Jan 2999 00:00:00"
                + zone
                + b"\r\nIf-Unmodified-Since: Thu, 01 Jan 1970 00:00:00"
                + zone
                + b"\r\n\r\n"
            )
            assert (zone, 200) == (zone, status(reply))


class GuardedTests(ConnectionCase):
    """
    At a loopback address, only who means this machine is answered.
    """

    over_tcp = True

    def setUp(self) -> None:
        super().setUp()
        self.put(b"k", b"value")
        (connection,) = self.process.connections
        self.process.guard = HostGuard(
            [TCPAddress(*connection.transport.socket.getsockname())], ["kvd"]
        )

    def ask_for(self, host: bytes, line: bytes, rest: bytes = b"\r\n") -> bytes:
        """
        A request with a ``Host``.
        """
        return self.ask(line + b" HTTP/1.1\r\nHost: " + host + b"\r\n" + rest)

    def test_names_of_others_are_misdirected(self) -> None:
        """
        Whatever is asked, nothing is revealed or done; the connection goes on.
        """
        for line, rest in (
            (b"GET /k", b"\r\n"),
            (b"GET /", b"\r\n"),
            (b"DELETE /k", b"\r\n"),
            (b"OPTIONS *", b"\r\n"),
            (b"PUT /k", b"Content-Length: 3\r\n\r\nnew"),
            (b"PUT /new", b"Content-Length: 3\r\n\r\nnew"),
            (b"GET http://evil.example/k", b"\r\n"),
        ):
            reply = self.ask_for(b"evil.example", line, rest)
            assert (line, 421) == (line, status(reply))
            assert "evil.example" in detail(reply)
            assert b"value" == self.value(b"k")
            assert [b"k"] == self.keys()
        for line in (b"GET /k", b"GET http://localhost:1/k"):
            assert b"value" == body(self.ask_for(b"localhost", line))

    def test_a_whole_url_names_the_host(self) -> None:
        """
        Whatever ``Host`` says.
        """
        evil, good = b"GET http://evil.example/k", b"GET http://localhost/k"

        assert 421 == status(self.ask_for(b"localhost", evil))
        assert b"value" == body(self.ask_for(b"evil.example", good))

    def test_no_body_is_asked_for(self) -> None:
        """
        The refusal comes instead of 100.
        """
        more = b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"

        assert 421 == status(self.ask_for(b"evil.example", b"PUT /k", more))

    def test_this_machine_and_what_is_allowed_are_answered(self) -> None:
        """
        As is who names nobody.
        """
        for host in (b"localhost:1", b"127.0.0.1", b"[::1]:8080", b"kvd", b"KVD:80"):
            assert b"value" == body(self.ask_for(host, b"GET /k"))
        assert b"value" == body(self.ask(b"GET /k HTTP/1.0\r\n\r\n"))

    def test_at_other_addresses_all_are_answered(self) -> None:
        """
        A connection belongs to the address that it came to.
        """
        self.over_tcp = False
        self.client = self.connect()

        assert b"value" == body(self.ask_for(b"evil.example", b"GET /k"))


class NoSniffingTests(ConnectionCase):
    """
    Browsers must believe what a reply says that its body is.
    """

    def test_all_replies_with_a_body_say_so(self) -> None:
        """
        Values, their parts, listings, pages of them, and refusals.
        """
        self.put(b"k", b"value")
        self.put(b"empty", b"")
        self.put(b"large", bytes(CHUNK_BYTES + 1))
        table = [
            (b"GET /k", b"", 200),
            (b"HEAD /k", b"", 200),
            (b"GET /empty", b"", 200),
            (b"GET /large", b"", 200),
            (b"GET /k", b"Range: bytes=1-2\r\n", 206),
            (b"GET /k", b"Range: bytes=9-\r\n", 416),
            (b"GET /", b"", 200),
            (b"HEAD /", b"", 200),
            (b"GET /?limit=1", b"", 200),
            (b"GET /?limit=0", b"", 400),
            (b"GET /none", b"", 404),
            (b"POST /k", b"", 405),
            (b"PUT /k", b"", 411),
            (b"BREW /k", b"", 501),
            (b"GET /k", b"", 200),
        ]
        for line, fields, expected in table:
            if self.client.ended:
                self.client = self.connect()
            reply = self.ask(line + b" HTTP/1.1\r\n" + HOST + fields + b"\r\n")
            assert (line, expected) == (line, status(reply))
            assert (line, b"nosniff") == (line, field(reply, b"X-Content-Type-Options"))


class DeleteTests(ConnectionCase):
    """
    DELETE removes a value.
    """

    def test_a_value_is_removed(self) -> None:
        """
        204, then 404.
        """
        self.put(b"k", b"v")
        first = self.ask(b"DELETE /k HTTP/1.1\r\n" + HOST + b"\r\n")

        assert 204 == status(first)
        assert field(first, b"Kvd-Durability") is not None
        assert 404 == status(self.ask(b"DELETE /k HTTP/1.1\r\n" + HOST + b"\r\n"))

    def test_only_the_expected_value_is_removed(self) -> None:
        """
        If-Match protects another one.
        """
        self.put(b"k", b"v")
        reply = self.ask(
            b"DELETE /k HTTP/1.1\r\n" + HOST + b'If-Match: "other"\r\n\r\n'
        )

        assert 412 == status(reply)
        assert b"v" == self.value(b"k")


class ListTests(ConnectionCase):
    """
    GET of a prefix lists keys.
    """

    def lines(self, target: bytes) -> list[dict[str, object]]:
        """
        A listing, as a client in HTTP/1.0 sees it.
        """
        client = self.connect()
        client.send(b"GET " + target + b" HTTP/1.0\r\n\r\n")
        return [json.loads(line) for line in body(client.receive()).splitlines()]

    def test_all_keys_are_listed(self) -> None:
        """
        With size, entity tag and time; keys are percent-encoded.
        """
        etag = self.put(b"a/\xff b", b"12345")
        (line,) = self.lines(b"/")

        assert ("a/%FF%20b", 5, f'"{etag}"') == (
            line["key"],
            line["size"],
            line["etag"],
        )
        assert re.fullmatch(
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(line["changed"])
        )

    def test_a_prefix_narrows(self) -> None:
        """
        Only keys below it; an absent one lists nothing.
        """
        for key in (b"a/1", b"a/2", b"b/1"):
            self.put(key, b"")

        assert {"a/1", "a/2"} == {line["key"] for line in self.lines(b"/a/")}
        assert [] == self.lines(b"/none/")

    def test_the_stream_is_chunked_for_whoever_knows_chunks(self) -> None:
        """
        So the connection goes on after a listing of unknown length.
        """
        self.put(b"a", b"")
        reply = self.ask(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")

        assert b"chunked" == field(reply, b"Transfer-Encoding")
        assert reply.endswith(b"\r\n0\r\n\r\n")
        assert 200 == status(self.ask(b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n"))

    def test_pages_follow_each_other(self) -> None:
        """
        In the order of the keys' bytes, each naming the next.
        """
        keys = [b"a-b", b"a/b", b"ab", b"b"]
        for key in keys:
            self.put(key, b"")
        target: bytes | None = b"/?limit=2"
        seen: list[str] = []
        while target:
            reply = self.ask(b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")
            assert b"application/x-ndjson" == field(reply, b"Content-Type")
            seen += [json.loads(line)["key"] for line in body(reply).splitlines()]
            link = field(reply, b"Link")
            target = link and link[1 : link.index(b">")]

        assert [key.decode() for key in keys] == seen

    def test_head_of_a_listing_has_no_body(self) -> None:
        """
        And no length, which nobody knows.
        """
        self.put(b"a", b"")
        reply = self.ask(b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n")

        assert 200 == status(reply)
        assert b"" == body(reply)
        assert field(reply, b"Content-Length") is None

    def test_a_limit_out_of_bounds_is_refused(self) -> None:
        """
        400 with what would be right.
        """
        reply = self.ask(b"GET /?limit=1001 HTTP/1.1\r\n" + HOST + b"\r\n")

        assert 400 == status(reply)
        assert "1000" in detail(reply).replace(",", "")


class MethodTests(ConnectionCase):
    """
    Other methods.
    """

    def test_options_names_what_is_allowed(self) -> None:
        """
        For a key and for the server as a whole.
        """
        for target in (b"/k", b"*"):
            reply = self.ask(b"OPTIONS " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")
            assert 204 == status(reply)
            assert b"GET, HEAD, PUT, DELETE, OPTIONS" == field(reply, b"Allow")

    def test_a_known_method_is_not_allowed(self) -> None:
        """
        405 says what is.
        """
        reply = self.ask(b"POST /k HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n")

        assert 405 == status(reply)
        assert b"GET, HEAD, PUT, DELETE, OPTIONS" == field(reply, b"Allow")

    def test_an_unknown_method_is_not_implemented(self) -> None:
        """
        501.
        """
        assert 501 == status(self.ask(b"BREW /k HTTP/1.1\r\n" + HOST + b"\r\n"))


def await_delivery(sock: socket.socket) -> None:
    """
    Until all that was sent is with its reader, where a reset leaves it (SIOCOUTQ).
    """
    end = time.monotonic() + 30
    while struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]:
        assert time.monotonic() < end, "there is no room for it"
        time.sleep(0.001)


class ConnectionTests(ConnectionCase):
    """
    What happens between requests.
    """

    requests_ahead = 1000

    def test_pipelined_requests_are_answered_in_order(self) -> None:
        """
        Many in one piece, some with bodies.
        """
        request = b""
        for number in range(50):
            request += (
                b"PUT /%d HTTP/1.1\r\n" % number
                + HOST
                + b"Content-Length: 3\r\n\r\nabc"
            )
            request += b"GET /%d HTTP/1.1\r\n" % number + HOST + b"\r\n"
        reply = self.ask(request)

        assert [b"201", b"200"] * 50 == re.findall(rb"HTTP/1.1 (\d+) ", reply)

    def test_a_client_that_sends_ahead_and_never_reads_is_stopped(self) -> None:
        """
        Requests behind an unread reply wait in the socket, not in memory.
        """
        self.put(b"k", b"x" * 60_000)
        request = b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n"
        self.client.socket.send(request * self.requests_ahead)
        self.reactor.settle(100)
        (connection,) = self.process.connections
        transport = connection.transport

        assert len(transport.dataBuffer) + transport._tempDataLen <= 128 * 1024
        assert self.requests_ahead * 60_000 < len(self.client.receive())

    def test_http_10_closes_unless_asked_to_stay(self) -> None:
        """
        And says so when it stays.
        """
        self.put(b"k", b"v")
        reply = self.ask(b"GET /k HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert b"keep-alive" == field(reply, b"Connection")

        self.ask(b"GET /k HTTP/1.0\r\n\r\n")
        assert self.client.ended

    def test_a_close_that_was_asked_for_is_announced(self) -> None:
        """
        And done.
        """
        reply = self.ask(b"GET /k HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")

        assert CLOSED == field(reply, b"Connection")
        assert self.client.ended

    def test_a_client_that_closes_its_half_still_gets_its_replies(self) -> None:
        """
        A client may send all it has, close its half, and then read.
        """
        self.put(b"k", b"v" * 3_000_000)
        self.client.send((b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n") * 2)
        self.client.half_close()
        reply = self.client.receive_until(lambda _: False)

        assert 2 == reply.count(b"HTTP/1.1 200 ")
        assert self.client.ended
        assert set() == self.process.connections

    def test_bytes_that_are_no_http_are_answered_and_closed(self) -> None:
        """
        Our half is closed first, so that a reset does not overtake the reply.
        """
        reply = self.ask(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")

        assert 400 == status(reply)
        assert CLOSED == field(reply, b"Connection")
        assert self.client.ended
        assert not self.client.reset
        assert 1 == len(self.process.connections)
        self.client.close()
        assert set() == self.process.connections

    def test_a_short_refused_body_is_read_past(self) -> None:
        """
        The connection goes on, and no byte of the body is taken for a request.
        """
        smuggled = b"DELETE /k HTTP/1.1\r\nHost: kvd\r\n\r\n"
        self.put(b"k", b"v")
        reply = self.ask(
            b"PUT /a//b HTTP/1.1\r\n"
            + HOST
            + b"Content-Length: %d\r\n\r\n" % len(smuggled)
            + smuggled
        )

        assert [b"400"] == re.findall(rb"HTTP/1.1 (\d+) ", reply)
        assert field(reply, b"Connection") is None
        assert b"v" == body(self.ask(b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n"))

    def test_a_long_refused_body_ends_the_connection(self) -> None:
        """
        With notice, and read past for a while.
        """
        reply = self.ask(
            b"PUT /a//b HTTP/1.1\r\n" + HOST + b"Content-Length: 9000000\r\n\r\nabc"
        )
        assert 400 == status(reply)
        assert CLOSED == field(reply, b"Connection")

        self.client.send(b"more" * 1000)
        assert self.client.ended
        assert not self.client.reset
        self.later(1)
        assert 1 == len(self.process.connections)
        self.later(LINGER_SILENT_SECONDS)
        assert set() == self.process.connections

    def test_a_client_that_reads_slowly_is_not_reset(self) -> None:
        """
        All of the reply is with the client's kernel, some of which drop what a program
        has not read yet when a reset comes.
        """
        value = bytes(20_000)
        self.put(b"k", value)
        others = set(self.process.connections)
        client = self.connect_over_tcp()
        # What comes is acknowledged at once, and not some milliseconds later.
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        client.send(
            b"GET /k HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n" + b"more"
        )
        (connection,) = self.process.connections - others
        while not connection.transport.is_delivered():
            # The kernel acknowledges when it likes.
            time.sleep(0.001)
        self.later(0)
        self.later(LINGER_SILENT_SECONDS)
        assert others == self.process.connections

        assert 0 == client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        assert value == body(client.receive())

    def test_bytes_behind_the_last_request_do_not_cut_its_reply(self) -> None:
        """
        What comes when all is written would reset a closed connection, and drop what
        the client has not received yet; so does what is there already and unread.
        """
        value = b"v" * 60_000
        self.put(b"k", value)
        asked = b"GET /k HTTP/1.1\r\n" + HOST
        for sent in (b"", asked + b"\r\n", (asked + b"\r\n") * 4_000):
            client = self.connect_over_tcp(window=4_096)
            client.send(asked + b"Connection: close\r\n\r\n" + sent)
            client.send(asked + b"\r\n")
            reply = client.receive_until(lambda reply: False)

            assert (len(value), False) == (len(body(reply)), client.reset)
            assert 1 == reply.count(b"HTTP/1.1 200 OK")
            client.close()
        assert 1 == len(self.process.connections)

    def test_a_client_that_has_all_of_the_reply_is_closed_at_once(self) -> None:
        """
        There is nothing that a reset could cut.
        """
        self.put(b"k", b"v")
        client = self.connect_over_tcp()
        client.send(b"GET /k HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")

        assert b"v" == body(client.receive())
        assert client.ended
        assert 1 == len(self.process.connections)

    def test_a_download_of_a_client_that_left_ends(self) -> None:
        """
        Its rest is neither read nor sent.
        """
        self.put(b"k", b"x" * 9_000_000)
        client = self.connect_over_tcp()
        client.send((b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n") * 3)
        client.close()
        self.reactor.advance(1)

        assert 1 == len(self.process.connections)
        assert self.notes.entries[0].body_bytes < 9_000_000

    def refuse_to_watch(self, method: str) -> None:
        """
        As where the kernel watches no more for this user (epoll_ctl(2)).
        """

        watch = getattr(self.reactor, method)

        def refuse(selectable: object) -> None:
            if isinstance(selectable, ServerTransport):
                raise OSError(errno.ENOSPC, "No space left on device")
            watch(selectable)

        self.patch(self.reactor, method, refuse)

    def test_an_upload_that_cannot_be_waited_for_is_503(self) -> None:
        """
        Nothing of it is left, and the connection ends.
        """
        self.refuse_to_watch("addReader")
        near, far = socket.socketpair()
        self.addCleanup(far.close)
        near.setblocking(False)
        far.sendall(b"PUT /k HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\nx")
        with capturedLogs() as events:
            serve_connection(near, "", HttpConnection(self.process), self.reactor)
            assert 1 == self.uploads()
            self.reactor.settle()
        client = Client(self.reactor, far)
        reply = client.receive()

        assert 503 == status(reply)
        assert b"1" == field(reply, b"Retry-After")
        assert CLOSED == field(reply, b"Connection")
        assert client.ended
        assert 0 == self.uploads()
        assert 1 == len(self.process.connections)
        assert any("watches no more" in event["log_format"] for event in events)

    def test_a_download_that_cannot_be_waited_for_ends(self) -> None:
        """
        Its value is closed.
        """
        self.put(b"k", b"v" * 5_000_000)
        self.refuse_to_watch("addWriter")
        self.client.send(b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n")

        reply = self.client.receive_until(lambda _: False)
        assert len(body(reply)) < 5_000_000
        assert self.client.ended
        assert set() == self.process.connections


class StoreTests(ConnectionCase):
    """
    A store that answers late, or fails.
    """

    def test_a_full_disk_in_the_middle_is_507(self) -> None:
        """
        The upload is discarded and the connection closed with notice.
        """
        self.store.fail_writes = StoreFull("no room")
        reply = self.ask(
            b"PUT /k HTTP/1.1\r\n" + HOST + b"Content-Length: 9000000\r\n\r\nnew"
        )

        assert 507 == status(reply)
        assert CLOSED == field(reply, b"Connection")
        assert 0 == self.uploads()

    def test_a_fault_in_the_store_is_500_with_a_traceback_in_the_log(self) -> None:
        """
        The client learns nothing of what kvd is made of.
        """
        self.store.fail_writes = ZeroDivisionError("inside")
        reply = self.ask(
            b"PUT /k HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nnew"
        )

        assert 500 == status(reply)
        assert "inside" not in detail(reply)
        assert 1 == len(self.flushLoggedErrors(ZeroDivisionError))

    def test_an_answer_that_takes_its_time_holds_up_what_follows(self) -> None:
        """
        Pipelined requests wait for the store, and come in order.
        """
        self.put(b"k", b"v")
        self.store.delay_commits = []
        self.client.send(
            b"PUT /slow HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\nx"
            b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n"
        )
        assert b"" == self.client.receive()

        (commit,) = self.store.delay_commits
        commit()
        assert [b"201", b"200"] == re.findall(
            rb"HTTP/1.1 (\d+) ", self.client.receive()
        )

    def test_a_client_that_sends_on_while_the_store_is_asked_is_stopped(self) -> None:
        """
        One read is taken, no more; all of it is served when the answer came.
        """
        self.store.delay_commits = []
        self.client.send(b"PUT /k HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\nx")
        request = b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n"
        self.client.send(request)
        (connection,) = self.process.connections
        assert [] == [r for r in self.reactor.getReaders() if r is connection.transport]
        self.client.socket.send(request)

        (commit,) = self.store.delay_commits
        commit()
        assert [b"201", b"200", b"200"] == re.findall(
            rb"HTTP/1.1 (\d+) ", self.client.receive()
        )

    def test_a_body_that_is_written_slowly_arrives_whole(self) -> None:
        """
        Each chunk waits for the one before, and the client for both.
        """
        self.process.store = MemoryStore(self.reactor, delay_seconds=1)
        self.client.send(b"PUT /k HTTP/1.1\r\n" + HOST + b"Content-Length: 6\r\n\r\n")
        for piece in (b"ab", b"cd", b"ef"):
            self.client.send(piece)
        for _ in range(8):
            self.reactor.advance(1)
        assert 201 == status(self.client.receive())
        self.client.send(b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n")
        for _ in range(4):
            self.reactor.advance(1)

        assert b"abcdef" == body(self.client.receive())

    def test_what_a_client_sent_before_it_left_is_done(self) -> None:
        """
        All whole requests, whether it closed or reset the connection, and whether they
        were read, or are more than is read at once. What is not whole is not.
        """
        requests = [
            b"PUT /%d HTTP/1.1\r\n%sContent-Length: 200\r\n\r\n%0200d" % (n, HOST, n)
            for n in range(300)
        ]
        assert HEAD_BYTES < 300 * len(requests[0]) < 80_000
        half = b"PUT /half HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\nh"
        for delay, abrupt in [(0, False), (0, True), (1, False), (1, True)]:
            store = self.store = self.process.store = (
                MemoryStore(self.reactor, delay_seconds=delay)
                if delay
                else MemoryStore()
            )
            # A store that answers later takes a turn of the clock for each.
            many = requests[: 5 if delay else None]
            client = self.connect_over_tcp()
            client.socket.sendall(b"".join(many) + half)
            await_delivery(client.socket)
            if abrupt:
                linger = struct.pack("ii", 1, 0)
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            client.close()
            # A turn may be short, by the clock of the machine: then there are many.
            for _ in range(100_000):
                self.reactor.advance(1)
                if len(self.process.connections) == 1:
                    break

            case = delay, abrupt
            assert (case, len(many)) == (case, len(store.values))
            for number in range(len(many)):
                assert b"%0200d" % number == store.values[Key(b"%d" % number)][1]
            assert (case, 0) == (case, store.uploads)
            assert (case, 1) == (case, len(self.process.connections))

    def test_answers_that_come_too_late(self) -> None:
        """
        A refusal is passed over. An upload that is waited for is not begun at all, nor
        is a value opened.
        """
        store = self.process.store = MemoryStore(self.reactor, delay_seconds=1)
        put = b"PUT /k HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\n"
        get = b"GET /none HTTP/1.1\r\n" + HOST + b"\r\n"
        delete = b"DELETE /none HTTP/1.1\r\n" + HOST + b"\r\n"
        for request, due in ((put, 0), (get, 0), (delete, 1)):
            client = self.connect().send(request)
            assert 1 == self.process.answers_due
            for connection in list(self.process.connections):
                connection.abort()
            self.reactor.settle()
            assert due == self.process.answers_due
            self.reactor.advance(1)
            assert 0 == self.process.answers_due
            client.close()

        assert 0 == store.uploads

    def test_value_that_comes_between_an_abort_and_its_end_is_closed(self) -> None:
        """
        The reactor tells of the end in its next turn.
        """
        opened: Deferred[mock.Mock] = Deferred()
        self.patch(self.process.store, "open", lambda *_: opened)
        self.client.send(b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n")
        (connection,) = self.process.connections
        connection.abort()
        value = mock.Mock()
        opened.callback(value)
        self.reactor.settle()

        value.close.assert_called_once_with()
        assert 0 == self.process.answers_due

    def test_a_failing_answer_is_a_refusal(self) -> None:
        """
        Whether it comes at once or later.
        """
        self.process.store = MemoryStore(self.reactor, delay_seconds=1)
        self.client.send(b"GET /none HTTP/1.1\r\n" + HOST + b"\r\n")
        self.reactor.advance(1)

        assert 404 == status(self.client.receive())

    def test_a_listing_that_is_left_is_ended(self) -> None:
        """
        And one whose store is slow comes whole.
        """
        for number in range(30):
            self.put(b"%d" % number, b"")
        slow = MemoryStore(self.reactor, delay_seconds=1)
        slow.values = self.store.values
        self.process.store = slow
        self.client.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        for _ in range(6):
            self.reactor.advance(1)
        assert 30 == self.client.receive().count(b'"key"')

        leaver = self.connect().send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        self.reactor.advance(1)
        leaver.close()
        self.reactor.advance(1)
        assert 0 == self.process.answers_due

    def test_a_commit_outlives_its_client(self) -> None:
        """
        The value is published although nobody hears of it; nothing fails.
        """
        self.store.delay_commits = []
        self.client.send(b"PUT /k HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\nx")
        (connection,) = self.process.connections
        connection.abort()
        self.reactor.settle()
        assert 1 == self.process.answers_due

        (commit,) = self.store.delay_commits
        commit()
        assert 0 == self.process.answers_due
        assert b"x" == self.value(b"k")

    def test_a_value_that_breaks_off_breaks_the_connection(self) -> None:
        """
        After the head only a break shows the client that there is less.
        """
        self.put(b"k", b"x" * 1_000_000)
        self.store.break_reads_at = 500_000
        with capturedLogs() as events:
            reply = self.ask(b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n")

        assert len(body(reply)) < 1_000_000
        assert self.client.ended
        assert any("failed" in event["log_format"] for event in events)


class TimeTests(ConnectionCase):
    """
    What takes too long is ended.
    """

    def test_an_idle_connection_is_closed(self) -> None:
        """
        After its time, without a word.
        """
        self.later(599)
        assert 1 == len(self.process.connections)

        self.later(1)
        assert b"" == self.client.receive()
        assert self.client.ended

    def test_a_head_that_does_not_end_is_408(self) -> None:
        """
        However many bytes trickle in.
        """
        self.client.send(b"GET /")
        for _ in range(10):
            self.client.send(b"x")
            self.later(1)
        reply = self.client.receive()

        assert 408 == status(reply)
        assert CLOSED == field(reply, b"Connection")

    def test_a_body_that_stands_still_is_408_and_discarded(self) -> None:
        """
        The old value stays.
        """
        self.client.send(
            b"PUT /k HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\nnew"
        )
        self.later(1)
        self.later(60)

        assert 408 == status(self.client.receive())
        assert 0 == self.uploads()

    def test_a_body_that_moves_is_waited_for(self) -> None:
        """
        One byte a minute is progress.
        """
        self.client.send(b"PUT /k HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\n")
        for byte in (b"a", b"b"):
            self.later(59)
            self.client.send(byte)
        self.later(59)

        assert 201 == status(self.ask(b"c"))
        assert b"abc" == self.value(b"k")

    def test_a_reader_that_stands_still_is_left(self) -> None:
        """
        Its value is closed. It may have read a little that the kernel does not know of.
        """
        self.put(b"k", b"x" * 5_000_000)
        self.client.send(b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n")
        self.later(1)
        self.later(59)
        assert 1 == len(self.process.connections)

        self.later(300)
        # What was on its way between two sockets as time passed counts as read.
        self.later(300)
        assert set() == self.process.connections

    def test_a_reader_of_a_thousand_bytes_a_second_is_waited_for(self) -> None:
        """
        Though the kernels move them in pieces that take longer than a minute.
        """
        value = bytes(range(256)) * 5000
        self.put(b"k", value)
        self.client.send(b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n")
        received = b""
        while len(received) < len(value) and self.process.connections:
            received += self.client.socket.recv(5_000)
            self.later(5)
        received += self.client.receive()

        assert value == body(received)

    def test_a_slow_reader_is_waited_for(self) -> None:
        """
        As long as it takes a little now and then.
        """
        value = b"x" * 2_000_000
        self.put(b"k", value)
        self.client.send(b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n")
        received = b""
        for _ in range(5):
            self.later(59)
            received += self.client.socket.recv(200_000)
            self.reactor.settle()
        received += self.client.receive()

        assert value == body(received)


class TcpTimeTests(TimeTests):
    """
    The same over TCP, whose segments have up to 64 KiB on the same machine.
    """

    over_tcp = True

    def connect(self) -> Client:
        client = super().connect()
        for connection in self.process.connections:
            # Else it takes more than any value here has.
            connection.transport.socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_SNDBUF, LOW_ROUND_TRIP_SEND_BUFFER
            )
        return client


class DrainTests(ConnectionCase):
    """
    A worker on its way out.
    """

    def drain(self) -> None:
        """
        As `kvd.workers.http_server` does it.
        """
        self.process.draining = True
        for connection in list(self.process.connections):
            connection.drain(FRESH_SECONDS)
        self.reactor.settle()

    def test_the_request_in_service_is_finished(self) -> None:
        """
        Its reply announces the end.
        """
        self.client.send(b"PUT /k HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\na")
        self.drain()
        reply = self.ask(b"bc")

        assert 201 == status(reply)
        assert CLOSED == field(reply, b"Connection")
        assert b"abc" == self.value(b"k")

    def test_a_request_on_its_way_is_served(self) -> None:
        """
        A connection that was just accepted gets a moment to ask.
        """
        self.put(b"k", b"v")
        self.drain()
        assert 1 == len(self.process.connections)
        assert b"v" == body(self.ask(b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n"))

        assert set() == self.process.connections

    def test_the_moment_ends(self) -> None:
        """
        Who does not ask is closed.
        """
        self.drain()
        self.later(FRESH_SECONDS)

        assert set() == self.process.connections

    def test_an_idle_client_may_ask_once_more(self) -> None:
        """
        Its request may be on the way; that the connection ends, it hears in the reply.
        An upload is as good.
        """
        self.ask(b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n")
        self.drain()
        reply = self.ask(b"PUT /k HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\nx")

        assert 201 == status(reply)
        assert b"x" == self.value(b"k")
        assert CLOSED == field(reply, b"Connection")
        assert set() == self.process.connections

    def test_an_idle_client_that_does_not_ask_is_closed(self) -> None:
        """
        After a moment.
        """
        self.ask(b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n")
        self.drain()
        assert 1 == len(self.process.connections)
        self.later(FRESH_SECONDS)

        assert set() == self.process.connections

    def test_a_client_that_was_reading_may_ask_once_more(self) -> None:
        """
        The reply had begun when the end did, and said nothing of it. Once it is read, a
        moment later the connection is closed.
        """
        value = bytes(8 * 1024 * 1024)
        self.put(b"large", value)
        clients = [self.connect(), self.connect()]
        for client in clients:
            client.send(b"GET /large HTTP/1.1\r\n" + HOST + b"\r\n")
        self.drain()
        self.later(FRESH_SECONDS)
        for client in clients:
            assert value == body(client.receive())
        clients[0].send(b"GET /none HTTP/1.1\r\n" + HOST + b"\r\n")

        assert CLOSED == field(clients[0].receive(), b"Connection")
        assert 1 == len(self.process.connections)
        self.later(FRESH_SECONDS)
        assert set() == self.process.connections

    def test_what_came_in_the_last_moment_is_read_first(self) -> None:
        """
        The worker may have been busy with others.
        """
        self.drain()
        self.client.socket.send(b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n")
        self.reactor.be_kept(FRESH_SECONDS)
        for connection in list(self.process.connections):
            connection.check_time(self.reactor.seconds())

        assert 404 == status(self.client.receive())


class LogTests(ConnectionCase):
    """
    Each request leaves one entry.
    """

    def test_entries_have_method_key_status_and_bytes(self) -> None:
        """
        Bytes of the body, in whichever direction; no query.
        """
        self.ask(
            b"PUT /a%20b?x=y HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc"
        )
        self.ask(b"GET /a%20b HTTP/1.1\r\n" + HOST + b"\r\n")
        self.ask(b"garbage\r\n\r\n")

        assert [
            ("PUT", "/a%20b", 201, 3),
            ("GET", "/a%20b", 200, 3),
            ("-", "-", 400),
        ] == [
            (entry.method, entry.key, entry.status, entry.body_bytes)[
                : 4 if entry.method != "-" else 3
            ]
            for entry in self.notes.entries
        ]

    def test_entries_of_refused_heads_have_what_could_be_read(self) -> None:
        """
        Method and key, whatever the refusal; and a HEAD has no body then either.
        """
        many = b"X: y\r\n" * 200
        table = [
            (b"BREW /pot?x HTTP/1.1\r\n" + HOST, "BREW", "/pot", 501),
            (b"GET /k HTTP/1.1\r\n", "GET", "/k", 400),
            (b"HEAD /k HTTP/1.1\r\n", "HEAD", "/k", 400),
            (b"PUT /k HTTP/1.1\r\n" + HOST + b"Expect: x\r\n", "PUT", "/k", 417),
            (b"GET /k HTTP/1.1\r\n" + HOST + many, "GET", "/k", 431),
            (b"GET /k HTTP/2.0\r\n" + HOST, "GET", "/k", 505),
            (b"GET /k#x HTTP/1.1\r\n" + HOST, "GET", "/k#x", 400),
            (b"GET /k HTTP/1.1\r\n" + HOST + b"bad\r\n", "GET", "/k", 400),
            (b"A" * 40 + b" /k HTTP/1.1\r\n" + HOST, "-", "-", 501),
            (b"GET /\xff HTTP/1.1\r\n" + HOST, "-", "-", 400),
            (b"GET http://u:secret@h/k HTTP/1.1\r\n" + HOST, "GET", "http://h/k", 400),
            (b"GET ftp://u:secret@h HTTP/1.1\r\n" + HOST, "GET", "ftp://h", 400),
            (b"CONNECT u:secret@h:80 HTTP/1.1\r\n" + HOST, "CONNECT", "h:80", 405),
            (b"GET u:secret@h HTTP/1.1\r\n" + HOST, "GET", "h", 400),
            (b"GET /k@x HTTP/1.1\r\n", "GET", "/k@x", 400),
            (b"GET /k HTTP/1.1\r\nX: " + b"y" * 20_000, "GET", "/k", 431),
        ]
        for head, method, key, expected in table:
            client = self.connect().send(head + b"\r\n")
            reply = client.receive()
            assert (head, expected) == (head, status(reply))
            assert (head, b"" != body(reply)) == (head, method != "HEAD")
            assert b"secret" not in reply
            entry = self.notes.entries[-1]
            assert (method, key, expected) == (entry.method, entry.key, entry.status)
        assert len(table) == len(self.notes.entries)


class RecordTests(ConnectionCase):
    """
    What is recorded of a connection at its end.
    """

    def setUp(self) -> None:
        super().setUp()
        self.recorded: list[bytes] = []
        self.process.recorder = Recorder(
            5, self.recorded.append, self.reactor, inline, self.process.row.epoch_ns
        )

    def record(self) -> Sequence[int]:
        """
        Of the only connection, without its arrival: how long it was open and in
        service, its bytes, requests and worker.
        """
        self.client.close()
        self.reactor.advance(FLUSH_SECONDS)
        (record,) = self.recorded
        return struct.unpack("<8xQQQIHxx", record)

    def test_only_the_time_of_requests_is_service(self) -> None:
        """
        From a complete head to the end of the reply.
        """
        self.reactor.advance(1)
        request = b"PUT /k HTTP/1.1\r\nHost: kvd\r\nContent-Length: 2\r\n\r\n"
        reply = self.ask(request)
        self.reactor.advance(2)
        reply += self.ask(b"ab")
        self.reactor.advance(4)
        reply += self.ask(request + b"ab")

        seconds = 10**9
        count = 2 * len(request + b"ab") + len(reply)
        assert (7 * seconds, 2 * seconds, count, 2, 5) == self.record()

    def test_a_request_that_is_broken_off_counts(self) -> None:
        """
        The worker was there for it.
        """
        request = b"PUT /k HTTP/1.1\r\nHost: kvd\r\nContent-Length: 2\r\n\r\n"
        self.client.send(request)
        self.reactor.advance(2)

        seconds = 10**9
        assert (2 * seconds, 2 * seconds, len(request), 1, 5) == self.record()

    def test_a_connection_without_a_request_is_recorded_too(self) -> None:
        """
        It was somebody's to accept.
        """
        assert (0, 0, 0, 0, 5) == self.record()


class SomewhereClassicTests(ConnectionCase):
    """
    A dialect counts below its prefix alone; the longest prefix wins.
    """

    dialects = (
        DialectChoice("/old/", "classic"),
        DialectChoice("/old/new/", "plain"),
        DialectChoice("/o%6cd/two/segments/", "classic"),
    )

    def store_at(self, target: bytes) -> int:
        """
        PUT a value; the status.
        """
        lines = b" HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\nx"
        return status(self.ask(b"PUT " + target + lines))

    def test_each_path_has_its_dialect(self) -> None:
        """
        However it is written, and the value is there: the prefix is a part of the key,
        but none of the segments that the dialect counts.
        """
        table = [
            (b"/k", 201, b"k"),
            (b"/old/a", 200, b"old/a"),
            (b"/%6fld/b", 200, b"old/b"),
            (b"http://h/old/c", 200, b"old/c"),
            (b"/./old/./d", 200, b"old/d"),
            (b"/old//e/", 200, b"old/e"),
            (b"/old/new/f", 201, b"old/new/f"),
            (b"/old/new/g/h", 201, b"old/new/g/h"),
            (b"/old/two/segments/i", 200, b"old/two/segments/i"),
        ]
        for target, expected, key in table:
            assert (target, expected) == (target, self.store_at(target))
            assert b"x" == self.value(key)
            reply = self.ask(b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")
            assert (target, b"x") == (target, body(reply))

    def test_one_segment_behind_the_prefix_is_a_key(self) -> None:
        """
        None and several are not, and nothing is stored then.
        """
        for target in (b"/old/", b"/old/a/b", b"/old/new", b"/old//"):
            if target != b"/old/new":
                assert (target, 204) == (target, self.store_at(target))
            reply = self.ask(b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n")
            assert (target, 404) == (target, status(reply))
        assert b"" == body(self.ask(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"))

    def test_what_is_no_path_has_the_dialect_of_all_others(self) -> None:
        """
        Nor is a path that is wrongly encoded anywhere.
        """
        table = [(b"OPTIONS *", 204), (b"CONNECT h:1", 405), (b"GET /old/%zz", 400)]
        for line, expected in table:
            reply = self.ask(line + b" HTTP/1.1\r\n" + HOST + b"\r\n")
            assert (line, expected) == (line, status(reply))


class WrongDialectTests(ConnectionCase):
    """
    A dialect can be anybody's code.
    """

    GET = b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n"

    def setUp(self) -> None:
        super().setUp()
        self.put(b"k", b"value")
        self.dialect = self.process.dialects.of(b"/k", "GET").dialect

    def test_what_is_no_operation_is_a_mistake(self) -> None:
        """
        The client gets a reply, the log says what was wrong, and the connection stays.
        """
        for understood in (None, object()):
            with mock.patch.object(
                type(self.process.dialects), "understand", return_value=understood
            ):
                assert 500 == status(self.ask(self.GET))
            assert 1 == len(self.flushLoggedErrors(KeyError))
        assert 200 == status(self.ask(self.GET))

    def test_a_reply_that_cannot_be_rendered_is_sent_as_it_is(self) -> None:
        """
        What was done is done, whatever the dialect says of it.
        """
        with mock.patch.object(
            type(self.dialect), "render", side_effect=ZeroDivisionError
        ):
            assert 200 == status(self.ask(self.GET))
            assert 404 == status(self.ask(self.GET.replace(b"/k", b"/none")))
        assert 2 == len(self.flushLoggedErrors(ZeroDivisionError))


class ClassicTests(ConnectionCase):
    """
    The dialect of the article.
    """

    dialects = (DialectChoice("/", "classic"),)

    def test_replies_of_2017(self) -> None:
        """
        Each row of the table in ``docs/wire.rst``.
        """
        length = b"Content-Length: 1\r\n\r\nx"
        table = [
            (b"PUT /k", length, 200),
            (b"PUT /k", length, 200),
            (b"PUT //k/", length, 200),
            (b"PUT /", length, 204),
            (b"PUT /a/b", length, 204),
            (b"PUT /empty", b"Content-Length: 0\r\n\r\n", 304),
            (b"GET /k", b"\r\n", 200),
            (b"GET //k//", b"\r\n", 200),
            (b"GET /empty", b"\r\n", 200),
            (b"GET /none", b"\r\n", 404),
            (b"GET /a/b", b"\r\n", 404),
            (b"GET /", b"\r\n", 404),
            (b"HEAD /k", b"\r\n", 404),
            (b"POST /k", length, 404),
            (b"DELETE /none", b"\r\n", 404),
        ]
        for line, rest, expected in table:
            reply = self.ask(line + b" HTTP/1.1\r\n" + HOST + rest)
            assert (line, expected) == (line, status(reply))
        assert (b"x", b"") == (self.value(b"k"), self.value(b"empty"))
        assert 200 == status(self.ask(b"DELETE /k HTTP/1.1\r\n" + HOST + b"\r\n"))
        assert 404 == status(self.ask(b"GET /k HTTP/1.1\r\n" + HOST + b"\r\n"))
        with pytest.raises(KeyAbsent):
            self.value(b"a/b")

    def test_without_a_length_the_key_is_empty(self) -> None:
        """
        As it was there, and a chunked body is read past.
        """
        bodies = (b"\r\n", b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")
        for rest in bodies:
            assert 304 == status(self.ask(b"PUT /k HTTP/1.1\r\n" + HOST + rest))
            assert b"" == self.value(b"k")

    def test_ranges_and_conditions_are_unknown(self) -> None:
        """
        They are passed over.
        """
        self.put(b"k", b"value")
        reply = self.ask(
            b"GET /k HTTP/1.1\r\n"
            + HOST
            + b"Range: bytes=0-0\r\nIf-None-Match: *\r\n\r\n"
        )

        assert 200 == status(reply)
        assert b"value" == body(reply)


class ClassicStoreTests(ConnectionCase):
    """
    The dialect of the article, and a store that fails.
    """

    dialects = (DialectChoice("/", "classic"),)

    def test_a_write_that_failed_is_507(self) -> None:
        """
        Whatever the reason.
        """
        self.store.fail_writes = StoreFull("no room")
        reply = self.ask(b"PUT /k HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\nx")

        assert 507 == status(reply)
