"""
Tests for `kvd.http.fast_path`: values that are sent from their files.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from unittest import mock

from kvd.http.connection import HttpConnection
from kvd.http.context import ProcessContext
from kvd.http.fast_path import REMAINS, SERVED
from kvd.http.pieces import FILE_BYTES, SHORT_BYTES, Pieces
from kvd.http.value_source import CHUNK_BYTES
from kvd.net.sending import LARGE_FILE_BYTES, LOW_ROUND_TRIP_SEND_BUFFER
from kvd.net.transport import serve_connection
from kvd.settings import Limits
from kvd.store.exchange import is_on_a_disk
from kvd.store.file import FileStore
from tests.descriptors import Descriptors
from tests.http.fast_path.cases import FastPathCase, body_of, field, get, head
from tests.http.fast_path.test_connections import ConnectionCase
from tests.page_cache import evict
from tests.patience import PATIENCE_SECONDS
from tests.segments import Segments
from tests.stepped import Client, connect, tcp_pair

READ_BYTES = CHUNK_BYTES
"""
Larger values are sent from their files.
"""


class FileTests(FastPathCase):
    """
    A socket with room takes a large value in one event.
    """

    needs_disk = True

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """
        The ends of a connection over TCP.
        """
        near, far = tcp_pair()
        self.segments = Segments()
        for end in (near, far):
            self.addCleanup(end.close)
            self.segments.note(end)
        far.setblocking(False)
        return near, far

    def reply(self) -> bytes:
        """
        What the client has got, when all has arrived.
        """
        got = b""
        while True:
            self.segments.wait()
            piece = super().reply()
            if not piece:
                return got
            # There may be room for more now.
            got += piece

    def test_any_size(self) -> None:
        """
        Around the one where sending from the file begins, too.
        """
        for size in (
            1,
            4096,
            16385,
            READ_BYTES - 1,
            READ_BYTES,
            READ_BYTES + 1,
            99_999,
        ):
            body = os.urandom(size)
            self.keep("k", body)
            self.report()
            for _ in range(3):
                reply = self.served(get("k"))
                assert str(size) == field(reply, "Content-Length")
                assert body == body_of(reply)
            for report in self.reported():
                assert ("GET", "/k", 200, size) == report[5:9]

    def test_a_head_needs_no_room(self) -> None:
        """
        It says the length.
        """
        self.keep("k", bytes(5_000_000))
        self.report()
        reply = self.served(head("k"))

        assert "5000000" == field(reply, "Content-Length")
        assert b"" == body_of(reply)
        assert ("HEAD", "/k", 200, 0) == self.reported()[0][5:9]

    def test_no_descriptor_stays_open(self) -> None:
        """
        When all is sent.
        """
        self.keep("k", bytes(READ_BYTES + 1))
        files = Descriptors(self.path)
        self.served(get("k"))

        assert 0 == files.more

    def test_what_is_on_the_disk_alone_is_left(self) -> None:
        """
        Nobody waits for it here.
        """
        self.keep("k", bytes(READ_BYTES + 1))
        files = Descriptors(self.path)
        assert self.is_left()
        assert 0 == files.more

    def is_left(self) -> bool:
        """
        Whether a value on the disk alone is left, of some times. The kernel begins to
        read what it is asked for, and now and then has it before it says that it has
        not.
        """
        outcomes = set()
        for _ in range(8):
            self.drop("k")
            outcomes.add(self.serve(get("k")))
            # As an attribute: trial has a use for a name of the module.
            with contextlib.suppress(BlockingIOError):
                while self.far.recv(1 << 20):
                    pass
        assert outcomes <= {SERVED, get("k")}
        return get("k") in outcomes

    def drop(self, key: str) -> None:
        """
        Leave a value on the disk alone.
        """
        with open(os.path.join(self.path, key), "rb") as file:
            if not is_on_a_disk(file.fileno()):
                self.skipTest("the file system is in memory")
            os.fsync(file.fileno())
            evict(file.fileno())

    def test_what_the_ordinary_way_reads_is_sent_at_once(self) -> None:
        """
        From wherever it is. What is longer by a byte is not.
        """
        size = READ_BYTES // 2
        for longest, outcome in ((size, SERVED), (size - 1, get("k"))):
            with mock.patch("kvd.http.templates.CHUNK_BYTES", longest):
                self.fast_path = self.make_fast_path(self.process)
            self.keep("k", bytes(size))
            self.drop("k")
            if outcome == SERVED:
                assert SERVED == self.serve(get("k"))
            else:
                assert self.is_left()

    def test_nothing_remains(self) -> None:
        """
        Unless it is said.
        """
        with self.assertRaises(ValueError):  # noqa: PT027  # trial runs it too
            self.fast_path.take_remainder()

    def test_a_near_client_gets_a_small_buffer(self) -> None:
        """
        For a large value, as on the ordinary way.
        """
        with mock.patch("kvd.http.templates.LOW_ROUND_TRIP_MICROSECONDS", 10_000_000):
            self.fast_path = self.make_fast_path(self.process)
        for size in (LARGE_FILE_BYTES - 1, LARGE_FILE_BYTES):
            self.keep("k", bytes(size))
            self.serve(get("k"))
            sized = self.near.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            is_small = sized == 2 * LOW_ROUND_TRIP_SEND_BUFFER
            assert (size == LARGE_FILE_BYTES) == is_small
            self.near, self.far = self.pair()

    def part(self, asked: bytes, size: int) -> bytes:
        """
        The reply to a range, all of which is sent; the kernel may take its time.
        """
        assert SERVED == self.serve(get("k", b"Range: bytes=" + asked + b"\r\n"))
        reply = self.reply()
        self.far.settimeout(60)
        while len(body_of(reply)) < size:
            piece = self.far.recv(size)
            assert piece
            reply += piece
        self.far.setblocking(False)
        return reply

    def test_any_part(self) -> None:
        """
        Wherever it begins and ends: in the first page, around its end, or later, and
        shorter or longer than a segment.
        """
        body = os.urandom(300_000)
        self.keep("k", body)
        for first in (0, 1, 377, 4095, 4096, 4097, 70_001, 131_072):
            for size in (
                1,
                1025,
                61_440,
                65_535 - first % 4096,
                65_536,
                65_537,
                131_073,
            ):
                last = first + size - 1
                reply = self.part(b"%d-%d" % (first, last), size)
                assert f"bytes {first}-{last}/300000" == field(reply, "Content-Range")
                assert body[first : last + 1] == body_of(reply)
        for size in (1, 4096, 65_537, 131_073):
            reply = self.part(b"-%d" % size, size)
            assert body[-size:] == body_of(reply)


class RemainingTests(ConnectionCase):
    """
    What the socket does not take is sent the ordinary way, from the open file.
    """

    limits = Limits(reader_seconds=60)

    def setUp(self) -> None:
        super().setUp()
        self.large = os.urandom(3 * FILE_BYTES + 1)
        self.keep("k", self.large)
        self.file = os.path.join(self.path, "k")
        self.files = Descriptors(self.file)

    def connect_over_tcp(self) -> Client:
        """
        A client with as much room as is usual.
        """
        client = connect(self.reactor, HttpConnection(self.process), over_tcp=True)
        self.addCleanup(client.socket.close)
        return client

    def assert_closed(self) -> None:
        """
        No descriptor of the value is left.
        """
        assert 0 == self.files.more

    def test_the_rest_comes_as_the_client_reads(self) -> None:
        """
        Over sockets of any kind, one request after the other.
        """
        for to_connect in (self.connect, self.connect_over_tcp, self.narrow):
            client = to_connect()
            for request in (get("k"), get("k", b"Connection: close\r\n")):
                served = self.watched.served
                client.send(request)
                reply = client.receive_until(lambda r: r.endswith(self.large[-64:]))
                assert self.large == body_of(reply)
                assert served + 1 == self.watched.served
            assert client.ended
            entries = self.notes.entries[-2:]
            told = [(e.method, e.key, e.status, e.body_bytes) for e in entries]
            assert [("GET", "/k", 200, len(self.large))] * 2 == told

    def test_the_first_bytes_of_a_connection(self) -> None:
        """
        May ask for it.
        """
        near, far = socket.socketpair()
        self.addCleanup(far.close)
        near.setblocking(False)
        far.sendall(get("k"))
        serve_connection(near, "", HttpConnection(self.process), self.reactor)
        assert self.large == body_of(Client(self.reactor, far).receive())

    def test_what_is_sent_ahead_waits(self) -> None:
        """
        And is answered in its turn.
        """
        self.keep("small", b"value")
        client = self.narrow()
        client.send(get("k"))
        client.send(get("small") + get("none"))
        replies = client.receive()

        assert [0, 1] == [replies.count(b"HTTP/1.1 %d " % n) - 1 for n in (404, 200)]
        assert self.large in replies
        assert b"\r\n\r\nvalueHTTP/1.1 404 " in replies

    def test_a_replacement_does_not_change_it(self) -> None:
        """
        The file is open.
        """
        client = self.narrow()
        client.send(get("k"))
        self.keep("k", b"other")
        os.unlink(self.file)

        assert self.large == body_of(client.receive())

    def test_a_client_that_leaves(self) -> None:
        """
        Is logged with what it was sent; the file is closed.
        """
        client = self.narrow()
        client.send(get("k"))
        client.close()
        self.later(61)

        (entry,) = self.notes.entries
        assert entry.body_bytes < len(self.large)
        self.assert_closed()

    def test_a_client_that_does_not_read(self) -> None:
        """
        Is left after a while.
        """
        client = self.narrow()
        client.send(get("k"))
        self.later(1)
        assert 2 == len(self.process.connections)
        # A Unix socket may hold more than is read in a minute.
        self.later(90)
        assert len(self.process.connections) < 2
        assert 1 == len(self.notes.entries)

    def test_a_mistake_closes_the_file(self) -> None:
        """
        If no handler can be made for the rest of a reply, its connection ends.
        """
        client = self.narrow()
        with mock.patch(
            "kvd.http.fast_connection.handler_for", side_effect=ZeroDivisionError
        ):
            client.send(get("k"))
            client.receive()

        assert client.ended
        assert 1 == len(self.flushLoggedErrors(ZeroDivisionError))
        self.assert_closed()

    def test_a_file_that_is_cut_short(self) -> None:
        """
        The client sees that something is missing.
        """
        client = self.narrow()
        client.send(get("k"))
        os.truncate(self.file, FILE_BYTES)
        reply = client.receive()

        assert client.ended
        assert len(body_of(reply)) <= FILE_BYTES
        (entry,) = self.notes.entries
        assert entry.body_bytes < len(self.large)

    def test_a_head_that_is_malformed(self) -> None:
        """
        Is refused, although others of its shape are not, and no file stays open.
        """
        assert self.ask(get("k", b"Range: bytes=0-1\r\n")).startswith(b"HTTP/1.1 206 ")
        client = self.connect()
        reply = client.send(get("k", b"Range: a\x01\r\n")).receive()
        assert reply.startswith(b"HTTP/1.1 400 ")
        client.socket.close()
        self.reactor.settle()
        self.assert_closed()

    def test_a_socket_that_is_full(self) -> None:
        """
        Not even the head goes out.
        """
        client = self.narrow()
        (connection,) = [
            one
            for one in self.process.connections
            if isinstance(one, HttpConnection)
            and one.transport.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            < 10_000
        ]
        near = connection.transport.socket
        filled = 0
        try:
            while True:
                filled += near.send(bytes(1000))
        except BlockingIOError:
            pass
        client.send(get("k"))
        reply = client.receive()

        assert reply[filled:].startswith(b"HTTP/1.1 200 OK\r\n")
        assert self.large == body_of(reply[filled:])

    def test_few_bytes_at_once(self) -> None:
        """
        More than none.
        """
        for size in (0, -1):
            with self.assertRaises(ValueError):  # noqa: PT027  # trial runs it too
                self.fast_path.send_at_most(size)
        self.fast_path.send_at_most(1000)
        near, far = self.pair()
        far.sendall(get("k"))
        assert SERVED | REMAINS == self.fast_path.serve(near.fileno())
        rest = self.fast_path.take_remainder()
        os.close(rest.descriptor)
        assert 1000 == rest.offset
        assert self.large[:1000] == body_of(far.recv(65536))

    def test_nobody_takes_it(self) -> None:
        """
        It is closed before another is.
        """
        near, far = self.pair()
        far.sendall(get("k"))
        assert SERVED | REMAINS == self.fast_path.serve(near.fileno())
        far.sendall(get("%6b"))
        assert 1 == self.files.more
        self.fast_path.serve(near.fileno())
        self.assert_closed()


class ShortMemoryTests(ConnectionCase):
    """
    While the kernel is short of memory, it gets little for a client that reads nothing.
    """

    limits = Limits(reader_seconds=60)
    is_short = False

    def setUp(self) -> None:
        super().setUp()
        self.large = os.urandom(FILE_BYTES + 12_345)
        self.keep("k", self.large)
        self.client = connect(self.reactor, HttpConnection(self.process), over_tcp=True)
        self.addCleanup(self.client.socket.close)

    def make_process(self, store: FileStore) -> ProcessContext:
        process = super().make_process(store)
        process.pieces = Pieces(lambda: self.is_short)
        return process

    def held(self) -> int:
        """
        How much the kernel has for a client that reads nothing.
        """
        self.client.socket.close()
        self.reactor.settle()
        client = connect(
            self.reactor, HttpConnection(self.process), over_tcp=True, window=1
        )
        self.addCleanup(client.socket.close)
        client.send(get("k"))
        self.reactor.settle()
        (transport,) = (
            one.transport
            for one in self.process.connections
            if one.transport.socket.family == socket.AF_INET
        )
        return transport.bytes_sent - transport.bytes_delivered

    def test_a_client_that_reads_nothing(self) -> None:
        """
        Two pieces at most: the second is sent when less than half of the first waits.
        """
        self.is_short = True
        self.process.pieces.measure()
        assert self.held() <= 2 * SHORT_BYTES + 1024

    def test_the_ordinary_way(self) -> None:
        """
        As well.
        """
        self.process.fast_path = None
        self.is_short = True
        self.process.pieces.measure()
        assert self.held() <= 2 * SHORT_BYTES + 1024

    def test_all_of_it_comes_in_the_end(self) -> None:
        """
        As it was stored, also if memory becomes short, and is no more, on the way.
        """
        for turns in ((True,), (False, True), (True, False)):
            for self.is_short in turns:
                self.process.pieces.measure()
                self.client.send(get("k"))
                received = b""
                end = time.monotonic() + PATIENCE_SECONDS
                while len(body_of(received)) < len(self.large):
                    # The kernel may take its time.
                    assert time.monotonic() < end
                    received += self.client.receive()
                assert self.large == body_of(received)

    def test_enough_memory(self) -> None:
        """
        Much is sent ahead.
        """
        assert self.held() > 4 * SHORT_BYTES
