"""
Bodies that the kernel moves to their files: everything that holds for those that
are read and written holds for them, and something more.
"""

from __future__ import annotations

import hashlib
import os
import socket
from base64 import b64encode
from typing import Any

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kvd.http import mover
from kvd.http.methods import get
from kvd.interfaces import Answer, IUpload, IValue
from kvd.ipc.row import WORDS_OF_REQUESTS
from kvd.model.conditions import Conditions
from kvd.model.keys import Key
from kvd.model.values import Metadata, Published, ValueInfo
from kvd.net import sending, splice
from kvd.net.splice import Pipe
from kvd.store.memory import SLICE_VALUES, MemoryStore, MemoryUpload, MemoryValue
from kvd.testing import StoreContract
from tests.http import test_connection
from tests.http.test_connection import ConnectionCase, status


@implementer(IUpload)
class DescriptorUpload(MemoryUpload):
    """
    Is written to a file in memory that anybody may write to.
    """

    def __init__(
        self, store: DescriptorStore, key: Key, length: int | None, metadata: Metadata
    ) -> None:
        super().__init__(store, key, length, metadata)
        self._store: DescriptorStore = store
        self._file = os.memfd_create("upload")
        if store.refuses_splice:
            # Whatever is only appended to takes no splice (splice(2), EINVAL).
            os.close(self._file)
            self._file = os.open("/tmp", os.O_TMPFILE | os.O_RDWR | os.O_APPEND)

    def fileno(self) -> int | None:
        # A failure that is put on is not the file's.
        return self._file if self._store.fail_writes is None else None

    def write(self, chunk: bytes) -> Answer[None]:
        answer = super().write(chunk)
        os.write(self._file, chunk)
        self._store.written += len(chunk)
        return answer

    def commit(self, conditions: Conditions) -> Answer[Published]:
        size = os.fstat(self._file).st_size
        self._body = bytearray(os.pread(self._file, size, 0))
        self._let_go()
        return super().commit(conditions)

    def discard(self) -> None:
        self._let_go()
        super().discard()

    def _let_go(self) -> None:
        descriptor, self._file = self._file, -1
        if descriptor >= 0:
            os.close(descriptor)


@implementer(IValue)
class DescriptorValue(MemoryValue):
    """
    Can be sent from a file in memory, as far as the store lets it be read.
    """

    def __init__(self, store: MemoryStore, info: ValueInfo, body: bytes) -> None:
        super().__init__(store, info, body)
        self._file = os.memfd_create("value")
        os.write(self._file, body[: store.break_reads_at])

    def fileno(self) -> int | None:
        return self._file

    def close(self) -> None:
        descriptor, self._file = self._file, -1
        if descriptor >= 0:
            os.close(descriptor)


class DescriptorStore(MemoryStore):
    """
    A store in memory whose uploads have descriptors.
    """

    refuses_splice = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.written = 0
        """How many bytes were written, and not moved."""

    def make_upload(
        self, key: Key, length: int | None, metadata: Metadata
    ) -> DescriptorUpload:
        return DescriptorUpload(self, key, length, metadata)

    def open(self, key: Key, whole: bool = False) -> Answer[IValue]:
        return self.answer(lambda: DescriptorValue(self, *self._stored(key)))


class DescriptorStoreTests(StoreContract, SynchronousTestCase):
    """
    `DescriptorStore` is a store.
    """

    has_descriptors = True
    many_values = 3 * SLICE_VALUES

    def make_store(self) -> DescriptorStore:
        return DescriptorStore()


class MovingCase(ConnectionCase):
    """
    A connection whose bodies are moved, however short they are.
    """

    store: DescriptorStore

    def setUp(self) -> None:
        self.patch(mover, "MOVE_FROM_BYTES", 1)
        super().setUp()

    def make_store(self) -> DescriptorStore:
        return DescriptorStore()

    def make_pipe(self) -> Pipe | None:
        pipe = Pipe()
        self.addCleanup(pipe.close)
        return pipe


