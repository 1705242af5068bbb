"""
Tests for `kvd.http.fast_path`: requests that come in records, and replies that go so.
"""

from __future__ import annotations

import os

import pytest

from kvd.http.fast_path import LOST, NOTHING, QUEUED, REMAINS, SERVED
from kvd.net.tls import RECORD_BYTES
from tests.http.fast_path.cases import FastPathCase, body_of, get, put


class PlayedSocket:
    """
    Gives records, and takes as much as it is told to.
    """

    def __init__(self, *records: bytes | Exception | None) -> None:
        self.records = list(records)
        self.sent = b""
        self.room: int | Exception = 1 << 30

    def receive(self) -> object:
        """
        See `kvd.net.tls.SecureSocket`.
        """
        record = self.records.pop(0) if self.records else None
        if isinstance(record, Exception):
            raise record
        return record

    def transmit(self, data: bytes) -> int:
        """
        See `kvd.net.tls.SecureSocket`.
        """
        if isinstance(self.room, Exception):
            raise self.room
        taken = min(len(data), self.room)
        self.sent += data[:taken]
        return taken

    def read(self, size: int, buffer: memoryview) -> int:
        """
        See `ssl.SSLSocket.read`.
        """
        assert size <= len(buffer)
        record = self.receive()
        if not isinstance(record, bytes):
            raise OSError("no record")
        buffer[: len(record)] = record
        return len(record)

    write = transmit


class SecureTests(FastPathCase):
    """
    `FastPath.serve_secure` reads nothing from the socket and writes nothing to it.
    """

    def serve_secure(self, played: PlayedSocket) -> int | bytes:
        """
        What comes of its records.
        """
        return self.fast_path.serve_secure(self.near.fileno(), played)

    def test_a_request_and_its_reply_are_records(self) -> None:
        """
        Also where there is no value.
        """
        self.keep("k", b"value")
        played = PlayedSocket(get("k"))

        assert SERVED == self.serve_secure(played)
        assert b"value" == body_of(played.sent)
        played = PlayedSocket(get("none"))
        assert SERVED == self.serve_secure(played)
        assert played.sent.startswith(b"HTTP/1.1 404 ")
        assert b"" == self.reply()

    def test_files_fill_records(self) -> None:
        """
        What is longer than a few is left, with its file.
        """
        for size in (1, 4096, RECORD_BYTES, 3 * RECORD_BYTES, 4 * RECORD_BYTES, 99_999):
            body = os.urandom(size)
            self.keep("k", body)
            played = PlayedSocket(get("k"))
            outcome = self.serve_secure(played)
            sent = body_of(played.sent)
            if size < 4 * RECORD_BYTES - 1000:
                assert (SERVED, body) == (outcome, sent)
                continue
            assert outcome == SERVED | REMAINS
            assert 4 * RECORD_BYTES == len(played.sent)
            rest = self.fast_path.take_remainder()
            with open(rest.descriptor, "rb") as file:
                file.seek(rest.offset)
                assert body == sent + file.read(rest.rest_bytes)
            assert (b"", len(sent)) == (rest.unsent, rest.body_bytes)

    def test_what_the_socket_does_not_take_is_left(self) -> None:
        """
        Whether it is full or broken: who sends next finds out.
        """
        self.keep("k", b"value")
        rooms: list[int | Exception] = [0, 7, ConnectionResetError()]
        for room in rooms:
            played = PlayedSocket(get("k"))
            played.room = room
            assert SERVED | QUEUED == self.serve_secure(played)
            unsent = self.fast_path.take_unsent()
            assert (played.sent + unsent).endswith(b"\r\n\r\nvalue")
            assert len(played.sent) == (room if isinstance(room, int) else 0)

    def test_a_body_may_take_several_records(self) -> None:
        """
        If they are there. If not, the request is left with what has come of it.
        """
        self.keep("k", b"value")
        body = os.urandom(3 * RECORD_BYTES)
        request = put("k", body)
        pieces = [
            request[at : at + RECORD_BYTES]
            for at in range(0, len(request), RECORD_BYTES)
        ]
        self.serve_secure(PlayedSocket(put("k", b"x")))

        assert SERVED == self.serve_secure(PlayedSocket(*pieces))
        stored = PlayedSocket(get("k"))
        assert SERVED == self.serve_secure(stored)
        assert body == body_of(stored.sent)
        ends: list[bytes | Exception | None] = [None, b"", ConnectionResetError()]
        for end in ends:
            left = self.serve_secure(PlayedSocket(*pieces[:2], end))
            assert left == b"".join(pieces[:2])
        # With another request behind it, in the same record.
        more = PlayedSocket(*pieces[:-1], pieces[-1] + get("k"))
        assert request + get("k") == self.serve_secure(more)

    def test_nothing_the_end_and_errors_are_told_apart(self) -> None:
        """
        An error that is not the connection's is raised.
        """
        assert NOTHING == self.serve_secure(PlayedSocket(None))
        assert b"" == self.serve_secure(PlayedSocket(b""))
        assert LOST == self.serve_secure(PlayedSocket(ConnectionResetError()))
        with pytest.raises(ZeroDivisionError):
            self.serve_secure(PlayedSocket(ZeroDivisionError()))
        with pytest.raises(ValueError, match="too long"):
            self.serve_secure(PlayedSocket(bytes(RECORD_BYTES + 1)))

    def test_an_idle_connection_is_served_by_its_own_functions(self) -> None:
        """
        What they do not do, the others do.
        """
        self.keep("k", b"value")
        played = PlayedSocket(get("k"))
        number = self.near.fileno()
        joined = self.fast_path.join(number, False)
        joined.secure = played
        joined.read, joined.write = played.read, played.write
        assert self.fast_path.serve_idle(number)
        assert b"value" == body_of(played.sent)

        played.records = [None, b""]
        assert not self.fast_path.serve_idle(number)
        assert b"" == self.fast_path.serve(number)
        # Where there is nothing any more, a plain connection may have the number.
        joined.leave()
        assert SERVED == self.serve(get("k"))
        assert b"value" == body_of(self.reply())
