"""
Tests for `kvd.http.body_sender`: long bodies on their way to the client.
"""

from __future__ import annotations

import os
from unittest import mock

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from kvd.errors import NoThread
from kvd.http.methods.listing import ListingSource
from kvd.http.pieces import FILE_BYTES
from kvd.store.memory import MemoryValue
from tests.descriptors import Descriptors
from tests.http import test_moving
from tests.http.fast_path.cases import without_date
from tests.http.test_connection import ConnectionCase, body, field, status
from tests.http.test_moving import MovingCase


class ChunkedTests(ConnectionCase):
    """
    The kernel puts nothing around what it sends.
    """

    def test_chunks_are_read_and_written(self) -> None:
        """
        Even if the kernel could send their bytes.
        """
        self.put(b"k", b"value")
        get = b"GET / HTTP/1.1\r\nHost: kvd\r\n\r\n"
        expected = without_date(self.ask(get))
        assert b"chunked" == field(expected, b"Transfer-Encoding")
        sent_by_kernel = mock.Mock(side_effect=AssertionError)
        self.patch(ListingSource, "file", sent_by_kernel)
        self.patch(ListingSource, "stream", sent_by_kernel)

        assert expected == without_date(self.ask(get))


class ColdGetTests(test_moving.GetTests):
    """
    See there; no part of a file is in memory before it is read by a thread.
    """

    def setUp(self) -> None:
        super().setUp()
        self.asked: list[tuple[int, int]] = []
        self.process.readahead = self.read_ahead

    def read_ahead(self, descriptor: int, offset: int, count: int) -> Deferred[None]:
        """
        Takes a turn of the reactor.
        """
        self.asked.append((offset, count))
        read: Deferred[None] = Deferred()
        self.reactor.callLater(0, read.callback, None)
        return read

    def test_parts_are_read_ahead_as_they_are_sent(self) -> None:
        """
        None twice, none before its time.
        """
        body = os.urandom(2 * FILE_BYTES + 10)
        self.put(b"k", body)

        reply = self.client.send(b"GET /k HTTP/1.1\r\nHost: kvd\r\n\r\n").receive()

        assert reply.endswith(body)
        offsets = [offset for offset, _ in self.asked]
        assert 0 == offsets[0]
        assert offsets == sorted(set(offsets))
        assert all(count <= FILE_BYTES for _, count in self.asked)

    def test_a_client_that_leaves_meanwhile_is_forgotten(self) -> None:
        """
        Its file is closed.
        """
        self.put(b"k", b"x" * 100_000)
        read: Deferred[None] = Deferred()
        asked: list[int] = []

        def never(descriptor: int, offset: int, count: int) -> Deferred[None]:
            asked.append(descriptor)
            return read

        self.process.readahead = never
        self.client.send(b"GET /k HTTP/1.1\r\nHost: kvd\r\n\r\n")
        self.client.socket.close()
        self.reactor.settle()

        read.callback(None)
        self.reactor.settle()

        (descriptor,) = asked
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
        assert set() == self.process.connections

    def test_a_part_that_nobody_can_read_ahead(self) -> None:
        """
        The reply ends, because sending the part could block all other connections.
        """
        body = os.urandom(100_000)
        self.put(b"k", body)
        self.process.readahead = mock.Mock(side_effect=NoThread)
        with capturedLogs() as events:
            reply = self.client.send(b"GET /k HTTP/1.1\r\nHost: kvd\r\n\r\n").receive()

        assert self.client.ended
        assert not reply.endswith(body)
        (event,) = events
        assert "a value cannot be read: no thread can be started" == event["error"]


class SendingTests(MovingCase):
    """
    The kernel sends values from their files.
    """

    def test_a_large_value_is_sent_while_a_slow_reader_takes_it(self) -> None:
        """
        Byte for byte, and no piece of it is held.
        """
        value = os.urandom(5_000_000)
        self.put(b"k", value)
        reads: list[int] = []
        self.patch(MemoryValue, "read", lambda *_: reads.append(1))
        reply = self.ask(b"GET /k HTTP/1.1\r\nHost: kvd\r\n\r\n")

        assert 200 == status(reply)
        assert value == body(reply)
        assert [] == reads

    def test_a_range_is_sent_from_its_place(self) -> None:
        """
        And the next request is answered after it.
        """
        value = os.urandom(300_000)
        self.put(b"k", value)
        request = b"GET /k HTTP/1.1\r\nHost: kvd\r\nRange: bytes=%d-%d\r\n\r\n"
        replies = self.ask(request % (1000, 250_999) + request % (5, 9))
        first, second = replies.split(b"HTTP/1.1 206 ")[1:]

        assert value[1000:251_000] == body(first)
        assert value[5:10] == body(second)

    def test_a_value_that_was_cut_short_breaks_the_reply_off(self) -> None:
        """
        Only a break shows the client.
        """
        self.put(b"k", b"x" * 1_000_000)
        self.store.break_reads_at = 400_000
        with capturedLogs() as events:
            reply = self.ask(b"GET /k HTTP/1.1\r\nHost: kvd\r\n\r\n")

        assert 400_000 >= len(body(reply))
        assert self.client.ended
        assert any("cut short" in str(event.get("error")) for event in events)

    def test_a_reader_that_goes_away_lets_the_file_go(self) -> None:
        """
        It is closed at once.
        """
        self.put(b"k", b"x" * 10_000_000)
        opened = Descriptors("socket:", "/memfd:", "/tmp/")
        self.client.send(b"GET /k HTTP/1.1\r\nHost: kvd\r\n\r\n")
        assert 1 == opened.more
        self.client.close()

        # The client's socket and the server's are gone too.
        assert -2 == opened.more