class PutTests(MovingCase, test_connection.PutTests):
    """
    See there.
    """


class GetTests(MovingCase, test_connection.GetTests):
    """
    See there; nothing is too short to be sent as a file.
    """

    def setUp(self) -> None:
        self.patch(get, "CHUNK_BYTES", 1)
        super().setUp()


class SmallLimitsTests(MovingCase, test_connection.SmallLimitsTests):
    """
    See there.
    """


class ConnectionTests(MovingCase, test_connection.ConnectionTests):
    """
    See there.
    """


class TimeTests(MovingCase, test_connection.TimeTests):
    """
    See there.
    """


class DrainTests(MovingCase, test_connection.DrainTests):
    """
    See there.
    """


class LogTests(MovingCase, test_connection.LogTests):
    """
    See there.
    """


class ClassicTests(MovingCase, test_connection.ClassicTests):
    """
    See there.
    """


def put(body_bytes: int, key: str = "k") -> bytes:
    """
    The head of a request.
    """
    return (
        f"PUT /{key} HTTP/1.1\r\nHost: kvd\r\nContent-Length: {body_bytes}\r\n\r\n"
    ).encode()


class MovingTests(MovingCase):
    """
    Bodies go from the socket to the file.
    """

    def test_what_came_with_the_head_is_written_and_the_rest_moved(self) -> None:
        """
        In this order.
        """
        value = os.urandom(3_000_000)
        self.client.send(put(len(value)) + value[:1000])
        reply = self.client.send(value[1000:]).receive()

        assert 201 == status(reply)
        assert value == self.value(b"k")
        assert 1000 == self.store.written

    def test_a_body_with_a_digest_is_read(self) -> None:
        """
        All of it, as nobody could verify what the kernel moves.
        """
        value = os.urandom(300_000)
        digest = b64encode(hashlib.sha256(value).digest())
        head = (
            put(len(value))[:-2] + b"Content-Digest: sha-256=:" + digest + b":\r\n\r\n"
        )
        for sent, expected in ((value, 201), (value[1:] + b"x", 400)):
            self.client.send(head + sent[:1000])
            assert expected == status(self.client.send(sent[1000:]).receive())
            assert value == self.value(b"k")
        assert 2 * len(value) == self.store.written
        assert 0 == self.store.uploads

    def test_a_body_in_drops_is_moved_too(self) -> None:
        """
        However little comes at once.
        """
        self.client.send(put(50))
        for byte in range(50):
            self.client.send(bytes([byte]))

        assert 201 == status(self.client.receive())
        assert bytes(range(50)) == self.value(b"k")
        assert 0 == self.store.written

    def test_the_next_request_is_not_moved_into_the_value(self) -> None:
        """
        It may come in the same packet as the end of the body.
        """
        self.client.send(put(100_000, "a"))
        self.client.send(b"a" * 100_000 + put(3, "b") + b"bbb" + put(70_000, "c"))
        replies = self.client.send(b"c" * 70_000).receive()

        assert 3 == replies.count(b"HTTP/1.1 201 ")
        assert (b"a" * 100_000, b"bbb", b"c" * 70_000) == (
            self.value(b"a"),
            self.value(b"b"),
            self.value(b"c"),
        )

    def test_a_body_that_breaks_off_is_discarded(self) -> None:
        """
        The old value stays, and the next body is not mixed with it.
        """
        self.put(b"k", b"old")
        self.client.send(put(10_000))
        self.client.send(b"x" * 9_999)
        self.client.socket.close()
        self.reactor.settle()
        assert 0 == self.store.uploads
        assert b"old" == self.value(b"k")

        self.client = self.connect()
        self.client.send(put(5))
        assert 204 == status(self.client.send(b"whole").receive())
        assert b"whole" == self.value(b"k")

    def test_all_that_was_moved_is_counted(self) -> None:
        """
        In the log.
        """
        self.client.send(put(200_000))
        self.client.send(b"x" * 200_000).receive()

        (entry,) = self.notes.entries
        assert 200_000 == entry.body_bytes

    def test_bodies_to_a_disk_that_stalls_come_to_their_ends(self) -> None:
        """
        Each move takes a whole turn of all.
        """
        self.patch(splice, "TURN_SECONDS", 0.0)
        clients = [self.connect() for _ in range(4)]
        for number, client in enumerate(clients):
            client.socket.setblocking(False)
            client.socket.send(put(100_000, f"k{number}") + bytes(100_000))
        self.reactor.settle(60)

        assert [201] * 4 == [status(client.receive()) for client in clients]

    def test_moved_bodies_are_counted(self) -> None:
        """
        Until the body is complete, or its connection is lost.
        """
        pipe = self.process.pipe
        assert pipe is not None
        other = self.connect()
        other.send(put(200_000, "b"))
        self.client.send(put(200_000))
        assert 2 == pipe.movers

        self.client.send(b"x" * 200_000).receive()
        assert 1 == pipe.movers
        other.socket.close()
        self.reactor.settle()
        assert 0 == pipe.movers

    def test_urgent_data_stops_no_body(self) -> None:
        """
        It is no part of the body, and the kernel moves nothing past it: the worker
        would wake for what is behind it again and again, and never get it.
        """
        client = self.connect_over_tcp()
        client.send(put(300_000) + b"a" * 1000)
        client.send(b"b" * 99_000)
        client.socket.send(b"!", socket.MSG_OOB)
        reply = client.send(b"c" * 200_000).receive_until(bool)

        assert 201 == status(reply)
        assert b"a" * 1000 + b"b" * 99_000 + b"c" * 200_000 == self.value(b"k")
        assert self.store.written < 300_000
        assert self.process.pipe is not None, "the next bodies are moved"

    def test_short_bodies_are_read(self) -> None:
        """
        One read is cheaper than two splices.
        """
        self.patch(mover, "MOVE_FROM_BYTES", 1000)
        self.client.send(put(999))
        self.client.send(b"x" * 999).receive()

        assert 999 == self.store.written


class LowWaterMarkTests(MovingCase):
    """
    Over TCP, the worker waits until a fast client has sent enough.
    """

    over_tcp = True

    def setUp(self) -> None:
        # So little that it arrives whole.
        self.patch(mover, "FAST_BYTES", 1000)
        self.patch(mover, "LOW_WATER_BYTES", 10_000)
        self.patch(sending, "LOW_ROUND_TRIP_MICROSECONDS", 10**8)
        super().setUp()
        # Else a small packet waits for the acknowledgement of the one before.
        self.client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def taken(self) -> int:
        """
        How many bytes the server has read.
        """
        return int(self.process.row.words[WORDS_OF_REQUESTS.bytes_in])

    def begin_fast(self, body_bytes: int) -> int:
        """
        A client that has sent enough at once; gives how much is left.
        """
        self.client.send(put(body_bytes))
        self.client.send(b"x" * mover.FAST_BYTES)
        return body_bytes - mover.FAST_BYTES

    def test_little_of_a_fast_client_waits_for_more(self) -> None:
        """
        Until there is enough for an event.
        """
        rest = self.begin_fast(3 * mover.LOW_WATER_BYTES)
        before = self.taken()
        self.client.send(b"y")
        assert before == self.taken()

        self.client.send(b"y" * mover.LOW_WATER_BYTES)
        assert before + mover.LOW_WATER_BYTES + 1 == self.taken()
        rest -= mover.LOW_WATER_BYTES + 1
        assert 201 == status(self.client.send(b"z" * rest).receive())

    def test_the_end_of_a_body_is_not_waited_for(self) -> None:
        """
        Behind it, nothing may come. Only all of it together is worth an event.
        """
        rest = self.begin_fast(2 * mover.LOW_WATER_BYTES)
        self.client.send(b"y" * (rest - 2000))
        before = self.taken()
        self.client.send(b"y" * 1999)
        assert before == self.taken()
        assert 201 == status(self.client.send(b"z").receive())

    def test_an_end_that_comes_slowly_is_taken_as_it_comes(self) -> None:
        """
        Where the client is not known to be fast, little is not waited for.
        """
        self.client.send(put(3000))
        self.client.send(b"x" * 999)
        before = self.taken()
        self.client.send(b"y")
        assert before + 1 == self.taken()
        assert 201 == status(self.client.send(b"z" * 2000).receive())

    def test_what_a_client_sent_that_became_slow_is_taken(self) -> None:
        """
        After two checks at the latest; and from then on, as it comes.
        """
        rest = self.begin_fast(3 * mover.LOW_WATER_BYTES)
        self.client.send(b"y" * 10)
        before = self.taken()
        self.later(1)
        self.later(1)
        assert before + 10 == self.taken()
        self.client.send(b"y" * 2 * mover.FAST_BYTES)
        self.client.send(b"y" * 10)
        rest -= 20 + 2 * mover.FAST_BYTES
        assert before + 20 + 2 * mover.FAST_BYTES == self.taken()

        assert 201 == status(self.client.send(b"z" * rest).receive())

    def test_a_slow_client_starts_afresh_with_its_next_body(self) -> None:
        """
        It may only have had to wait itself.
        """
        rest = self.begin_fast(3 * mover.LOW_WATER_BYTES)
        self.later(1)
        self.later(1)
        assert 201 == status(self.client.send(b"z" * rest).receive())

        self.begin_fast(3 * mover.LOW_WATER_BYTES)
        before = self.taken()
        self.client.send(b"y")
        assert before == self.taken()
        self.client.send(b"y" * mover.LOW_WATER_BYTES)
        assert before + mover.LOW_WATER_BYTES + 1 == self.taken()

    def test_a_client_that_is_far_is_not_waited_for(self) -> None:
        """
        It would wait as well, once its window is full, and hear late that it is not.
        """
        self.patch(sending, "LOW_ROUND_TRIP_MICROSECONDS", -1)
        rest = self.begin_fast(3 * mover.LOW_WATER_BYTES)
        before = self.taken()
        self.client.send(b"y")
        assert before + 1 == self.taken()
        assert 201 == status(self.client.send(b"z" * (rest - 1)).receive())

    def test_a_client_that_trickles_is_not_given_up(self) -> None:
        """
        What it sends counts as progress, although it waits to be taken.
        """
        rest = self.begin_fast(3 * mover.LOW_WATER_BYTES)
        for _ in range(100):
            self.client.send(b"y")
            self.later(self.limits.body_seconds / 3)

        assert 201 == status(self.client.send(b"z" * (rest - 100)).receive())

    def test_an_end_is_reported_at_once(self) -> None:
        """
        However little came before it.
        """
        self.begin_fast(3 * mover.LOW_WATER_BYTES)
        self.client.send(b"y")
        self.client.socket.close()
        self.reactor.settle()

        assert 0 == self.store.uploads

    def test_the_next_request_is_taken_as_it_comes(self) -> None:
        """
        On the same connection.
        """
        rest = self.begin_fast(3 * mover.LOW_WATER_BYTES)
        assert 201 == status(self.client.send(b"y" * rest).receive())

        assert 200 == status(
            self.client.send(b"GET /k HTTP/1.1\r\nHost: h\r\n\r\n").receive()
        )


class RefusingTests(MovingCase):
    """
    A file takes what is written, but nothing that is moved.
    """

    def make_store(self) -> DescriptorStore:
        store = DescriptorStore()
        store.refuses_splice = True
        return store

    def test_the_other_path_takes_over_in_the_middle(self) -> None:
        """
        Without losing a byte; it is said once, and not tried again.
        """
        value = os.urandom(5_000_000)
        with capturedLogs() as events:
            for _ in range(2):
                self.client.send(put(len(value)))
                reply = self.client.send(value).receive()
                assert status(reply) in (201, 204)
                assert value == self.value(b"k")
        assert 2 * len(value) == self.store.written
        assert 1 == sum("moves no bytes" in event["log_format"] for event in events)
